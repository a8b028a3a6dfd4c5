# SPDX-License-Identifier: Apache-2.0
"""Sets and their elements, each of which carries its owner's identity as comment.

Elements are looked up by key, or found among all by their owner: the dump is searched as bytes,
and only what matches is taken apart, so that 1,000 elements cost 0.3 ms.
"""

from __future__ import annotations

from _struct import pack
from errno import ENOENT

from libcni.netlink.codec import (
    CHANGE,
    CREATE,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Message,
    Reader,
    attributes,
    malformed,
    required,
)
from libcni.netlink.socket import NETLINK_NETFILTER, NetlinkError, Reply, Socket
from libcni.netlink.tables.nft import ELEMENTS, ELEMENTS_ATTRIBUTES, SET, SET_ATTRIBUTES
from libcni.nftables.transaction import NFTABLES, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.nftables.rules import Table

_NEW_SET = NFTABLES | 9
_GET_SET = NFTABLES | 10
_DELETE_SET = NFTABLES | 11
_NEW_ELEMENTS = NFTABLES | 12
_GET_ELEMENTS = NFTABLES | 13
_DELETE_ELEMENTS = NFTABLES | 14

#: (number by which nft knows the data type, length in bytes, 1 host or 2 network byte order);
#: datatype.h of nftables.
IPV4_ADDRESS = (7, 4, 2)
IPV6_ADDRESS = (8, 16, 2)
INTERFACE_NAME = (41, 16, 1)
#: A concatenation: six bits for each type; each part is padded to four bytes.
INTERFACE_NAME_AND_MAC = (41 << 6 | 9, 24, 0)
#: libnftnl/udata.h: of a set, 0 is the byte order of the keys and 7 the comment.
_SET_COMMENT = 7
#: NFTA_SET_ELEM_LIST_ELEMENTS
_LIST = 3
#: Elements of one message: an attribute holds 65,535 bytes.
_AT_ONCE = 200

_NAME = Reader("NFTA_SET_NAME")
_ELEMENTS = Reader(
    "NFTA_SET_ELEM_LIST_ELEMENTS",
    "NFTA_SET_ELEM_KEY",
    "NFTA_DATA_VALUE",
    "NFTA_SET_ELEM_USERDATA",
)


class Element:
    """One element of a set. comment: its owner's identity, or "" if it has no comment."""

    __slots__ = ("comment", "key")

    def __init__(self, key: bytes, comment: str) -> None:
        self.key = key
        self.comment = comment


def create_set(
    table: Table, name: str, type: tuple[int, int, int], comment: str = "", number: int = 1
) -> Message:
    """Make a set; one of that name and type may exist. number: unique in the transaction."""
    code, length, order = type
    user_data = pack("=BBI", 0, 4, order)
    if comment:
        text = comment.encode()[:127] + b"\0"
        user_data += pack("=BB", _SET_COMMENT, len(text)) + text
    return Message(
        _NEW_SET,
        CHANGE | NLM_F_CREATE,
        f"nftables: make set {name}",
        SET,
        table.header,
        {
            "NFTA_SET_TABLE": table.name,
            "NFTA_SET_NAME": name,
            "NFTA_SET_FLAGS": 0,
            "NFTA_SET_KEY_TYPE": code,
            "NFTA_SET_KEY_LEN": length,
            "NFTA_SET_ID": number,
            "NFTA_SET_USERDATA": user_data,
        },
    )


def delete_set(table: Table, name: str) -> Message:
    """Delete a set with its elements. EBUSY while a rule uses it."""
    return Message(
        _DELETE_SET,
        CHANGE,
        f"nftables: delete set {name}",
        SET,
        table.header,
        {"NFTA_SET_TABLE": table.name, "NFTA_SET_NAME": name},
    )


def set_names(sock: Socket, table: Table) -> list[str]:
    """The names of a table's sets; none when there is no such table."""
    message = Message(
        _GET_SET,
        NLM_F_REQUEST,
        f"nftables: list the sets of table {table.name}",
        SET,
        table.header,
        {"NFTA_SET_TABLE": table.name},
    )
    return [
        required(_NAME.read(SET_ATTRIBUTES, body, 4), "NFTA_SET_NAME")
        for body in _dump(sock, message)
    ]


