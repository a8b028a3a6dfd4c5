# SPDX-License-Identifier: Apache-2.0
"""GC: devices that came back by themselves get their names, and IPAM cleans up."""

from __future__ import annotations

from cni_host_device.mark import mark_of, marked_links
from cni_host_device.move import restore
from libcni.attachment import Attachment
from libcni.attempts import Attempts
from libcni.interface.ipam import collect
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Restore what is on the host and belongs to nobody valid of this network. Idempotent.

    Raises CniError 7 without acting when the list of valid attachments is missing; otherwise
    tries everything and raises the first CniError.
    """
    valid = request.valid_attachments()
    keep = {mark_of(Attachment(request.network, *who)) for who in valid}
    attempts = Attempts()
    sock = Socket()
    for mark, link in attempts.attempt(marked_links, sock, request.network) or ():
        if mark not in keep:
            attempts.attempt(restore, sock, link, link.alias, mark)
    attempts.attempt(collect, request)
    attempts.report()
