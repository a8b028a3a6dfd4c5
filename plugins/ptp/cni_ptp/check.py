# SPDX-License-Identifier: Apache-2.0
"""CHECK: both ends, addresses, routes on both sides, masquerade; and nothing else."""

from __future__ import annotations

from cni_ptp.add import FORWARDING
from cni_ptp.config import Config
from cni_ptp.pair import gateway_of
from libcni import sysctl
from libcni.inet import Prefix
from libcni.interface.ipam import compare
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
from libcni.netlink.link import Link, find_link
from libcni.netlink.route import dump_routes
from libcni.netlink.socket import Socket
from libcni.netns import Inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import IPConfig, Result


def check(request: Request) -> None:
    """Raise CniError 103 naming the object, what was expected and what was found."""
    config = Config(request.config)
    result = request.require_prev_result()
    compare(request)
    index, mine = container_entry(request, result)
    ips = addresses_of(result, index)
    sock = Socket()
    with Inside(request.netns()):
        inside = Socket()
    container = require_device(inside, request, "veth")
    check_settings(request, mine, config.mtu, container)
    host = _check_host(sock, request, result, container, config.mtu)
    check_addresses(inside, request.ifname, container, ips)
    check_routes(inside, request.ifname, container, result, ips, bool(host.alias))
    for ip in ips:
        _check_gateway(inside, request.ifname, container, ip)
        _check_host_side(sock, host, ip)
    if config.masquerade and ips:
        from libcni import ipmasq

        addresses = [ip.address for ip in ips]
        ipmasq.check(request.attachment, addresses, config.masquerade_backend)


def _check_host(sock: Socket, request: Request, result: Result, container: Link, mtu: int) -> Link:
    entry = next((i for i in result.interfaces if not i.sandbox), None)
    expected = entry.name if entry is not None else "a veth"
    what = f"host interface {expected}"
    link = find_link(sock, index=container.peer)
    if link is None or link.kind != "veth" or link.peer != container.index:
        raise differs(what, f"the peer of {request.ifname}", "nothing")
    if entry is not None and entry.name != link.name:
        raise differs(f"peer of {request.ifname}", expected, link.name)
    ours = link.name in request.attachment.host_veth_names()
    if link.alias != request.attachment.alias and (ours or link.alias):
        raise differs(f"alias of {what}", request.attachment.alias, link.alias or "none")
    if entry is not None and entry.mac:
        check_mac(what, entry.mac, link.mac)
    check_mtu(what, (entry.mtu if entry is not None else 0) or mtu, link.mtu)
    if not link.is_up:
        raise differs(what, "up", "down")
    return link


def _check_gateway(sock: Socket, ifname: str, link: Link, ip: IPConfig) -> None:
    gateway = gateway_of(ip)
    wanted = Prefix(gateway, len(gateway) * 8)
    # In whichever table: a later plugin (sbr) may have moved it.
    routes = dump_routes(sock, wanted.family, link.index, table=0)
    if not any(route.dst == wanted for route in routes):
        raise differs(f"route to the gateway {ip.gateway}", f"one through {ifname}", "none")


def _check_host_side(sock: Socket, host: Link, ip: IPConfig) -> None:
    gateway, address = gateway_of(ip), Prefix.parse(ip.address)
    own = Prefix(gateway, len(gateway) * 8)
    present = [found.prefix for found in dump_addresses(sock, host.index)]
    if own not in present:
        others = ", ".join(p.text() for p in present if p.family == own.family)
        raise differs(f"addresses of {host.name}", own.text(), others or "none")
    wanted = Prefix(address.packed, address.bits)
    if not any(route.dst == wanted for route in dump_routes(sock, wanted.family, host.index)):
        raise differs(f"route to {wanted.text()}", f"one through {host.name}", "none")
    name = FORWARDING[len(gateway)]
    try:
        value = sysctl.read(name)
    except OSError:
        value = "nothing"
    if value != "1":
        raise differs(f"sysctl net/{name}", 1, value)
