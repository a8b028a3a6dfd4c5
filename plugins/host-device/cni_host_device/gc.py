# SPDX-License-Identifier: Apache-2.0
"""GC: devices that came back by themselves get their names, and IPAM cleans up."""

from __future__ import annotations

from cni_host_device.mark import mark_of, marked_links, original_name
from cni_host_device.move import restore
from libcni.attachment import Attachment
from libcni.attempts import Attempts
from libcni.interface.ipam import collect
from libcni.netlink.socket import Socket
from libcni.netns_lock import NamespaceLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Restore what is on the host and belongs to nobody valid of this network. Idempotent.

    Raises CniError 7 without acting when the list of valid attachments is missing; otherwise
    tries everything and raises the first CniError.
    """
    valid = request.valid_attachments()
    keep = {mark_of(Attachment(request.network, *who)) for who in valid}
    attempts = Attempts()
    attempts.attempt(_restore_stray, request.network, keep)
    attempts.attempt(collect, request)
    attempts.report()


def _restore_stray(network: str, keep: set[str]) -> None:
    """Raises the first CniError after trying every device."""
    attempts = Attempts()
    sock = Socket()
    with NamespaceLock():
        for mark, link in marked_links(sock, network):
            if mark not in keep:
                attempts.attempt(_restore, sock, link, mark)
    attempts.report()


def _restore(sock: Socket, link: Link, mark: str) -> None:
    restore(sock, link, original_name(sock, link, mark))
