# SPDX-License-Identifier: Apache-2.0
"""Pack and unpack netlink messages by the generated tables.

A table maps the name of an attribute to (number, kind). A kind is
    "=I", ">H", "=HH" ...      a struct format: one value, or a tuple for several
    "s"                        a NUL-terminated text
    "m"                        a hardware address, as text "02:00:00:00:00:01"
    "b"                        bytes as they are; IP addresses are packed
    "f"                        a flag: present or absent
    {table}                    a nest: a dictionary
    ("choice", sibling, tables)     a nest whose table is chosen by the sibling's value
    ("struct", format, table)       a fixed structure, under the key "", then a nest
    ("list", number, kind)          a nest of attributes of one number: a list
    ("nexthops", format, table)     rtnexthop structures, each with its attributes: a list
A message's layout is (struct format of its header, table). `import pyroute2` costs 90 ms, this
and the link tables 0.3.
"""

from __future__ import annotations

from _struct import (  # type: ignore[attr-defined]
    calcsize,
    error,
    pack,
    unpack_from,
)

from libcni.inet import Prefix
from libcni.types.errors import KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Table = dict[str, tuple[int, Any]]
    Layout = tuple[str, Table]

# linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_ECHO = 0x8
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

#: What most requests that change something carry.
CHANGE = NLM_F_REQUEST | NLM_F_ACK
#: The same, and the thing must not exist yet.
CREATE = CHANGE | NLM_F_CREATE | NLM_F_EXCL

_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


class Message:
    """One request, packed. `doing` says in a few words what it is for; errors begin with it."""

    __slots__ = ("body", "doing", "flags", "type")

    def __init__(
        self,
        type: int,
        flags: int,
        doing: str,
        layout: Layout,
        header: tuple[int, ...],
        attributes: dict[str, Any],
    ) -> None:
        self.type = type
        self.flags = flags
        self.doing = doing
        self.body = pack(layout[0], *header) + encode(layout[1], attributes)

    def __repr__(self) -> str:
        return f"Message({self.doing!r}, type={self.type}, flags={self.flags:#x})"


def encode(table: Table, values: dict[str, Any]) -> bytes:
    """Pack a dictionary of attributes, in its order. None leaves an attribute out.

    A list where the table says a single value repeats the attribute. Raises KeyError for a name
    that the table lacks and ValueError for a value that does not fit.
    """
    parts = []
    for name, value in values.items():
        if value is None or name == "":
            continue
        number, kind = table[name]
        try:
            if value.__class__ is list and (
                kind.__class__ is not tuple or kind[0] not in ("list", "nexthops")
            ):
                for one in value:
                    parts.append(_attribute(number, kind, one, values))
            else:
                parts.append(_attribute(number, kind, value, values))
        except (error, TypeError, UnicodeError) as problem:
            raise ValueError(f"{name} cannot be {value!r}: {problem}") from None
    return b"".join(parts)


def _attribute(number: int, kind: Any, value: Any, siblings: dict[str, Any]) -> bytes:
    if kind.__class__ is str:
        if kind == "s":
            if "\0" in value:
                raise error("a NUL would cut it short")
            data = value.encode() + b"\0"
        elif kind == "b":
            data = value
        elif kind == "m":
            data = _hardware(value)
        elif kind == "f":
            if not value:
                return b""
            data = b""
        elif value.__class__ is tuple:
            data = pack(kind, *value)
        else:
            data = pack(kind, value)
    elif kind.__class__ is dict:
        data = encode(kind, value)
        number |= _NLA_F_NESTED
    else:
        shape, detail, inner = kind
        if shape == "choice":
            data = encode(inner[siblings[detail]], value)
            number |= _NLA_F_NESTED
        elif shape == "struct":
            data = pack(detail, *value[""]) + encode(inner, value)
        elif shape == "list":
            data = b"".join([_attribute(detail, inner, one, siblings) for one in value])
            number |= _NLA_F_NESTED
        else:
            data = b"".join([_nexthop(detail, inner, one) for one in value])
    size = len(data)
    packed: bytes = pack("=HH", size + 4, number) + data + _PAD[size & 3]
    return packed


