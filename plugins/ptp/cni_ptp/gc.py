# SPDX-License-Identifier: Apache-2.0
"""GC: remove what belongs to attachments of this network that do not exist any more."""

from __future__ import annotations

from libcni.attempts import Attempts
from libcni.interface.ipam import collect
from libcni.interface.removal import remove_stray_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove stray host ends and masquerade, and let IPAM do the same.

    Idempotent. Raises CniError 7 without acting when the list of valid attachments is missing;
    otherwise tries everything and raises the first CniError.
    """
    valid = request.valid_attachments()
    attempts = Attempts()
    attempts.attempt(remove_stray_links, request.network, valid)
    from libcni import ipmasq

    attempts.attempt(ipmasq.gc, request.network, valid)
    attempts.attempt(collect, request)
    attempts.report()
