# SPDX-License-Identifier: Apache-2.0
"""Peers: the other nodes of an overlay, and how their packets are reached.

A node has up to two endpoints, one for each IP family that its underlay has, and up to two
subnets, one for each family of its pods. Used by the plugin, so that nothing heavy is imported.
"""

from __future__ import annotations

from _sha512 import sha512
from _socket import AF_INET

from libcni.inet import Prefix, ntop, pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def vtep_mac(vni: int, public_ip: str) -> str:
    """The MAC address of the VTEP that a node has under this public address: "0a:…".

    It follows from the two, so that nodes need not exchange it, and stays across reboots.
    Locally administered and unicast (IEEE 802 section 8.4). Raises ValueError for no address.
    """
    packed = pton(public_ip)
    digest: bytes = sha512(b"vxlan-overlay %d " % vni + packed).digest()
    return (b"\x0a" + digest[:5]).hex(":")


class Endpoint:
    """Where a node receives VXLAN packets of one underlay family. Immutable by convention.

    public_ip: address as text, in RFC 5952 form. mac: of its VTEP, in lower case with colons.
    """

    __slots__ = ("mac", "public_ip")

    def __init__(self, public_ip: str, mac: str) -> None:
        """Raises ValueError when `public_ip` is no address."""
        self.public_ip = ntop(pton(public_ip))
        self.mac = mac.lower()

    @property
    def is_ipv6(self) -> bool:
        """True for an underlay of IPv6."""
        return ":" in self.public_ip

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Endpoint):
            return NotImplemented
        return self.public_ip == other.public_ip and self.mac == other.mac

    def __hash__(self) -> int:
        return hash((self.public_ip, self.mac))

    def __repr__(self) -> str:
        return f"Endpoint({self.public_ip} {self.mac})"


class Peer:
    """A node of the overlay. Immutable by convention; compared by value.

    name: for people. endpoints: at most one of each underlay family. subnets: the networks of
    its pods, at most one of each family, without host bits.
    """

    __slots__ = ("endpoints", "name", "subnets")

    def __init__(
        self, name: str, endpoints: Iterable[Endpoint], subnets: Iterable[Prefix]
    ) -> None:
        self.name = name
        self.endpoints = tuple(endpoints)
        self.subnets = tuple(subnets)

    def endpoint_for(self, subnet: Prefix, available: Iterable[bool]) -> Endpoint | None:
        """The endpoint through which a subnet of this peer is reached, None if there is none.

        available: the underlay families that this node has itself (True for IPv6). The family
        of the subnet is preferred, as flannel has no other; but an overlay carries both
        families over either, so that an underlay with one of them is enough. Both sides of a
        tunnel come to the same choice.
        """
        families = tuple(available)
        candidates = [e for e in self.endpoints if e.is_ipv6 in families]
        same = [e for e in candidates if e.is_ipv6 == (subnet.family != AF_INET)]
        for endpoint in same or candidates:
            return endpoint
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Peer):
            return NotImplemented
        return (self.name, self.endpoints, self.subnets) == (
            other.name,
            other.endpoints,
            other.subnets,
        )

    def __hash__(self) -> int:
        return hash((self.name, self.endpoints, self.subnets))

    def __repr__(self) -> str:
        subnets = ", ".join(subnet.text() for subnet in self.subnets)
        return f"Peer({self.name}: {subnets} at {self.endpoints})"
