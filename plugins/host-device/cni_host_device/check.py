# SPDX-License-Identifier: Apache-2.0
"""CHECK: the device, its marks, addresses and routes; and nothing else."""

from __future__ import annotations

from cni_host_device.find import Config, is_userspace
from cni_host_device.mark import find_marked
from cni_host_device.move import inside_of
from libcni.interface.ipam import compare
from libcni.interface.verify import (
    addresses_of,
    check_addresses,
    check_mac,
    check_mtu,
    check_routes,
    container_entry,
    differs,
)
from libcni.netlink.link import find_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 naming the object, what was expected and what was found."""
    config = Config(request.config)
    result = request.require_prev_result()
    compare(request)
    index, mine = container_entry(request, result)
    if is_userspace(config):
        return
    ips = addresses_of(result, index)
    inside = inside_of(request.netns())
    what = f"container interface {request.ifname}"
    link = find_link(inside, request.ifname)
    if link is None:
        raise differs(what, f"a device in {request.netns_path}", "nothing")
    if mine.mac:
        check_mac(what, mine.mac, link.mac)
    check_mtu(what, mine.mtu, link.mtu)
    # By it Go's DEL gives the device its name back.
    if not link.alias or not _is_of(config.device, inside, link):
        raise differs(f"alias of {what}", config.device or "its name", link.alias or "none")
    marked = find_marked(inside, request.attachment)
    if marked is not None and marked.index != link.index:
        raise differs(what, "the device of this attachment", f"another; it is {marked.name}")
    if not link.is_up:
        raise differs(what, "up", "down")
    check_addresses(inside, request.ifname, link, ips)
    check_routes(inside, request.ifname, link, result, ips, marked is not None)


def _is_of(device: str, inside: Socket, link: Link) -> bool:
    """False when the alias says that the link was another device; `device` may be a name more."""
    if not device or device == link.alias:
        return True
    other = find_link(inside, device)
    return other is not None and other.index == link.index
