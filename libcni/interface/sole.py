# SPDX-License-Identifier: Apache-2.0
"""Interfaces without an end on the host: made under a temporary name, named, marked, removed.

Such a device (macvlan, tap) is made in the container's namespace and never is elsewhere, so a
killed ADD leaves nothing behind that the namespace would not take with it. It is made under a
name of its own and renamed when it is complete.
"""

from __future__ import annotations

from errno import ENODEV

from libcni.attachment import is_mark
from libcni.attempts import Attempts
from libcni.interface.ipam import release
from libcni.interface.ownership import is_in_prev_result
from libcni.interface.removal import Removal, remove_links
from libcni.netlink.link import Link, delete_link, find_link, watch_links
from libcni.netlink.socket import Socket
from libcni.netns import Inside
from libcni.types.errors import CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from libcni.attachment import Attachment
    from libcni.netns import Namespace
    from libcni.skel.request import Request


def require_free_name(inside: Socket, request: Request) -> None:
    """Raise CniError 101 when the container has an interface named CNI_IFNAME."""
    if find_link(inside, request.ifname) is not None:
        raise CniError(
            CONFLICT,
            f"interface {request.ifname} already exists in {request.netns_path}",
            "run DEL for this container and interface first, or use another CNI_IFNAME",
        )


def temporary_name(attachment: Attachment) -> str:
    """What a device is called until it is complete, or where its name is taken."""
    return f"cni{attachment.digest()[:12]}"


def remove_device(inside: Socket, attachment: Attachment, kind: str) -> None:
    """Remove what an ADD of this attachment made, complete or not. Idempotent.

    kind: as the kernel has it. Raises NetlinkError.
    """
    for name in (temporary_name(attachment), attachment.ifname):
        link = find_link(inside, name)
        if (
            link is not None
            and link.kind == kind
            and (link.alias == attachment.alias or name != attachment.ifname)
        ):
            inside.batch([delete_link(index=link.index)])[0].check(ENODEV)


def delete_device(
    request: Request, kind: str, is_go_made: Callable[[Socket, Link], bool] | None = None
) -> None:
    """DEL: IPAM's reservations in any case, and the device where its namespace still is.

    is_go_made: whether a device without an alias, seen by a socket of the container's namespace,
    is as the Go plugin makes it of this configuration; asked when there is no prevResult.
    Idempotent; needs neither namespace nor prevResult. Raises the first CniError after trying
    everything.

        the interface named CNI_IFNAME                          deleted?
        has the alias of this attachment                        yes
        has another's, or is of another kind                    no, it is somebody else's
        has none (Go's), or one that somebody else has set,     yes
        and is in prevResult with its MAC or an address
        has none, there is no prevResult, `is_go_made`          yes
    """
    attempts = Attempts()
    namespace = attempts.attempt(request.netns_or_none)
    removal = None
    if namespace is not None:
        removal = attempts.attempt(_start_removal, request, namespace, kind, is_go_made)
    attempts.attempt(release, request)
    if removal is not None:
        attempts.attempt(removal.finish)
    attempts.report()


def _start_removal(
    request: Request,
    namespace: Namespace,
    kind: str,
    is_go_made: Callable[[Socket, Link], bool] | None,
) -> Removal | None:
    with Inside(namespace):
        inside, watch = Socket(), watch_links()
    links = []
    partial = find_link(inside, temporary_name(request.attachment))
    if partial is not None and partial.kind == kind:
        links.append(partial)
    link = find_link(inside, request.ifname)
    if link is not None and link.kind == kind and _is_ours(inside, request, link, is_go_made):
        links.append(link)
    return remove_links(inside, links, watch=watch)


def _is_ours(
    inside: Socket,
    request: Request,
    link: Link,
    is_go_made: Callable[[Socket, Link], bool] | None,
) -> bool:
    if is_mark(link.alias):
        return link.alias == request.attachment.alias
    if request.config.get("prevResult") is None and is_go_made is not None:
        return not link.alias and is_go_made(inside, link)
    return is_in_prev_result(inside, request, link)
