# SPDX-License-Identifier: Apache-2.0
"""GC: the mappings of this network's attachments that are gone."""

from __future__ import annotations

from errno import ENOENT

from cni_portmap import leftovers, removal
from cni_portmap.flows import forget_freed, forget_translated
from libcni.attachment import Attachment, network_marks
from libcni.attempts import Attempts
from libcni.nftables.transaction import (
    LIMIT,
    TRANSIENT,
    attempts,
    commit,
    generation,
    get_generation,
    is_missing,
    open_socket,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove what belongs to attachments of the network that are not valid. Idempotent.

    Go's iptables rules tell containers apart, not their interfaces. What its nftables backend
    made does not say its network, and stays. Raises CniError 7 without acting when the list of
    valid attachments is missing; else the first CniError after trying everything.
    """
    network = request.network
    valid = [Attachment(network, *pair) for pair in request.valid_attachments()]
    steps = Attempts()
    led_to: set[bytes] = set()
    if not steps.attempt(is_missing):
        steps.attempt(_collect_elements, network, valid)
        steps.attempt(_collect_leftovers, network, valid, led_to)
    from libcni.legacy_tables import legacy_versions

    families = legacy_versions("nat")
    if families:
        from cni_portmap import ipt

        led_to |= steps.attempt(ipt.gc_legacy, network, valid, families) or set()
    steps.attempt(forget_translated, led_to)
    steps.report()


def _collect_elements(network: str, valid: list[Attachment]) -> None:
    keep = {attachment.comment for attachment in valid}
    sock = open_socket()
    try:
        marks = network_marks(network)
        for comment, own in removal.stale_comments(sock, marks, keep).items():
            if own:
                forget_freed(removal.remove(sock, comment, own))
            else:
                forget_freed(removal.remove_orphans(sock, comment))
    finally:
        sock.close()


def _collect_leftovers(network: str, valid: list[Attachment], led_to: set[bytes]) -> None:
    """led_to: is given the addresses, packed, that what goes led to."""
    sock = open_socket()
    try:
        for _ in attempts("portmap"):
            number = generation(sock.batch([get_generation()])[0])
            changes, targets = leftovers.stale(sock, network, valid)
            if not changes:
                return
            led_to |= targets
            # Each commit is a new generation; what does not fit is for the next attempt.
            refused(commit(sock, changes[:LIMIT], number), ENOENT, *TRANSIENT)
    finally:
        sock.close()
