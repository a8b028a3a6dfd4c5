# SPDX-License-Identifier: Apache-2.0
"""ADD: a tap device in the container, with addresses and routes if IPAM gives any."""

from __future__ import annotations

from cni_tap.config import Config
from cni_tap.device import create_device
from libcni.interface.container import configure
from libcni.interface.ipam import obtain
from libcni.interface.mtu import require_ipv6_mtu
from libcni.interrupt import checkpoint
from libcni.netlink.link import Link, get_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside
from libcni.types.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Result


def add(request: Request) -> Result:
    """Attach the container. Leaves everything as it was when it fails (CniError)."""
    config = Config(request)
    with Inside(request.netns()):
        inside = Socket()
    link = create_device(inside, request, config)
    result = obtain(request)
    require_ipv6_mtu([ip.address for ip in result.ips], link.mtu)
    configure(request.netns(), request.ifname, link.index, result if result.ips else None)
    checkpoint()
    link = Link(inside.request(get_link(index=link.index))[0])
    result.interfaces = [Interface(link.name, link.mac, link.mtu, request.netns_path)]
    if config.dns:
        from libcni.types.parsing import parse_dns

        result.dns = parse_dns(config.dns)
    return result
