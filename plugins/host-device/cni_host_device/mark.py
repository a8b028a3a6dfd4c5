# SPDX-License-Identifier: Apache-2.0
"""Whose a device is, in an alternative name; what it is called on the host, in its alias.

    alias       enp3s0                                   as Go's plugin has it and reads it
    altname     cni-<16 of the network>-<32 of the attachment>

Both go with the device from namespace to namespace, and an alternative name finds it there.
"""

from __future__ import annotations

from _sha512 import sha512
from errno import EOPNOTSUPP

from libcni.netlink.codec import CHANGE, CREATE, NLM_F_REQUEST, Message
from libcni.netlink.link import RTM_GETLINK, Link, get_link
from libcni.netlink.tables.link import LINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.netlink.codec import Layout
    from libcni.netlink.socket import Socket

# linux/rtnetlink.h, linux/if_link.h
_RTM_NEWLINKPROP, _RTM_DELLINKPROP = 108, 109
_PROPERTIES: Layout = (LINK[0], {"IFLA_PROP_LIST": (52, {"IFLA_ALT_IFNAME": (53, "s")})})
#: How each mark begins, and its length in bytes.
_START, _LENGTH = b"cni-", 53
#: What a kernel answers that knows no alternative names.
UNSUPPORTED = EOPNOTSUPP


def network_mark(network: str) -> str:
    """What the marks of a network's attachments begin with."""
    return f"cni-{sha512(network.encode()).hexdigest()[:16]}-"


def mark_of(attachment: Attachment) -> str:
    """The alternative name of an attachment's device."""
    return network_mark(attachment.network) + attachment.digest()[:32]


def find_marked(sock: Socket, attachment: Attachment) -> Link | None:
    """The attachment's device, if it is in the socket's namespace. Raises NetlinkError."""
    from errno import EINVAL, ENODEV

    message = Message(
        RTM_GETLINK,
        NLM_F_REQUEST,
        "find the attachment's device",
        LINK,
        (0, 0, 0, 0, 0),
        {"IFLA_ALT_IFNAME": mark_of(attachment)},
    )
    reply = sock.batch([message])[0]
    # An old kernel misses index and name.
    return Link(reply.items[0]) if reply.check(ENODEV, EINVAL) else None


def new_mark(index: int, mark: str) -> Message:
    """Add it. EEXIST if it is there, EOPNOTSUPP on a kernel without alternative names."""
    return Message(
        _RTM_NEWLINKPROP,
        CREATE,
        f"mark link {index}",
        _PROPERTIES,
        (0, 0, index, 0, 0),
        {"IFLA_PROP_LIST": {"IFLA_ALT_IFNAME": mark}},
    )


def is_marked(sock: Socket, link: Link) -> bool:
    """True for the device of an attachment of ours, whichever. Raises NetlinkError."""
    body = sock.request(get_link(index=link.index))[0]
    at = body.find(_START)
    return at >= 0 and body[at + 20 : at + 21] == b"-" and body.find(b"\0", at) == at + _LENGTH


def clear_mark(sock: Socket, index: int, mark: str) -> None:
    """Take it away. Idempotent. NetlinkError."""
    from errno import EINVAL, ENODEV, ENOENT

    message = Message(
        _RTM_DELLINKPROP,
        CHANGE,
        f"unmark link {index}",
        _PROPERTIES,
        (0, 0, index, 0, 0),
        {"IFLA_PROP_LIST": {"IFLA_ALT_IFNAME": mark}},
    )
    sock.batch([message])[0].check(ENODEV, ENOENT, EINVAL, UNSUPPORTED)


def marked_links(sock: Socket, network: str) -> list[tuple[str, Link]]:
    """(mark, link) of the devices of a network's attachments that are here. NetlinkError."""
    message = Message(RTM_GETLINK, NLM_F_REQUEST, "list links", LINK, (0, 0, 0, 0, 0), {})
    start = network_mark(network).encode()
    found = []
    for body in sock.dump(message):
        at = body.find(start)
        if at >= 0:
            found.append((body[at : body.index(b"\0", at)].decode(), Link(body)))
    return found
