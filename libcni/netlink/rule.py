# SPDX-License-Identifier: Apache-2.0
"""Rules that choose the routing table by the source of a packet: messages and what comes back."""

from __future__ import annotations

from libcni.inet import Prefix
from libcni.netlink.codec import (
    CHANGE,
    CREATE,
    NLM_F_REQUEST,
    Message,
    Reader,
    fields,
    read_prefix,
)
from libcni.netlink.socket import Socket
from libcni.netlink.tables.rule import RULE, RULE_ATTRIBUTES

# linux/rtnetlink.h, linux/fib_rules.h
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
_FR_ACT_TO_TBL = 1

_READER = Reader("FRA_SRC", "FRA_DST", "FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL", "FRA_IIFNAME")


class Rule:
    """A rule. src: None for any source; protocol: who made it, 0 when nobody said."""

    __slots__ = ("family", "priority", "protocol", "simple", "src", "table")

    def __init__(self, body: bytes) -> None:
        """Read the body of an RTM_NEWRULE."""
        self.family: int
        self.family, destination, length, table, action = fields("BBBxBxxB", body)
        read = _READER.read(RULE_ATTRIBUTES, body, 12).get
        packed = read("FRA_SRC")
        self.src = read_prefix(packed, length, "FRA_SRC") if packed else None
        self.table: int = read("FRA_TABLE", table)
        self.priority: int = read("FRA_PRIORITY", 0)
        self.protocol: int = read("FRA_PROTOCOL", 0)
        #: True when nothing but the source is asked for.
        self.simple = not destination and action == _FR_ACT_TO_TBL and not read("FRA_IIFNAME")

    def __repr__(self) -> str:
        return f"Rule({self.priority}: from {self.src} lookup {self.table})"


def _header(src: Prefix, table: int) -> tuple[int, ...]:
    number = table if table < 256 else 0
    return (src.family, 0, src.length, 0, number, 0, 0, _FR_ACT_TO_TBL, 0)


def new_rule(src: Prefix, table: int, protocol: int = 0) -> Message:
    """Look up in `table` what comes from `src`, before the table main. EEXIST if it is there.

    protocol: 1 to 255, by which the maker knows it again.
    """
    return Message(
        RTM_NEWRULE,
        CREATE,
        f"add rule from {src.text()} lookup {table}",
        RULE,
        _header(src, table),
        {"FRA_SRC": src.packed, "FRA_TABLE": table, "FRA_PROTOCOL": protocol or None},
    )


def delete_rule(src: Prefix, table: int, protocol: int = 0, priority: int = 0) -> Message:
    """Delete the first rule that matches what is given. ENOENT if there is none."""
    return Message(
        RTM_DELRULE,
        CHANGE,
        f"delete rule from {src.text()} lookup {table}",
        RULE,
        _header(src, table),
        {
            "FRA_SRC": src.packed,
            "FRA_TABLE": table,
            "FRA_PROTOCOL": protocol or None,
            "FRA_PRIORITY": priority or None,
        },
    )


def dump_rules(sock: Socket, family: int = 0) -> list[Rule]:
    """The rules of one family, or of both. Raises NetlinkError."""
    message = Message(
        RTM_GETRULE, NLM_F_REQUEST, "list rules", RULE, (family, 0, 0, 0, 0, 0, 0, 0, 0), {}
    )
    # IPv4 and IPv6 are 2 and 10; a multicast router has rules of its own (128, 129).
    return [Rule(body) for body in sock.dump(message) if fields("B", body)[0] in (2, 10)]
