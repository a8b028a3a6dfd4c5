# SPDX-License-Identifier: Apache-2.0
"""The device `lo` of the container's namespace."""

from __future__ import annotations

from libcni.netlink.link import Link, get_link, set_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside, Namespace

#: net/core: the first device of every namespace, always with this index and name.
INDEX = 1
NAME = "lo"


def open_socket(namespace: Namespace) -> Socket:
    """A netlink socket inside the namespace, which this thread has left again."""
    with Inside(namespace):
        return Socket()


def set_up(sock: Socket, up: bool) -> Link:
    """Bring `lo` up or down and return it as it is then. Idempotent. Raises NetlinkError."""
    replies = sock.run(set_link(index=INDEX, up=up), get_link(index=INDEX))
    return Link(replies[1].items[0])


def is_up(sock: Socket) -> bool:
    """True when `lo` is up. Raises NetlinkError."""
    return Link(sock.request(get_link(index=INDEX))[0]).is_up
