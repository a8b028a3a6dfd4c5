# SPDX-License-Identifier: Apache-2.0
"""DEL: the ifb device goes, and from the host's end of the veth what ADD put on it.

The veth itself goes a moment later, with all that is on it; but not if somebody only takes the
limits away and attaches the same interface again.
"""

from __future__ import annotations

from errno import EOPNOTSUPP

from cni_bandwidth.ifb import find_ifbs
from cni_bandwidth.pair import host_end_or_none
from cni_bandwidth.qdisc import remove_bucket, remove_redirection
from libcni.attachment import is_mark
from libcni.attempts import Attempts
from libcni.interface.removal import find_host_ends, remove_links
from libcni.netlink.socket import NetlinkError, Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Remove the attachment's device, ours or Go's, and its qdiscs. Idempotent.

    All is found by the attachment's identity alone, a veth that is not one of ours, of whichever
    attachment, by the namespace; the device goes whatever becomes of the qdiscs. Raises CniError.
    """
    sock = Socket()
    devices = find_ifbs(sock, request.attachment)
    attempts = Attempts()
    # First: where a filter leads is not to be seen any more when the device is gone.
    attempts.attempt(_remove_qdiscs, sock, request, devices)
    attempts.attempt(_remove_devices, sock, devices)
    attempts.report()


def _remove_devices(sock: Socket, devices: list[Link]) -> None:
    removal = remove_links(sock, devices)
    if removal is not None:
        removal.finish()


def _is_anothers(host: Link, request: Request) -> bool:
    return is_mark(host.alias) and host.alias != request.attachment.alias


def _remove_qdiscs(sock: Socket, request: Request, devices: list[Link]) -> None:
    """From the host's end: the bucket, and the way to `devices`."""
    # By its name it is found without the namespace, and sooner.
    hosts = find_host_ends(sock, request.attachment)
    if not hosts:
        host = host_end_or_none(sock, request)
        # Another container may be in that namespace by now.
        if host is not None and not _is_anothers(host, request):
            hosts = [host]
    try:
        for host in hosts:
            remove_bucket(sock, host)
            remove_redirection(sock, host, devices)
    except NetlinkError as error:
        # A kernel without traffic control, where ADD has failed: there are no qdiscs.
        if error.errno != EOPNOTSUPP:
            raise
