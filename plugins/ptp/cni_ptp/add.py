# SPDX-License-Identifier: Apache-2.0
"""ADD: a veth pair, addresses, routes on both sides, masquerade."""

from __future__ import annotations

from cni_ptp.config import Config
from cni_ptp.pair import configure_container, connect_host, create_pair, gateway_of
from libcni import sysctl
from libcni.interface.ipam import no_address
from libcni.interface.mtu import require_ipv6_mtu
from libcni.interrupt import checkpoint
from libcni.netlink.link import Link, get_link
from libcni.netlink.socket import Socket
from libcni.types.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Result

#: By length of the address in bytes.
FORWARDING = {4: "ipv4/ip_forward", 16: "ipv6/conf/all/forwarding"}
#: Index of the container's interface in the result, after the host's.
CONTAINER = 1


def add(request: Request) -> Result:
    """Attach the container. Leaves everything as it was when it fails (CniError)."""
    config = Config(request.config)
    sock = Socket()
    # Before IPAM: that the interface exists already must cost a live attachment nothing.
    pair = create_pair(sock, request, config.mtu)
    from libcni.invoke.delegate import delegate_add

    result = delegate_add(request, config.ipam)
    if not result.ips:
        raise no_address(config.ipam)
    require_ipv6_mtu([ip.address for ip in result.ips], pair.host.mtu)
    sizes = {len(gateway_of(ip)) for ip in result.ips}
    for ip in result.ips:
        ip.interface = CONTAINER
    for size in sizes:
        if sysctl.write_if_differs(FORWARDING[size], "1"):
            request.undo.push(_stop_forwarding, sock, FORWARDING[size], pair.host.index)
    configure_container(request.netns(), pair.index, result)
    connect_host(sock, pair.host, result)
    if config.masquerade:
        from libcni import ipmasq

        addresses = [ip.address for ip in result.ips]
        request.undo.push(ipmasq.undo, request.attachment, addresses)
        ipmasq.ensure(request.attachment, addresses, config.masquerade_backend)
    checkpoint()
    host = Link(sock.request(get_link(index=pair.host.index))[0])
    result.interfaces = [
        Interface(host.name, host.mac, host.mtu),
        Interface(request.ifname, pair.mac, host.mtu, request.netns_path),
    ]
    if config.dns:
        from libcni.types.parsing import parse_dns

        result.dns = parse_dns(config.dns)
    return result


def _stop_forwarding(sock: Socket, name: str, index: int) -> None:
    """Undo: forwarding off again, unless another container may rely on it by now."""
    from libcni.netlink.link import dump_links

    if all(link.index == index for link in dump_links(sock, kind="veth")):
        sysctl.write(name, "0")
