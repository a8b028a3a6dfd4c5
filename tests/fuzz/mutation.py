# SPDX-License-Identifier: Apache-2.0
"""How an input becomes another one: bytes anyhow, text by words, JSON by its structure.

Everything is drawn from the generator that is handed in, so that a seed repeats a run.
"""

from __future__ import annotations

import copy
import functools
import json
import pathlib
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

_SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "plugins"
#: Values at the edges of types, of ranges, and of what file systems and kernels take.
_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**16, 2**31, 2**32, 2**63, 2**64, 10**40, 0.5, 1e300, -0.0),
    *("", " ", ".", "..", "/", "a/../b", "eth0", "a" * 16, "a" * 300, "%s", "\x00", "\ud800"),
    *("\u00a0", "\u2028", "é", "💥", "-", "--help", "true", "01", "0x10", "\u0661\u0662", "1e3"),
    *("10.1.2.3", "10.1.2.0/24", "10.1.2.3/33", "0.0.0.0/0", "224.0.0.1", "255.255.255.255"),
    *("::", "::/0", "::1", "fe80::1%eth0", "fd00::/64", "::ffff:10.1.2.3/120", "1.2.3"),
    *("02:00:00:00:00:01", "0a-58-0a-01-02-03", "0200.0000.0001", "/dev/null", "/dev/zero"),
    *([], {}, [[]], [{}], [None], {"": ""}, {"type": "host-local"}, ["10.1.2.3"], "cniVersion"),
    *("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "2.0.0", "1.0.0.0"),
]
#: Pieces of text that mean something to one parser or another.
_WORDS = [
    *(b"=", b";", b":", b",", b"/", b".", b"\n", b"\r\n", b"\0", b" ", b"\t", b'"', b"'", b"\\"),
    *(b"%", b"#", b"-", b"--", b"[", b"]", b"{", b"}", b"0", b"1", b"-1", b"99999999999999999999"),
    *(
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xe2\x80\xa8",
        "\u0661".encode(),
        b"IgnoreUnknown=1",
        b"IP=",
    ),
    *(b"10.1.2.3", b"10.1.2.0/24", b"fd00::/64", b"::", b"true", b"false", b"1500", b"tcp", b"-j"),
    *(b"-A ", b"--dport", b"--comment", b"null", b"NaN", b"1e999", b"\\ud800", b"cni:a:b:c"),
]


def of_bytes(data: bytes, draw: random.Random) -> bytes:
    """Change bytes: flip, insert, delete, repeat, overwrite by an edge or a word."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(made) + 1)
        kind = draw.randrange(7)
        size = min(draw.choice((1, 1, 2, 4, 8, 16)), len(made) - at)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            made[at : at + size] = b""
        elif kind == 2:
            made[at:at] = draw.randbytes(draw.choice((1, 2, 4)))
        elif kind == 3:
            made[at:at] = made[at : at + size] * draw.choice((1, 2, 30))
        elif kind == 4:
            edge = draw.choice((0, 1, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0xFFFFFFFF))
            made[at : at + size] = edge.to_bytes(4, "little")[:size]
        elif kind == 5:
            made[at : at + draw.choice((0, size))] = draw.choice(_WORDS)
        else:
            del made[at:]
    return bytes(made)


def of_json(data: bytes, draw: random.Random) -> bytes:
    """Change a document by its structure; sometimes, or if it is none, its bytes."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return of_bytes(data, draw)
    if draw.random() < 0.1:
        return of_bytes(data, draw)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        document = _changed(document, draw)
    return json.dumps(document, ensure_ascii=draw.random() < 0.5).encode("utf-8", "replace")


def _changed(document: Any, draw: random.Random) -> Any:
    """The document with one of its nodes, itself included, replaced."""
    places: list[tuple[Any, Any]] = []
    if isinstance(document, dict | list):
        _collect(document, places)
    if not places or draw.random() < 0.02:
        return _value(draw, "")
    holder, key = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, there = draw.choice(places)
        holder[key] = copy.deepcopy(other[there])
    elif kind == 2 and isinstance(holder[key], str):
        text = of_bytes(holder[key].encode("utf-8", "replace"), draw)
        holder[key] = text.decode("utf-8", "replace")
    elif kind == 3 and isinstance(holder, dict):
        spelling = draw.choice((str.upper, str.title, str.swapcase))
        holder[spelling(str(key))] = holder[key] if draw.random() < 0.5 else _value(draw, str(key))
    elif kind == 4 and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(holder[key])] * draw.choice((1, 1, 20))
    elif kind == 5:
        holder[key] = draw.choice(([holder[key]], {"type": holder[key]}, str(holder[key])))
    elif kind == 6 and isinstance(holder, dict):
        name = draw.choice(list(_examples()))
        holder[name] = _value(draw, name)
    else:
        holder[key] = _value(draw, str(key))
    return document


def _collect(node: Any, places: list[tuple[Any, Any]]) -> None:
    members = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in members:
        places.append((node, key))
        if isinstance(value, dict | list):
            _collect(value, places)


def _value(draw: random.Random, key: str) -> Any:
    """An edge, or a value that suits the key somewhere."""
    suitable = _examples().get(key)
    if suitable and draw.random() < 0.6:
        return copy.deepcopy(draw.choice(suitable))
    return copy.deepcopy(draw.choice(_VALUES))


@functools.cache
def _examples() -> dict[str, list[Any]]:
    """Every key of the plugins' schemas with what they say about its values."""
    found: dict[str, list[Any]] = {}

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        if not isinstance(node, dict):
            return
        for name, member in node.get("properties", {}).items():
            values = found.setdefault(name, [])
            if isinstance(member, dict):
                for source in ("default", "minimum", "maximum"):
                    if source in member:
                        values.append(member[source])
                values += member.get("examples", []) + member.get("enum", [])
        for member in node.values():
            walk(member)

    for path in sorted(_SCHEMAS.glob("*/schema.json")):
        walk(json.loads(path.read_text()))
    return found


def after_head(rest: Mutator) -> Mutator:
    """For inputs of lines, an empty line, and a body: mostly the body, by `rest`."""

    def mutate(data: bytes, draw: random.Random) -> bytes:
        head, gap, body = data.partition(b"\n\n")
        if not gap or draw.random() < 0.25:
            return of_bytes(head, draw) + gap + body
        return head + gap + rest(body, draw)

    return mutate
