# SPDX-License-Identifier: Apache-2.0
"""ADD and CHECK of the nftables backend: elements of the maps of `table`, in one transaction.

It looks first, as the kernel needs 8-16 ms to undo a commit that it refuses: at the keys that it
wants, and at what the same attachment has from an ADD that was cut short. Then it commits; that
nobody else has taken a port meanwhile is for the kernel to see (EEXIST), and bound to the
generation that it looked at only where something is replaced.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from cni_portmap import record, table
from cni_portmap.across import refuse_taken_by_iptables
from cni_portmap.holders import Holders, lookup
from cni_portmap.mapping import Claim
from cni_portmap.record import Record
from cni_portmap.table import TABLE
from libcni.attachment import Attachment
from libcni.inet import ntop
from libcni.netlink.socket import Socket
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
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_portmap.config import Config
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message


def wanted(
    config: Config, targets: dict[int, Prefix], claims: list[Claim], host_end: bool
) -> tuple[Record, list[tuple[str, bytes]], list[Claim]]:
    """What to make: elements, the sources to masquerade, and the claims that are rules."""
    plain, conditional = divide(claims, config.conditions)
    used = {claim.family for claim in claims} if config.snat else set()
    masqueraded = [target for family, target in targets.items() if family in used]
    sources = [s for t in masqueraded for s in table.sources(t, config.masquerade_all)]
    return Record(plain, masqueraded, bool(conditional), host_end), sources, conditional


def ensure(
    attachment: Attachment,
    wanted: Record,
    sources: list[tuple[str, bytes]],
    undo: Callable[..., None],
) -> bool:
    """Take the ports, and masquerade what comes from `sources` ((set, key), see `table`).

    wanted: claims and all that DEL will have to know. undo: called before each attempt at a
    change with what leaves this backend as it was. What the attachment had goes. Idempotent. A
    port that another attachment of the same container has waits until that lets go. Returns
    whether iptables too may hold something of it. Raises Taken, naming the holder of a port,
    with nothing changed; NetlinkError; CniError 11.
    """
    sock, claims = open_socket(), wanted.claims
    is_in_iptables = refuse_taken_by_iptables(sock, attachment, claims)
    owner = _owner(attachment, wanted)
    for _ in attempts("portmap"):
        number = generation(sock.batch([get_generation()])[0])
        existing = b"".join(TABLE.rules(sock, ""))
        holders = Holders(attachment)
        changes: list[Message] = []
        before: dict[str, list[maps.MapElement]] = {}
        replaces = bool(table.missing_rule(existing, sources))
        absent = replaces and not existing and TABLE.is_absent(sock)
        if replaces:
            changes += table.frame(sock, existing, sources)
        if not absent:
            holders.look(sock, claims, sources)
            stale, before = _stale(sock, attachment, holders)
            replaces |= bool(stale)
            changes += stale
        # A claim on one address and one on any must not pass each other by.
        replaces |= any(claim.address for claim in claims)
        changes += sets_and_maps(attachment, claims, sources, holders)
        changes += maps.add(TABLE, table.OWNERS, [owner])
        undo(*_undoing(attachment, before))
        raced = TRANSIENT if replaces else (ENOENT, EEXIST, *TRANSIENT)
        if not refused(commit(sock, changes, number if replaces else 0), *raced):
            TABLE.made_here |= absent
            break
    if not replaces:
        _look_again(sock, attachment, claims)
    return is_in_iptables


def _owner(attachment: Attachment, wanted: Record) -> maps.MapElement:
    comment = attachment.comment
    record = wanted.pack(maps.room_for_record(comment))
    return maps.MapElement(attachment.set_key, b"", comment, record)


def remember(attachment: Attachment, wanted: Record) -> None:
    """Replace the record of `ensure` by a fuller one. Raises NetlinkError, CniError 11."""
    sock, owner = open_socket(), _owner(attachment, wanted)
    for _ in attempts("portmap"):
        changes = maps.delete(TABLE, table.OWNERS, [owner])
        changes += maps.add(TABLE, table.OWNERS, [owner])
        if not refused(commit(sock, changes), *TRANSIENT):
            return


def _stale(
    sock: Socket, attachment: Attachment, holders: Holders
) -> tuple[list[Message], dict[str, list[maps.MapElement]]]:
    """Delete what the attachment has already, and what has a key of the masquerade's sets.

    And what it has, by map.
    """
    from_before = lookup(sock, table.OWNERS, attachment.set_key)
    if from_before is None and not holders.mine:
        return holders.release(), {}
    from cni_portmap.removal import removal

    changes, before = removal(sock, attachment.comment, attachment.set_key)
    holders.forget({(name, e.key) for name, elements in before.items() for e in elements})
    return [*changes, *holders.release()], before


def _undoing(
    attachment: Attachment, before: dict[str, list[maps.MapElement]]
) -> tuple[Callable[..., None], *tuple[object, ...]]:
    """What undoes the addition, or replacement: a function and its arguments."""
    if not before:
        from cni_portmap.delete import remove_ours

        return remove_ours, attachment
    from cni_portmap.removal import put_back

    lines: list[str] = []
    if table.CONDITIONAL in before:
        from cni_portmap import conditional

        lines = conditional.listed(attachment)
    return put_back, attachment.comment, attachment.set_key, before, lines


def sets_and_maps(
    attachment: Attachment,
    claims: list[Claim],
    sources: list[tuple[str, bytes]],
    holders: Holders,
) -> list[Message]:
    """Add the elements: those whose port is the container's already wait."""
    additions: dict[str, list[maps.MapElement]] = {}
    own = attachment.set_key
    for claim in claims:
        name = table.place(claim)
        for element in table.elements(claim, attachment.comment):
            if (name, element.key) in holders.siblings:
                element.key = table.waiting_key(element.key, claim.family, own)
                additions.setdefault(table.WAITING[claim.family], []).append(element)
            else:
                additions.setdefault(name, []).append(element)
    for name, key in sources:
        additions.setdefault(name, []).append(maps.MapElement(key, b"", attachment.comment))
    changes = []
    for name, elements in additions.items():
        changes += maps.add(TABLE, name, elements)
    return changes


