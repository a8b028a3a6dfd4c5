# SPDX-License-Identifier: Apache-2.0
"""Host's ends of containers' own veths, which ptp has where others have a bridge.

A policy given for one is about no other container, and goes with it; what keeps a bridge apart
stays. Ours are named after the attachment, Go's are known from prevResult; both are `veth` and
eight hex digits.
"""

from __future__ import annotations

from errno import ENODEV

from libcni.netlink.link import find_link, get_link
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from libcni.attachment import Attachment

_PREFIX, _DIGITS, _HEX = "veth", 8, "0123456789abcdef"


def is_end(name: str) -> bool:
    """True for a name such as these have."""
    digits = name.removeprefix(_PREFIX)
    return name == _PREFIX + digits and len(digits) == _DIGITS and not digits.strip(_HEX)


def of(attachment: Attachment, first: str) -> list[str]:
    """The names that the attachment's may have. first: the first interface of prevResult, or "".

    Raises NetlinkError.
    """
    names = list(attachment.host_veth_names())
    if first in names or not is_end(first):
        return names
    sock = Socket()
    try:
        link = find_link(sock, first)
    finally:
        sock.close()
    # By now it may be gone; a bridge may bear any name.
    return [*names, first] if link is None or link.kind == "veth" else names


def gone(names: Iterable[str]) -> set[str]:
    """Those of the names that no interface of the host has. Raises NetlinkError."""
    asked = sorted({name for name in names if is_end(name)})
    sock = Socket()
    try:
        replies = sock.batch([get_link(name) for name in asked])
        return {
            name for name, reply in zip(asked, replies, strict=True) if not reply.check(ENODEV)
        }
    finally:
        sock.close()
