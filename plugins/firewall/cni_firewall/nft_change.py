# SPDX-License-Identifier: Apache-2.0
"""What an ADD changes of the elements of the backend nftables, and how it takes that back."""

from __future__ import annotations

from errno import ENOENT

from cni_firewall.config import ISOLATED, SAME_BRIDGE
from cni_firewall.nft import (
    BRIDGES,
    INSIDE,
    NAMES,
    deletions,
    interface,
    missing_frame,
    recorded,
)
from cni_firewall.record import pack
from cni_firewall.table import ACCEPTED, TABLE
from libcni.nftables import maps, sets
from libcni.nftables.transaction import (
    TRANSIENT,
    attempts,
    commit,
    generation,
    get_generation,
    open_socket,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Reply, Socket

    #: A set, a key, and the element that was there before, which the ADD deletes.
    Step = tuple[str, bytes, maps.MapElement | None]


class Change:
    """An ADD's change of the sets. `make` it, and `undo` it if the ADD fails later.

    stays_isolated: the bridge is, against the policy (see `strictest`).
    """

    __slots__ = ("_attachment", "_steps", "stays_isolated")

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._steps: list[Step] = []
        self.stays_isolated = False

    def make(self, addresses: list[Prefix], policy: str = "", bridge: str = "") -> None:
        """Accept the addresses' traffic, and keep `bridge` apart ("" for no policy). Idempotent.

        An address that another attachment left behind is taken over, and those of an earlier ADD
        that are none any more go. Raises NetlinkError, or CniError 11, with nothing changed.
        """
        sock = open_socket()
        try:
            self._make(sock, addresses, policy, bridge)
        finally:
            sock.close()

    def _make(self, sock: Socket, addresses: list[Prefix], policy: str, bridge: str) -> None:
        comment, own = self._attachment.comment, self._attachment.set_key
        wanted = [(NAMES[len(address.packed)], address.packed) for address in addresses]
        looks = [
            get_generation(),
            sets.get_element(TABLE, ACCEPTED, own),
            *[sets.get_element(TABLE, name, key) for name, key in wanted],
        ]
        if bridge:
            looks += [
                sets.get_element(TABLE, BRIDGES, interface(bridge)),
                sets.get_element(TABLE, INSIDE, interface(bridge) * 2),
            ]
        lacks_set = False
        for _ in attempts("firewall"):
            replies = sock.batch(looks)
            number = generation(replies[0])
            frame = missing_frame(sock, lacks_set)
            record = maps.found(replies[1], ENOENT)
            steps = self._stale(sock, record, wanted)
            additions: list[Message] = []
            for (name, key), reply in zip(wanted, replies[2:], strict=False):
                element = maps.found(reply, ENOENT)
                if element is None or element.comment != comment:
                    steps.append((name, key, element))
                    additions.append(sets.add_element(TABLE, name, key, comment))
            # A key may, once in 2^60, be another attachment's.
            if record is None or record.comment == comment:
                text = _record(comment, addresses)
                if text != (record.record if record is not None else None):
                    steps.append((ACCEPTED, own, record))
                    if text is not None:
                        element = maps.MapElement(own, b"", comment, text)
                        additions += maps.add(TABLE, ACCEPTED, [element])
            changes = deletions([step[:2] for step in steps if step[2] is not None])
            bound = bool(frame or changes)
            if bridge:
                more, is_bound = self._apart(replies[-2:], policy, bridge)
                additions += more
                bound = bound or is_bound
            self._steps = steps
            changes = [*frame, *changes, *additions]
            raced = TRANSIENT if bound and lacks_set else (ENOENT, *TRANSIENT)
            if not changes:
                break
            errors = refused(commit(sock, changes, number if bound else 0), *raced)
            if not errors:
                break
            # Raced, or the table is of a version that had fewer sets.
            lacks_set = lacks_set or ENOENT in errors

    def _stale(
        self, sock: Socket, record: maps.MapElement | None, wanted: list[tuple[str, bytes]]
    ) -> list[Step]:
        """The elements of an earlier ADD's addresses that are not wanted any more."""
        comment = self._attachment.comment
        if record is None or record.comment != comment:
            return []
        places = [place for place in recorded(sock, record) if place not in wanted]
        if not places:
            return []
        replies = sock.batch([sets.get_element(TABLE, name, key) for name, key in places])
        elements = [maps.found(reply, ENOENT) for reply in replies]
        return [
            (name, key, element)
            for (name, key), element in zip(places, elements, strict=True)
            if element is not None and element.comment == comment
        ]

    def _apart(self, replies: list[Reply], policy: str, bridge: str) -> tuple[list[Message], bool]:
        """What keeps the bridge apart; True if that is so only for what we have seen."""
        apart, inside = (maps.found(reply, ENOENT) for reply in replies)
        is_open = inside is not None
        # An element of an earlier version does not say.
        was_isolated = apart is not None and (
            apart.comment == ISOLATED or (apart.comment != SAME_BRIDGE and not is_open)
        )
        self.stays_isolated = was_isolated and policy == SAME_BRIDGE
        held = ISOLATED if was_isolated else policy
        key = interface(bridge)
        changes: list[Message] = []
        if apart is not None and apart.comment != held:
            changes += sets.delete_elements(TABLE, BRIDGES, [key])
        if apart is None or apart.comment != held:
            changes.append(sets.add_element(TABLE, BRIDGES, key, held))
        if is_open and held == ISOLATED:
            changes += sets.delete_elements(TABLE, INSIDE, [key * 2])
        elif not is_open and held == SAME_BRIDGE:
            changes.append(sets.add_element(TABLE, INSIDE, key * 2, ""))
        return changes, bool(changes)

    def undo(self) -> None:
        """Let the sets be as they were, but for what keeps a bridge apart, and for what others
        have changed since. Idempotent. Raises NetlinkError, or CniError 11.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        sock = open_socket()
        try:
            looks = [
                get_generation(),
                *[sets.get_element(TABLE, name, key) for name, key, _ in steps],
            ]
            for _ in attempts("firewall"):
                replies = sock.batch(looks)
                found = [maps.found(reply, ENOENT) for reply in replies[1:]]
                ours: list[tuple[str, bytes]] = []
                additions: list[Message] = []
                for step, element in zip(steps, found, strict=True):
                    name, _, before = step
                    is_ours = element is not None and element.comment == self._attachment.comment
                    if is_ours:
                        ours.append(step[:2])
                    if before is not None and (element is None or is_ours):
                        additions += maps.add(TABLE, name, [before])
                changes = [*deletions(ours), *additions]
                number = generation(replies[0])
                if not changes or not refused(commit(sock, changes, number), *TRANSIENT):
                    break
        finally:
            sock.close()


def _record(comment: str, addresses: list[Prefix]) -> bytes | None:
    """What is recorded of the addresses: None for none, b"" for more than there is room for."""
    if not addresses:
        return None
    text = pack("", addresses)
    return text if len(text) <= maps.room_for_record(comment) else b""
