# SPDX-License-Identifier: Apache-2.0
"""GC: remove what belongs to attachments of this network that do not exist any more."""

from __future__ import annotations

from cni_bridge.delete import lenient
from libcni.attempts import Attempts
from libcni.interface.removal import remove_stray_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove stray host ends, masquerade and spoof-check state, and let IPAM do the same.

    Idempotent. Raises CniError 7 without acting when the list of valid attachments is missing;
    otherwise tries everything and raises the first CniError.
    """
    valid = request.valid_attachments()
    config = lenient(request.config)
    attempts = Attempts()
    attempts.attempt(remove_stray_links, request.network, valid)
    from cni_bridge import spoofcheck
    from libcni import ipmasq

    attempts.attempt(ipmasq.gc, request.network, valid)
    attempts.attempt(spoofcheck.gc, request.network, valid)
    if config.ipam:
        from libcni.invoke.delegate import delegate_gc

        attempts.attempt(delegate_gc, request, config.ipam)
    attempts.report()
