# SPDX-License-Identifier: Apache-2.0
"""CHECK: is everything that ADD made still there and as it was? And nothing else.

Objects of others (further addresses, routes, VLANs, ports) are not looked at. What the Go
plugins made passes too: their host interfaces have random names, which prevResult knows, and no
alias, which tells them from ours where we make more than they do.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from cni_bridge.addressing import next_hop
from cni_bridge.config import load
from libcni.inet import Prefix, pton
from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import Link, find_link
from libcni.netlink.route import RT_TABLE_MAIN, dump_routes
from libcni.netlink.socket import Socket
from libcni.netns import Inside
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.netlink.route import Route as KernelRoute
    from libcni.skel.request import Request
    from libcni.types.result import Interface, IPConfig, Result, Route


def check(request: Request) -> None:
    """Raise CniError 103 naming the object, what was expected and what was found."""
    config = load(request)
    result = request.require_prev_result()
    if config.ipam:
        from libcni.invoke.delegate import delegate_check

        delegate_check(request, config.ipam)
    sock = Socket()
    with Inside(request.netns()):
        inside = Socket()
    index, mine = _container_entry(request, result)
    bridge = _check_bridge(sock, config, result)
    container = _check_container(inside, request, config, mine)
    host = _check_host(sock, request, config, result, container, bridge)
    ips = [ip for ip in result.ips if ip.interface in (None, index)]
    if config.ipam:
        _check_addresses(inside, request.ifname, container, ips)
        alone = sum(1 for interface in result.interfaces if interface.sandbox) == 1
        _check_routes(inside, request.ifname, container, result, ips, alone, bool(host.alias))
        if config.is_gateway:
            _check_gateway(sock, config, bridge, ips)
    if config.masquerade and ips:
        from libcni import ipmasq

        addresses = [ip.address for ip in ips]
        ipmasq.check(request.attachment, addresses, config.masquerade_backend)
    if config.spoof_check:
        from cni_bridge import spoofcheck

        spoofcheck.check(request.attachment, host.name, mine.mac or container.mac)


def differs(what: str, expected: object, found: object) -> CniError:
    """A CniError 103."""
    return CniError(CHECK_FAILED, f"{what}: expected {expected}, found {found}")


def _container_entry(request: Request, result: Result) -> tuple[int, Interface]:
    """The container's interface in prevResult, and its index there."""
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


def _check_bridge(sock: Socket, config: Config, result: Result) -> Link:
    bridge = find_link(sock, config.bridge)
    if bridge is None:
        raise differs(f"bridge {config.bridge}", "a bridge", "nothing")
    if bridge.kind != "bridge":
        raise differs(f"bridge {config.bridge}", "a bridge", f"a {bridge.kind or 'plain'} device")
    for interface in result.interfaces:
        if interface.name == config.bridge and not interface.sandbox and interface.mac:
            _check_mac(f"bridge {config.bridge}", interface.mac, bridge.mac)
    if not bridge.is_up:
        raise differs(f"bridge {config.bridge}", "up", "down")
    if config.promiscuous and not bridge.is_promiscuous:
        raise differs(f"promiscuous mode of bridge {config.bridge}", "on", "off")
    # Not VLAN filtering: ADD switches it on with a bridge that it makes, and leaves one that is
    # there as it is, as the Go plugins do.
    return bridge


def _check_mac(what: str, expected: str, found: str) -> None:
    if expected.lower() != found:
        raise differs(f"MAC address of {what}", expected.lower(), found)


def _check_mtu(what: str, expected: int, found: int) -> None:
    if expected and expected != found:
        raise differs(f"MTU of {what}", expected, found)


def _check_container(sock: Socket, request: Request, config: Config, mine: Interface) -> Link:
    what = f"container interface {request.ifname}"
    link = find_link(sock, request.ifname)
    if link is None:
        raise differs(what, f"a veth in {request.netns_path}", "nothing")
    if link.kind != "veth":
        raise differs(what, "a veth", f"a {link.kind or 'plain'} device")
    if mine.mac:
        _check_mac(what, mine.mac, link.mac)
    _check_mtu(what, mine.mtu or config.mtu, link.mtu)
    if config.container_interface and not link.is_up:
        raise differs(what, "up", "down")
    return link


