# SPDX-License-Identifier: Apache-2.0
"""Cases that are data, in words: what --explain says of the steps of spec/vectors."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Any

from cni_conformance.wording import shorten

_STDOUT = {
    "result": "exit status 0, and on stdout a result that is valid for the version",
    "nothing": "exit status 0, and nothing on stdout",
    "error": "another exit status than 0, and on stdout an error object",
    "nothing or error": "exit status 0 and nothing on stdout, or another one and an error object",
    "result or error": "exit status 0 and a valid result, or another one and an error object",
}
_HOST = {
    "unchanged": "the host is as it was before this step",
    "base": "the host is as it was before the first step",
    "exactly base": "the host is exactly as it was before the first step",
    "nothing left": "the host has nothing that it did not have before the first step",
}
_NETNS = {
    "vanished": "after its sandbox was removed",
    "vanished-and-none": "after its sandbox was removed, with an empty CNI_NETNS",
    "not-there": "with a CNI_NETNS at which nothing ever was",
    "none": "with an empty CNI_NETNS",
}
_WARM = (
    "Before the first step another container was attached and detached: what a type makes once "
    "and keeps, such as a bridge, is no leak."
)
_GIVEN = (
    "What is on the interface that a chained plugin was given does not count: it goes with the "
    "interface."
)


def shell_word(text: str) -> str:
    """A text as a word of the shell, in one line: $'…' where it holds what cannot be printed."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in escaped) + "'"


def in_words(vector: dict[str, Any]) -> str:
    """What a case is about, its steps, numbered, and what their words mean."""
    steps = vector["steps"]
    several = len({step.get("of", "a") for step in steps}) > 1
    lines = [vector["text"], ""] if "text" in vector else []
    lines.append("The plugin is called as a correct runtime calls it, except for what is said:")
    for number, step in enumerate(steps, 1):
        lines += _step(number, step, several)
    hosts = {step["expect"].get("host") for step in steps} - {None, "unchanged"}
    notes = [_WARM] if hosts else []
    notes += [_GIVEN] if "base" in hosts else []
    if "${bin}" in json.dumps(steps):
        notes.append("${bin} is the directory of the plugin.")
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _step(number: int, step: dict[str, Any], several: bool) -> list[str]:
    head = step["call"]
    if several and head not in ("GC", "STATUS", "VERSION"):
        head += f" of container {step.get('of', 'a')}"
    if "vanished" in step:
        head += f", after the sandbox of {' and of '.join(step['vanished'])} was removed"
    if "netns" in step:
        head += f", {_NETNS[step['netns']]}"
    expected = "; ".join(_expected(step["expect"]))
    return [
        f"{number:>2}. {head}",
        *(f"      {line}" for line in _changes(step)),
        f"    expected: {expected}",
    ]


def _changes(step: dict[str, Any]) -> Iterable[str]:
    for name, value in step.get("env", {}).items():
        yield f"unset {name}" if value is None else f"{name}={shell_word(value)}"
    if "config" in step:
        yield f"the configuration changed by {_json(step['config'])} (null removes a key)"
    if "valid" in step:
        names = " and ".join(step["valid"])
        yield f"cni.dev/valid-attachments: {f'that of {names}' if names else '[]'}"
    if "stdin" in step:
        text = shorten(step["stdin"], 200)
        yield f"stdin, all of it: {text if text.isprintable() and text else shell_word(text)}"
    if "prevResult" in step:
        value = step["prevResult"]
        yield "without prevResult" if value is None else f"prevResult: {_json(value)}"
    if "prevResultPatch" in step:
        yield f"prevResult changed by {_json(step['prevResultPatch'])} (null removes a key)"


def _expected(expect: dict[str, Any]) -> Iterable[str]:
    if "stdout" in expect:
        words = _STDOUT[expect["stdout"]]
        if "codes" in expect:
            words += f" of code {' or '.join(map(str, expect['codes']))}"
        if "names" in expect:
            words += f" whose text has {' and '.join(map(_json, expect['names']))}"
        yield words
    if "cniVersion" in expect:
        yield {
            "same": "the error has the configuration's cniVersion",
            "any": "the error has a cniVersion",
        }[expect["cniVersion"]]
    if "host" in expect:
        yield _HOST[expect["host"]]
    if "sandbox" in expect:
        yield "the container's sandbox is as it was before ADD"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
