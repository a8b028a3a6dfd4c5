# SPDX-License-Identifier: Apache-2.0
"""What the kernel has to know to reach peers, computed from them: no input or output here.

For each subnet of a peer: its network address is the next hop, whose hardware address is that
of the peer's VTEP, which is behind the peer's public address. So one route, one neighbour and
one entry of the VXLAN device's forwarding database, as flannel's; nothing is ever learned.
"""

from __future__ import annotations

from _socket import AF_INET

from libcni.inet import Prefix, ntop, pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni_vxlan_overlay.peers import Peer

#: Marks our routes (rtm_protocol), so that those of others are told apart. Not in use by any
#: routing daemon (iproute2's rt_protos).
ROUTE_PROTOCOL = 97


class Fabric:
    """Sets of plain tuples, equal when the kernel's state is.

    forwarding: (device, MAC, public address). neighbours: (device, next hop, MAC). routes:
    (destination, next hop, device); the device is "" for a direct route through the underlay,
    which the kernel finds by the next hop.
    """

    __slots__ = ("forwarding", "neighbours", "routes")

    def __init__(
        self,
        forwarding: Iterable[tuple[str, str, str]] = (),
        neighbours: Iterable[tuple[str, str, str]] = (),
        routes: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        self.forwarding = set(forwarding)
        self.neighbours = set(neighbours)
        self.routes = set(routes)

    def difference(self, other: Fabric) -> Fabric:
        """What is here and not in `other`."""
        return Fabric(
            self.forwarding - other.forwarding,
            self.neighbours - other.neighbours,
            self.routes - other.routes,
        )

    def __len__(self) -> int:
        return len(self.forwarding) + len(self.neighbours) + len(self.routes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fabric):
            return NotImplemented
        return (self.forwarding, self.neighbours, self.routes) == (
            other.forwarding,
            other.neighbours,
            other.routes,
        )

    __hash__ = None  # type: ignore[assignment]  # it is changed as events come in

    def __repr__(self) -> str:
        return f"Fabric({self.forwarding}, {self.neighbours}, {self.routes})"


class Ground:
    """What peers are reached by: this node's VXLAN devices and the links of its underlay.

    devices: name by underlay family, True for IPv6. on_link: the underlay's own prefixes, for
    `direct` routes to peers that are on them.
    """

    __slots__ = ("devices", "direct", "on_link")

    def __init__(
        self, devices: Mapping[bool, str], direct: bool = False, on_link: Iterable[Prefix] = ()
    ) -> None:
        self.devices = dict(devices)
        self.direct = direct
        self.on_link = tuple(on_link)

    def is_on_link(self, address: str) -> bool:
        """True when no router is between this node and the address."""
        packed = pton(address)
        return any(prefix.contains(packed) for prefix in self.on_link)


def add_peer(fabric: Fabric, peer: Peer, ground: Ground) -> None:
    """Put into `fabric` what reaching one peer takes; a peer out of reach adds nothing."""
    for subnet in peer.subnets:
        endpoint = peer.endpoint_for(subnet, ground.devices)
        if endpoint is None:
            continue
        is_ipv6 = subnet.family != AF_INET
        if ground.direct and endpoint.is_ipv6 == is_ipv6 and ground.is_on_link(endpoint.public_ip):
            fabric.routes.add((subnet.text(), endpoint.public_ip, ""))
            continue
        device = ground.devices[endpoint.is_ipv6]
        next_hop = ntop(subnet.packed)
        fabric.forwarding.add((device, endpoint.mac, endpoint.public_ip))
        fabric.neighbours.add((device, next_hop, endpoint.mac))
        fabric.routes.add((subnet.text(), next_hop, device))


def fabric_of(peers: Iterable[Peer], ground: Ground) -> Fabric:
    """What reaching all of the peers takes."""
    fabric = Fabric()
    for peer in peers:
        add_peer(fabric, peer, ground)
    return fabric
