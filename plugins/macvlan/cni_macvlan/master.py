# SPDX-License-Identifier: Apache-2.0
"""The master: the interface that a macvlan sits on."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from libcni.netlink.link import IFF_LOOPBACK, find_link
from libcni.netlink.route import dump_routes
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_macvlan.config import Config
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket

#: ARPHRD_ETHER of linux/if_arp.h: a macvlan needs MAC addresses.
_ETHERNET = 1


def find_master(sock: Socket, config: Config) -> Link | None:
    """The interface named by `master`, or that of the default route. sock: of its namespace.

    None when there is none. Raises NetlinkError.
    """
    if config.master:
        return find_link(sock, config.master)
    for family in (AF_INET, AF_INET6):
        found = [
            route
            for route in dump_routes(sock, family)
            if not route.dst.length and route.nexthops[0][1]
        ]
        if found:
            best = min(found, key=lambda route: route.priority)
            return find_link(sock, index=best.nexthops[0][1])
    return None


def require_master(sock: Socket, config: Config, code: int = INVALID_NETWORK_CONFIG) -> Link:
    """`find_master`, when a macvlan as configured can be made on it.

    It may be down, as early at boot: the macvlan gets its carrier from it. Raises CniError `code`
    when there is none, it cannot have macvlans, or its MTU is smaller than `mtu`.
    """
    where = "in the container" if config.in_container else "on the host"
    master = find_master(sock, config)
    if master is None:
        if config.master:
            raise CniError(code, f"master {config.master!r} is no interface {where}")
        raise CniError(code, f"no default route {where} to find the master by", "set `master`")
    if master.type != _ETHERNET or master.flags & IFF_LOOPBACK:
        raise CniError(code, f"master {master.name} is no Ethernet interface")
    if config.mtu > master.mtu:
        raise CniError(code, f"invalid MTU {config.mtu}, must be [0, master MTU({master.mtu})]")
    return master
