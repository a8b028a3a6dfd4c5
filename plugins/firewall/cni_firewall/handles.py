# SPDX-License-Identifier: Apache-2.0
"""Where iptables has put the rules of an attachment, so that nobody has to search for them.

The kernel finds a rule by its handle at once; by anything else only by handing out the whole
chain, two rules for each container. `iptables-restore` does not say which handles its rules got,
but the kernel tells whoever listens. An element of `owners` says that the attachment may have
rules, and is there before they are; one of `handles` where exactly they are. With the first
alone, as a killed ADD leaves it, they are searched.
"""

from __future__ import annotations

from _struct import calcsize, iter_unpack, pack
from errno import ENOENT

from cni_firewall.table import HANDLES, OWNERS, add, deletion, look
from libcni.netlink.socket import NetlinkError
from libcni.nftables import maps, rules
from libcni.nftables.transaction import (
    IPV4,
    IPV6,
    TRANSIENT,
    commit,
    find_socket,
    is_missing,
    listen,
    refused,
    rules_heard,
)
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from libcni.attachment import Attachment
    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Socket

#: Where iptables-nft has its rules, by the kernel's number of the family.
FILTERS = {number: rules.Table(number, "filter") for number in (IPV4, IPV6)}
_ENTRY = ">BQ"


class Handles:
    """What is known of an attachment's rules, while an ADD makes them.

    has_none: it certainly has no rules yet.
    """

    __slots__ = ("_attachment", "_is_new", "_listener", "_record", "_sock", "has_none")

    def __init__(self, attachment: Attachment, sock: Socket, first: Callable[[], None]) -> None:
        """Say that there may be rules from now on; `first` is called before, if there can be none
        yet. Raises NetlinkError, CniError 11.
        """
        self._attachment = attachment
        self._sock = sock
        owner, self._record = look(sock, attachment, OWNERS, HANDLES)
        self._is_new = owner is None and self._record is None
        if self._is_new:
            first()
        # Somebody may have deleted the table, and with it what was known.
        had_table = owner is not None or add(sock, OWNERS, attachment)
        self.has_none = self._is_new and had_table
        self._listener = listen()

    def forget(self) -> None:
        """Rules are about to be added to those that were there: they will be searched."""
        if self._record is not None:
            refused(commit(self._sock, deletion(HANDLES, self._record)), ENOENT, *TRANSIENT)
            self._record = None

    def note(self, chain: str, count: int) -> None:
        """Write down where the rules are, if all `count` that were made have been heard of.

        Without that, DEL searches: so nothing is raised for what fails.
        """
        comment = self._attachment.comment
        mark = comment.encode() + b"\0"
        try:
            heard = [rule for rule in rules_heard(self._listener) if mark in rule]
            if not self._is_new or len(heard) != count:
                return
            record = b"".join([pack(_ENTRY, rule[0], rules.handle_of(rule)) for rule in heard])
            if len(record) <= maps.room_for_record(comment):
                add(self._sock, HANDLES, self._attachment, record)
        except CniError:
            return


def begin(attachment: Attachment, first: Callable[[], None]) -> Handles | None:
    """What an ADD notes handles in; None in a kernel without nftables. As `Handles`."""
    sock = find_socket()
    if sock is None:
        return None
    try:
        return Handles(attachment, sock, first)
    except NetlinkError:
        if is_missing():
            return None
        raise


def _places(record: bytes | None) -> list[tuple[int, int]]:
    """(family, handle) of each rule; none where a record is missing or not understood."""
    if not record or len(record) % calcsize(_ENTRY):
        return []
    places = list(iter_unpack(_ENTRY, record))
    return places if all(family in FILTERS for family, _ in places) else []


def places_of(attachment: Attachment) -> list[tuple[int, int]]:
    """(family, handle) of each of the attachment's rules, as ADD noted them; none where it did
    not. Raises NetlinkError.
    """
    sock = find_socket()
    if sock is None:
        return []
    try:
        record = look(sock, attachment, HANDLES)[0]
    finally:
        sock.close()
    return _places(record.record) if record is not None else []


def removal(sock: Socket, attachment: Attachment, chain: str) -> tuple[list[Message], bool]:
    """The messages that delete the attachment's elements, and its rules too if True.

    False: the rules have to be searched, since where they are is not known, or not true any more.
    Raises NetlinkError.
    """
    owner, record = look(sock, attachment, OWNERS, HANDLES)
    changes = deletion(OWNERS, owner) + deletion(HANDLES, record)
    places = _places(record.record) if owner is not None and record is not None else []
    if not places:
        return changes, False
    replies = sock.batch([FILTERS[family].get_rule(chain, handle) for family, handle in places])
    mark = attachment.comment.encode() + b"\0"
    deletions = []
    for (family, _), reply in zip(places, replies, strict=True):
        if not reply.check(ENOENT) or mark not in reply.item():
            # Whoever searches finds those that are there: they are not to be deleted twice.
            return changes, False
        deletions.append(FILTERS[family].delete_rule(chain, reply.item()))
    return changes + deletions, True
