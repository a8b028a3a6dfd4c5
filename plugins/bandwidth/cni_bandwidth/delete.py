# SPDX-License-Identifier: Apache-2.0
"""DEL: the ifb device goes, and from the host's end of the veth what ADD put on it.

The veth itself goes a moment later, with all that is on it; but not if somebody only takes the
limits away and attaches the same interface again.
"""

from __future__ import annotations

from errno import EINVAL, ENODEV, ENOENT, EOPNOTSUPP

from cni_bandwidth.config import limits_of
from cni_bandwidth.ifb import find_ifbs
from cni_bandwidth.pair import host_end_or_none
from libcni.attempts import Attempts
from libcni.interface.removal import remove_links
from libcni.netlink import tc
from libcni.netlink.socket import NetlinkError, Socket
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Remove the attachment's device, ours or Go's, and its qdiscs. Idempotent.

    The device is found by the attachment's identity alone, and goes whatever becomes of the
    qdiscs. Raises CniError.
    """
    sock = Socket()
    devices = find_ifbs(sock, request.attachment)
    attempts = Attempts()
    # First: where a filter leads is not to be seen any more when the device is gone.
    attempts.attempt(_remove_qdiscs, sock, request, {device.index for device in devices})
    attempts.attempt(_remove_devices, sock, devices)
    attempts.report()


def _remove_devices(sock: Socket, devices: list[Link]) -> None:
    removal = remove_links(sock, devices)
    if removal is not None:
        removal.finish()


def _remove_qdiscs(sock: Socket, request: Request, devices: set[int]) -> None:
    """From the host's end: the bucket that the configuration asks for, the way to `devices`."""
    is_limited = _limits_receiving(request)
    host = host_end_or_none(sock, request) if is_limited or devices else None
    if host is None:
        return
    try:
        messages = []
        if is_limited and tc.find_token_bucket(sock, host.index) is not None:
            messages.append(tc.delete_qdisc(host.index, tc.ROOT))
        if devices and devices.intersection(tc.redirections(sock, host.index)):
            messages.append(tc.delete_qdisc(host.index, tc.INGRESS))
        for reply in sock.batch(messages) if messages else ():
            # It may go, interface and all, while we are looking.
            reply.check(ENOENT, EINVAL, ENODEV)
    except NetlinkError as error:
        # A kernel without traffic control, where ADD has failed: there are no qdiscs.
        if error.errno != EOPNOTSUPP:
            raise


def _limits_receiving(request: Request) -> bool:
    try:
        return limits_of(request.config)[0] is not None
    except CniError:
        return False  # whatever the configuration has become, DEL cleans up
