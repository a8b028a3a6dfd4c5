# SPDX-License-Identifier: Apache-2.0
"""Neighbours: which hardware address an IP address of a link has."""

from __future__ import annotations

from libcni import inet
from libcni.netlink.codec import (
    CHANGE,
    CREATE,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    Message,
    Reader,
    fields,
    read_address,
)
from libcni.netlink.socket import Socket
from libcni.netlink.tables.neigh import NEIGHBOUR, NEIGHBOUR_ATTRIBUTES

# linux/rtnetlink.h
RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
# linux/neighbour.h
NUD_REACHABLE = 0x02
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
NTF_SELF = 0x02
NTF_MASTER = 0x04
NTF_EXT_LEARNED = 0x10

_READER = Reader("NDA_DST", "NDA_LLADDR", "NDA_VLAN", "NDA_MASTER", "NDA_VNI", "NDA_PORT")


class Neighbour:
    """A neighbour, or an entry of a forwarding database. dst is packed; 0 and "" are absent.

    index: the link, of a bridge's entry the port; master: the bridge.
    """

    __slots__ = (
        "dst",
        "family",
        "flags",
        "index",
        "mac",
        "master",
        "port",
        "state",
        "vlan",
        "vni",
    )

    def __init__(self, body: bytes) -> None:
        """Read the body of an RTM_NEWNEIGH."""
        self.family: int
        self.index: int
        self.state: int
        self.flags: int
        self.family, self.index, self.state, self.flags = fields("=BxxxiHB", body)
        read = _READER.read(NEIGHBOUR_ATTRIBUTES, body, 12).get
        self.dst: bytes = read_address(read("NDA_DST", b""), "NDA_DST")
        self.mac: str = read("NDA_LLADDR", "")
        self.vlan: int = read("NDA_VLAN", 0)
        self.master: int = read("NDA_MASTER", 0)
        self.vni: int = read("NDA_VNI", 0)
        self.port: int = read("NDA_PORT", 0)

    def __repr__(self) -> str:
        dst = inet.ntop(self.dst) if self.dst else "-"
        return f"Neighbour({dst} {self.mac} on {self.index} state {self.state:#x})"


def new_neighbour(
    index: int, dst: bytes, mac: str, *, state: int = NUD_PERMANENT, replace: bool = True
) -> Message:
    """Say what hardware address a packed IP address has. EEXIST if known, unless `replace`."""
    return Message(
        RTM_NEWNEIGH,
        CHANGE | NLM_F_CREATE | NLM_F_REPLACE if replace else CREATE,
        f"add neighbour {inet.ntop(dst)} to link {index}",
        NEIGHBOUR,
        (inet.family(dst), index, state, 0, 0),
        {"NDA_DST": dst, "NDA_LLADDR": mac},
    )


def delete_neighbour(index: int, dst: bytes) -> Message:
    """Forget a neighbour. ENOENT if it is unknown."""
    return Message(
        RTM_DELNEIGH,
        CHANGE,
        f"delete neighbour {inet.ntop(dst)} from link {index}",
        NEIGHBOUR,
        (inet.family(dst), index, 0, 0, 0),
        {"NDA_DST": dst},
    )


def dump_neighbours(sock: Socket, family: int, index: int = 0) -> list[Neighbour]:
    """The neighbours of one link, or of all. Raises NetlinkError."""
    message = Message(
        RTM_GETNEIGH,
        NLM_F_REQUEST,
        f"list neighbours of link {index}" if index else "list neighbours",
        NEIGHBOUR,
        (family, 0, 0, 0, 0),
        {"NDA_IFINDEX": index or None},
    )
    found = [Neighbour(body) for body in sock.dump(message)]
    # A kernel without strict checking ignores the filter.
    return [entry for entry in found if not index or entry.index == index]
