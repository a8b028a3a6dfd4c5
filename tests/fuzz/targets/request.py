# SPDX-License-Identifier: Apache-2.0
"""A whole call of a plugin: the variables and stdin, up to the first effect.

bridge                              the plugin
CNI_COMMAND=ADD                     a variable a line
...
                                    an empty line, then stdin
{"cniVersion": "1.0.0", ...}
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from tests.fuzz import guard, mutation, properties
from tests.fuzz.target import ROOT, Target
from tests.rig import examples

TYPES = sorted(path.name for path in (ROOT / "plugins").iterdir() if any(path.glob("cni_*")))
VERBS = ("ADD", "CHECK", "DEL", "STATUS", "GC", "VERSION")
#: The plugin's own namespace, allowed: no root is needed, and nothing is ever done in it.
_VARIABLES = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/proc/thread-self/ns/net",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "",
    "CNI_PATH": "/opt/cni/bin",
    "CNI_NETNS_OVERRIDE": "1",
}


def parse(data: bytes) -> tuple[str, dict[str, bytes], bytes]:
    """Plugin, variables and stdin of an input."""
    head, _, stdin = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    name = first.decode("utf-8", "replace")
    type = name if name in TYPES else TYPES[sum(first) % len(TYPES)]
    variables = {}
    for line in lines:
        key, equals, value = line.partition(b"=")
        if equals and key.isascii() and b"\0" not in line:
            variables[key.decode()] = value
    return type, variables, stdin


def build(type: str, variables: dict[str, str], stdin: bytes) -> bytes:
    """An input of these."""
    lines = [type, *(f"{name}={value}" for name, value in variables.items())]
    return "\n".join(lines).encode() + b"\n\n" + stdin


def run(data: bytes) -> None:
    """Call the plugin; whatever it answers without having acted has to be well-formed."""
    type, variables, stdin = parse(data)
    # Without an end of stdin there would be nothing to wait for; with one there is none.
    answer = guard.call(type, {**variables, "CNI_STDIN_TIMEOUT": b"1"}, stdin)
    if not answer.effect:
        properties.check_answer(answer.status, answer.stdout, answer.stderr)


def seeds() -> Iterator[bytes]:
    """Each example configuration of each plugin, with one verb after the other."""
    number = 0
    valid = examples.paths("valid")
    for found in (valid, examples.paths("invalid")):
        for path in found:
            type = path.name.split(".")[0]
            if type in TYPES:
                number += 1
                verb = VERBS[number % 4] if found is valid else "ADD"
                yield _seed(type, verb, path)
    yield build("bridge", {}, b"")
    for type in TYPES:
        path = examples.paths("valid", type)[0]
        for verb in VERBS:
            yield _seed(type, verb, path)


def attachments() -> Iterator[bytes]:
    """An ADD with each configuration that is good."""
    for path in examples.paths("valid"):
        type = path.name.split(".")[0]
        if type in TYPES:
            yield _seed(type, "ADD", path)


def _seed(type: str, verb: str, path: pathlib.Path) -> bytes:
    return build(type, {"CNI_COMMAND": verb, **_VARIABLES}, path.read_bytes())


TARGET = Target(run, seeds, mutation.after_head(mutation.of_json), budget=600)
