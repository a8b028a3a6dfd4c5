# SPDX-License-Identifier: Apache-2.0
"""Whose a device is, and what it is called on the host, in alternative names.

    altname     cni-<16 of the network>-<32 of the attachment>             the mark
    altname     cni-<16 of the network>-<32 of the attachment>-enp3s0      the record of its name
    alias       enp3s0                                   as Go's plugin has it and reads it

All go with the device from namespace to namespace, and an alternative name finds it there. The
alias is anybody's to change.
"""

from __future__ import annotations

from _sha512 import sha512
from errno import EOPNOTSUPP

from libcni.netlink.codec import CHANGE, CREATE, NLM_F_REQUEST, Message
from libcni.netlink.link import RTM_GETLINK, Link, find_link, get_link
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
#: Bytes of an interface's name (linux/if.h IFNAMSIZ, without the NUL).
_NAME_MAX = 15
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


def new_marks(index: int, mark: str, name: str) -> list[Message]:
    """Add mark and record. EEXIST if they are there, EOPNOTSUPP on a kernel without such."""
    return add_marks(index, [mark, f"{mark}-{name}"])


def add_marks(index: int, marks: list[str]) -> list[Message]:
    """Add marks and records. Refused as `new_marks`."""
    return [_property(_RTM_NEWLINKPROP, CREATE, index, text) for text in marks]


def _property(kind: int, flags: int, index: int, name: str) -> Message:
    return Message(
        kind,
        flags,
        f"{'unmark' if kind == _RTM_DELLINKPROP else 'mark'} link {index}",
        _PROPERTIES,
        (0, 0, index, 0, 0),
        {"IFLA_PROP_LIST": {"IFLA_ALT_IFNAME": name}},
    )


def marks_of(body: bytes) -> list[str]:
    """The marks and records, of whichever attachments, in the kernel's description of a link."""
    found = []
    at = body.find(_START)
    while at >= 0:
        text = body[at : body.find(b"\0", at)]
        if text[20:21] == b"-" and (len(text) == _LENGTH or text[_LENGTH : _LENGTH + 1] == b"-"):
            found.append(text.decode("utf-8", "replace"))
        at = body.find(_START, at + len(_START))
    return found


def is_marked(sock: Socket, link: Link) -> bool:
    """True for the device of an attachment of ours, whichever. Raises NetlinkError."""
    return bool(read_marks(sock, link))


def read_marks(sock: Socket, link: Link) -> list[str]:
    """The marks and records, of whichever attachments, that a device has now. NetlinkError."""
    return marks_of(sock.request(get_link(index=link.index))[0])


def recorded_name(marks: list[str], network: str) -> str:
    """What the record of one of the network's attachments says, or ""."""
    start = network_mark(network)
    names = [mark[_LENGTH + 1 :] for mark in marks if mark.startswith(start)]
    return next(filter(None, names), "")


def original_name(sock: Socket, link: Link, mark: str, device: object = "") -> str:
    """What a device is called on the host; "" when nothing says so. Raises NetlinkError.

    device: what the configuration calls it, which may be an alternative name. A kernel without
    those has no record, and Go's plugin makes none: then it is the alias, as with Go, or `device`
    where that is none or no name.
    """
    start = f"{mark}-"
    for record in read_marks(sock, link):
        if record.startswith(start):
            return record[len(start) :]
    if _may_be_name(link.alias) or not isinstance(device, str) or not _may_be_name(device):
        return link.alias
    other = find_link(sock, device)
    is_alternative = other is not None and other.index == link.index and link.name != device
    return link.alias if is_alternative else device


def _may_be_name(text: str) -> bool:
    """True if an interface can be called so (net/core/dev.c, dev_valid_name)."""
    fits = 0 < len(text.encode()) <= _NAME_MAX and text not in (".", "..")
    return fits and not any(c in "/:" or c.isspace() for c in text)


def clear_marks(sock: Socket, index: int) -> None:
    """Take all marks and records away, be they others': it is on the host, so nobody has it.

    Idempotent. NetlinkError.
    """
    from errno import EINVAL, ENODEV, ENOENT

    reply = sock.batch([get_link(index=index)])[0]
    names = marks_of(reply.items[0]) if reply.check(ENODEV) else []
    for answer in sock.batch([_property(_RTM_DELLINKPROP, CHANGE, index, n) for n in names]):
        answer.check(ENODEV, ENOENT, EINVAL, UNSUPPORTED)


def marked_links(sock: Socket, network: str) -> list[tuple[str, Link]]:
    """(mark, link) of the devices of a network's attachments that are here. NetlinkError."""
    message = Message(RTM_GETLINK, NLM_F_REQUEST, "list links", LINK, (0, 0, 0, 0, 0), {})
    start = network_mark(network).encode()
    found = []
    for body in sock.dump(message):
        at = body.find(start)
        if at >= 0:
            found.append((body[at : at + _LENGTH].decode("utf-8", "replace"), Link(body)))
    return found
