# SPDX-License-Identifier: Apache-2.0
"""DEL: IPAM's reservations in any case, and the device back where it came from.

in the container                                              brought back?
the device that bears this attachment's mark                  yes
CNI_IFNAME bears no mark, and is in prevResult with its MAC   yes
or an address
CNI_IFNAME bears no mark but an alias (Go's), and is what     yes
the configuration calls `device` or `hwaddr`
anything else                                                 no
"""

from __future__ import annotations

from cni_host_device.mark import find_marked, is_marked, mark_of, original_name
from cni_host_device.move import inside_of, move_out, restore
from libcni.attempts import Attempts
from libcni.interface.ipam import release
from libcni.interface.ownership import is_in_prev_result
from libcni.netlink.link import Link, find_link
from libcni.netlink.socket import Socket
from libcni.netns_lock import NamespaceLock

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
    attempts.attempt(_bring_back, request, namespace)
    attempts.report()


def _bring_back(request: Request, namespace: Namespace | None) -> None:
    """From the container; or by its name, where the kernel put it back when its namespace went,
    or it never left the host."""
    sock, mark = Socket(), mark_of(request.attachment)
    device = request.config.get("device")
    with NamespaceLock():
        if namespace is not None:
            inside = inside_of(namespace)
            link = _find_inside(inside, request)
            if link is not None:
                original = original_name(inside, link, mark, device)
                if not original:
                    _say(f"nothing says what {link.name} was called: it keeps that name")
                move_out(sock, inside, request.attachment, link, original or link.name)
                return
        link = find_marked(sock, request.attachment)
        if link is not None:
            restore(sock, link, original_name(sock, link, mark, device))


def _find_inside(inside: Socket, request: Request) -> Link | None:
    link = find_marked(inside, request.attachment)
    if link is not None:
        return link
    link = find_link(inside, request.ifname)
    if link is None or is_marked(inside, link) or not _is_go_made(inside, request, link):
        return None
    return link


def _say(text: str) -> None:
    """On stderr, for the runtime's log; losing it (closed, full) matters to nobody."""
    import posix

    try:
        posix.write(2, f"host-device: {text}\n".encode("utf-8", "replace"))
    except OSError:
        pass


def _is_go_made(inside: Socket, request: Request, link: Link) -> bool:
    # The alias of what other plugins of ours made; no device's name has a colon.
    if ":" in link.alias:
        return False
    if is_in_prev_result(inside, request, link):
        return True
    hardware = request.config.get("hwaddr")
    return bool(link.alias) and (
        request.config.get("device") == link.alias
        or (isinstance(hardware, str) and hardware.lower() == link.mac)
    )
