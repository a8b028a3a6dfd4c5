# SPDX-License-Identifier: Apache-2.0
"""The nftables table, and what it says of attachments, whichever backend filters.

    table inet adder_firewall {
        set owners { type ifname; elements = { "0a1b…" comment "cni:podnet:0a1b:eth0" } }
        set handles { the same, with a record that nft does not show }
        set sources { the same }
    }

An element of `owners` says that the attachment may have rules in iptables, one of `handles` where
(see `handles`), and one of `sources` what firewalld was told of it (see `sources`). The backend
nftables has its own sets here (see `nft`).
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from libcni.nftables import maps, rules, sets
from libcni.nftables.transaction import INET, MISSING, TRANSIENT, attempts, commit, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Socket

TABLE = rules.Table(INET, "adder_firewall")
OWNERS, HANDLES, SOURCES = "owners", "handles", "sources"
#: Of the backend nftables, which makes it with its other sets.
ACCEPTED = "accepted"


def look(sock: Socket, attachment: Attachment, *names: str) -> list[maps.MapElement | None]:
    """The attachment's element of each of the sets, in any kernel. Raises NetlinkError."""
    key = attachment.set_key
    replies = sock.batch([sets.get_element(TABLE, name, key) for name in names])
    found = [maps.found(reply, ENOENT, *MISSING) for reply in replies]
    comment = attachment.comment
    return [one if one is not None and one.comment == comment else None for one in found]


def add(sock: Socket, name: str, attachment: Attachment, record: bytes | None = None) -> bool:
    """Add the attachment's element to a set; False if there was no such set before.

    One that is there already stays as it is. Raises NetlinkError, CniError 11.
    """
    frame: list[Message] = []
    element = maps.MapElement(attachment.set_key, b"", attachment.comment, record)
    for _ in attempts("firewall"):
        changes = [*frame, *maps.add(TABLE, name, [element])]
        errors = refused(commit(sock, changes), ENOENT, EEXIST, *TRANSIENT)
        if not errors or EEXIST in errors:
            break
        if ENOENT in errors:
            frame = [TABLE.create()]
            frame += [
                sets.create_set(TABLE, name, sets.INTERFACE_NAME, "", number)
                for number, name in enumerate((OWNERS, HANDLES, SOURCES), 1)
            ]
    return not frame


def deletion(name: str, element: maps.MapElement | None) -> list[Message]:
    """The messages that delete an element; none for none."""
    return maps.delete(TABLE, name, [element]) if element is not None else []
