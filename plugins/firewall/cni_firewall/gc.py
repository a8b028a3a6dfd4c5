# SPDX-License-Identifier: Apache-2.0
"""GC: rules and sources of attachments of this network that are gone."""

from __future__ import annotations

from libcni.attachment import Attachment, network_marks
from libcni.attempts import Attempts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove what bears this network's mark and belongs to nobody valid, whatever the backend.

    Go's rules and sources bear no mark and are left alone, but for what keeps containers' own
    interfaces apart that are gone. Idempotent. Raises CniError 7 without
    acting when the list of valid attachments is missing.
    """
    network = request.network
    keep = {Attachment(network, *pair).comment for pair in request.valid_attachments()}
    from cni_firewall import ipt, ipt_ends, nft, sources

    attempts = Attempts()
    for module in (ipt, nft, sources):
        attempts.attempt(module.gc, network_marks(network), keep)
    attempts.attempt(ipt_ends.gc)
    attempts.report()
