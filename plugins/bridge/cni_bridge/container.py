# SPDX-License-Identifier: Apache-2.0
"""The container's end: its sysctls, addresses and routes, inside its namespace."""

from __future__ import annotations

from errno import EEXIST

from libcni import sysctl
from libcni.inet import Prefix, pton
from libcni.netlink.addr import new_address
from libcni.netlink.link import set_inet, set_link
from libcni.netlink.route import APPEND, RT_TABLE_MAIN, new_route
from libcni.netlink.socket import Socket
from libcni.netns import Inside, Namespace
from libcni.types.errors import KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.netlink.codec import Message
    from libcni.types.result import Result

#: Seconds that duplicate address detection may take, as with Go, and between looks at it.
_DAD_TIMEOUT, _DAD_PAUSE = 5.0, 0.02


def configure(
    namespace: Namespace, ifname: str, index: int, result: Result | None, config: Config
) -> Socket:
    """Set the container's interface up, with the addresses and routes of `result` if given.

    Needs no undoing: all of it vanishes with the interface. Returns a socket of the container's
    namespace. Raises CniError 102.
    """
    with Inside(namespace):
        sock = Socket()
        if result is not None:
            _set_sysctls(ifname, config, any(":" in ip.address for ip in result.ips))
    messages: list[Message] = []
    routes = 0
    if result is not None:
        for ip in result.ips:
            messages.append(new_address(index, Prefix.parse(ip.address), nodad=not config.dad))
        routes = len(result.routes)
        # See `announce`.
        messages.append(set_inet(index=index, arp_notify=True))
    if config.container_interface:
        messages.append(set_link(index=index, up=True))
    if routes and result is not None:
        messages += route_messages(result, index)
    if messages:
        replies = sock.batch(messages)
        first_route = len(messages) - routes
        for position, reply in enumerate(replies):
            if position < first_route:
                reply.check()
            else:
                reply.check(EEXIST)  # IPAM named a route twice
    if config.dad and result is not None:
        _await_addresses(sock, ifname, index)
    return sock


def announce(sock: Socket, index: int, mac: str) -> None:
    """Tell the neighbours where the container's addresses are now.

    The kernel announces (arp_notify, ndisc_notify) when the interface comes up, but the bridge
    drops that, as its port does not forward yet; and again when a MAC address is set, even to
    what it was.
    """
    sock.batch([set_link(index=index, mac=mac)])


def route_messages(result: Result, index: int) -> list[Message]:
    """A request for each route of the result, in its order."""
    from cni_bridge.addressing import next_hop

    messages = []
    for route in result.routes:
        gateway = next_hop(route, result)
        message = new_route(
            Prefix.parse(route.dst).network(),
            index,
            pton(gateway) if gateway else b"",
            mtu=route.mtu,
            advmss=route.advmss,
            priority=route.priority,
            table=route.table or RT_TABLE_MAIN,
            scope=route.scope,
            mode=APPEND,
        )
        message.doing = f"failed to add route '{route.dst} via {gateway or 'no gateway'}'"
        messages.append(message)
    return messages


def _set_sysctls(ifname: str, config: Config, version6: bool) -> None:
    """Before the interface is up, so that they hold from the first frame on."""
    if config.dad:
        sysctl.try_write(f"ipv6/conf/{ifname}/enhanced_dad", "1")
        sysctl.try_write(f"ipv6/conf/{ifname}/accept_dad", "1")
    elif version6 or config.hairpin:
        # Our addresses are unique, IPAM sees to that; detection would keep the link-local one,
        # which neighbour discovery uses, unusable for a second, and fails with hairpin mode.
        # Not without need: looking up a sysctl takes longer the more namespaces there are.
        sysctl.try_write(f"ipv6/conf/{ifname}/accept_dad", "0")
    if version6:
        for name in ("lo", ifname):
            try:
                off = sysctl.read(f"ipv6/conf/{name}/disable_ipv6") != "0"
            except OSError:
                continue
            if off:
                sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "0")
        sysctl.try_write(f"ipv6/conf/{ifname}/ndisc_notify", "1")
        sysctl.write(f"ipv6/conf/{ifname}/keep_addr_on_down", "1")


def _await_addresses(sock: Socket, ifname: str, index: int) -> None:
    """Wait for duplicate address detection. Raises CniError 102 if it fails or does not end."""
    from _socket import AF_INET6
    from time import monotonic, sleep

    from libcni.interrupt import waiting
    from libcni.netlink.addr import dump_addresses

    until = monotonic() + _DAD_TIMEOUT
    while True:
        pending = ""
        for address in dump_addresses(sock, index, AF_INET6):
            if address.is_duplicate:
                raise CniError(
                    KERNEL,
                    f"IPv6 address {address.prefix.text()} of {ifname} is in use elsewhere",
                    "duplicate address detection (enabledad) found another owner",
                )
            if address.is_tentative:
                pending = address.prefix.text()
        if not pending:
            return
        if monotonic() > until:
            raise CniError(KERNEL, f"IPv6 address {pending} of {ifname} is still tentative")
        with waiting():
            sleep(_DAD_PAUSE)
