# SPDX-License-Identifier: Apache-2.0
"""This node's part in the overlay: who it is, what carries it, and what follows from both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from cni_vxlan_overlay.agent import selection
from cni_vxlan_overlay.agent.model import Backend, NetConf, Node, Offer
from cni_vxlan_overlay.agent.settings import Settings
from cni_vxlan_overlay.agent.store import Hints
from cni_vxlan_overlay.agent.traffic import TrafficRules
from cni_vxlan_overlay.fabric import Ground
from cni_vxlan_overlay.lease import Lease
from cni_vxlan_overlay.peers import Endpoint, vtep_mac
from cni_vxlan_overlay.underlay import Underlay
from cni_vxlan_overlay.vtep import AGENT, Vtep, vteps_of
from libcni.inet import Prefix


@dataclasses.dataclass(frozen=True)
class Part:
    """A part that was taken. conf: the network's. own: this node as it is published.

    vteps: one for each family that the underlay has. lease: what the subnet file says.
    """

    conf: NetConf
    underlay: Underlay
    own: Node
    vteps: list[Vtep]
    lease: Lease

    @property
    def subnets(self) -> str:
        """The subnets of this node's pods, in words."""
        return words(self.own.peer.subnets)

    def ground(self) -> Ground:
        """What routes to peers stand on."""
        return Ground(
            {vtep.is_ipv6: vtep.name for vtep in self.vteps},
            self.conf.backend.direct_routing,
            self.underlay.on_link,
        )

    def rules(self, settings: Settings) -> TrafficRules:
        """The traffic rules of this network on this node."""
        return TrafficRules(
            networks=tuple(self.conf.networks),
            subnets=tuple(self.own.peer.subnets),
            masquerade=settings.ip_masq,
            forward=settings.iptables_forward_rules,
            fully_random=not settings.ip_masq_fully_random_disable,
        )


class Casting:
    """How a part is found. hints: what the store knows of this node's addresses, if it does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.hints = Hints()

    def underlay(self, conf: NetConf) -> Underlay:
        """The underlay now. Raises NoUnderlay, CniError or OSError."""
        hints = self.hints
        families = {len(network.packed) == 16 for network in conf.networks}
        return selection.choose(self._settings, families, hints.internal_ips, hints.api_server)

    def offer(self, conf: NetConf, underlay: Underlay, before: Node | None) -> Offer:
        """What this node publishes. before: itself as it was known last, perhaps elsewhere."""
        vteps, _ = _devices(conf, underlay, [])
        given = self._given_addresses()
        return Offer(
            self._settings.node_name or "",
            tuple(Endpoint(given[vtep.is_ipv6] or vtep.local, vtep.mac) for vtep in vteps),
            conf.backend.vni,
            before.peer.subnets if before is not None else (),
        )

    def part(self, conf: NetConf, underlay: Underlay, own: Node, peers_file: str) -> Part:
        """The part of `own` in `conf` on `underlay`."""
        vteps, lease = _devices(conf, underlay, list(own.peer.subnets))
        lease.masquerades = self._settings.ip_masq
        lease.devices = [vtep.name for vtep in vteps]
        lease.peers_file = peers_file
        return Part(conf, underlay, own, vteps, lease)

    def is_at(self, node: Node, conf: NetConf, underlay: Underlay) -> bool:
        """True if `node` was published from an address that this node has now.

        The address that others know may be one that the store chose; the MAC is made of the
        underlay's own. What the store said once is no sign: a copy of this machine has it too.
        """
        settings, addresses = self._settings, underlay.addresses.values()
        now = {*addresses, settings.public_ip, settings.public_ipv6}
        macs = {vtep_mac(conf.backend.vni, address) for address in addresses}
        return any(
            endpoint.public_ip in now or endpoint.mac in macs for endpoint in node.peer.endpoints
        )

    def _given_addresses(self) -> dict[bool, str]:
        """Public addresses that somebody chose, by family (True for IPv6), "" for none."""
        settings, hints = self._settings, self.hints
        return {
            False: settings.public_ip or hints.public_ip,
            True: settings.public_ipv6 or hints.public_ipv6,
        }


def words(prefixes: Iterable[Prefix]) -> str:
    """Prefixes as a message has them."""
    return " and ".join(prefix.text() for prefix in prefixes) or "nothing"


def _devices(conf: NetConf, underlay: Underlay, subnets: list[Prefix]) -> tuple[list[Vtep], Lease]:
    backend = conf.backend
    lease = Lease(list(conf.networks), subnets, _overlay_mtu(underlay, backend))
    vteps = vteps_of(
        AGENT,
        underlay,
        lease,
        vni=backend.vni,
        port=backend.port,
        learning=backend.learning,
        gbp=backend.gbp,
    )
    return vteps, lease


def _overlay_mtu(underlay: Underlay, backend: Backend) -> int:
    """Bytes; `MTU` of net-conf.json is the underlay's, as flannel has it."""
    if not backend.mtu:
        return underlay.overlay_mtu()
    return underlay.overlay_mtu() - underlay.mtu + min(backend.mtu, underlay.mtu)
