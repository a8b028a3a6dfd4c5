# SPDX-License-Identifier: Apache-2.0
"""DEL and GC of the nftables backend: what belongs to an attachment, and removing it.

The record in `owners` says what that is, so that nothing is searched, however many mappings
there are. Where there is no record (too long a list, or the rule set was saved and loaded by
nft, which loses it) all elements are looked at for the attachment's comment.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from cni_portmap import table
from cni_portmap.holders import lookup
from cni_portmap.record import Record, unpack
from cni_portmap.table import TABLE
from libcni.netlink.socket import Socket
from libcni.nftables import maps, rules, sets
from libcni.nftables.transaction import (
    TRANSIENT,
    attempts,
    comment_of,
    commit,
    generation,
    get_generation,
    open_socket,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.codec import Message

    At = tuple[str, bytes]

_FEW = 60


class Freed:
    """A port that led to a container: what its connections have to be forgotten for.

    address: the host's, b"" for any. target: where it led, packed.
    """

    __slots__ = ("address", "family", "port", "protocol", "target")

    def __init__(self, family: int, name: str, element: maps.MapElement) -> None:
        size = 4 if family == table.FAMILIES[0] else 16
        self.family = family
        self.protocol = element.key[0]
        self.port = int.from_bytes(element.key[4:6], "big")
        self.address = element.key[8:] if name == table.ADDRESSES[family] else b""
        self.target = element.data[:size]


def remove(sock: Socket, comment: str, owner: bytes) -> list[Freed]:
    """Remove everything with this comment. Idempotent.

    owner: the key in `owners`. Returns the ports that are free, or another's of the container
    now. Raises NetlinkError, CniError 11.
    """
    for _ in attempts("portmap"):
        number = generation(sock.batch([get_generation()])[0])
        found = _belongings(sock, comment, owner)
        changes = _changes(sock, comment, found)
        if not changes:
            return []
        if not refused(commit(sock, changes, number), ENOENT, EEXIST, *TRANSIENT):
            break
    return _freed(found)


def _freed(found: dict[str, list[maps.MapElement]]) -> list[Freed]:
    return [
        Freed(family, name, element)
        for family in table.FAMILIES
        for name in (table.PORTS[family], table.ADDRESSES[family])
        for element in found.get(name, ())
    ]


def removal(
    sock: Socket, comment: str, owner: bytes
) -> tuple[list[Message], dict[str, list[maps.MapElement]]]:
    """The messages that `remove` would send, and what they delete, by map.

    Where the owner's element is missing everything is searched. An entry for CONDITIONAL says
    that there are rules.
    """
    found = _belongings(sock, comment, owner)
    if not found:
        found = {**_search(sock, comment), table.CONDITIONAL: []}
    changes = _changes(sock, comment, found, promote=False)
    if table.CONDITIONAL in found and not _rules(sock, comment):
        del found[table.CONDITIONAL]
    return changes, found


def put_back(
    comment: str, owner: bytes, before: dict[str, list[maps.MapElement]], lines: list[str]
) -> None:
    """After an ADD again that failed: let there be what `removal` found, instead of what is.

    lines: the rules with conditions (`conditional.listed`). Raises NetlinkError, CniError.
    """
    sock = open_socket()
    for _ in attempts("portmap"):
        number = generation(sock.batch([get_generation()])[0])
        changes = _changes(sock, comment, _belongings(sock, comment, owner), promote=False)
        for name, elements in before.items():
            changes += maps.add(TABLE, name, elements)
        if not refused(commit(sock, changes, number), ENOENT, EEXIST, *TRANSIENT):
            break
    if lines:
        from cni_portmap import conditional

        conditional.put_back(lines)


def _belongings(sock: Socket, comment: str, owner: bytes) -> dict[str, list[maps.MapElement]]:
    """The elements of an attachment by map; an entry for CONDITIONAL if it may have rules."""
    element = lookup(sock, table.OWNERS, owner)
    if element is None:
        return {}
    found: dict[str, list[maps.MapElement]] = {}
    if element.comment == comment:
        found[table.OWNERS] = [element]
    known = unpack(element.record)
    if known is None:
        found.update(_search(sock, comment))
        found[table.CONDITIONAL] = []
        return found
    for name, there in _recorded(sock, known):
        if there.comment == comment:
            found.setdefault(name, []).append(there)
    for family in table.FAMILIES:
        waiting = _owned(sock, table.WAITING[family], comment)
        if waiting:
            found[table.WAITING[family]] = waiting
    if known.conditional:
        found[table.CONDITIONAL] = []
    return found


def _recorded(sock: Socket, known: Record) -> list[tuple[str, maps.MapElement]]:
    """What is at the places that a record names."""
    places: list[At] = [
        (table.place(claim), element.key)
        for claim in known.claims
        for element in table.elements(claim)
    ]
    for target in known.targets:
        for everything in (False, True):
            places += table.sources(target, everything)
    found = []
    for start in range(0, len(places), _FEW):
        part = places[start : start + _FEW]
        replies = sock.batch([sets.get_element(TABLE, name, key) for name, key in part])
        for (name, _), reply in zip(part, replies, strict=True):
            element = maps.found(reply, ENOENT)
            if element is not None:
                found.append((name, element))
    return found


def _search(sock: Socket, comment: str) -> dict[str, list[maps.MapElement]]:
    found = {}
    for name in sets.set_names(sock, TABLE):
        mine = _owned(sock, name, comment)
        if mine:
            found[name] = mine
    return found


def _owned(sock: Socket, name: str, comment: str) -> list[maps.MapElement]:
    """The elements of a map that carry this comment."""
    wanted = comment_of(comment)
    return [
        element
        for body in sets.elements(sock, TABLE, name)
        if wanted in body
        for element in maps.read(body)
        if element.comment == comment
    ]


def _rules(sock: Socket, comment: str) -> list[bytes]:
    """The attachment's rules with conditions."""
    return [
        rule for rule in TABLE.rules(sock, table.CONDITIONAL) if rules.has_comment(rule, comment)
    ]


