# SPDX-License-Identifier: Apache-2.0
"""Maps: sets whose elements lead to data, and elements by the thousand.

An element may carry, besides its owner's identity as comment, a record of its owner's that `nft`
passes over. Elements are packed here rather than by the tables, 2 us each, as a range of ports
is an element per port.
"""

from __future__ import annotations

from _struct import pack

from libcni.netlink.codec import CHANGE, CREATE, NLM_F_CREATE, Message, Reader, malformed, required
from libcni.netlink.tables.nft import ELEMENTS_ATTRIBUTES, SET
from libcni.nftables.transaction import NFTABLES, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.netlink.codec import Layout
    from libcni.netlink.socket import Reply
    from libcni.nftables.rules import Table

_NEW_SET = NFTABLES | 9
_NEW_ELEMENTS = NFTABLES | 12
_DELETE_ELEMENTS = NFTABLES | 14
#: NFT_SET_MAP
_MAP = 8
_NESTED = 0x8000
#: Numbers by which nft knows data types (datatype.h of nftables); a concatenation has six bits
#: for each, and each part is padded to four bytes.
IPV4_ADDRESS, IPV6_ADDRESS, PROTOCOL, SERVICE, MARK = 7, 8, 12, 13, 19
_LENGTHS = {IPV4_ADDRESS: 4, IPV6_ADDRESS: 16, PROTOCOL: 4, SERVICE: 4, MARK: 4}
#: The user data of an element that is a record; nft knows 0 (comment) and 1 only.
_RECORD = 0xA0
#: Bytes of an element's user data, linux/netfilter/nf_tables.h NFT_USERDATA_MAXLEN is 256.
_USER_DATA = 255
#: Elements of one message, whose attributes hold 65,535 bytes.
_AT_ONCE = 200

#: An elements' message whose list is packed already.
_PACKED: Layout = (">BBH", {"TABLE": (1, "s"), "SET": (2, "s"), "LIST": (3 | _NESTED, "b")})
_READER = Reader(
    "NFTA_SET_ELEM_LIST_ELEMENTS",
    "NFTA_SET_ELEM_KEY",
    "NFTA_SET_ELEM_DATA",
    "NFTA_DATA_VALUE",
    "NFTA_SET_ELEM_USERDATA",
)


class MapElement:
    """One element. data: b"" in a set. comment: "" without one. record: None without one."""

    __slots__ = ("comment", "data", "key", "record")

    def __init__(
        self, key: bytes, data: bytes = b"", comment: str = "", record: bytes | None = None
    ) -> None:
        self.key = key
        self.data = data
        self.comment = comment
        self.record = record


def type_of(*parts: int) -> tuple[int, int]:
    """(number, length in bytes) of a concatenation of data types."""
    code = 0
    for part in parts:
        code = code << 6 | part
    return code, sum([_LENGTHS[part] for part in parts])


def create_map(
    table: Table, name: str, key: tuple[int, int], data: tuple[int, int], number: int
) -> Message:
    """Make a map; one of that name and types may exist. number: unique in the transaction."""
    return Message(
        _NEW_SET,
        CHANGE | NLM_F_CREATE,
        f"nftables: make map {name}",
        SET,
        table.header,
        {
            "NFTA_SET_TABLE": table.name,
            "NFTA_SET_NAME": name,
            "NFTA_SET_FLAGS": _MAP,
            "NFTA_SET_KEY_TYPE": key[0],
            "NFTA_SET_KEY_LEN": key[1],
            "NFTA_SET_DATA_TYPE": data[0],
            "NFTA_SET_DATA_LEN": data[1],
            "NFTA_SET_ID": number,
        },
    )


def add(table: Table, name: str, elements: list[MapElement]) -> list[Message]:
    """Add elements, some at a time. EEXIST if a key is there; ENOENT: no such map."""
    return _messages(_NEW_ELEMENTS, CREATE, table, name, elements, "add to")


def delete(table: Table, name: str, elements: list[MapElement]) -> list[Message]:
    """Delete elements by their keys, some at a time. ENOENT if one is not there."""
    bare = [MapElement(element.key) for element in elements]
    return _messages(_DELETE_ELEMENTS, CHANGE, table, name, bare, "delete from")


def read(body: bytes) -> list[MapElement]:
    """Take a raw message of elements apart; one that stands for all keys (`*`) is left out."""
    rows: list[dict[str, Any]] = _READER.read(ELEMENTS_ATTRIBUTES, body, 4).get(
        "NFTA_SET_ELEM_LIST_ELEMENTS", []
    )
    elements = []
    for row in rows:
        if "NFTA_SET_ELEM_KEY" not in row:
            continue
        comment, record = _user_data(row.get("NFTA_SET_ELEM_USERDATA", b""))
        data = row.get("NFTA_SET_ELEM_DATA", {}).get("NFTA_DATA_VALUE", b"")
        key = required(row, "NFTA_SET_ELEM_KEY", "NFTA_DATA_VALUE")
        elements.append(MapElement(key, data, comment, record))
    return elements


def found(reply: Reply, *absent: int) -> MapElement | None:
    """The answer to `sets.get_element`; None for the errnos `absent`. Raises NetlinkError."""
    if not reply.check(*absent):
        return None
    elements = read(reply.item())
    if not elements:
        raise malformed(f"{reply.request.doing}: an answer without the element")
    return elements[0]


def room_for_record(comment: str) -> int:
    """How many bytes a record may have beside this comment."""
    return _USER_DATA - len(comment_of(comment)) - 2


def _user_data(data: bytes) -> tuple[str, bytes | None]:
    comment, record = "", None
    offset = 0
    while offset + 2 <= len(data):
        end = offset + 2 + data[offset + 1]
        if data[offset] == 0:
            comment = data[offset + 2 : end].rstrip(b"\0").decode("utf-8", "replace")
        elif data[offset] == _RECORD:
            record = data[offset + 2 : end]
        offset = end
    return comment, record


def _attribute(number: int, data: bytes) -> bytes:
    size = len(data)
    return pack("=HH", size + 4, number) + data + bytes(-size & 3)


def _packed(element: MapElement) -> bytes:
    parts = _attribute(1 | _NESTED, _attribute(1, element.key))
    if element.data:
        parts += _attribute(2 | _NESTED, _attribute(1, element.data))
    if element.comment:
        user_data = comment_of(element.comment)
        if element.record is not None:
            user_data += pack("=BB", _RECORD, len(element.record)) + element.record
        parts += _attribute(6, user_data)
    return _attribute(1 | _NESTED, parts)


def _messages(
    type: int, flags: int, table: Table, name: str, elements: list[MapElement], doing: str
) -> list[Message]:
    return [
        Message(
            type,
            flags,
            f"nftables: {doing} map {name}",
            _PACKED,
            table.header,
            {
                "TABLE": table.name,
                "SET": name,
                "LIST": b"".join(map(_packed, elements[start : start + _AT_ONCE])),
            },
        )
        for start in range(0, len(elements), _AT_ONCE)
    ]
