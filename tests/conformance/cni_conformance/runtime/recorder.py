# SPDX-License-Identifier: Apache-2.0
"""The recording plugin: an executable that notes how it was called and answers as it was told.

A POSIX shell script, so that it runs wherever a runtime does and starts in a few milliseconds.
The record is a directory: `log`, one JSON object a line, in the order in which things happened
({"event": "begin" or "end", "call", "plugin", "verb", ...}), and `calls/<call>/`, with the
environment (NUL-separated) and the stdin of each call. Whether two calls overlapped is told by
the order of the lines; no clock is compared.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

_PLUGIN = """#!/bin/sh
record=@RECORD@
plugin=${0##*/}
number=0
until mkdir "$record/calls/$$.$number" 2>/dev/null; do number=$((number + 1)); done
call=$$.$number
status=0
# Nothing else is printed by these: one line is one write, and writes that append do not mix.
note() {
  printf '{"event":"%s","call":"%s","plugin":"%s","verb":"%s","pid":%d,%s}\\n' \\
    "$1" "$call" "$plugin" "$CNI_COMMAND" $$ "$2" >>"$record/log"
}
sandbox=false
[ -n "$CNI_NETNS" ] && [ -e "$CNI_NETNS" ] && sandbox=true
note begin "\\"sandbox\\":$sandbox"
trap 'note end "\\"status\\":$status"' EXIT
cat /proc/self/environ >"$record/calls/$call/environment"
cat >"$record/calls/$call/stdin"
if [ -e "$record/answers/$plugin.$CNI_COMMAND" ]; then
  . "$record/answers/$plugin.$CNI_COMMAND"
fi
exit $status
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """How a plugin answers a verb: what it prints, its exit status, how long it takes.

    stdout: a document, text, or None for nothing. seconds: slept before it answers.
    """

    stdout: Any = None
    stderr: str = ""
    status: int = 0
    seconds: float = 0.0

    def script(self) -> str:
        """The lines of shell that give this answer."""
        text = self.stdout if isinstance(self.stdout, str) else json.dumps(self.stdout)
        lines = [f"status={self.status}"]
        if self.seconds:
            lines.append(f"sleep {self.seconds}")
        if self.stderr:
            lines.append(f"printf %s {shlex.quote(self.stderr)} >&2")
        if self.stdout is not None:
            lines.append(f"printf %s {shlex.quote(text)}")
        return "\n".join(lines) + "\n"


def failure(code: int, msg: str, version: str) -> Answer:
    """The answer of a plugin that fails as the specification says."""
    return Answer({"cniVersion": version, "code": code, "msg": msg}, status=1)


@dataclasses.dataclass(frozen=True)
class Call:
    """One execution of a plugin. begin, end: places in the log; end is None if it was killed.

    sandbox: whether CNI_NETNS named something that existed. stdin: the JSON document, or the
    text if it is none.
    """

    plugin: str
    verb: str
    pid: int
    environment: Mapping[str, str]
    stdin: Any
    sandbox: bool
    begin: int
    end: int | None

    @property
    def name(self) -> str:
        """As scenarios name it: `first ADD`."""
        return f"{self.plugin} {self.verb}"


class Recorder:
    """Recording plugins in a directory for CNI_PATH, and the record of their calls.

    Both directories are made; `reset` empties them, so they are to be the recorder's own.
    """

    def __init__(self, plugins: pathlib.Path, record: pathlib.Path) -> None:
        self.plugins, self.record = plugins, record
        self.reset()

    def reset(self) -> None:
        """Forget all plugins, answers and calls."""
        for directory in (self.plugins, self.record):
            directory.mkdir(parents=True, exist_ok=True)
            for entry in directory.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        (self.record / "calls").mkdir()
        (self.record / "answers").mkdir()

    def install(self, names: Iterable[str], directory: pathlib.Path | None = None) -> None:
        """Make plugins of these types, in another directory if it is given."""
        target = directory or self.plugins
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = target / name
            # A runtime that is being watched must never find half a script.
            temporary = target / f".{name}.new"
            temporary.write_text(_PLUGIN.replace("@RECORD@", shlex.quote(str(self.record))))
            temporary.chmod(0o755)
            temporary.rename(path)

    def answer(self, call: str, answer: Answer) -> None:
        """How this call (`first ADD`) is answered from now on."""
        plugin, verb = call.split()
        (self.record / "answers" / f"{plugin}.{verb}").write_text(answer.script())

    def relent(self) -> None:
        """Let every verb succeed at once from now on: what is still attached is to go."""
        for path in (self.record / "answers").iterdir():
            path.unlink()

    def calls(self) -> list[Call]:
        """Every call so far, in the order in which they began."""
        try:
            lines = (self.record / "log").read_text().splitlines()
        except FileNotFoundError:
            return []
        events = [json.loads(line) for line in lines]
        ends = {e["call"]: place for place, e in enumerate(events) if e["event"] == "end"}
        return [
            self._call(event, place, ends.get(event["call"]))
            for place, event in enumerate(events)
            if event["event"] == "begin"
        ]

    def _call(self, event: dict[str, Any], begin: int, end: int | None) -> Call:
        directory = self.record / "calls" / event["call"]
        variables = {}
        for entry in _read(directory / "environment").split("\0"):
            key, separator, value = entry.partition("=")
            if separator:
                variables[key] = value
        stdin: Any = _read(directory / "stdin")
        try:
            stdin = json.loads(stdin)
        except ValueError:
            pass
        return Call(
            event["plugin"],
            event["verb"],
            event["pid"],
            variables,
            stdin,
            event["sandbox"],
            begin,
            end,
        )


def _read(path: pathlib.Path) -> str:
    """What a call that may have been killed early has left."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
