# SPDX-License-Identifier: Apache-2.0
"""The overlay without an agent: device and peers as the configuration has them, at each ADD."""

from __future__ import annotations

from _socket import AF_INET6

from cni_vxlan_overlay.config import invalid
from cni_vxlan_overlay.device import (
    ensure_device,
    refuse_foreign,
    refuse_occupied,
    remove_device,
    remove_others,
)
from cni_vxlan_overlay.fabric import Fabric, Ground, fabric_of
from cni_vxlan_overlay.offload import difference, set_checksum_offload
from cni_vxlan_overlay.peer_list import load_peers, others, reachable
from cni_vxlan_overlay.table import find_foreign_route, foreign_route, read_fabric, synchronize
from cni_vxlan_overlay.underlay import Underlay, find_underlay
from cni_vxlan_overlay.vtep import Vtep, vteps_of
from libcni.inet import Prefix
from libcni.interface.mtu import IPV6_MINIMUM
from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import find_link
from libcni.netlink.socket import Socket
from libcni.types.errors import CHECK_FAILED, LIMITED_CONNECTIVITY, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_vxlan_overlay.config import Config
    from cni_vxlan_overlay.lease import Lease


class Overlay:
    """What this node's part of an overlay shall be, as its configuration has it."""

    __slots__ = ("checksum", "fabric", "lease", "made", "sock", "underlay", "vteps")

    def __init__(self, config: Config, lease: Lease) -> None:
        """Work out devices and peers, and set the lease's MTU. Changes nothing.

        Raises CniError 5, 6 or 7 for what cannot be done as configured, NetlinkError.
        """
        self.sock = Socket()
        self.lease = lease
        self.checksum = config.checksum
        self.made = False
        peers = load_peers(config)
        endpoints = [endpoint for peer in peers for endpoint in peer.endpoints]
        families = {endpoint.is_ipv6 for endpoint in endpoints} or {False, True}
        reach = [endpoint.public_ip for endpoint in endpoints]
        self.underlay: Underlay = find_underlay(self.sock, config.underlay, reach, families)
        addresses = self.underlay.addresses
        if not endpoints:
            # Without peers one family will do, whichever the underlay has.
            addresses.pop(True, None) if False in addresses else None
        lease.mtu = self.underlay.overlay_mtu(config.mtu)
        most = self.underlay.overlay_mtu()
        if lease.mtu > most:
            raise invalid(
                f"mtu {lease.mtu} is more than the {most} bytes that underlay "
                f"{self.underlay.name} leaves of its {self.underlay.mtu}"
            )
        for subnet in lease.subnets:
            if subnet.family == AF_INET6 and lease.mtu < IPV6_MINIMUM:
                raise invalid(
                    f"mtu {lease.mtu} is too small for ipv6Subnet {subnet.text()}: it takes at "
                    f"least {IPV6_MINIMUM}",
                    f"underlay {self.underlay.name} leaves {most} of its {self.underlay.mtu}",
                )
        self.vteps: list[Vtep] = vteps_of(
            config.network,
            self.underlay,
            lease,
            vni=config.vni,
            port=config.port,
            learning=config.learning,
            gbp=config.gbp,
        )
        ground = Ground(
            {vtep.is_ipv6: vtep.name for vtep in self.vteps},
            config.direct_routing,
            self.underlay.on_link,
        )
        peers = reachable(
            others(peers, set(addresses.values())), lease, addresses, self.underlay.name
        )
        self.fabric: Fabric = fabric_of(peers, ground)

    def ensure(self) -> None:
        """Devices, addresses and peers. Idempotent. Raises CniError 101, NetlinkError."""
        devices = {}
        for vtep in self.vteps:
            link, made = ensure_device(self.sock, vtep)
            self.made |= made
            devices[vtep.name] = link.index
            set_checksum_offload(vtep.name, self.checksum)
        remove_others(self.sock, self.vteps)
        synchronize(self.sock, self.fabric, devices, self.lease.networks, self.underlay.index)

    def remove(self) -> None:
        """Take away devices and direct routes. Idempotent. Raises NetlinkError."""
        synchronize(self.sock, Fabric(), {}, self.lease.networks)
        for vtep in self.vteps:
            remove_device(self.sock, vtep)

    def is_whole(self) -> bool:
        """True when the devices are there: nobody removed them since `ensure`."""
        return all(find_link(self.sock, vtep.name) is not None for vtep in self.vteps)

    def ready(self) -> None:
        """Raise CniError 101 when the next ADD could not make the devices, 51 when it could not
        make a peer's route. What it would mend is no obstacle to it."""
        for vtep in self.vteps:
            link = find_link(self.sock, vtep.name)
            if link is None:
                refuse_occupied(self.sock, vtep)
            else:
                refuse_foreign(link, vtep)
        in_the_way = find_foreign_route(self.sock, self.fabric)
        if in_the_way:
            conflict = foreign_route(in_the_way)
            raise CniError(LIMITED_CONNECTIVITY, conflict.msg, conflict.details)

    def check(self) -> None:
        """Raise CniError 103 naming what is missing or differs of devices and peers."""
        devices = {}
        for vtep in self.vteps:
            link = find_link(self.sock, vtep.name)
            if link is None:
                raise CniError(CHECK_FAILED, f"device {vtep.name} is missing")
            refuse_foreign(link, vtep)
            differences = vtep.unchangeable(link) + vtep.changeable(link)
            offload = difference(vtep.name, self.checksum)
            if offload:
                differences.append(offload)
            if differences:
                raise CniError(CHECK_FAILED, f"device {vtep.name}: {', '.join(differences)}")
            devices[vtep.name] = link.index
        check_addresses(self.sock, devices, self.lease.subnets)
        check_fabric(self.sock, self.fabric, devices, self.lease.networks)


def check_addresses(sock: Socket, devices: dict[str, int], subnets: list[Prefix]) -> None:
    """Raise CniError 103 naming an address that none of the devices has: the source of what
    this node itself sends to pods of others, the network address of each of its subnets."""
    found = {
        address.prefix for index in devices.values() for address in dump_addresses(sock, index)
    }
    for subnet in subnets:
        wanted = Prefix(subnet.packed, subnet.bits)
        if wanted not in found:
            raise CniError(
                CHECK_FAILED,
                f"address {wanted.text()} of device {' or '.join(devices)} is missing",
            )


def check_fabric(
    sock: Socket, wanted: Fabric, devices: dict[str, int], networks: list[Prefix]
) -> None:
    """Raise CniError 103 naming the first thing that is missing of what peers need."""
    missing = wanted.difference(read_fabric(sock, devices, networks))
    for device, mac, address in sorted(missing.forwarding):
        raise CniError(
            CHECK_FAILED, f"forwarding entry {mac} dst {address} of device {device} is missing"
        )
    for device, address, mac in sorted(missing.neighbours):
        raise CniError(
            CHECK_FAILED, f"neighbour {address} lladdr {mac} of device {device} is missing"
        )
    for destination, next_hop, device in sorted(missing.routes):
        through = f" dev {device}" if device else ""
        raise CniError(CHECK_FAILED, f"route to {destination} via {next_hop}{through} is missing")
