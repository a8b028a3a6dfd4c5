# SPDX-License-Identifier: Apache-2.0
"""DEL: IPAM's reservations in any case, and the device back where it came from.

in the container                                             brought back?
the device that bears this attachment's mark                 yes
CNI_IFNAME bears no mark but an alias (Go's), and is what    yes
the configuration calls `device` or `hwaddr`, or is in
prevResult with its MAC or an address
anything else                                                no
"""

from __future__ import annotations

from cni_host_device.mark import find_marked, is_marked, mark_of
from cni_host_device.move import inside_of, move_out, restore
from libcni.attempts import Attempts
from libcni.interface.ipam import release
from libcni.interface.ownership import is_in_prev_result
from libcni.netlink.link import Link, find_link
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netns import Namespace
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Detach the container. Idempotent; needs neither namespace nor prevResult.

    Raises the first CniError after trying everything.
    """
    attempts = Attempts()
    attempts.attempt(release, request)
    namespace = attempts.attempt(request.netns_or_none)
    sock = Socket()
    if namespace is not None:
        attempts.attempt(_bring_back, sock, request, namespace)
    attempts.attempt(_restore_here, sock, request)
    attempts.report()


def _bring_back(sock: Socket, request: Request, namespace: Namespace) -> None:
    inside = inside_of(namespace)
    link = find_marked(inside, request.attachment)
    if link is None:
        link = find_link(inside, request.ifname)
        if link is None or is_marked(inside, link) or not _is_go_made(inside, request, link):
            return
    move_out(sock, inside, request.attachment, link, link.alias or link.name)


def _restore_here(sock: Socket, request: Request) -> None:
    """A device that the kernel put back when its namespace went, or that was never moved."""
    link = find_marked(sock, request.attachment)
    if link is not None:
        restore(sock, link, link.alias, mark_of(request.attachment))


def _is_go_made(inside: Socket, request: Request, link: Link) -> bool:
    # The alias of what other plugins of ours made; no device's name has a colon.
    if not link.alias or ":" in link.alias:
        return False
    hardware = request.config.get("hwaddr")
    return (
        request.config.get("device") == link.alias
        or (isinstance(hardware, str) and hardware.lower() == link.mac)
        or is_in_prev_result(inside, request, link)
    )
