# SPDX-License-Identifier: Apache-2.0
"""GC: the mappings of this network's attachments that are gone."""

from __future__ import annotations

from errno import ENOENT

from cni_portmap import leftovers, removal
from cni_portmap.flows import forget_freed
from libcni.attachment import Attachment, network_marks
from libcni.attempts import Attempts
from libcni.nftables.transaction import (
    LIMIT,
    TRANSIENT,
    attempts,
    commit,
    generation,
    get_generation,
    open_socket,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove what belongs to attachments of the network that are not valid. Idempotent.

    iptables tells containers apart, not their interfaces. What the Go plugin's nftables backend
    made does not say its network, and stays. Raises CniError 7 without acting when the list of
    valid attachments is missing; else the first CniError after trying everything.
    """
    network, valid = request.network, request.valid_attachments()
    steps = Attempts()
    steps.attempt(_collect_elements, network, valid)
    containers = {container_id for container_id, _ in valid}
    steps.attempt(_collect_leftovers, network, containers)
    from libcni.legacy_tables import legacy_versions

    families = legacy_versions("nat")
    if families:
        from cni_portmap import ipt

        steps.attempt(ipt.gc_legacy, network, containers, families)
    steps.report()


def _collect_elements(network: str, valid: set[tuple[str, str]]) -> None:
    keep = {Attachment(network, *pair).comment for pair in valid}
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


def _collect_leftovers(network: str, containers: set[str]) -> None:
    sock = open_socket()
    try:
        for _ in attempts("portmap"):
            number = generation(sock.batch([get_generation()])[0])
            changes = leftovers.stale(sock, network, containers)
            if not changes:
                return
            # Each commit is a new generation; what does not fit is for the next attempt.
            refused(commit(sock, changes[:LIMIT], number), ENOENT, *TRANSIENT)
    finally:
        sock.close()
