# SPDX-License-Identifier: Apache-2.0
"""Plugins for tests: executables that note how they were called and answer as told."""

from __future__ import annotations

import json
import pathlib
from typing import Any

#: POSIX shell alone: what it appends is one JSON object a call, written in one go.
_SCRIPT = """#!/bin/sh
name=$(basename "$0")
stdin=$(cat)
printf '{"plugin":"%s","command":"%s","id":"%s","netns":"%s","ifname":"%s","args":"%s",\
"path":"%s","stdin":%s}\\n' "$name" "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" \
"$CNI_ARGS" "$CNI_PATH" "${stdin:-null}" >>"$(dirname "$0")/calls"
answer="$(dirname "$0")/$name.$CNI_COMMAND"
[ -e "$answer" ] && cat "$answer"
[ -e "$answer.fails" ] && exit 1
exit 0
"""

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


class Recorder:
    """A directory of recording plugins, for CNI_PATH."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def plugin(self, name: str, versions: list[str] | None = None, **answers: Any) -> None:
        """Make a plugin; answers: what each verb prints, a document or text. VERSION is given."""
        path = self.directory / name
        path.write_text(_SCRIPT)
        path.chmod(0o755)
        version = {"cniVersion": "1.1.0", "supportedVersions": versions or VERSIONS}
        self.answer(name, "VERSION", version)
        for command, answer in answers.items():
            self.answer(name, command, answer)

    def answer(self, name: str, command: str, answer: Any) -> None:
        """Let a verb succeed and print this from now on."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (self.directory / f"{name}.{command}").write_text(text)
        (self.directory / f"{name}.{command}.fails").unlink(missing_ok=True)

    def fail(self, name: str, command: str, code: int, msg: str) -> None:
        """Let a verb fail from now on."""
        self.answer(name, command, {"code": code, "msg": msg})
        (self.directory / f"{name}.{command}.fails").touch()

    def take(self) -> list[dict[str, Any]]:
        """The calls since the last time."""
        file = self.directory / "calls"
        if not file.exists():
            return []
        calls = [json.loads(line) for line in file.read_text().splitlines()]
        file.unlink()
        return calls