def _look_again(sock: Socket, attachment: Attachment, claims: list[Claim]) -> None:
    """A claim on one address may have been made while ours on any was. Raises CniError 101."""
    holders = Holders(attachment)
    holders.look_at_addresses(sock, claims)


def check(attachment: Attachment, made: Record, sources: list[tuple[str, bytes]]) -> None:
    """Raise CniError 103 naming what is missing, or is not as ADD made it."""
    sock, claims = open_socket(), made.claims
    existing = b"".join(TABLE.rules(sock, ""))
    absent = table.missing_rule(existing, sources)
    if absent:
        raise _differs(f"the rule {absent!r} in table inet {TABLE.name}", "missing")
    idle = TABLE.idle(sock, table.HOOKS)
    if idle:
        raise CniError(CHECK_FAILED, f"portmap: nftables: {idle}", "so mappings do not work")
    comment, own = attachment.comment, attachment.set_key
    wanted = [
        (table.place(claim), element, claim, offset)
        for claim in claims
        for offset, element in enumerate(table.elements(claim, comment))
    ]
    found = _look_up(sock, [(name, element.key) for name, element, _, _ in wanted])
    for (name, element, claim, offset), there in zip(wanted, found, strict=True):
        if there is None or there.comment != comment:
            key = table.waiting_key(element.key, claim.family, own)
            waiting = lookup(sock, table.WAITING[claim.family], key)
            if waiting is None or waiting.comment != comment:
                holder = f"belongs to {there.comment!r}" if there else "missing"
                raise _differs(f"hostPort {claim.text(offset)} in map {name}", holder)
            there = waiting
        if there.data != element.data:
            raise _differs(
                f"hostPort {claim.text(offset)} in map {name}",
                f"it leads to {_target(there.data)}, expected {_target(element.data)}",
            )
    for (name, key), there in zip(sources, _look_up(sock, sources), strict=True):
        if there is None or there.comment != comment:
            raise _differs(f"the masquerade in set {name} for {_target(key)}", "missing")
    owner = lookup(sock, table.OWNERS, own)
    if owner is None or owner.comment != comment:
        raise _differs(f"the attachment in set {table.OWNERS}", "missing")
    known = record.unpack(owner.record)
    if known is not None and not known.digest:
        made.digest = b""  # by a version that did not remember it
    elif known is not None and known.digest != made.digest:
        raise _differs(
            f"the rules of the attachment in chain {table.CONDITIONAL}",
            "they are not as ADD made them for these conditions",
        )
    expected = made.pack(maps.room_for_record(comment))
    if known is not None and owner.record != expected:
        raise _differs(f"the attachment in set {table.OWNERS}", "its record is another one")


def _look_up(sock: Socket, names: list[tuple[str, bytes]]) -> list[maps.MapElement | None]:
    found: list[maps.MapElement | None] = []
    for start in range(0, len(names), 60):
        part = names[start : start + 60]
        replies = sock.batch([sets.get_element(TABLE, name, key) for name, key in part])
        found += [maps.found(reply, ENOENT) for reply in replies]
    return found


def _target(data: bytes) -> str:
    if len(data) in (4, 16):
        return ntop(data)
    size = 4 if len(data) == 8 else 16
    if data[-2:] == b"\0\0" and len(data) != 2 * size:
        return f"{ntop(data[:size])} port {int.from_bytes(data[size : size + 2], 'big')}"
    return f"{ntop(data[:size])} to {ntop(data[size:])}" if len(data) >= 2 * size else data.hex()


def _differs(what: str, how: str) -> CniError:
    return CniError(CHECK_FAILED, f"portmap: {what}: {how}")


def divide(
    claims: list[Claim], conditions: dict[int, list[str]]
) -> tuple[list[Claim], list[Claim]]:
    """The claims on whole ports, and those of IP versions that have conditions."""
    conditional = [c for c in claims if table.VERSIONS[c.family] in conditions]
    return [c for c in claims if table.VERSIONS[c.family] not in conditions], conditional
