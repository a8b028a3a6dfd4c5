# SPDX-License-Identifier: Apache-2.0
"""What a runtime really says to plugins: wrappers that write each call down and hand it on."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

_WRAPPER = """\
#!/bin/bash
call="{log}/$EPOCHREALTIME-$$-{plugin}"
cat /proc/$$/environ >"$call.variables"
cat >"$call.stdin"
"{program}" <"$call.stdin" >"$call.stdout"
status=$?
cat "$call.stdout"
echo $status >"$call.status"
exit $status
"""


@dataclasses.dataclass(frozen=True)
class Call:
    """One execution of a plugin. stdin, stdout: the documents; None for no output."""

    plugin: str
    variables: dict[str, str]
    stdin: Any
    stdout: Any
    status: int

    @property
    def command(self) -> str:
        """The verb."""
        return self.variables["CNI_COMMAND"]

    @property
    def args(self) -> dict[str, str]:
        """CNI_ARGS by key."""
        pairs = self.variables["CNI_ARGS"].split(";")
        return dict(pair.split("=", 1) for pair in pairs if pair)


class Recording:
    """A directory for CNI_PATH in which every plugin of another is wrapped."""

    def __init__(self, bin_dir: pathlib.Path, scratch: pathlib.Path) -> None:
        self.directory = scratch / "bin"
        self._log = scratch / "calls"
        self.directory.mkdir(parents=True)
        self._log.mkdir()
        for program in bin_dir.iterdir():
            if not program.is_file() or program.name.startswith("."):
                continue
            wrapper = self.directory / program.name
            wrapper.write_text(
                _WRAPPER.format(log=self._log, plugin=program.name, program=program)
            )
            wrapper.chmod(0o755)

    def take(self) -> list[Call]:
        """The calls since the last time in the order of their starts, unfinished ones excepted."""
        found = []
        for status in sorted(self._log.glob("*.status")):
            variables = _read(status, "variables").rstrip("\0").split("\0")
            stdout = _read(status, "stdout")
            found.append(
                Call(
                    status.stem.split("-", 2)[2],
                    dict(variable.split("=", 1) for variable in variables),
                    json.loads(_read(status, "stdin")),
                    json.loads(stdout) if stdout.strip() else None,
                    int(status.read_text()),
                )
            )
            for file in self._log.glob(f"{status.stem}.*"):
                file.unlink()
        return found


def _read(status: pathlib.Path, kind: str) -> str:
    return status.with_suffix(f".{kind}").read_text()