def add_element(table: Table, name: str, key: bytes, comment: str) -> Message:
    """Add an element; EEXIST if the key is there, with whatever comment; ENOENT: no such set."""
    return _elements(_NEW_ELEMENTS, CREATE, table, name, [_element(key, comment)], "add to")


def delete_elements(table: Table, name: str, keys: list[bytes]) -> list[Message]:
    """Delete elements, some at a time. ENOENT if one is not there."""
    return [
        _elements(
            _DELETE_ELEMENTS,
            CHANGE,
            table,
            name,
            [_element(key) for key in keys[start : start + _AT_ONCE]],
            "delete from",
        )
        for start in range(0, len(keys), _AT_ONCE)
    ]


def get_element(table: Table, name: str, key: bytes) -> Message:
    """Ask for one element (ENOENT: it, the set or the table is not there); see `found`."""
    return _elements(_GET_ELEMENTS, NLM_F_REQUEST, table, name, [_element(key)], "look into")


def found(reply: Reply) -> Element | None:
    """The answer to `get_element`. Raises NetlinkError."""
    if not reply.check(ENOENT):
        return None
    found = read_elements(reply.item())
    if not found:
        raise malformed(f"{reply.request.doing}: an answer without the element")
    return found[0]


def elements(sock: Socket, table: Table, name: str) -> list[bytes]:
    """All elements of a set as raw messages of some 100 each; none if there is no such set."""
    message = _elements(_GET_ELEMENTS, NLM_F_REQUEST, table, name, None, "list")
    return _dump(sock, message)


def is_empty(table: Table, name: str) -> bool:
    """True for a set without elements; False if there is no such set, too. Raises NetlinkError.

    Has the kernel list some hundred elements at most, and reads none.
    """
    sock = Socket(NETLINK_NETFILTER)
    try:
        message = _elements(_GET_ELEMENTS, NLM_F_REQUEST, table, name, None, "look into")
        for body in sock.beginning(message):
            for number, content in attributes(body, 4):
                if number == _LIST and content:
                    return False
        return True
    except NetlinkError as error:
        if error.errno == ENOENT:
            return False
        raise
    finally:
        sock.close()


def owned(sock: Socket, table: Table, name: str, comment: str) -> list[bytes]:
    """The keys of the elements of a set that carry this comment."""
    wanted = comment_of(comment)
    return [
        element.key
        for body in elements(sock, table, name)
        if wanted in body
        for element in read_elements(body)
        if element.comment == comment
    ]


def read_elements(body: bytes) -> list[Element]:
    """Take a raw message of elements apart; one that stands for all keys (`*`) is left out."""
    rows: list[dict[str, Any]] = _ELEMENTS.read(ELEMENTS_ATTRIBUTES, body, 4).get(
        "NFTA_SET_ELEM_LIST_ELEMENTS", []
    )
    try:
        return [
            Element(
                row["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"],
                _comment(row.get("NFTA_SET_ELEM_USERDATA", b"")),
            )
            for row in rows
            if "NFTA_SET_ELEM_KEY" in row
        ]
    except KeyError:
        raise malformed("a set's element without the value of its key") from None


def _comment(user_data: bytes) -> str:
    offset = 0
    while offset + 2 <= len(user_data):
        end = offset + 2 + user_data[offset + 1]
        if user_data[offset] == 0:
            return user_data[offset + 2 : end].rstrip(b"\0").decode("utf-8", "replace")
        offset = end
    return ""


def _element(key: bytes, comment: str = "") -> dict[str, Any]:
    return {
        "NFTA_SET_ELEM_KEY": {"NFTA_DATA_VALUE": key},
        "NFTA_SET_ELEM_USERDATA": comment_of(comment) if comment else None,
    }


def _elements(
    type: int,
    flags: int,
    table: Table,
    name: str,
    rows: list[dict[str, Any]] | None,
    doing: str,
) -> Message:
    return Message(
        type,
        flags,
        f"nftables: {doing} set {name}",
        ELEMENTS,
        table.header,
        {
            "NFTA_SET_ELEM_LIST_TABLE": table.name,
            "NFTA_SET_ELEM_LIST_SET": name,
            "NFTA_SET_ELEM_LIST_ELEMENTS": rows,
        },
    )


def _dump(sock: Socket, message: Message) -> list[bytes]:
    try:
        return sock.dump(message)
    except NetlinkError as error:
        if error.errno == ENOENT:
            return []
        raise
