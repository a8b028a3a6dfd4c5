# SPDX-License-Identifier: Apache-2.0
"""The veth pair: one end in the container, the other on the host, each routed to the other.

    container                                      host
    10.1.2.3/24 on eth0, no route of its own       10.1.2.1/32 on veth…
    10.1.2.1 dev eth0 scope link src 10.1.2.3      10.1.2.3 dev veth… scope host
    10.1.2.0/24 via 10.1.2.1 src 10.1.2.3

The gateway's address is on the host's end of every container, so that all is routed by the host.
"""

from __future__ import annotations

from errno import EEXIST

from libcni.inet import Prefix, pton
from libcni.interface.leftover import name_taken, remove_leftover
from libcni.interface.removal import remove_link_with_mac
from libcni.netlink.addr import IFA_F_NOPREFIXROUTE, new_address
from libcni.netlink.link import (
    Link,
    find_link,
    get_link,
    new_veth,
    set_inet,
    set_link,
)
from libcni.netlink.route import APPEND, RT_SCOPE_HOST, RT_SCOPE_LINK, dump_routes, new_route
from libcni.netlink.socket import Socket
from libcni.netns import Inside, Namespace
from libcni.types.errors import CONFLICT, DELEGATE_FAILED, EXHAUSTED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.codec import Message
    from libcni.skel.request import Request
    from libcni.types.result import IPConfig, Result


class Pair:
    """host: the host's end. index, mac: of the container's end, in its namespace."""

    __slots__ = ("host", "index", "mac")

    def __init__(self, host: Link, mac: str) -> None:
        self.host = host
        self.index = host.peer
        self.mac = mac


def create_pair(sock: Socket, request: Request, mtu: int) -> Pair:
    """Make the pair, the host's end up, the container's end down.

    On the undo stack goes its removal. Raises CniError 101 when the container has an interface
    of that name already, 100 when every name for the host's end is taken by strangers, 102.
    """
    from libcni.mac import random_mac

    attachment = request.attachment
    for name in attachment.host_veth_names():
        found = find_link(sock, name)
        if found is not None:
            if found.alias != attachment.alias:
                continue
            remove_leftover(sock, request, found)
        host_mac, mac = random_mac(), random_mac()
        request.undo.push(remove_link_with_mac, sock, name, host_mac)
        replies = sock.batch(
            [
                new_veth(
                    name,
                    attachment.ifname,
                    peer_netns=request.netns().fd,
                    peer_mac=mac,
                    mac=host_mac,
                    mtu=mtu,
                    up=False,
                ),
                set_link(name, alias=attachment.alias),
                get_link(name),
            ]
        )
        if replies[0].error == EEXIST:
            if find_link(sock, name) is None:
                raise name_taken(request)
            continue
        for reply in replies:
            reply.check()
        link = Link(replies[2].items[0])
        from libcni import sysctl

        # Before it is up: a router advertisement of the container's is nothing to go by.
        sysctl.try_write(f"ipv6/conf/{name}/accept_ra", "0")
        sock.run(set_link(index=link.index, up=True))
        return Pair(link, mac)
    names = ", ".join(attachment.host_veth_names())
    raise CniError(EXHAUSTED, f"no free name for the host interface: {names} are all taken")


def gateway_of(ip: IPConfig) -> bytes:
    """The gateway of an address, packed.

    Raises CniError 104 when IPAM gave none, or one that can be none.
    """
    if not ip.gateway:
        raise CniError(
            DELEGATE_FAILED,
            f"IPAM gave no gateway for {ip.address}, which ptp cannot do without",
            "host-local always gives one; with static set `gateway`",
        )
    gateway, address = pton(ip.gateway), Prefix.parse(ip.address).packed
    if len(gateway) != len(address):
        raise CniError(
            DELEGATE_FAILED,
            f"IPAM gave {ip.gateway} as the gateway of {ip.address}, which is of the other family",
        )
    if gateway == address:
        raise CniError(
            DELEGATE_FAILED,
            f"IPAM gave {ip.gateway} as the gateway of itself",
            "the gateway's address is the host's; the container needs another one",
        )
    return gateway


def configure_container(namespace: Namespace, index: int, result: Result) -> None:
    """Addresses and routes of the container's end, which comes up. Raises CniError 102.

    Needs no undoing: all of it vanishes with the interface.
    """
    from libcni.interface.container import prepare, route_messages

    with Inside(namespace):
        sock = Socket()
        link = find_link(sock, index=index)
        name = link.name if link is not None else ""
        prepare(name, any(":" in ip.address for ip in result.ips))
    messages: list[Message] = [set_inet(index=index, arp_notify=True)]
    for ip in result.ips:
        # Without a route to the subnet: what is in there is reached by way of the gateway.
        messages.append(
            new_address(index, Prefix.parse(ip.address), nodad=True, flags=IFA_F_NOPREFIXROUTE)
        )
    messages.append(set_link(index=index, up=True))
    for reply in sock.batch(messages):
        reply.check()
    routes = [message for ip in result.ips for message in _container_routes(index, ip)]
    for reply in sock.batch(routes):
        reply.check()
    for reply in sock.batch(route_messages(result, index)):
        reply.check(EEXIST)  # IPAM named a route twice, or one that is there by now
    sock.close()


def _container_routes(index: int, ip: IPConfig) -> list[Message]:
    address, gateway = Prefix.parse(ip.address), gateway_of(ip)
    whole = Prefix(gateway, len(gateway) * 8)
    routes = [new_route(whole, index, src=address.packed, scope=RT_SCOPE_LINK, mode=APPEND)]
    if address.length < address.bits:
        routes.append(
            new_route(address.network(), index, gateway, src=address.packed, mode=APPEND)
        )
    return routes


def connect_host(sock: Socket, link: Link, result: Result) -> None:
    """Gateway addresses on the host's end, and a route to each of the container's. Idempotent.

    Raises CniError 101 when an address is routed to somebody else, NetlinkError.
    """
    messages = []
    for ip in result.ips:
        gateway, address = gateway_of(ip), Prefix.parse(ip.address)
        messages += [
            new_address(
                link.index, Prefix(gateway, len(gateway) * 8), nodad=True, broadcast=False
            ),
            new_route(Prefix(address.packed, address.bits), link.index, scope=RT_SCOPE_HOST),
        ]
    replies = sock.batch(messages)
    for number, ip in enumerate(result.ips):
        replies[2 * number].check(EEXIST)
        if not replies[2 * number + 1].check(EEXIST):
            _refuse_foreign_route(sock, link, Prefix.parse(ip.address))


def _refuse_foreign_route(sock: Socket, link: Link, address: Prefix) -> None:
    """Raise CniError 101 when what is for the address goes somewhere else."""
    whole = Prefix(address.packed, address.bits)
    routes = [route for route in dump_routes(sock, whole.family) if route.dst == whole]
    if any(route.oif == link.index for route in routes):
        return
    other = find_link(sock, index=routes[0].oif) if routes and routes[0].oif else None
    raise CniError(
        CONFLICT,
        f"a route to {whole.text()} is there already, through {other.name if other else '?'}",
        "does another network have the same subnet?",
    )
