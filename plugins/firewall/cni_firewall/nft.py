# SPDX-License-Identifier: Apache-2.0
"""The backend nftables: a table of our own, with addresses and bridges as elements of sets.

    table inet adder_firewall {
        set ipv4 { type ipv4_addr; elements = { 10.1.2.3 comment "cni:podnet:0a1b:eth0" } }
        set ipv6 { … }
        set accepted { type ifname; elements = { "0a1b…" comment "cni:podnet:0a1b:eth0" } }
        set bridges { type ifname; elements = { "cni0" comment "same-bridge" } }
        set open_inside { type ifname . ifname; elements = { "cni0" . "cni0" } }
        chain forward {
            type filter hook forward priority filter; policy accept;
            iifname @bridges oifname @bridges iifname . oifname != @open_inside drop
            ip daddr @ipv4 ct state established,related accept
            ip saddr @ipv4 accept
            …
        }
    }

The number of rules does not grow with that of containers. An element of `accepted` records the
attachment's addresses; the comment of one of `bridges` is the policy that holds. An accept here is
no last word: a chain of another table may still drop (see `policy`).
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from _struct import pack
from errno import ENOENT

from cni_firewall import strictest
from cni_firewall.config import SAME_BRIDGE
from cni_firewall.record import unpack
from cni_firewall.table import ACCEPTED, HANDLES, OWNERS, TABLE, deletion, look
from libcni.nftables import expressions, maps, rules, sets
from libcni.nftables.transaction import (
    LIMIT,
    TRANSIENT,
    attempts,
    commit,
    find_socket,
    open_socket,
    refused,
)
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from libcni.attachment import Attachment
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Socket
    from libcni.nftables.expressions import Expression

CHAIN = "forward"
#: enum nf_inet_hooks NF_INET_FORWARD and NF_IP_PRI_FILTER.
_HOOK, _PRIORITY = 2, 0
#: The sets of addresses, by their length.
NAMES = {4: "ipv4", 16: "ipv6"}
BRIDGES, INSIDE = "bridges", "open_inside"
_SETS = {
    "ipv4": sets.IPV4_ADDRESS,
    "ipv6": sets.IPV6_ADDRESS,
    BRIDGES: sets.INTERFACE_NAME,
    # Two names of 16 bytes each: six bits for each type.
    INSIDE: (41 << 6 | 41, 32, 0),
    ACCEPTED: sets.INTERFACE_NAME,
}
_META_OIFNAME = 7
#: NFT_CT_STATE; the bits of established and related, in the order of the processor.
_CT_STATE, _ANSWERS = 0, pack("=I", 2 | 4)


def _rules() -> dict[str, list[Expression]]:
    """All rules by their comment, in order."""
    name = expressions.META_IIFNAME
    apart = [
        expressions.meta(name),
        expressions.lookup(BRIDGES),
        expressions.meta(_META_OIFNAME),
        expressions.lookup(BRIDGES),
        expressions.meta(name, 1),
        expressions.meta(_META_OIFNAME, 2),
        expressions.lookup(INSIDE, negated=True),
        expressions.verdict(expressions.DROP),
    ]
    found = {"ingressPolicy": apart}
    for family, size in ((AF_INET, 4), (AF_INET6, 16)):
        version = NAMES[size]
        _, destination, length = expressions.ADDRESSES[family]
        found[f"answers to {version}"] = [
            *expressions.family(family),
            expressions.payload(expressions.NETWORK_HEADER, destination, length),
            expressions.lookup(version),
            expressions.expression("ct", {"NFTA_CT_DREG": 1, "NFTA_CT_KEY": _CT_STATE}),
            expressions.keep_bits(_ANSWERS),
            expressions.compare(bytes(4), negated=True),
            expressions.verdict(expressions.ACCEPT),
        ]
        found[f"from {version}"] = [
            *expressions.family(family),
            expressions.source_address(family),
            expressions.lookup(version),
            expressions.verdict(expressions.ACCEPT),
        ]
    return found


def interface(name: str) -> bytes:
    """The key of an interface."""
    return name.encode().ljust(16, b"\0")


def missing_frame(sock: Socket, lacks_set: bool = False) -> list[Message]:
    """Table, chain, sets and rules, unless all rules are there.

    lacks_set: then table and sets all the same. Raises NetlinkError.
    """
    existing = TABLE.rules(sock, CHAIN)
    wanted = _rules()
    present = [
        comment for comment in wanted if any(rules.has_comment(rule, comment) for rule in existing)
    ]
    is_whole = len(present) == len(wanted)
    if is_whole and not lacks_set:
        return []
    frame = [TABLE.create(), TABLE.create_base_chain(CHAIN, "filter", _HOOK, _PRIORITY)]
    frame += [
        sets.create_set(TABLE, name, type, "", number)
        for number, (name, type) in enumerate(_SETS.items(), 1)
    ]
    if is_whole:
        return frame
    # In order: what somebody has taken out is put back with all others anew.
    if existing:
        frame.append(TABLE.flush_chain(CHAIN))
    return frame + [TABLE.add_rule(CHAIN, rule, comment) for comment, rule in wanted.items()]


def remove(
    attachment: Attachment, addresses: list[Prefix], ends: Iterable[str] = ()
) -> Socket | None:
    """Remove the attachment's elements: those that are recorded, and `addresses`; without either
    by looking at all.

    ends: interfaces of the attachment's alone, which are kept apart no more.

    Idempotent. Returns the socket, None without nftables. Raises NetlinkError, CniError 11.
    """
    sock = find_socket()
    if sock is None or TABLE.is_absent(sock):
        return sock
    apart = [place for name in ends for place in _places(name)]
    known = {(NAMES[len(address.packed)], address.packed): None for address in addresses}
    for _ in attempts("firewall"):
        record = look(sock, attachment, ACCEPTED)[0]
        places = dict(known)
        if record is not None:
            places.update(dict.fromkeys(recorded(sock, record)))
        elif not places:
            # None of ours, or of a version that recorded nothing.
            places.update(dict.fromkeys(_owned(sock, attachment.comment)))
        looks = [sets.get_element(TABLE, *place) for place in (*places, *apart)]
        own = []
        for place, reply in zip((*places, *apart), sock.batch(looks), strict=True):
            element = sets.found(reply)
            if element is not None and (
                place not in places or element.comment == attachment.comment
            ):
                own.append(place)
        changes = deletions(own) + deletion(ACCEPTED, record)
        if not changes or not refused(commit(sock, changes), ENOENT, *TRANSIENT):
            break
    return sock


def _places(name: str) -> list[tuple[str, bytes]]:
    """Where an interface that is kept apart is, by set and key."""
    return [(BRIDGES, interface(name)), (INSIDE, interface(name) * 2)]


def deletions(places: Iterable[tuple[str, bytes]]) -> list[Message]:
    """The messages that delete elements, given by set and key; few, however many these are."""
    keys: dict[str, list[bytes]] = {}
    for name, key in places:
        keys.setdefault(name, []).append(key)
    return [message for name in keys for message in sets.delete_elements(TABLE, name, keys[name])]


def recorded(sock: Socket, record: maps.MapElement) -> list[tuple[str, bytes]]:
    """The addresses that an element of `accepted` records, by set and key.

    Where there was no room for them they are searched. Raises NetlinkError.
    """
    told = unpack(record.record)
    if told is None:
        return _owned(sock, record.comment)
    return [(NAMES[len(address.packed)], address.packed) for address in told[1]]


def _owned(sock: Socket, comment: str) -> list[tuple[str, bytes]]:
    return [
        (name, key) for name in NAMES.values() for key in sets.owned(sock, TABLE, name, comment)
    ]


def check(
    attachment: Attachment, addresses: list[Prefix], policy: str = "", bridge: str = ""
) -> None:
    """Raise CniError 103 naming what is missing."""
    sock = open_socket()
    try:
        if TABLE.is_absent(sock):
            raise _missing(f"table inet {TABLE.name}")
        idle = TABLE.idle(sock, {CHAIN: (_HOOK, _PRIORITY)})
        if idle:
            raise CniError(CHECK_FAILED, f"firewall: nftables: {idle}", "so no rule works")
        existing = TABLE.rules(sock, CHAIN)
        for comment in _rules():
            if not any(rules.has_comment(rule, comment) for rule in existing):
                raise _missing(f"rule {comment!r} of chain inet {TABLE.name} {CHAIN}")
        for address in addresses:
            name = NAMES[len(address.packed)]
            reply = sock.batch([sets.get_element(TABLE, name, address.packed)])[0]
            element = sets.found(reply)
            text = address.text().partition("/")[0]
            if element is None:
                raise _missing(f"address {text} in set inet {TABLE.name} {name}")
            if element.comment != attachment.comment:
                raise CniError(
                    CHECK_FAILED,
                    f"firewall: address {text} belongs to another attachment",
                    f"set inet {TABLE.name} {name} says {element.comment!r}",
                )
        if bridge:
            replies = sock.batch(
                [
                    sets.get_element(TABLE, BRIDGES, interface(bridge)),
                    sets.get_element(TABLE, INSIDE, interface(bridge) * 2),
                ]
            )
            apart, inside = (sets.found(reply) for reply in replies)
            if apart is None:
                raise _missing(f"bridge {bridge} in set inet {TABLE.name} {BRIDGES}")
            if inside is not None and policy != SAME_BRIDGE:
                raise CniError(
                    CHECK_FAILED,
                    f"firewall: containers on bridge {bridge} reach each other",
                    f"ingressPolicy is {policy}; see set inet {TABLE.name} {INSIDE}",
                )
            if inside is None and policy == SAME_BRIDGE:
                if apart.comment == SAME_BRIDGE:
                    raise _missing(f"bridge {bridge} in set inet {TABLE.name} {INSIDE}")
                raise CniError(
                    CHECK_FAILED,
                    f"firewall: {strictest.words(bridge)}",
                    strictest.advice(reopening(bridge)),
                )
    finally:
        sock.close()


def reopening(bridge: str) -> str:
    """The command after which an ADD with ingressPolicy same-bridge ends isolation."""
    return f"nft 'delete element inet {TABLE.name} {BRIDGES} {{ {bridge} }}'"


def _missing(what: str) -> CniError:
    return CniError(CHECK_FAILED, f"firewall: {what} is missing")


def gc(marks: tuple[str, ...], keep: set[str]) -> None:
    """Remove the elements whose comment begins with one of `marks` and is not in `keep`; and those
    of containers' own interfaces that are gone (see `ends`).

    Raises NetlinkError, or CniError 11.
    """
    sock = find_socket()
    if sock is None:
        return
    try:
        if TABLE.is_absent(sock):
            return
        for _ in attempts("firewall"):
            changes: list[Message] = []
            for name in (*NAMES.values(), ACCEPTED, OWNERS, HANDLES):
                stale = [
                    element.key
                    for body in sets.elements(sock, TABLE, name)
                    for element in sets.read_elements(body)
                    if element.comment.startswith(marks) and element.comment not in keep
                ]
                changes += sets.delete_elements(TABLE, name, stale)
            changes += deletions(_gone(sock))
            if not changes:
                return
            refused(commit(sock, changes[:LIMIT]), ENOENT, *TRANSIENT)
    finally:
        sock.close()


def _gone(sock: Socket) -> list[tuple[str, bytes]]:
    from cni_firewall import ends

    places = {
        (name, element.key): element.key[:16].rstrip(b"\0").decode("utf-8", "replace")
        for name in (BRIDGES, INSIDE)
        for body in sets.elements(sock, TABLE, name)
        for element in sets.read_elements(body)
    }
    gone = ends.gone(places.values())
    return [place for place, name in places.items() if name in gone]


def unusable() -> str:
    """Why nftables cannot be used here, or "" if it can."""
    from libcni.ipmasq import nft

    return nft.unusable()
