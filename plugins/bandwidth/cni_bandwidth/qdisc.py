# SPDX-License-Identifier: Apache-2.0
"""What ADD puts on the host's end of the veth, taken off again; what others put there stays."""

from __future__ import annotations

from errno import EINVAL, ENODEV, ENOENT

from libcni.netlink import tc
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from libcni.netlink.link import Link


def remove_bucket(sock: Socket, host: Link) -> None:
    """The token bucket of an ADD, ours or Go's. Idempotent. Raises NetlinkError."""
    # What the kernel has said of the link tells whether to ask: most have no bucket.
    if host.qdisc == "tbf" and tc.has_own_bucket(sock, host.index):
        remove(sock, host.index, tc.ROOT)


def remove_redirection(sock: Socket, host: Link, devices: Iterable[Link]) -> None:
    """The ingress qdisc, if it leads to one of `devices`. Idempotent. Raises NetlinkError."""
    indices = {device.index for device in devices}
    if indices and indices.intersection(tc.redirections(sock, host.index)):
        remove(sock, host.index, tc.INGRESS)


def remove(sock: Socket, index: int, parent: int) -> None:
    """Whatever is at ROOT or INGRESS of a link. Idempotent. Raises NetlinkError."""
    # The link may go, qdiscs and all, while we are looking.
    sock.batch([tc.delete_qdisc(index, parent)])[0].check(ENOENT, EINVAL, ENODEV)
