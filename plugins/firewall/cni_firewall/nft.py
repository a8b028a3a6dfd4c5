# SPDX-License-Identifier: Apache-2.0
"""The backend nftables: a table of our own, with addresses and bridges as elements of sets.

    table inet adder_firewall {
        set ipv4 { type ipv4_addr; elements = { 10.1.2.3 comment "cni:podnet:0a1b:eth0" } }
        set ipv6 { … }
        set bridges { type ifname; elements = { "cni0" } }
        set open_inside { type ifname . ifname; elements = { "cni0" . "cni0" } }
        chain forward {
            type filter hook forward priority filter; policy accept;
            iifname @bridges oifname @bridges iifname . oifname != @open_inside drop
            ip daddr @ipv4 ct state established,related accept
            ip saddr @ipv4 accept
            …
        }
    }

The number of rules does not grow with that of containers. An accept here is no last word: a chain
of another table may still drop (see `policy`).
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from _struct import pack
from errno import ENOENT

from cni_firewall.config import SAME_BRIDGE
from cni_firewall.table import HANDLES, OWNERS, TABLE
from libcni.nftables import expressions, rules, sets
from libcni.nftables.transaction import (
    LIMIT,
    TRANSIENT,
    attempts,
    commit,
    find_socket,
    generation,
    get_generation,
    open_socket,
    refused,
)
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Socket
    from libcni.nftables.expressions import Expression

CHAIN = "forward"
#: enum nf_inet_hooks NF_INET_FORWARD and NF_IP_PRI_FILTER.
_HOOK, _PRIORITY = 2, 0
_NAMES = {4: "ipv4", 16: "ipv6"}
_BRIDGES, _INSIDE = "bridges", "open_inside"
_SETS = {
    "ipv4": sets.IPV4_ADDRESS,
    "ipv6": sets.IPV6_ADDRESS,
    _BRIDGES: sets.INTERFACE_NAME,
    # Two names of 16 bytes each: six bits for each type.
    _INSIDE: (41 << 6 | 41, 32, 0),
}
_META_OIFNAME = 7
#: NFT_CT_STATE; the bits of established and related, in the order of the processor.
_CT_STATE, _ANSWERS = 0, pack("=I", 2 | 4)


def _rules() -> dict[str, list[Expression]]:
    """All rules by their comment, in order."""
    name = expressions.META_IIFNAME
    apart = [
        expressions.meta(name),
        expressions.lookup(_BRIDGES),
        expressions.meta(_META_OIFNAME),
        expressions.lookup(_BRIDGES),
        expressions.meta(name, 1),
        expressions.meta(_META_OIFNAME, 2),
        expressions.lookup(_INSIDE, negated=True),
        expressions.verdict(expressions.DROP),
    ]
    found = {"ingressPolicy": apart}
    for family, size in ((AF_INET, 4), (AF_INET6, 16)):
        version = _NAMES[size]
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


def _name(interface: str) -> bytes:
    return interface.encode().ljust(16, b"\0")


def ensure(
    attachment: Attachment, addresses: list[Prefix], policy: str = "", bridge: str = ""
) -> Socket:
    """Accept the addresses' traffic, and keep `bridge` apart ("" for no policy). Idempotent.

    An address that another attachment left behind is taken over. Returns the open socket (see
    the transaction module). Raises NetlinkError, or CniError 11.
    """
    sock = open_socket()
    wanted = [(_NAMES[len(address.packed)], address.packed) for address in addresses]
    looks = [get_generation(), *[sets.get_element(TABLE, name, key) for name, key in wanted]]
    inside = _name(bridge) * 2
    if bridge:
        looks += [
            sets.get_element(TABLE, _BRIDGES, _name(bridge)),
            sets.get_element(TABLE, _INSIDE, inside),
        ]
    for _ in attempts("firewall"):
        replies = sock.batch(looks)
        number = generation(replies[0])
        changes = _missing_frame(sock)
        bound = bool(changes)
        for (name, key), reply in zip(wanted, replies[1:], strict=False):
            element = sets.found(reply)
            if element is None or element.comment != attachment.comment:
                if element is not None:
                    bound = True
                    changes += sets.delete_elements(TABLE, name, [key])
                changes.append(sets.add_element(TABLE, name, key, attachment.comment))
        if bridge:
            is_apart, is_open = (sets.found(reply) is not None for reply in replies[-2:])
            if not is_apart:
                changes.append(sets.add_element(TABLE, _BRIDGES, _name(bridge), ""))
            if is_open != (policy == SAME_BRIDGE):
                bound = True
                if is_open:
                    changes += sets.delete_elements(TABLE, _INSIDE, [inside])
                else:
                    changes.append(sets.add_element(TABLE, _INSIDE, inside, ""))
        raced = TRANSIENT if bound else (ENOENT, *TRANSIENT)
        if not changes or not refused(commit(sock, changes, number if bound else 0), *raced):
            break
    return sock


def _missing_frame(sock: Socket) -> list[Message]:
    """Table, chain, sets and rules, unless all rules are there."""
    existing = TABLE.rules(sock, CHAIN)
    wanted = _rules()
    present = [
        comment for comment in wanted if any(rules.has_comment(rule, comment) for rule in existing)
    ]
    if len(present) == len(wanted):
        return []
    frame = [TABLE.create(), TABLE.create_base_chain(CHAIN, "filter", _HOOK, _PRIORITY)]
    frame += [
        sets.create_set(TABLE, name, type, "", number)
        for number, (name, type) in enumerate(_SETS.items(), 1)
    ]
    # In order: what somebody has taken out is put back with all others anew.
    if existing:
        frame.append(TABLE.flush_chain(CHAIN))
    return frame + [TABLE.add_rule(CHAIN, rule, comment) for comment, rule in wanted.items()]


def remove(attachment: Attachment, addresses: list[Prefix]) -> Socket | None:
    """Remove the attachment's elements; without its addresses known, by looking at all.

    Idempotent. Returns the socket, None without nftables. Raises NetlinkError, CniError 11.
    """
    sock = find_socket()
    if sock is None or TABLE.is_absent(sock):
        return sock
    for _ in attempts("firewall"):
        changes: list[Message] = []
        keys = {name: _owned(sock, name, attachment, addresses) for name in _NAMES.values()}
        for name, owned in keys.items():
            if owned:
                changes += sets.delete_elements(TABLE, name, owned)
        if not changes or not refused(commit(sock, changes), ENOENT, *TRANSIENT):
            break
    return sock


def _owned(
    sock: Socket, name: str, attachment: Attachment, addresses: list[Prefix]
) -> list[bytes]:
    """The attachment's keys in a set."""
    if not addresses:
        return sets.owned(sock, TABLE, name, attachment.comment)
    keys = [a.packed for a in addresses if _NAMES[len(a.packed)] == name]
    replies = sock.batch([sets.get_element(TABLE, name, key) for key in keys]) if keys else []
    found = []
    for key, reply in zip(keys, replies, strict=True):
        element = sets.found(reply)
        if element is not None and element.comment == attachment.comment:
            found.append(key)
    return found


