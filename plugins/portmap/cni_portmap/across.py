# SPDX-License-Identifier: Apache-2.0
"""Ports that a container has by the other backend, ours or the Go plugin's.

What iptables-nft holds is seen in process: each container's rules in CNI-HOSTPORT-DNAT name it
and its ports. Only a port that looks taken costs a process, which says for certain. What
iptables-legacy holds cannot be read without one, and is not looked at. Two ADDs at the same
moment, one of each backend, do not see each other.
"""

from __future__ import annotations

from _struct import unpack_from
from errno import ENOENT

from cni_portmap import leftovers, table
from libcni.nftables import rules
from libcni.nftables.transaction import find_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_portmap.mapping import Claim
    from libcni.attachment import Attachment
    from libcni.netlink.socket import Socket

_ENTRY = leftovers.ENTRIES["CNI-DN-"]
_TABLES = dict(zip(table.FAMILIES, leftovers.NAT_TABLES, strict=True))
#: The variant of the tools that reads these tables.
_VARIANT = "-nft"
#: linux/netfilter/xt_multiport.h: struct xt_multiport_v1 has 15 ports.
_PORTS = 15


def refuse_taken_by_iptables(sock: Socket, attachment: Attachment, claims: list[Claim]) -> bool:
    """Raise CniError 101 for a port that another container has in iptables-nft.

    sock: of nfnetlink. True if the attachment itself may have ports there, from an ADD before.
    Raises NetlinkError, and what `iptables.save` raises.
    """
    families = [family for family in _TABLES if any(c.family == family for c in claims)]
    own = leftovers.looks_at_own(attachment)
    replies = sock.batch([*own, *[_TABLES[family].get_chain(_ENTRY) for family in families]])
    has_own, replies = leftovers.are_there(replies[: len(own)]), replies[len(own) :]
    for family, reply in zip(families, replies, strict=True):
        if not reply.check(ENOENT):
            continue
        wanted = [claim for claim in claims if claim.family == family]
        container = f'id: "{attachment.container_id}"'.encode()
        for rule in _TABLES[family].rules(sock, _ENTRY):
            if container not in rule and _is_for(rule, wanted):
                _ask(attachment, wanted, table.VERSIONS[family])
                break
    return has_own


def _is_for(rule: bytes, claims: list[Claim]) -> bool:
    """True if a raw rule is for a port of one of the claims, on whichever address."""
    ports = leftovers.extension(rule, "multiport")
    if len(ports) < 2 + 3 * _PORTS:
        return False
    numbers = unpack_from(f"={_PORTS}H", ports, 2)
    # Marked is the first port of a range, whose last is the next.
    marked = ports[2 + 2 * _PORTS :]
    for position in range(min(ports[1], _PORTS)):
        first = numbers[position]
        last = numbers[min(position + 1, _PORTS - 1)] if marked[position] else first
        for claim in claims:
            meets = first < claim.port + claim.count and claim.port <= last
            if meets and rules.compares_with(rule, bytes([claim.protocol])):
                return True
    return False


def _ask(attachment: Attachment, claims: list[Claim], version: int) -> None:
    from cni_portmap import ipt
    from libcni import iptables

    if iptables.find(version, "save", _VARIANT):
        ipt.refuse_taken(attachment, claims, iptables.save(version, ipt.TABLE, _VARIANT))


def refuse_taken_by_nftables(attachment: Attachment, claims: list[Claim]) -> None:
    """Raise CniError 101 for a port that another container has in our maps. NetlinkError."""
    sock = find_socket()
    if sock is None:
        return
    try:
        if not table.TABLE.is_absent(sock):
            from cni_portmap.holders import Holders

            Holders(attachment).look(sock, claims, [])
    finally:
        sock.close()
