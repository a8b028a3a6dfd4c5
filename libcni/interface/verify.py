# SPDX-License-Identifier: Apache-2.0
"""CHECK of a container's interface: what prevResult says, held against the kernel."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from libcni.inet import Prefix, pton
from libcni.interface.container import next_hop
from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import find_link
from libcni.netlink.route import RT_TABLE_MAIN, dump_routes
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.netlink.route import Route as KernelRoute
    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request
    from libcni.types.result import Interface, IPConfig, Result, Route


def differs(what: str, expected: object, found: object) -> CniError:
    """A CniError 103."""
    return CniError(CHECK_FAILED, f"{what}: expected {expected}, found {found}")


def container_entry(request: Request, result: Result) -> tuple[int, Interface]:
    """The container's interface in prevResult, and its index there. Raises CniError 103."""
    for index, interface in enumerate(result.interfaces):
        if interface.name == request.ifname and interface.sandbox:
            if interface.sandbox != request.netns_path:
                raise differs(
                    f"sandbox of {request.ifname} in prevResult",
                    request.netns_path,
                    interface.sandbox,
                )
            return index, interface
    raise differs("prevResult", f"an interface {request.ifname} in the container", "none")


def addresses_of(result: Result, index: int) -> list[IPConfig]:
    """The addresses of an interface of prevResult, and those of no interface in particular."""
    return [ip for ip in result.ips if ip.interface in (None, index)]


def require_device(sock: Socket, request: Request, kind: str, word: str = "") -> Link:
    """The container's interface. Raises CniError 103 when there is none of this kind.

    sock: of the container's namespace. kind: as the kernel has it; word: as users have it, where
    that is another.
    """
    what = f"container interface {request.ifname}"
    word = word or kind
    link = find_link(sock, request.ifname)
    if link is None:
        raise differs(what, f"a {word} in {request.netns_path}", "nothing")
    if link.kind != kind:
        raise differs(what, f"a {word}", f"a {link.kind or 'plain'} device")
    return link


def check_settings(
    request: Request, mine: Interface, mtu: int, link: Link, up: bool = True
) -> None:
    """Raise CniError 103 when MAC address, MTU or state are not as ADD left them.

    mine: the interface's entry in prevResult. mtu: bytes, which the entry's overrides; 0 expects
    none. up: whether it has to be.
    """
    what = f"container interface {request.ifname}"
    if mine.mac:
        check_mac(what, mine.mac, link.mac)
    check_mtu(what, mine.mtu or mtu, link.mtu)
    if up and not link.is_up:
        raise differs(what, "up", "down")


def check_alias(request: Request, link: Link) -> None:
    """Raise CniError 103 when the interface bears another's alias; the Go plugins' has none."""
    if link.alias and link.alias != request.attachment.alias:
        what = f"alias of container interface {request.ifname}"
        raise differs(what, request.attachment.alias, link.alias)


def check_mac(what: str, expected: str, found: str) -> None:
    """Raise CniError 103 for another MAC address."""
    if expected.lower() != found:
        raise differs(f"MAC address of {what}", expected.lower(), found)


def check_mtu(what: str, expected: int, found: int) -> None:
    """Raise CniError 103 for another MTU than one that is expected, bytes; 0 expects none."""
    if expected and expected != found:
        raise differs(f"MTU of {what}", expected, found)


def check_addresses(sock: Socket, ifname: str, link: Link, ips: list[IPConfig]) -> None:
    """Raise CniError 103 for an address that the interface has not, or cannot use."""
    present = dump_addresses(sock, link.index)
    prefixes = [address.prefix for address in present]
    for ip in ips:
        prefix = Prefix.parse(ip.address)
        if prefix not in prefixes:
            others = ", ".join(p.text() for p in prefixes if p.family == prefix.family)
            family = "IPv6" if ":" in ip.address else "IPv4"
            raise differs(f"{family} addresses of {ifname}", ip.address, others or "none")
        address = present[prefixes.index(prefix)]
        if address.is_duplicate:
            raise differs(f"address {ip.address} of {ifname}", "usable", "a duplicate")


def check_routes(
    sock: Socket,
    ifname: str,
    link: Link,
    result: Result,
    ips: list[IPConfig],
    ours: bool,
) -> None:
    """Raise CniError 103 for a route of the result, or to a subnet, that is not there.

    ours: the attachment was not made by a Go plugin.
    """
    # No other interface can have them.
    alone = sum(1 for interface in result.interfaces if interface.sandbox) == 1
    kernel: dict[int, list[KernelRoute]] = {
        family: dump_routes(sock, family, table=0) for family in (AF_INET, AF_INET6)
    }
    for ip in ips:
        prefix = Prefix.parse(ip.address)
        subnet = prefix.network()
        if prefix.length < prefix.bits and not any(
            route.dst == subnet and _through(route, link.index) for route in kernel[prefix.family]
        ):
            raise differs(f"route to {subnet.text()}", f"one through {ifname}", "none")
    for wanted in result.routes:
        destination = Prefix.parse(wanted.dst).network()
        gateway = next_hop(wanted, result)
        hop = pton(gateway) if gateway else b""
        table = wanted.table or RT_TABLE_MAIN
        via = f" via {gateway}" if gateway else ""
        what = f"route {destination.text()}{via} in table {table}"
        near = [
            route
            for route in kernel[destination.family]
            if route.dst == destination
            and route.table == table
            and any(
                address == hop and (not alone or oif == link.index)
                for address, oif in route.nexthops
            )
        ]
        if not near:
            raise differs(what, f"one through {ifname}", "none")
        complaints = [_mismatch(wanted, route, ours) for route in near]
        if all(complaints):
            name, expected, found = complaints[0]
            raise differs(f"{name} of {what}", expected, found)


def _through(route: KernelRoute, index: int) -> bool:
    return any(oif == index for _, oif in route.nexthops)


def _mismatch(wanted: Route, route: KernelRoute, ours: bool) -> tuple[object, ...]:
    """The first field that differs: (name, expected, found); empty when none does."""
    fields = [("priority", wanted.priority, route.priority)]
    if ours:  # Go ignores these two
        fields += [("mtu", wanted.mtu, route.mtu), ("advmss", wanted.advmss, route.advmss)]
    if wanted.scope and ":" not in wanted.dst:
        fields.append(("scope", wanted.scope, route.scope))
    for name, expected, found in fields:
        if expected and expected != found:
            return name, expected, found
    return ()
