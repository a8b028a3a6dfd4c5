# SPDX-License-Identifier: Apache-2.0
"""One call of a broken plugin, and the correct one behind it.

Runs in the process of the plugin, so it imports nothing but the standard library.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

#: Remembered between calls; the suite does not count it as state of the host.
MEMORY = pathlib.Path("/run/conformance/broken")


@dataclasses.dataclass
class Reply:
    """How a call ends: exit status, stdout, stderr."""

    status: int = 0
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def document(self) -> Any:
        """Stdout as JSON; {} if it is none."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            return {}

    def with_document(self, **changes: Any) -> Reply:
        """The same with other keys in the document; None removes one."""
        document = {**self.document, **changes}
        kept = {key: value for key, value in document.items() if value is not None}
        return dataclasses.replace(self, stdout=json.dumps(kept).encode())


class Call:
    """What this process was called with, and the correct plugin that would answer it."""

    def __init__(self, correct: str) -> None:
        self.correct = correct
        self.env = dict(os.environ)
        self.command = self.env.get("CNI_COMMAND", "")
        self._stdin: bytes | None = None
        #: What to do when the result cannot be written; the exit status is returned.
        self.on_broken_stdout: Callable[[], int] = self._undo

    @property
    def stdin(self) -> bytes:
        """All of it."""
        if self._stdin is None:
            self._stdin = sys.stdin.buffer.read()
        return self._stdin

    @property
    def config(self) -> dict[str, Any]:
        """Stdin as a configuration; {} if it is none."""
        try:
            document = json.loads(self.stdin)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def limit_stdin(self, data: bytes) -> None:
        """Take this for all of stdin."""
        self._stdin = data

    def _undo(self) -> int:
        self.real(CNI_COMMAND="DEL")
        return 1

    def real(
        self, config: dict[str, Any] | None = None, program: str = "", **env: str | None
    ) -> Reply:
        """What the correct plugin answers, to another configuration and environment if given."""
        environment = {**self.env, **env}
        done = subprocess.run(
            [program or self.correct],
            input=self.stdin if config is None else json.dumps(config).encode(),
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
            check=False,
        )
        return Reply(done.returncode, done.stdout, done.stderr)

    def nth(self, command: str) -> int:
        """Which call of this verb this is for its container, from 1. Counts at each call."""
        MEMORY.mkdir(parents=True, exist_ok=True)
        path = MEMORY / f"{command}-{self.env.get('CNI_CONTAINERID', '').replace('/', '_')}"
        count = int(path.read_text()) + 1 if path.exists() else 1
        path.write_text(str(count))
        return count

    def leak(self) -> None:
        """Leave something on the host."""
        directory = pathlib.Path("/var/lib/cni")
        (directory / f"leak-{os.getpid()}").touch()


def error(code: int, message: str, version: str = "1.1.0") -> Reply:
    """An error object."""
    document = {"cniVersion": version, "code": code, "msg": message}
    return Reply(1, json.dumps(document).encode())