def _hardware(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise error("not a hardware address") from None


def _nexthop(form: str, table: Table, value: dict[str, Any]) -> bytes:
    data = encode(table, value)
    packed: bytes = pack(form, calcsize(form) + len(data), *value[""]) + data
    return packed


def malformed(what: str) -> CniError:
    """A CniError 102 about an answer that is not as the kernel's headers have it."""
    return CniError(
        KERNEL,
        f"netlink: {what}",
        "the answer of this kernel cannot be understood; `uname -r` says which it is",
    )


def fields(form: str, body: bytes, offset: int = 0) -> tuple[Any, ...]:
    """The fixed part of an answer. Raises CniError 102 when it is cut short."""
    try:
        return unpack_from(form, body, offset)
    except error:
        raise malformed(
            f"an answer of {len(body)} bytes, less than {offset + calcsize(form)}"
        ) from None


def required(values: dict[str, Any], *path: str) -> Any:
    """The attribute at the end of a path of nests. Raises CniError 102 when it is not there."""
    found: Any = values
    for name in path:
        if name not in found:
            raise malformed(f"an answer without {name}")
        found = found[name]
    return found


def read_address(packed: bytes, name: str) -> bytes:
    """An IP address, or b"" for none. Raises CniError 102 for other lengths."""
    if len(packed) not in (0, 4, 16):
        raise malformed(f"{name} of {len(packed)} bytes is no IP address")
    return packed


def read_prefix(packed: bytes, length: int, name: str) -> Prefix:
    """An IP prefix. Raises CniError 102 where an address or its length is none."""
    if not read_address(packed, name) or length > len(packed) * 8:
        raise malformed(f"{name} {packed.hex()}/{length} is no IP prefix")
    return Prefix(packed, length)


def attributes(data: bytes, offset: int) -> list[tuple[int, bytes]]:
    """(number, content) of the attributes from an offset on, as far as they are whole.

    For what is compared or passed on as it is; what is to be understood is for a Reader.
    """
    found = []
    while offset + 4 <= len(data):
        length, number = unpack_from("=HH", data, offset)
        if length < 4:
            break
        found.append((number & ~_NLA_F_NESTED, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


class Reader:
    """Unpacks the attributes that it is told to, at any depth, and skips the rest.

    names: the attributes to read; that of a nest lets the wanted ones in it through. repeated:
    those of them that may occur several times; their value is always a list.
    """

    __slots__ = ("_names", "_numbered", "_repeated")

    def __init__(self, *names: str, repeated: tuple[str, ...] = ()) -> None:
        self._names = names + repeated
        self._repeated = repeated
        #: The wanted attributes of each table by number, made when first needed.
        self._numbered: dict[int, dict[int, tuple[str, Any]]] = {}

    def read(self, table: Table, data: bytes, offset: int = 0, end: int = -1) -> dict[str, Any]:
        """The wanted attributes between `offset` and `end` of `data`, by name.

        Raises CniError 102 for one that is shorter than what it holds.
        """
        if end < 0:
            end = len(data)
        wanted = self._numbered.get(id(table))
        if wanted is None:
            wanted = {}
            for name in self._names:
                if name in table:
                    number, kind = table[name]
                    wanted[number] = (name, kind)
            self._numbered[id(table)] = wanted
        values: dict[str, Any] = {}
        while offset + 4 <= end:
            size, number = unpack_from("=HH", data, offset)
            if size < 4 or offset + size > end:
                break
            known = wanted.get(number & _NLA_TYPE_MASK)
            if known is not None:
                name, kind = known
                try:
                    value = self._value(kind, data, offset + 4, offset + size, values)
                except error:
                    raise malformed(f"{name} of {size - 4} bytes is too short") from None
                if name in self._repeated:
                    values.setdefault(name, []).append(value)
                else:
                    values[name] = value
            offset += (size + 3) & ~3
        return values

    def _value(
        self, kind: Any, data: bytes, start: int, end: int, siblings: dict[str, Any]
    ) -> Any:
        if kind.__class__ is str:
            if kind == "s":
                return data[start:end].rstrip(b"\0").decode("utf-8", "replace")
            if kind == "b":
                return data[start:end]
            if kind == "m":
                return data[start:end].hex(":")
            if kind == "f":
                return True
            values = unpack_from(kind, data[start:end])
            return values[0] if len(values) == 1 else values
        if kind.__class__ is dict:
            return self.read(kind, data, start, end)
        shape, detail, inner = kind
        if shape == "choice":
            table = inner.get(siblings.get(detail))
            return data[start:end] if table is None else self.read(table, data, start, end)
        if shape == "struct":
            nest = self.read(inner, data, start + calcsize(detail), end)
            nest[""] = unpack_from(detail, data, start)
            return nest
        rows = []
        while start + 4 <= end:
            size = unpack_from("=H", data, start)[0]
            if size < 4 or start + size > end:
                break
            if shape == "list":
                rows.append(self._value(inner, data, start + 4, start + size, siblings))
            else:
                nest = self.read(inner, data, start + calcsize(detail), start + size)
                nest[""] = unpack_from(detail, data, start)[1:]
                rows.append(nest)
            start += (size + 3) & ~3
        return rows
