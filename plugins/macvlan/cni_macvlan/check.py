# SPDX-License-Identifier: Apache-2.0
"""CHECK: the interface, what it sits on, addresses and routes; and nothing else."""

from __future__ import annotations

import libcni.netlink.tables.kinds  # noqa: F401  (knows the kind)
from cni_macvlan.config import MODES, Config
from cni_macvlan.master import find_master
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
    _check_master(inside if config.in_container else Socket(), config, link)
    check_addresses(inside, request.ifname, link, ips)
    check_routes(inside, request.ifname, link, result, ips, bool(link.alias))


def _check_device(inside: Socket, request: Request, mine: Interface, config: Config) -> Link:
    what = f"container interface {request.ifname}"
    link = require_device(inside, request, "macvlan")
    check_alias(request, link)
    number = link.info.get("IFLA_MACVLAN_MODE")
    if number != MODES[config.mode]:
        names = {value: key for key, value in MODES.items()}
        raise differs(f"mode of {what}", config.mode, names.get(number or 0, number))
    if config.queue and config.queue != link.info.get("IFLA_MACVLAN_BC_QUEUE_LEN"):
        found = link.info.get("IFLA_MACVLAN_BC_QUEUE_LEN")
        raise differs(f"bcqueuelen of {what}", config.queue, found)
    check_settings(request, mine, config.mtu, link)
    return link


def _check_master(sock: Socket, config: Config, link: Link) -> None:
    """What `master` names is still under the interface. Without it, something is.

    The default route may have changed since ADD, which is no fault of the attachment's.
    """
    if (link.link_netnsid < 0) != config.in_container:
        where = "in the container" if config.in_container else "on the host"
        raise differs(f"master of {link.name}", f"one {where}", "one elsewhere")
    under = find_link(sock, index=link.peer)
    if under is None:
        raise differs(f"master of {link.name}", config.master or "an interface", "none")
    if not config.master:
        return
    master = find_master(sock, config)
    # A macvlan on a macvlan sits on what is under that.
    if master is None or under.index not in (
        master.index,
        master.peer if master.kind == "macvlan" else -1,
    ):
        raise differs(f"master of {link.name}", config.master, under.name)