def undo(attachment: Attachment, addresses: list[Prefix]) -> None:
    """`remove` after a failed ADD. Idempotent."""
    sock = remove(attachment, addresses)
    if sock is not None:
        sock.close()


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
            name = _NAMES[len(address.packed)]
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
                    sets.get_element(TABLE, _BRIDGES, _name(bridge)),
                    sets.get_element(TABLE, _INSIDE, _name(bridge) * 2),
                ]
            )
            is_apart, is_open = (sets.found(reply) is not None for reply in replies)
            if not is_apart:
                raise _missing(f"bridge {bridge} in set inet {TABLE.name} {_BRIDGES}")
            if is_open != (policy == SAME_BRIDGE):
                raise CniError(
                    CHECK_FAILED,
                    f"firewall: containers on bridge {bridge} "
                    + ("reach each other" if is_open else "do not reach each other"),
                    f"ingressPolicy is {policy}; see set inet {TABLE.name} {_INSIDE}",
                )
    finally:
        sock.close()


def _missing(what: str) -> CniError:
    return CniError(CHECK_FAILED, f"firewall: {what} is missing")


def gc(marks: tuple[str, ...], keep: set[str]) -> None:
    """Remove the elements whose comment begins with one of `marks` and is not in `keep`.

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
            for name in (*_NAMES.values(), OWNERS, HANDLES):
                stale = [
                    element.key
                    for body in sets.elements(sock, TABLE, name)
                    for element in sets.read_elements(body)
                    if element.comment.startswith(marks) and element.comment not in keep
                ]
                changes += sets.delete_elements(TABLE, name, stale)
            if not changes:
                return
            refused(commit(sock, changes[:LIMIT]), ENOENT, *TRANSIENT)
    finally:
        sock.close()


def unusable() -> str:
    """Why nftables cannot be used here, or "" if it can."""
    from libcni.ipmasq import nft

    return nft.unusable()
