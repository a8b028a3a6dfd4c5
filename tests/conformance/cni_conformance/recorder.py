# SPDX-License-Identifier: Apache-2.0
"""A delegate that does nothing but record how it was called and answer as it was told."""

from __future__ import annotations

import json
import pathlib
import shlex
from typing import Any, NamedTuple

from cni_conformance.case import VERSIONS

_SCRIPT = """\
#!/bin/sh
# Records its calls; answers with what lies in answers/$CNI_COMMAND.
cd {directory} || exit 1
n=$(ls calls | wc -l)
mkdir "calls/$n" || exit 1
env -0 > "calls/$n/environment"
cat > "calls/$n/stdin"
[ -e "answers/$CNI_COMMAND.stderr" ] && cat "answers/$CNI_COMMAND.stderr" >&2
[ -e "answers/$CNI_COMMAND.seconds" ] && sleep "$(cat "answers/$CNI_COMMAND.seconds")"
[ -e "answers/$CNI_COMMAND" ] && cat "answers/$CNI_COMMAND"
[ -e "answers/$CNI_COMMAND.status" ] && exit "$(cat "answers/$CNI_COMMAND.status")"
exit 0
"""


class Call(NamedTuple):
    """One call that the recorder got."""

    environment: dict[str, str]
    stdin: bytes

    @property
    def command(self) -> str:
        """CNI_COMMAND."""
        return self.environment.get("CNI_COMMAND", "")

    def config(self) -> dict[str, Any]:
        """Stdin as JSON; {} if it is something else."""
        try:
            document = json.loads(self.stdin)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class Recorder:
    """The delegate: an executable `type` in `directory`, which belongs on CNI_PATH.

    It answers ADD with one address for whomever asks, in the form of `version`, and any other
    verb with success, until `answer` says otherwise.
    """

    type = "conformance-ipam"

    def __init__(self, home: pathlib.Path, version: str) -> None:
        self._home = home
        self.directory = home / "bin"
        for name in ("bin", "calls", "answers"):
            (home / name).mkdir(parents=True)
        program = self.directory / self.type
        program.write_text(_SCRIPT.format(directory=shlex.quote(str(home))))
        program.chmod(0o755)
        self.answer("ADD", ipam_result(version))
        versions = {"cniVersion": version, "supportedVersions": list(VERSIONS)}
        self.answer("VERSION", versions)

    def answer(
        self,
        command: str,
        document: Any = None,
        *,
        status: int = 0,
        stderr: str = "",
        seconds: float = 0,
    ) -> None:
        """How to answer a verb from now on: JSON document or bytes, exit status, stderr, delay."""
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        base = self._home / "answers" / command
        base.write_bytes(b"" if document is None else text)
        base.with_name(f"{command}.status").write_text(str(status))
        base.with_name(f"{command}.stderr").write_text(stderr)
        base.with_name(f"{command}.seconds").write_text(str(seconds))

    def calls(self) -> list[Call]:
        """The calls so far, in order."""
        found = []
        for path in sorted((self._home / "calls").iterdir(), key=lambda path: int(path.name)):
            text = (path / "environment").read_bytes().decode("utf-8", "replace")
            pairs = [pair.partition("=") for pair in text.split("\0") if "=" in pair]
            environment = {name: value for name, _, value in pairs}
            found.append(Call(environment, (path / "stdin").read_bytes()))
        return found

    def commands(self) -> list[str]:
        """The verbs of the calls so far, in order."""
        return [call.command for call in self.calls()]


def ipam_result(version: str) -> dict[str, Any]:
    """An abbreviated result with one address and one route, in the form of a version."""
    if VERSIONS.index(version) < VERSIONS.index("0.3.0"):
        routes = [{"dst": "10.97.0.0/16"}]
        ip4 = {"ip": "10.99.0.77/16", "gateway": "10.99.0.1", "routes": routes}
        return {"cniVersion": version, "ip4": ip4, "dns": {}}
    ip: dict[str, Any] = {"address": "10.99.0.77/16", "gateway": "10.99.0.1"}
    if VERSIONS.index(version) < VERSIONS.index("1.0.0"):
        ip["version"] = "4"
    return {"cniVersion": version, "ips": [ip], "routes": [{"dst": "10.97.0.0/16"}], "dns": {}}
