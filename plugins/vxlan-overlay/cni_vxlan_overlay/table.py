# SPDX-License-Identifier: Apache-2.0
"""The kernel's state of an overlay: read it, and change what differs, without an agent."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from errno import EEXIST, ENOENT, ESRCH

from cni_vxlan_overlay.fabric import ROUTE_PROTOCOL, Fabric
from libcni.inet import Prefix, ntop, pton
from libcni.netlink.fdb import delete_entry, dump_entries, new_entry
from libcni.netlink.neigh import (
    NUD_PERMANENT,
    delete_neighbour,
    dump_neighbours,
    new_neighbour,
)
from libcni.netlink.route import (
    EXCLUSIVE,
    REPLACE,
    RTM_NEWROUTE,
    RTNH_F_ONLINK,
    delete_route,
    dump_routes,
    new_route,
)
from libcni.netlink.socket import Socket
from libcni.types.errors import CONFLICT, CniError

#: IP6_RT_PRIO_USER of linux/ipv6_route.h: what no metric means there.
_IPV6_METRIC = 1024

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from libcni.netlink.codec import Message


def read_fabric(sock: Socket, devices: Mapping[str, int], networks: list[Prefix]) -> Fabric:
    """What is in the kernel of what we make: on `devices` (index by name), and direct routes.

    networks: of the overlay; a direct route of ours leads into one of them. Routes of others,
    and entries that the kernel learned by itself, are left out. Raises NetlinkError.
    """
    fabric = Fabric()
    names = {index: name for name, index in devices.items()}
    for name, index in devices.items():
        for entry in dump_entries(sock, index=index):
            if entry.dst and entry.state & NUD_PERMANENT:
                fabric.forwarding.add((name, entry.mac, ntop(entry.dst)))
        for family in (AF_INET, AF_INET6):
            for neighbour in dump_neighbours(sock, family, index=index):
                if neighbour.state & NUD_PERMANENT:
                    fabric.neighbours.add((name, ntop(neighbour.dst), neighbour.mac))
    for family in (AF_INET, AF_INET6):
        for route in dump_routes(sock, family):
            if route.protocol != ROUTE_PROTOCOL or not route.gw:
                continue
            if route.oif in names:
                fabric.routes.add((route.dst.text(), ntop(route.gw), names[route.oif]))
            elif not route.flags & RTNH_F_ONLINK and _is_in(route.dst, networks):
                fabric.routes.add((route.dst.text(), ntop(route.gw), ""))
    return fabric


def _is_in(prefix: Prefix, networks: list[Prefix]) -> bool:
    return any(n.length <= prefix.length and n.contains(prefix.packed) for n in networks)


def additions(
    fabric: Fabric, devices: Mapping[str, int], underlay: int, replaced: set[str]
) -> list[Message]:
    """Messages that put all of `fabric` into the kernel.

    underlay: index of the interface of direct routes. replaced: destinations whose present
    route is ours, and gives way; one of somebody else's does not (EEXIST).
    """
    messages = [
        new_entry(devices[device], mac, pton(address))
        for device, mac, address in sorted(fabric.forwarding)
    ]
    messages += [
        new_neighbour(devices[device], pton(address), mac)
        for device, address, mac in sorted(fabric.neighbours)
    ]
    # Routes last: what they lead to is there by then.
    messages += [
        new_route(
            Prefix.parse(destination),
            devices[device] if device else underlay,
            pton(next_hop),
            onlink=bool(device),
            protocol=ROUTE_PROTOCOL,
            mode=REPLACE if destination in replaced else EXCLUSIVE,
        )
        for destination, next_hop, device in sorted(fabric.routes)
    ]
    return messages


def removals(fabric: Fabric, devices: Mapping[str, int]) -> list[Message]:
    """Messages that take all of `fabric` out of the kernel; absence (`GONE`) is no failure."""
    messages = [
        delete_route(Prefix.parse(destination), devices[device] if device else 0, pton(next_hop))
        for destination, next_hop, device in sorted(fabric.routes)
    ]
    messages += [
        delete_neighbour(devices[device], pton(address))
        for device, address, _ in sorted(fabric.neighbours)
    ]
    messages += [
        delete_entry(devices[device], mac, pton(address))
        for device, mac, address in sorted(fabric.forwarding)
    ]
    return messages


#: Answers to a removal that mean that there was nothing left to remove.
GONE = (ENOENT, ESRCH)


def synchronize(
    sock: Socket,
    wanted: Fabric,
    devices: Mapping[str, int],
    networks: list[Prefix],
    underlay: int = 0,
) -> None:
    """Make the kernel's state what is wanted, in one batch. Idempotent.

    A neighbour whose MAC changes is replaced, not taken away first, and so is a route of ours.
    What fails does not stop the rest. Raises CniError 101 for a route of somebody else's to
    where a peer is, NetlinkError for another refusal.
    """
    there = read_fabric(sock, devices, networks)
    added, removed = wanted.difference(there), there.difference(wanted)
    addressed = {entry[:2] for entry in added.neighbours}
    routed = {destination for destination, _, _ in added.routes}
    going = Fabric(
        removed.forwarding,
        {entry for entry in removed.neighbours if entry[:2] not in addressed},
        {entry for entry in removed.routes if entry[0] not in routed},
    )
    replaced = {destination for destination, _, _ in removed.routes}
    news = additions(added, devices, underlay, replaced)
    replies = sock.batch(news + removals(going, devices))
    for reply in replies[len(news) :]:
        reply.check(*GONE)
    for reply in replies[: len(news)]:
        if not reply.check(EEXIST) and reply.request.type == RTM_NEWROUTE:
            again = wanted.difference(read_fabric(sock, devices, networks)).routes
            if again:  # else another ADD has just made the same route
                raise foreign_route(min(again)[0])


def foreign_route(destination: str) -> CniError:
    """Somebody else's route is in the way of one to a peer: a CniError 101."""
    return CniError(
        CONFLICT,
        f"a route to {destination} is there already, and not ours",
        "`ip route` shows it; remove it, or give the peer another subnet",
    )


def find_foreign_route(sock: Socket, fabric: Fabric) -> str:
    """The first destination of `fabric` to which there is a route that is not ours, or "".

    One of another metric is not in the way. Raises NetlinkError.
    """
    destinations = {destination for destination, _, _ in fabric.routes}
    found = [
        route.dst.text()
        for family, metric in ((AF_INET, 0), (AF_INET6, _IPV6_METRIC))
        for route in dump_routes(sock, family)
        if route.protocol != ROUTE_PROTOCOL and route.priority == metric
    ]
    return min(destinations.intersection(found), default="")
