# SPDX-License-Identifier: Apache-2.0
"""Removing a link without waiting for the kernel to have freed it.

Deleting a link blocks for an RCU grace period, about 15 ms, though nobody can see it any more
after the first of them. So a child asks for the deletion and sits the wait out, while the plugin
releases the address, and returns when the kernel announces that the link is gone. CNI_SYNC_DEL=1
in the environment switches this off.
"""

from __future__ import annotations

import posix
from errno import ENODEV

from libcni.detached import detach, is_wanted
from libcni.netlink.link import (
    Link,
    delete_link,
    find_link,
    get_link,
    set_link,
    wait_deleted,
    watch_links,
)
from libcni.netlink.socket import NetlinkError, Socket
from libcni.types.errors import TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.netlink.codec import Message

#: Seconds the kernel may take to unlist a link.
_TIMEOUT = 20.0


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


def find_host_ends(sock: Socket, attachment: Attachment) -> list[Link]:
    """The host ends of an attachment's veth pairs: those of its names that bear its alias."""
    links = []
    for reply in sock.batch([get_link(name) for name in attachment.host_veth_names()]):
        if reply.check(ENODEV):
            link = Link(reply.items[0])
            if link.alias == attachment.alias:
                links.append(link)
    return links


def remove_link_with_mac(sock: Socket, name: str, mac: str) -> None:
    """Remove the link of this name and MAC address, of a veth both ends. Idempotent."""
    link = find_link(sock, name)
    if link is not None and link.mac == mac:
        _delete(sock, [link])


def remove_stray_links(network: str, valid: set[tuple[str, str]], kind: str = "veth") -> None:
    """Delete the links of a kind that bear this network's alias and belong to nobody valid.

    Wherever they are: a port outlives its bridge, and stays off it when that is made anew.
    valid: (container ID, ifname). Idempotent. Raises NetlinkError.
    """
    from libcni.attachment import Attachment, network_marks
    from libcni.netlink.link import dump_links

    sock = Socket()
    keep = {Attachment(network, container_id, ifname).alias for container_id, ifname in valid}
    stray = [
        link
        for link in dump_links(sock, kind=kind)
        if link.alias.startswith(network_marks(network)) and link.alias not in keep
    ]
    if stray:
        _delete(sock, stray)


def remove_links(
    sock: Socket, links: list[Link], held: list[int] | None = None, watch: Socket | None = None
) -> Removal | None:
    """Begin to delete links; None when nothing is left to wait for.

    sock: of their namespace. held: descriptors that the child keeps open, as closing them has to
    wait as well. watch: made by `watch_links` in their namespace, where that is not this one.
    Raises NetlinkError when the kernel refuses.
    """
    if not links:
        return None
    # Several are a rare accident: a deletion of each then has to be waited for.
    if len(links) > 1 or not is_wanted():
        _delete(sock, links)
        return None
    try:
        if watch is None:
            watch = watch_links()
        return _detach(sock, watch, links[0], held or [])
    except (OSError, NetlinkError):
        # No process (a limit of pids) or descriptor left: slower, but done.
        _delete(sock, links)
        return None


def _delete(sock: Socket, links: list[Link]) -> None:
    """Delete all of the links. Raises NetlinkError for the first that the kernel refuses."""
    for reply in [sock.batch(_deletion(link))[-1] for link in links]:
        reply.check(ENODEV)


def _deletion(link: Link) -> list[Message]:
    """The requests that delete a link; only the answer to the last one counts.

    A port is taken off its bridge first: one that goes down and then away makes the kernel walk
    all ports twice, a millisecond more beside 1,000 others.
    """
    messages = [delete_link(index=link.index)]
    if link.master:
        messages.insert(0, set_link(index=link.index, master=0))
    return messages


def _detach(sock: Socket, watch: Socket, link: Link, held: list[int]) -> Removal:
    """Let a child delete the link. Raises OSError, with nothing done, where there is no child."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)

    def work() -> None:
        reply = sock.batch(_deletion(link))[-1]
        posix.write(writer, reply.error.to_bytes(4, "little"))

    try:
        detach(work, [sock.fileno(), writer, *held])
    except OSError:
        posix.close(reader)
        raise
    finally:
        posix.close(writer)
    return Removal(link, watch, reader)
