# SPDX-License-Identifier: Apache-2.0
"""The ifb device behind which a container's egress is limited: Linux shapes what it sends only,
and what the container sends, the host receives."""

from __future__ import annotations

from _sha512 import sha512
from errno import ENODEV

from libcni.attachment import Attachment
from libcni.netlink.link import Link, get_link, new_link, set_link
from libcni.netlink.socket import Socket
from libcni.types.errors import EXHAUSTED, CniError

_PREFIX = "bwp"
_HEX = 15 - len(_PREFIX)
#: Names to try before giving up.
_NAMES = 3


def names_of(attachment: Attachment) -> list[str]:
    """Names for the device, in order of preference."""
    digest = attachment.digest()
    return [_PREFIX + digest[i * _HEX : (i + 1) * _HEX] for i in range(_NAMES)]


def go_name(attachment: Attachment) -> str:
    """That of the Go plugin, the same for all interfaces of a container in a network."""
    text = attachment.network + attachment.container_id
    return _PREFIX + sha512(text.encode()).hexdigest()[:_HEX]


def find_ifbs(sock: Socket, attachment: Attachment) -> list[Link]:
    """The devices of an attachment: those that bear its alias, and Go's, which bears none."""
    names = [*names_of(attachment), go_name(attachment)]
    found = []
    for name, reply in zip(names, sock.batch([get_link(name) for name in names]), strict=True):
        if not reply.check(ENODEV):
            continue
        link = Link(reply.items[0])
        is_go_s = name == names[-1] and not link.alias
        if link.kind == "ifb" and (link.alias == attachment.alias or is_go_s):
            found.append(link)
    return found


def create_ifb(sock: Socket, attachment: Attachment, mtu: int) -> Link:
    """Make the device and set it up. mtu: bytes. Raises CniError 100, NetlinkError."""
    for name in names_of(attachment):
        if sock.batch([get_link(name)])[0].check(ENODEV):
            continue  # a stranger's
        replies = sock.run(
            new_link(name, "ifb", mtu=mtu, up=False),
            set_link(name, alias=attachment.alias, txqlen=0),
            set_link(name, up=True),
            get_link(name),
        )
        return Link(replies[3].items[0])
    names = ", ".join(names_of(attachment))
    raise CniError(EXHAUSTED, f"no free name for the ifb device: {names} are all taken")
