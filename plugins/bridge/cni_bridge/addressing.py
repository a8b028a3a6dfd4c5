# SPDX-License-Identifier: Apache-2.0
"""From what IPAM allocated to what the container and the bridge get: pure decisions."""

from __future__ import annotations

from libcni.inet import Prefix, ntop, pton
from libcni.types.result import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.types.result import Result

#: Index of the container's interface in the result: after the bridge and the host's end.
CONTAINER = 2
#: linux/rtnetlink.h RT_TABLE_MAIN.
MAIN_TABLE = 254


def complete(result: Result, config: Config) -> list[Prefix]:
    """Fill in what IPAM left open, and return the gateway addresses that the bridge needs.

    Every address belongs to the container's interface; with `isGateway` an address without a
    gateway gets the first of its subnet; with `isDefaultGateway` each family gets a default
    route, unless IPAM gave one. The list is empty without `isGateway`.
    Raises CniError 104 when IPAM returned no address.
    """
    if not result.ips:
        from libcni.interface.ipam import no_address

        raise no_address(config.ipam)
    gateways: list[Prefix] = []
    routed: list[int] = []
    for ip in result.ips:
        ip.interface = CONTAINER
        if not config.is_gateway:
            continue
        address = Prefix.parse(ip.address)
        if not ip.gateway:
            ip.gateway = ntop(first_address(address))
        gateway = Prefix(pton(ip.gateway), address.length)
        if gateway not in gateways:
            gateways.append(gateway)
        if config.is_default_gateway and address.family not in routed:
            routed.append(address.family)
            anywhere = "0.0.0.0/0" if len(address.packed) == 4 else "::/0"
            if not any(
                route.dst == anywhere and route.table in (None, 0, MAIN_TABLE)
                for route in result.routes
            ):
                result.routes.append(Route(anywhere, ip.gateway))
    return gateways


def first_address(prefix: Prefix) -> bytes:
    """The first address of a subnet after that of the network: the gateway that is not named."""
    network = prefix.network().packed
    return (int.from_bytes(network, "big") + 1).to_bytes(len(network), "big")
