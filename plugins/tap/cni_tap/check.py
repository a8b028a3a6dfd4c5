# SPDX-License-Identifier: Apache-2.0
"""CHECK: the device, who may open it, its bridge, addresses and routes; and nothing else."""

from __future__ import annotations

from cni_tap.config import Config
from cni_tap.device import KIND, TAP, describe
from libcni.interface.ipam import compare
from libcni.interface.verify import (
    addresses_of,
    check_addresses,
    check_alias,
    check_routes,
    check_settings,
    container_entry,
    differs,
    require_device,
)
from libcni.netlink.link import Link, find_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Interface


def check(request: Request) -> None:
    """Raise CniError 103 naming the object, what was expected and what was found."""
    config = Config(request)
    result = request.require_prev_result()
    compare(request)
    index, mine = container_entry(request, result)
    ips = addresses_of(result, index)
    with Inside(request.netns()):
        inside = Socket()
    link = _check_device(inside, request, mine, config)
    check_addresses(inside, request.ifname, link, ips)
    check_routes(inside, request.ifname, link, result, ips, bool(link.alias))


def _check_device(inside: Socket, request: Request, mine: Interface, config: Config) -> Link:
    what = f"container interface {request.ifname}"
    link = require_device(inside, request, KIND, "tap")
    check_alias(request, link)
    found = describe(inside, link.index)
    if found.get("IFLA_TUN_TYPE") != TAP:
        raise differs(what, "a tap", "a tun")
    if not found.get("IFLA_TUN_PERSIST"):
        raise differs(what, "one that outlives the program that has it open", "one that does not")
    queues = bool(found.get("IFLA_TUN_MULTI_QUEUE"))
    if queues != config.multi_queue:
        raise differs(f"multiQueue of {what}", config.multi_queue, queues)
    for name, wanted in (("owner", config.owner), ("group", config.group)):
        number = found.get(f"IFLA_TUN_{name.upper()}")
        if wanted is not None and number != wanted:
            raise differs(f"{name} of {what}", wanted, "none" if number is None else number)
    if config.bridge:
        bridge = find_link(inside, index=link.master) if link.master else None
        if bridge is None or bridge.name != config.bridge:
            raise differs(f"bridge of {what}", config.bridge, bridge.name if bridge else "none")
    check_settings(request, mine, config.mtu, link)
    return link
