# SPDX-License-Identifier: Apache-2.0
"""Is the interface in the container this attachment's, though no host end bears its alias?

The Go plugins mark nothing, so that what they made has to be recognised by where it leads. That
the name is CNI_IFNAME proves nothing: after an ADD that was refused because of the name, the
runtime calls DEL, and the interface is another network's.

    other end of the veth                            deleted?
    has the alias of this attachment                 yes (its name was changed)
    has the alias of another attachment              no, it is that attachment's
    has none, or one that somebody else has set,     yes
    but a name derived from this attachment
    has none, is as the Go plugin of the type        yes
    makes it (a port of the network's bridge, ...)
    has none, and is not; or one that somebody else  only if prevResult has the interface with
    has set; or is not on the host (bridge deleted,  its MAC or one of its addresses
    port detached or moved)
"""

from __future__ import annotations

from libcni.attachment import is_mark
from libcni.netlink.codec import NLM_F_REQUEST, Message, Reader
from libcni.netlink.link import Link, find_link
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from libcni.netlink.codec import Layout
    from libcni.netlink.socket import Socket
    from libcni.netns import Namespace
    from libcni.skel.request import Request

# linux/rtnetlink.h, linux/net_namespace.h
_RTM_GETNSID = 90
_NETNSA: Layout = ("=B3x", {"NETNSA_NSID": (1, "=i"), "NETNSA_FD": (3, "=I")})
_READER = Reader("NETNSA_NSID")


def owned_end(
    sock: Socket,
    inside: Socket,
    request: Request,
    namespace: Namespace,
    is_go_made: Callable[[Socket, Link], bool],
) -> tuple[Socket, Link] | None:
    """The end to delete of the veth named CNI_IFNAME, with the socket of its namespace.

    sock, inside: sockets of the host's and of the container's namespace. is_go_made: whether a
    host end without an alias, seen by `sock`, is like those of the Go plugin of this type. None
    when there is no such interface, or when nothing proves it to be this attachment's: then it
    is left alone. Changes nothing. Raises NetlinkError.
    """
    link = find_link(inside, request.ifname)
    if link is None or link.kind != "veth":
        return None
    peer = _host_end(sock, link, namespace)
    if peer is not None and is_mark(peer.alias):
        return (sock, peer) if peer.alias == request.attachment.alias else None
    if peer is not None and (
        peer.name in request.attachment.host_veth_names()
        or (not peer.alias and is_go_made(sock, peer))
    ):
        return sock, peer
    if not is_in_prev_result(inside, request, link):
        return None
    return (inside, link) if peer is None else (sock, peer)


def _host_end(sock: Socket, link: Link, namespace: Namespace) -> Link | None:
    """The other end of a container's veth, if it is in the host's namespace."""
    if link.link_netnsid < 0:
        return None  # both ends are in the container
    peer = find_link(sock, index=link.peer)
    if peer is None or peer.kind != "veth" or peer.peer != link.index:
        return None
    # The indices alone may agree by chance, where the other end is in a third namespace.
    return peer if 0 <= peer.link_netnsid == _namespace_id(sock, namespace) else None


def _namespace_id(sock: Socket, namespace: Namespace) -> int:
    """The number by which the host's links refer to the namespace; -1 for none."""
    message = Message(
        _RTM_GETNSID,
        NLM_F_REQUEST,
        f"identify {namespace.path}",
        _NETNSA,
        (0,),
        {"NETNSA_FD": namespace.fd},
    )
    body = sock.request(message)[0]
    number: int = _READER.read(_NETNSA[1], body, 4).get("NETNSA_NSID", -1)
    return number


def is_in_prev_result(inside: Socket, request: Request, link: Link) -> bool:
    """True when prevResult has CNI_IFNAME in a container, and of it something that the link has.

    That is its MAC address or an address with the same prefix length: tuning, which is asked
    first, may have given it another MAC address since. inside: a socket of the link's namespace.
    Raises NetlinkError.
    """
    try:
        result = request.prev_result()
    except CniError:
        return False  # a damaged one proves nothing
    if result is None:
        return False
    named = {
        index: interface.mac.lower()
        for index, interface in enumerate(result.interfaces)
        if interface.sandbox and interface.name == request.ifname
    }
    if link.mac in named.values():
        return True
    addresses = [ip.address for ip in result.ips if ip.interface in named]
    if not addresses:
        return False
    from libcni.netlink.addr import dump_addresses

    return any(a.prefix.text() in addresses for a in dump_addresses(inside, link.index))
