# SPDX-License-Identifier: Apache-2.0
"""The host's neighbour entries for the container's addresses."""

from __future__ import annotations

from libcni.inet import Prefix
from libcni.netlink.codec import CHANGE, Message
from libcni.netlink.tables.neigh import NEIGHBOUR

#: linux/rtnetlink.h
_RTM_DELNEIGH = 29


def forget(index: int, address: str) -> Message:
    """A request to forget who has `address` ("10.1.2.3/24") on that link. ENOENT is no matter."""
    prefix = Prefix.parse(address)
    return Message(
        _RTM_DELNEIGH,
        CHANGE,
        f"forget neighbour {address}",
        NEIGHBOUR,
        (prefix.family, index, 0, 0, 0),
        {"NDA_DST": prefix.packed},
    )
