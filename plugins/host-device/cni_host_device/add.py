# SPDX-License-Identifier: Apache-2.0
"""ADD: move the device, give it addresses and routes if IPAM has any, set it up."""

from __future__ import annotations

from cni_host_device.find import Config, find_device, is_userspace, refuse_loopback
from cni_host_device.move import inside_of, move_in
from libcni.interface.container import configure
from libcni.interface.ipam import obtain
from libcni.interface.mtu import require_ipv6_mtu
from libcni.interface.sole import require_free_name
from libcni.interrupt import checkpoint
from libcni.netlink.link import Link, get_link
from libcni.netlink.socket import Socket
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError
from libcni.types.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Result


def add(request: Request) -> Result:
    """Attach the container. Leaves everything as it was when it fails (CniError)."""
    config = Config(request.config)
    namespace = request.netns()
    if is_userspace(config):
        result = obtain(request)
        entry = Interface(request.ifname, sandbox=request.netns_path, pci_id=config.pci_id)
    else:
        sock, inside = Socket(), inside_of(namespace)
        require_free_name(inside, request)
        device = find_device(sock, config)
        if device is None:
            raise _missing(config)
        refuse_loopback(device, INVALID_NETWORK_CONFIG)
        # Before the move, by which the device loses its addresses and routes.
        result = obtain(request)
        require_ipv6_mtu([ip.address for ip in result.ips], device.mtu, device.name)
        link = move_in(sock, inside, request, device)
        if link is None:
            raise _missing(config)
        configure(namespace, request.ifname, link.index, result if result.ips else None)
        link = Link(inside.request(get_link(index=link.index))[0])
        entry = Interface(link.name, link.mac, link.mtu, request.netns_path, pci_id=config.pci_id)
    checkpoint()
    result.interfaces = [entry]
    if config.dns:
        from libcni.types.parsing import parse_dns

        result.dns = parse_dns(config.dns)
    return result


def _missing(config: Config) -> CniError:
    return CniError(
        INVALID_NETWORK_CONFIG,
        f"{config.wanted} is not on the host",
        "has another container got it?",
    )
