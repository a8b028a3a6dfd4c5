# SPDX-License-Identifier: Apache-2.0
"""Removing the veth pair without waiting for the kernel to have freed it.

Deleting a link blocks for an RCU grace period, about 15 ms, though nobody can see it any more
after the first of them. So a child asks for the deletion and sits the wait out, while the plugin
releases the address, and returns when the kernel announces that the link is gone. CNI_SYNC_DEL=1
in the environment switches this off.
"""

from __future__ import annotations

import posix
from errno import ENODEV

from libcni.netlink.link import (
    Link,
    delete_link,
    find_link,
    get_link,
    wait_deleted,
    watch_links,
)
from libcni.netlink.socket import NetlinkError, Socket
from libcni.types.errors import TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request

#: Seconds the kernel may take to unlist a link.
_TIMEOUT = 20.0
#: The plugin holds a handful of descriptors, and inherits few.
_DESCRIPTORS = 4096


class Removal:
    """A deletion under way: `finish` returns when the link is out of view."""

    __slots__ = ("_link", "_pipe", "_watch")

    def __init__(self, link: Link, watch: Socket, pipe: int) -> None:
        self._link = link
        self._watch = watch
        self._pipe = pipe

    def finish(self) -> None:
        """Wait for the kernel's announcement.

        Raises the child's NetlinkError; CniError 11 when the child ended without an answer, or
        nothing happened in time.
        """
        if wait_deleted(self._watch, self._link.index, _TIMEOUT, self._pipe):
            return
        name = self._link.name
        if not _readable(self._pipe):
            raise CniError(TRY_AGAIN_LATER, f"link {name} was not deleted in {_TIMEOUT:g} s")
        answer = posix.read(self._pipe, 4)
        if len(answer) < 4:
            raise CniError(
                TRY_AGAIN_LATER,
                f"the process that was to delete link {name} ended without an answer",
                "it may have been killed, or have run out of memory; repeat DEL",
            )
        number = int.from_bytes(answer, "little")
        if number not in (0, ENODEV):
            raise NetlinkError(f"delete link {name}", number)


def _readable(fd: int) -> bool:
    import select

    return bool(select.select([fd], [], [], 0)[0])


def start_removal(request: Request, bridge: str, held: list[int]) -> Removal | None:
    """Begin to delete the attachment's links; None when nothing is left to wait for.

    held: descriptors that the child keeps open, as closing them has to wait as well. Raises
    CniError when the namespace is not one (see `open_netns`), or the kernel refuses.
    """
    sock = Socket()
    attachment = request.attachment
    links = find_ports(sock, attachment.host_veth_names(), attachment.alias)
    watch: Socket | None = None
    if not links:
        # Made by the Go plugins, or gone.
        namespace = request.netns_or_none()
        if namespace is None:
            links = _known_to_prev_result(sock, request, bridge)
        else:
            from cni_bridge.ownership import owned_end
            from libcni.netns import Inside

            with Inside(namespace):
                inside, watch_inside = Socket(), watch_links()
            owned = owned_end(sock, inside, request, namespace, bridge)
            if owned is not None:
                links = [owned[1]]
                if owned[0] is inside:
                    sock, watch = inside, watch_inside
    if not links:
        return None
    # Several names are a rare accident: a deletion of each then has to be waited for.
    if len(links) > 1 or posix.environ.get(b"CNI_SYNC_DEL", b"") in (b"1", b"true"):
        _delete(sock, links)
        return None
    try:
        if watch is None:
            watch = watch_links()
        return _detach(sock, watch, links[0], held)
    except (OSError, NetlinkError):
        # No process (a limit of pids) or descriptor left: slower, but done.
        _delete(sock, links)
        return None


def _delete(sock: Socket, links: list[Link]) -> None:
    """Delete all of the links. Raises NetlinkError for the first that the kernel refuses."""
    for reply in sock.batch([delete_link(index=link.index) for link in links]):
        reply.check(ENODEV)


def find_ports(sock: Socket, names: tuple[str, ...], alias: str) -> list[Link]:
    """The host ends of the attachment: those of its names that bear its alias."""
    links = []
    for reply in sock.batch([get_link(name) for name in names]):
        if reply.check(ENODEV):
            link = Link(reply.items[0])
            if link.alias == alias:
                links.append(link)
    return links


def _detach(sock: Socket, watch: Socket, link: Link, held: list[int]) -> Removal:
    """Let a child delete the link. Raises OSError, with nothing done, where there is no child."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    try:
        child = posix.fork()
    except OSError:
        posix.close(reader)
        posix.close(writer)
        raise
    if child == 0:
        try:
            posix.setsid()
            # Above all the runtime's pipes, whose end it waits for.
            _keep_only([sock.fileno(), writer, *held])
            reply = sock.batch([delete_link(index=link.index)])[0]
            posix.write(writer, reply.error.to_bytes(4, "little"))
        finally:
            posix._exit(0)
    posix.close(writer)
    return Removal(link, watch, reader)


def _keep_only(descriptors: list[int]) -> None:
    low = 0
    for fd in sorted(fd for fd in descriptors if fd >= 0):
        posix.closerange(low, fd)
        low = fd + 1
    posix.closerange(low, _DESCRIPTORS)


def _known_to_prev_result(sock: Socket, request: Request, bridge: str) -> list[Link]:
    """The host end that the Go plugins made, whose random name only prevResult knows.

    A name may have gone to somebody else since: it must be a port of our bridge with the MAC
    address of then, and bear no other attachment's alias.
    """
    try:
        result = request.prev_result()
    except CniError:
        return []  # a damaged one must not keep DEL from succeeding
    master = find_link(sock, bridge)
    if result is None or master is None:
        return []
    for interface in result.interfaces:
        if interface.sandbox or not interface.mac or interface.name in ("", bridge):
            continue
        link = find_link(sock, interface.name)
        if (
            link is not None
            and link.kind == "veth"
            and link.master == master.index
            and link.mac == interface.mac.lower()
            and not link.alias
        ):
            return [link]
    return []