def _changes(
    sock: Socket,
    comment: str,
    found: dict[str, list[maps.MapElement]],
    promote: bool = True,
) -> list[Message]:
    """Delete the elements and rules, and let what waited for a port have it."""
    changes: list[Message] = []
    for name, elements in found.items():
        if name == table.CONDITIONAL:
            changes += [TABLE.delete_rule(name, rule) for rule in _rules(sock, comment)]
        elif elements:
            changes += maps.delete(TABLE, name, elements)
    if promote:
        for family in table.FAMILIES:
            changes += _promotions(sock, comment, family, found)
    return changes


def _promotions(
    sock: Socket, comment: str, family: int, found: dict[str, list[maps.MapElement]]
) -> list[Message]:
    """Give a port that is let go to the first that waits for it."""
    free = {
        (name, element.key)
        for name in (table.PORTS[family], table.ADDRESSES[family])
        for element in found.get(name, ())
    }
    if not free:
        return []
    changes: list[Message] = []
    for body in sets.elements(sock, TABLE, table.WAITING[family]):
        for element in maps.read(body):
            key, single = table.awaited(element.key)
            name = (table.ADDRESSES if single else table.PORTS)[family]
            if element.comment != comment and (name, key) in free:
                free.discard((name, key))
                promoted = maps.MapElement(key, element.data, element.comment)
                changes += maps.delete(TABLE, table.WAITING[family], [element])
                changes += maps.add(TABLE, name, [promoted])
    return changes


def stale_comments(sock: Socket, marks: tuple[str, str], keep: set[str]) -> dict[str, bytes]:
    """The comments of a network's attachments that are not to be kept: key in `owners`.

    marks: what the network's comments begin with. b"" for what has no element in `owners`.
    """
    found: dict[str, bytes] = {}
    names = sets.set_names(sock, TABLE)
    for name in sorted(names, key=lambda name: name != table.OWNERS):
        for body in sets.elements(sock, TABLE, name):
            for element in maps.read(body):
                if element.comment.startswith(marks) and element.comment not in keep:
                    own = element.key if name == table.OWNERS else b""
                    found.setdefault(element.comment, own)
    return found


def has_orphans(sock: Socket, comment: str) -> bool:
    """True if somebody has emptied `owners`, and there is more with this comment.

    Whoever has no element there has had no mappings, unless that set lost what it had: that it
    did is only seen as long as nobody else is in it again. Otherwise each DEL of an attachment
    without mappings would have to search those of all others.
    """
    if not sets.is_empty(TABLE, table.OWNERS):
        return False
    return bool(_search(sock, comment) or _rules(sock, comment))


def remove_orphans(sock: Socket, comment: str) -> list[Freed]:
    """`remove` for a comment that has no element in `owners`."""
    for _ in attempts("portmap"):
        number = generation(sock.batch([get_generation()])[0])
        found = _search(sock, comment)
        found[table.CONDITIONAL] = []
        changes = _changes(sock, comment, found)
        if not changes or not refused(commit(sock, changes, number), ENOENT, EEXIST, *TRANSIENT):
            break
    return _freed(found)
