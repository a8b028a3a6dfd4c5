# SPDX-License-Identifier: Apache-2.0
"""The host's end of the container's veth, which is where its traffic can be limited."""

from __future__ import annotations

from errno import ENODEV, ERANGE

from libcni.netlink.link import Link, find_link, get_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Result


def host_end_or_none(sock: Socket, request: Request) -> Link | None:
    """The host's end for DEL; None when namespace, interface or far end cannot be found.

    A namespace that is refused, such as the plugin's own, leads to no host's end either. Raises
    NetlinkError.
    """
    try:
        namespace = request.netns()
    except CniError:
        return None
    with Inside(namespace):
        inside = Socket()
    container = find_link(inside, request.ifname)
    inside.close()
    if container is None or container.kind != "veth" or container.link_netnsid < 0:
        return None
    host = find_link(sock, index=container.peer)
    found = host is not None and host.kind == "veth" and host.peer == container.index
    return host if found else None


def named_host_ends(sock: Socket, result: Result) -> list[Link]:
    """What may be the host's end: the host's veths that a result names. Raises NetlinkError."""
    names = [entry.name for entry in result.interfaces if not entry.sandbox]
    names = [name for name in names if name and "\0" not in name]
    links = []
    for reply in sock.batch([get_link(name) for name in names]) if names else ():
        if reply.check(ENODEV, ERANGE):
            link = Link(reply.item())
            if link.kind == "veth":
                links.append(link)
    return links


def find_host_end(sock: Socket, request: Request, result: Result) -> Link:
    """The host's end. Raises CniError 7 when the interface is no veth that leads to the host."""
    if not result.interfaces:
        raise CniError(INVALID_NETWORK_CONFIG, "no interfaces provided", "prevResult has none")
    with Inside(request.netns()):
        inside = Socket()
    container = find_link(inside, request.ifname)
    inside.close()
    if container is None or container.kind != "veth":
        kind = "nothing" if container is None else f"a {container.kind or 'plain'} device"
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"container interface {request.ifname} has no veth peer",
            f"it is {kind}; only what passes through a veth can be limited here",
        )
    host = find_link(sock, index=container.peer) if container.link_netnsid >= 0 else None
    if host is None or host.kind != "veth" or host.peer != container.index:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"veth peer of {request.ifname} is not in host ns",
            f"its index is {container.peer}",
        )
    if not any(entry.name == host.name and not entry.sandbox for entry in result.interfaces):
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"no veth peer of container interface {request.ifname} found in prevResult",
            f"it is {host.name}",
        )
    return host
