# SPDX-License-Identifier: Apache-2.0
"""Addresses of links: messages to send and what comes back."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from libcni.inet import Prefix
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
    read_prefix,
)
from libcni.netlink.socket import Socket
from libcni.netlink.tables.addr import ADDRESS, ADDRESS_ATTRIBUTES

# linux/rtnetlink.h
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
# linux/if_addr.h
IFA_F_NODAD = 0x02
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40
IFA_F_PERMANENT = 0x80
IFA_F_NOPREFIXROUTE = 0x200
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253

_READER = Reader("IFA_ADDRESS", "IFA_LOCAL", "IFA_LABEL", "IFA_BROADCAST", "IFA_FLAGS")


class Address:
    """An address of a link. prefix keeps the host bits; broadcast is packed, or empty."""

    __slots__ = ("broadcast", "family", "flags", "index", "label", "prefix", "scope")

    def __init__(self, body: bytes) -> None:
        """Read the body of an RTM_NEWADDR."""
        self.family: int
        self.scope: int
        self.index: int
        self.family, length, flags, self.scope, self.index = fields("=BBBBI", body)
        values = _READER.read(ADDRESS_ATTRIBUTES, body, 8)
        # IFA_ADDRESS is the other end's where a link is point to point; IPv6 may have it alone.
        packed = values.get("IFA_LOCAL") or values.get("IFA_ADDRESS", b"")
        self.prefix = read_prefix(packed, length, "IFA_ADDRESS")
        self.flags: int = values.get("IFA_FLAGS", flags)
        self.broadcast: bytes = read_address(values.get("IFA_BROADCAST", b""), "IFA_BROADCAST")
        self.label: str = values.get("IFA_LABEL", "")

    @property
    def is_tentative(self) -> bool:
        """True while duplicate address detection runs."""
        return bool(self.flags & IFA_F_TENTATIVE)

    @property
    def is_duplicate(self) -> bool:
        """True when duplicate address detection found another owner."""
        return bool(self.flags & IFA_F_DADFAILED)

    def __repr__(self) -> str:
        return f"Address({self.prefix.text()} on {self.index})"


def new_address(
    index: int,
    prefix: Prefix,
    *,
    nodad: bool = False,
    broadcast: bool = True,
    scope: int = RT_SCOPE_UNIVERSE,
    flags: int = 0,
    replace: bool = False,
) -> Message:
    """Give a link an address. EEXIST if it has it already, unless `replace`.

    nodad: usable at once, for an IPv6 address that we know to be unique. broadcast: set the last
    address of an IPv4 prefix of up to 30 bits as broadcast, as the reference does.
    """
    packed = prefix.packed
    family = prefix.family
    if nodad:
        flags |= IFA_F_NODAD
    inet = family == AF_INET
    return Message(
        RTM_NEWADDR,
        CHANGE | NLM_F_CREATE | NLM_F_REPLACE if replace else CREATE,
        f"add address {prefix.text()} to link {index}",
        ADDRESS,
        (family, prefix.length, flags & 0xFF, scope, index),
        {
            "IFA_LOCAL": packed,
            "IFA_ADDRESS": packed,
            "IFA_BROADCAST": prefix.broadcast()
            if inet and broadcast and prefix.length < 31
            else None,
            "IFA_FLAGS": flags or None,
        },
    )


def delete_address(index: int, prefix: Prefix) -> Message:
    """Take an address from a link. EADDRNOTAVAIL if it has none such, ENODEV if it is gone."""
    return Message(
        RTM_DELADDR,
        CHANGE,
        f"delete address {prefix.text()} from link {index}",
        ADDRESS,
        (prefix.family, prefix.length, 0, 0, index),
        {"IFA_LOCAL": prefix.packed, "IFA_ADDRESS": prefix.packed},
    )


def dump_addresses(sock: Socket, index: int = 0, family: int = 0) -> list[Address]:
    """The addresses of one link, or of all, of one family, or both. Raises NetlinkError."""
    message = Message(
        RTM_GETADDR,
        NLM_F_REQUEST,
        f"list addresses of link {index}" if index else "list addresses",
        ADDRESS,
        (family, 0, 0, 0, index),
        {},
    )
    # Asked for both, a kernel lists those of every family it has (Phonet's, MCTP's) besides.
    addresses = [
        Address(body) for body in sock.dump(message) if fields("B", body)[0] in (AF_INET, AF_INET6)
    ]
    # A kernel without strict checking ignores the index.
    return [address for address in addresses if not index or address.index == index]
