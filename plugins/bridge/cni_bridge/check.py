# SPDX-License-Identifier: Apache-2.0
"""CHECK: is everything that ADD made still there and as it was? And nothing else.

Objects of others (further addresses, routes, VLANs, ports) are not looked at. What the Go
plugins made passes too: their host interfaces have random names, which prevResult knows, and no
alias, which tells them from ours where we make more than they do.
"""

from __future__ import annotations

from cni_bridge.config import PVID, UNTAGGED, load
from libcni.inet import Prefix, pton
from libcni.interface.verify import (
    addresses_of,
    check_addresses,
    check_mac,
    check_mtu,
    check_routes,
    check_settings,
    container_entry,
    differs,
    require_device,
)
from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import Link, dump_links, find_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.skel.request import Request
    from libcni.types.result import Interface, IPConfig, Result


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
    index, mine = container_entry(request, result)
    bridge = _check_bridge(sock, config, result)
    container = require_device(inside, request, "veth")
    check_settings(request, mine, config.mtu, container, up=config.container_interface)
    host = _check_host(sock, request, config, result, container, bridge)
    if config.mtu:
        _check_bridge_mtu(sock, bridge, result)
    ips = addresses_of(result, index)
    if config.ipam:
        check_addresses(inside, request.ifname, container, ips)
        check_routes(inside, request.ifname, container, result, ips, bool(host.alias))
        if config.is_gateway:
            _check_gateway(sock, config, result, bridge, ips)
    if config.masquerade and ips:
        from libcni import ipmasq

        addresses = [ip.address for ip in ips]
        ipmasq.check(request.attachment, addresses, config.masquerade_backend)
    if config.spoof_check:
        from cni_bridge import spoofcheck

        spoofcheck.check(request.attachment, host.name, mine.mac or container.mac)


def _check_bridge(sock: Socket, config: Config, result: Result) -> Link:
    bridge = find_link(sock, config.bridge)
    if bridge is None:
        raise differs(f"bridge {config.bridge}", "a bridge", "nothing")
    if bridge.kind != "bridge":
        raise differs(f"bridge {config.bridge}", "a bridge", f"a {bridge.kind or 'plain'} device")
    for interface in result.interfaces:
        if interface.name == config.bridge and not interface.sandbox and interface.mac:
            check_mac(f"bridge {config.bridge}", interface.mac, bridge.mac)
    if not bridge.is_up:
        raise differs(f"bridge {config.bridge}", "up", "down")
    if config.promiscuous and not bridge.is_promiscuous:
        raise differs(f"promiscuous mode of bridge {config.bridge}", "on", "off")
    # Not VLAN filtering: ADD switches it on with a bridge that it makes, and leaves one that is
    # there as it is, as the Go plugins do.
    return bridge


def _check_bridge_mtu(sock: Socket, bridge: Link, result: Result) -> None:
    """Raise CniError 103 for an MTU that somebody has set since ADD, if prevResult has that.

    Unless it is set, the kernel makes it the smallest of the ports', which come and go.
    """
    for interface in result.interfaces:
        if interface.name != bridge.name or interface.sandbox or interface.mtu == bridge.mtu:
            continue
        ports = dump_links(sock, master=bridge.index)
        if bridge.mtu != min([port.mtu for port in ports], default=0):
            check_mtu(f"bridge {bridge.name}", interface.mtu, bridge.mtu)


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
        check_mac(what, entry.mac, link.mac)
    if link.master != bridge.index:
        found = find_link(sock, index=link.master) if link.master else None
        raise differs(f"master of {what}", bridge.name, "none" if found is None else found.name)
    if not link.is_up:
        raise differs(what, "up", "down")
    check_mtu(what, entry.mtu or config.mtu, link.mtu)
    if config.hairpin and not link.hairpin:
        raise differs(f"hairpin mode of {what}", "on", "off")
    if config.isolated and not link.isolated:
        raise differs(f"isolation of {what}", "on", "off")
    if config.filters_vlans:
        _check_vlans(sock, config.vlans(), link)
    return link


def _check_vlans(sock: Socket, wanted: dict[int, int], link: Link) -> None:
    from libcni.netlink.vlan import dump_vlans

    found = dump_vlans(sock, link.index)
    for vlan, flags in wanted.items():
        what = f"VLAN {vlan} of host interface {link.name}"
        if vlan not in found:
            raise differs(what, "a member", "none")
        if found[vlan] != flags:
            raise differs(
                what,
                "untagged (PVID)" if flags else "tagged",
                "untagged (PVID)" if found[vlan] else "tagged",
            )


def _check_vlan_gateway(sock: Socket, config: Config, result: Result, bridge: Link) -> Link:
    """The VLAN's gateway, whose other end is a port in that VLAN."""
    name = config.vlan_gateway
    what = f"gateway {name} of VLAN {config.vlan}"
    link = find_link(sock, name)
    if link is None or link.kind != "veth" or not link.is_up:
        state = "nothing"
        if link is not None:
            state = "down" if link.kind == "veth" else f"a {link.kind or 'plain'} device"
        raise differs(what, "a veth that is up", state)
    for interface in result.interfaces:
        if interface.name == name and not interface.sandbox and interface.mac:
            check_mac(what, interface.mac, link.mac)
    port = find_link(sock, index=link.peer)
    if port is None or port.master != bridge.index:
        raise differs(f"other end of {what}", f"a port of {bridge.name}", "none")
    if not port.is_up:
        raise differs(f"port {port.name} of {what}", "up", "down")
    if bridge.vlan_filtering:
        _check_vlans(sock, {config.vlan: PVID | UNTAGGED}, port)
    return link


def _check_gateway(
    sock: Socket, config: Config, result: Result, bridge: Link, ips: list[IPConfig]
) -> None:
    """The gateways' addresses on the bridge or the VLAN's gateway, and forwarding."""
    from cni_bridge.gateway import FORWARDING
    from libcni import sysctl

    link = _check_vlan_gateway(sock, config, result, bridge) if config.vlan else bridge
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
