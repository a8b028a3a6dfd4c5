# SPDX-License-Identifier: Apache-2.0
"""The host's end of the veth pair, a port of the bridge.

Its name is derived from the attachment and its alias is the attachment, so it is found again
from nothing else: after a killed ADD, by DEL without a namespace, by GC.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, EEXIST, EXFULL

from libcni.interface.leftover import name_taken, remove_leftover
from libcni.interface.removal import remove_link_with_mac
from libcni.mac import random_mac
from libcni.netlink.link import (
    OPERSTATE_UP,
    OPERSTATES,
    Link,
    find_link,
    get_link,
    new_veth,
    set_inet,
    set_link,
)
from libcni.types.errors import EXHAUSTED, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request

#: Seconds between looks at a port that is not up yet; 3 s in all, as with Go but soon at first.
_LOOKS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 1, 1)


class Port:
    """The host's end (`link`) and the container's end: its MAC address and index in there."""

    __slots__ = ("container_index", "container_mac", "link")

    def __init__(self, link: Link, container_mac: str) -> None:
        self.link = link
        self.container_mac = container_mac
        self.container_index = link.peer


def create_port(
    sock: Socket, request: Request, config: Config, bridge: Link, found: Link | None
) -> Port | None:
    """Make the pair, the host's end on the bridge and up, the container's end down.

    found: the link that has the first of the attachment's names, as read before. Returns None
    when the bridge has vanished meanwhile. On the undo stack goes the removal of the pair.
    Raises CniError 101 when the container has an interface of that name already, 100 when the
    bridge is full or every name is taken by strangers, 102.
    """
    attachment = request.attachment
    for position, name in enumerate(attachment.host_veth_names()):
        if position:
            found = find_link(sock, name)
        if found is not None:
            if found.alias != attachment.alias:
                continue
            remove_leftover(sock, request, found)
        host_mac, container_mac = random_mac(), config.mac or random_mac()
        request.undo.push(remove_link_with_mac, sock, name, host_mac)
        # That the name was free is known; else the second message would mark somebody else's.
        replies = sock.batch(
            [
                new_veth(
                    name,
                    attachment.ifname,
                    peer_netns=request.netns().fd,
                    peer_mac=container_mac,
                    mac=host_mac,
                    mtu=config.mtu,
                    master=bridge.index,
                    up=False,
                ),
                set_link(
                    name,
                    alias=attachment.alias,
                    hairpin=config.hairpin or None,
                    isolated=config.isolated or None,
                ),
                get_link(name),
                # A port's own addresses are of no use, and each costs the host two routes.
                set_inet(name, address_generation=False),
                # Now that the kernel knows that it has no carrier, as it does when it has been
                # asked. A port that is up before would be enabled, disabled, and enabled again
                # with the container's end; each time the kernel walks all ports of the bridge.
                set_link(name, up=True),
            ]
        )
        error = replies[0].error
        if error == EXFULL:
            raise CniError(
                EXHAUSTED,
                f"bridge {bridge.name} has no room for another port",
                "Linux allows 1023 ports on a bridge",
            )
        if error == EEXIST and find_link(sock, name) is None:
            raise name_taken(request)
        if error == EEXIST:
            continue
        if error and find_link(sock, index=bridge.index) is None:
            return None
        for reply in replies[:3]:
            reply.check()
        replies[3].check(EAFNOSUPPORT)  # no IPv6 here, or not with this MTU
        replies[4].check()
        port = Port(Link(replies[2].items[0]), container_mac)
        if config.filters_vlans:
            from cni_bridge.vlans import set_vlans

            set_vlans(sock, port.link, config, bridge)
        return port
    names = ", ".join(attachment.host_veth_names())
    raise CniError(EXHAUSTED, f"no free name for the host interface: {names} are all taken")


def wait_up(sock: Socket, link: Link) -> Link:
    """Wait until the port forwards (operational state up); the kernel says so a moment later.

    Raises CniError 102 after 3 s, CniError 11 when interrupted.
    """
    if link.operstate == OPERSTATE_UP:
        return link
    from time import sleep

    from libcni.interrupt import waiting

    index = link.index
    for pause in _LOOKS:
        with waiting():
            sleep(pause)
        seen = find_link(sock, index=index)
        if seen is None:
            raise CniError(KERNEL, f"host interface {link.name} was removed while in use")
        link = seen
        if link.operstate == OPERSTATE_UP:
            return link
    state = OPERSTATES[link.operstate].lower()
    raise CniError(KERNEL, f"bridge port in error state: {state}", f"port {link.name}")
