# SPDX-License-Identifier: Apache-2.0
"""DEL of a veth pair: by the alias of its host end, or what a Go plugin made."""

from __future__ import annotations

from libcni.attachment import is_mark
from libcni.interface.removal import Removal, find_host_ends, remove_links
from libcni.netlink.link import Link, find_link, watch_links
from libcni.netlink.socket import Socket
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from libcni.skel.request import Request


def start_removal(
    request: Request, held: list[int], is_go_made: Callable[[Socket, Link], bool]
) -> Removal | None:
    """Begin to delete the attachment's links; None when nothing is left to wait for.

    held: descriptors that the child keeps open, as closing them has to wait as well. is_go_made:
    whether a host end without an alias, seen by a socket of the host's namespace, is like those
    of the Go plugin of this type. Raises CniError when the namespace is not one (see
    `open_netns`), or the kernel refuses.
    """
    sock = Socket()
    links = find_host_ends(sock, request.attachment)
    watch: Socket | None = None
    if not links:
        # Made by the Go plugin, or gone.
        namespace = request.netns_or_none()
        if namespace is None:
            links = _known_to_prev_result(sock, request, is_go_made)
        else:
            from libcni.interface.ownership import owned_end
            from libcni.netns import Inside

            with Inside(namespace):
                inside, watch_inside = Socket(), watch_links()
            owned = owned_end(sock, inside, request, namespace, is_go_made)
            if owned is not None:
                links = [owned[1]]
                if owned[0] is inside:
                    sock, watch = inside, watch_inside
    return remove_links(sock, links, held, watch)


def _known_to_prev_result(
    sock: Socket, request: Request, is_go_made: Callable[[Socket, Link], bool]
) -> list[Link]:
    """The host end that the Go plugin made, whose random name only prevResult knows.

    A name may have gone to somebody else since: it must be like those of the Go plugin, have the
    MAC address of then, and bear no other attachment's alias.
    """
    try:
        result = request.prev_result()
    except CniError:
        return []  # a damaged one must not keep DEL from succeeding
    for interface in result.interfaces if result is not None else ():
        if interface.sandbox or not interface.mac or not interface.name:
            continue
        link = find_link(sock, interface.name)
        if (
            link is not None
            and link.kind == "veth"
            and link.mac == interface.mac.lower()
            and not is_mark(link.alias)
            and is_go_made(sock, link)
        ):
            return [link]
    return []
