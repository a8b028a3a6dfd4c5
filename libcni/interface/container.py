# SPDX-License-Identifier: Apache-2.0
"""The container's end: its sysctls, addresses and routes, inside its namespace."""

from __future__ import annotations

from errno import EEXIST, ENOENT

from libcni import sysctl
from libcni.inet import Prefix, pton
from libcni.netlink.addr import new_address
from libcni.netlink.link import set_inet, set_link
from libcni.netlink.route import APPEND, RT_SCOPE_LINK, RT_TABLE_MAIN, new_route
from libcni.netlink.socket import Socket
from libcni.netns import Inside, Namespace
from libcni.types.errors import KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.codec import Message
    from libcni.types.result import Result, Route

#: Seconds that duplicate address detection may take, as with Go, and between looks at it.
_DAD_TIMEOUT, _DAD_PAUSE = 5.0, 0.02


def configure(
    namespace: Namespace,
    ifname: str,
    index: int,
    result: Result | None,
    *,
    up: bool = True,
    dad: bool = False,
    loops: bool = False,
) -> Socket:
    """Set the container's interface up, with the addresses and routes of `result` if given.

    up: False leaves it as it is. dad: do duplicate address detection, and wait for it. loops:
    what the interface sends may come back to it. Needs no undoing: all of it vanishes with the
    interface. Returns a socket of the container's namespace. Raises CniError 102.
    """
    with Inside(namespace):
        sock = Socket()
        if result is not None:
            prepare(ifname, any(":" in ip.address for ip in result.ips), dad, loops)
    messages: list[Message] = []
    routes = 0
    if result is not None:
        for ip in result.ips:
            messages.append(new_address(index, Prefix.parse(ip.address), nodad=not dad))
        routes = len(result.routes)
        # See `announce`.
        messages.append(set_inet(index=index, arp_notify=True))
    if up:
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
    if dad and result is not None:
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


def next_hop(route: Route, result: Result) -> str:
    """The gateway of a route: its own, or the first of its family; "" for an on-link route."""
    if route.gw or (route.scope or 0) >= RT_SCOPE_LINK:
        return route.gw
    version6 = ":" in route.dst
    for ip in result.ips:
        if ip.gateway and (":" in ip.gateway) == version6:
            return ip.gateway
    return ""


def prepare(ifname: str, version6: bool, dad: bool = False, loops: bool = False) -> None:
    """Sysctls of an interface that is still down, so that they hold from its first frame on.

    version6: it gets IPv6 addresses. dad, loops: see `configure`. Acts on the namespace that the
    thread is in. Raises CniError 102.
    """
    if dad:
        sysctl.try_write(f"ipv6/conf/{ifname}/enhanced_dad", "1")
        sysctl.try_write(f"ipv6/conf/{ifname}/accept_dad", "1")
    elif version6 or loops:
        # Our addresses are unique, IPAM sees to that; detection would keep the link-local one,
        # which neighbour discovery uses, unusable for a second, and fails with hairpin mode.
        # Not without need: looking up a sysctl takes longer the more namespaces there are.
        sysctl.try_write(f"ipv6/conf/{ifname}/accept_dad", "0")
    if version6:
        for name in ("lo", ifname):
            try:
                off = sysctl.read(f"ipv6/conf/{name}/disable_ipv6") != "0"
            except OSError as error:
                if name == ifname and error.errno == ENOENT:
                    raise CniError(
                        KERNEL,
                        f"interface {ifname} cannot have IPv6 addresses",
                        "IPv6 needs an MTU of at least 1280, and a kernel that has it",
                    ) from error
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