def _check_host(
    sock: Socket,
    request: Request,
    config: Config,
    result: Result,
    container: Link,
    bridge: Link,
) -> Link:
    """The host end: the container's peer, a port of the bridge, with the port's settings."""
    link = find_link(sock, index=container.peer)
    names = request.attachment.host_veth_names()
    entry: Interface | None = None
    for interface in result.interfaces:
        if interface.sandbox or interface.name == config.bridge:
            continue
        if interface.name in names or (link is not None and interface.name == link.name):
            entry = interface
    expected = entry.name if entry is not None else "a veth"
    what = f"host interface {expected}"
    if link is None or link.kind != "veth" or link.peer != container.index:
        raise differs(what, f"the peer of {request.ifname}", "nothing")
    if entry is None or entry.name != link.name:
        raise differs(f"peer of {request.ifname}", expected, link.name)
    if link.alias and link.alias != request.attachment.alias:
        raise differs(f"alias of {what}", request.attachment.alias, link.alias)
    if not link.alias and link.name in names:
        raise differs(f"alias of {what}", request.attachment.alias, "none")
    if entry.mac:
        _check_mac(what, entry.mac, link.mac)
    if link.master != bridge.index:
        found = find_link(sock, index=link.master) if link.master else None
        raise differs(f"master of {what}", bridge.name, "none" if found is None else found.name)
    if not link.is_up:
        raise differs(what, "up", "down")
    _check_mtu(what, entry.mtu or config.mtu, link.mtu)
    if config.hairpin and not link.hairpin:
        raise differs(f"hairpin mode of {what}", "on", "off")
    if config.isolated and not link.isolated:
        raise differs(f"isolation of {what}", "on", "off")
    if config.filters_vlans:
        _check_vlans(sock, config, link)
    return link


def _check_vlans(sock: Socket, config: Config, link: Link) -> None:
    from libcni.netlink.vlan import dump_vlans

    found = dump_vlans(sock, link.index)
    for vlan, flags in config.vlans().items():
        what = f"VLAN {vlan} of host interface {link.name}"
        if vlan not in found:
            raise differs(what, "a member", "none")
        if found[vlan] != flags:
            raise differs(
                what,
                "untagged (PVID)" if flags else "tagged",
                "untagged (PVID)" if found[vlan] else "tagged",
            )


def _check_addresses(sock: Socket, ifname: str, link: Link, ips: list[IPConfig]) -> None:
    present = dump_addresses(sock, link.index)
    prefixes = [address.prefix for address in present]
    for ip in ips:
        prefix = Prefix.parse(ip.address)
        if prefix not in prefixes:
            others = ", ".join(p.text() for p in prefixes if p.family == prefix.family)
            raise differs(f"addresses of {ifname}", ip.address, others or "none")
        address = present[prefixes.index(prefix)]
        if address.is_duplicate:
            raise differs(f"address {ip.address} of {ifname}", "usable", "a duplicate")


def _check_routes(
    sock: Socket,
    ifname: str,
    link: Link,
    result: Result,
    ips: list[IPConfig],
    alone: bool,
    ours: bool,
) -> None:
    """Routes of the result and to the subnets. alone: no other interface can have them."""
    kernel: dict[int, list[KernelRoute]] = {
        family: dump_routes(sock, family, table=0) for family in (AF_INET, AF_INET6)
    }
    for ip in ips:
        prefix = Prefix.parse(ip.address)
        subnet = prefix.network()
        if prefix.length < prefix.bits - 1 and not any(
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


def _check_gateway(sock: Socket, config: Config, bridge: Link, ips: list[IPConfig]) -> None:
    """The gateways' addresses on the bridge or the VLAN's gateway, and forwarding."""
    from cni_bridge.gateway import FORWARDING
    from libcni import sysctl

    link = bridge
    if config.vlan:
        name = config.vlan_gateway
        found = find_link(sock, name)
        if found is None or found.kind != "veth" or not found.is_up:
            state = "nothing" if found is None else f"a {found.kind or 'plain'} device"
            raise differs(f"gateway {name} of VLAN {config.vlan}", "a veth that is up", state)
        link = found
    present = [address.prefix for address in dump_addresses(sock, link.index)]
    for ip in ips:
        if not ip.gateway:
            continue
        gateway = Prefix(pton(ip.gateway), Prefix.parse(ip.address).length)
        if gateway not in present:
            others = ", ".join(p.text() for p in present if p.family == gateway.family)
            raise differs(f"addresses of {link.name}", gateway.text(), others or "none")
        name = FORWARDING[len(gateway.packed)]
        try:
            value = sysctl.read(name)
        except OSError:
            value = "nothing"
        if value != "1":
            raise differs(f"sysctl net/{name}", 1, value)
