# SPDX-License-Identifier: Apache-2.0
"""DEL: whatever either backend, ours or Go's, holds of the attachment goes.

It needs nothing but the identity. Where there is nothing it costs a few questions to the kernel.
"""

from __future__ import annotations

from errno import ENOENT

from cni_portmap import leftovers, table
from libcni import orphans
from libcni.attempts import Attempts
from libcni.netlink.socket import Socket
from libcni.nftables import sets
from libcni.nftables.transaction import (
    MISSING,
    TRANSIENT,
    attempts,
    commit,
    find_socket,
    generation,
    get_generation,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_portmap.removal import Freed
    from libcni.attachment import Attachment
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Remove the mappings. Idempotent. Raises the first CniError after trying everything."""
    runtime = request.config.get("runtimeConfig")
    asked = isinstance(runtime, dict) and bool(runtime.get("portMappings"))
    remove(request.attachment, asked)


def remove(attachment: Attachment, search: bool = False) -> None:
    """What DEL does, for any attachment.

    search: it has had mappings, so look for them even where somebody has removed their owner and
    that does not show.
    """
    steps = Attempts()
    steps.attempt(orphans.wait, attachment)
    steps.attempt(_remove_nftables, attachment, steps, search)
    from libcni.legacy_tables import legacy_versions

    families = legacy_versions("nat")
    if families:
        from cni_portmap import ipt

        led_to = steps.attempt(ipt.remove_legacy, attachment, families)
        if led_to:
            from cni_portmap.flows import forget_translated

            steps.attempt(forget_translated, led_to)
    steps.report()


def _remove_nftables(attachment: Attachment, steps: Attempts, search: bool) -> None:
    sock = find_socket()
    if sock is None:
        return
    own = attachment.set_key
    ours, *theirs = sock.batch(
        [sets.get_element(table.TABLE, table.OWNERS, own), *leftovers.looks(attachment)]
    )
    if ours.error in MISSING:
        return
    has_ours = ours.check(ENOENT)
    has_theirs = leftovers.are_there(theirs)
    freed: list[Freed] = []
    if has_ours:
        from cni_portmap.removal import remove as remove_elements

        freed = steps.attempt(remove_elements, sock, attachment.comment, own) or []
    else:
        from cni_portmap.removal import has_orphans, remove_orphans

        if search or steps.attempt(has_orphans, sock, attachment.comment):
            freed = steps.attempt(remove_orphans, sock, attachment.comment) or []
    led_to: set[bytes] = set()
    if has_theirs:
        led_to = steps.attempt(remove_leftovers, sock, attachment) or set()
    if freed or led_to:
        from cni_portmap import flows

        steps.attempt(flows.forget_freed, freed)
        steps.attempt(flows.forget_translated, led_to)
    if has_ours or has_theirs:
        from libcni.nftables.closing import leave

        leave(sock)


def remove_ours(attachment: Attachment) -> None:
    """Remove what our nftables backend holds of it, and nothing of iptables. Idempotent.

    The table goes too, if this process has made it and nobody uses it. Raises NetlinkError,
    CniError 11.
    """
    sock = find_socket()
    if sock is None:
        return
    if not table.TABLE.is_absent(sock):
        from cni_portmap.flows import forget_freed
        from cni_portmap.removal import remove as remove_elements

        forget_freed(remove_elements(sock, attachment.comment, attachment.set_key))
        table.TABLE.undo(sock)
    sock.close()


def remove_leftovers(
    sock: Socket,
    attachment: Attachment,
    versions: tuple[int, ...] = (4, 6),
    addresses: set[bytes] | None = None,
) -> set[bytes]:
    """Remove what iptables-nft, and Go's nftables backend, hold of it. Idempotent.

    versions: of IP. addresses: see `leftovers.removal`. Returns the addresses, packed, that it
    led to. Raises NetlinkError, CniError 11.
    """
    led_to: set[bytes] = set()
    for _ in attempts("portmap"):
        now = sock.batch([get_generation()])[0]
        if now.error in MISSING:
            break
        number = generation(now)
        changes, targets = leftovers.removal(sock, attachment, versions, addresses)
        led_to |= targets
        if not changes or not refused(commit(sock, changes, number), ENOENT, *TRANSIENT):
            break
    return led_to
