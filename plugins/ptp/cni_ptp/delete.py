# SPDX-License-Identifier: Apache-2.0
"""DEL: every trace of the attachment goes, found by its identity; IPAM's in any case."""

from __future__ import annotations

from libcni.attempts import Attempts
from libcni.interface.ipam import release
from libcni.interface.veth_removal import start_removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Detach the container. Idempotent; needs neither namespace nor prevResult.

    Raises the first CniError after trying everything.
    """
    attempts = Attempts()
    from libcni import ipmasq

    # First, so that its wait passes together with the link's (see `libcni.nftables`).
    pending = attempts.attempt(ipmasq.remove, request.attachment)
    held = [pending.fileno()] if pending is not None else []
    removal = attempts.attempt(start_removal, request, held, _is_routed)
    attempts.attempt(release, request)
    if removal is not None:
        attempts.attempt(removal.finish)
    attempts.report()


def _is_routed(sock: Socket, link: Link) -> bool:
    """True for a host end as Go's ptp makes it: nobody's port, with an address of its own."""
    from libcni.netlink.addr import dump_addresses

    return not link.master and any(
        address.prefix.length == address.prefix.bits
        for address in dump_addresses(sock, link.index)
    )
