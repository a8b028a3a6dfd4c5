# SPDX-License-Identifier: Apache-2.0
"""Masquerade by nftables: one set of addresses, and one rule, per network and subnet.

    table inet adder_ipmasq {
        set ip4.podnet/10.244.1.0/24 {
            type ipv4_addr
            comment "network podnet, subnet 10.244.1.0/24"
            elements = { 10.244.1.2 comment "cni:podnet:0a1b:eth0" }
        }
        chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            ip daddr 224.0.0.0/4 return comment "multicast keeps its source"
            ip6 daddr ff00::/8 return comment "multicast keeps its source"
            ip saddr @ip4.podnet/10.244.1.0/24 ip daddr != 10.244.1.0/24 masquerade comment ...
        }
    }

An element belongs to whom its comment names. An ADD looks (40 us) and commits: elements alone
where set and rule are there already, else with whatever is missing, bound to the generation that
it looked at. So racing first ADDs make one set and one rule, and a rule set that somebody
flushed comes back with the next ADD. It looks first since the kernel needs 8-16 ms to undo a
commit that it refuses, during which nobody else can commit anything.

The last DEL of a network leaves set and rule, as to see that it is the last would cost each of
them; the next network that needs its own takes their place.
"""

from __future__ import annotations

from _socket import AF_INET
from errno import EEXIST, ENOENT

from libcni.attachment import Attachment
from libcni.netlink.socket import Socket
from libcni.nftables import expressions, rules, sets
from libcni.nftables.transaction import (
    INET,
    IPV4,
    IPV6,
    LIMIT,
    MISSING,
    TRANSIENT,
    attempts,
    comment_of,
    commit,
    generation,
    get_generation,
    open_socket,
    refused,
)
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message

TABLE = rules.Table(INET, "adder_ipmasq")
CHAIN = "postrouting"
#: enum nf_inet_hooks NF_INET_POST_ROUTING and NF_IP_PRI_NAT_SRC
_POST_ROUTING = 4
_SOURCE_NAT = 100
_MULTICAST = "multicast keeps its source"
#: Of each family the network and its length.
_MULTICAST_NETWORKS = ((10, b"\xff" + bytes(15), 8), (AF_INET, b"\xe0\0\0\0", 4))
#: Names of sets end at 255 bytes; those of networks may be as long.
_LONGEST_NETWORK = 160

#: Where the Go plugins' nftables backend has its rules.
GO_TABLE = rules.Table(INET, "cni_plugins_masquerade")
#: Where iptables-nft has its rules.
NAT_TABLES = (rules.Table(IPV4, "nat"), rules.Table(IPV6, "nat"))


def _label(network: str) -> str:
    if len(network) <= _LONGEST_NETWORK:
        return network
    from _sha512 import sha512

    return f"{network[:100]}.{sha512(network.encode()).hexdigest()[:32]}"


def set_name(network: str, prefix: Prefix) -> str:
    """The set for the addresses of one subnet: "ip4.podnet/10.244.1.0/24".

    nft has no colons in names, so that those of IPv6 are underscores.
    """
    version = 4 if prefix.family == AF_INET else 6
    subnet = prefix.network().text().replace(":", "_")
    return f"ip{version}.{_label(network)}/{subnet}"


def _is_of(network: str, name: str) -> bool:
    """True if `name` is that of a set of the network."""
    label = _label(network)
    return name.startswith((f"ip4.{label}/", f"ip6.{label}/"))


def ensure(attachment: Attachment, prefixes: list[Prefix]) -> Socket:
    """Masquerade what these addresses send to outside of their prefixes. Idempotent.

    An address that another attachment left behind is taken over. Returns the open socket (see
    the transaction module). Raises NetlinkError, or CniError 11 when others never stop changing
    the rule set.
    """
    sock = open_socket()
    wanted = {(set_name(attachment.network, prefix), prefix.packed): prefix for prefix in prefixes}
    looks = [get_generation(), *[sets.get_element(TABLE, name, key) for name, key in wanted]]
    for _ in attempts("masquerade"):
        replies = sock.batch(looks)
        number = generation(replies[0])
        existing = rules_by_name(sock)
        frame = _missing_frame(attachment.network, wanted, existing)
        stale, additions = [], []
        for reply, (name, key) in zip(replies[1:], wanted, strict=True):
            element = sets.found(reply)
            if element is None or element.comment != attachment.comment:
                if element is not None:
                    stale += sets.delete_elements(TABLE, name, [key])
                additions.append(sets.add_element(TABLE, name, key, attachment.comment))
        if frame and existing:
            from libcni.ipmasq import leftovers

            frame += leftovers.forsaken(sock, {name for name, _ in wanted})
        changes = [*frame, *stale, *additions]
        # New elements alone clash with nobody: their sets' rules keep the sets in place.
        bound = number if frame or stale else 0
        raced = TRANSIENT if bound else (ENOENT, EEXIST, *TRANSIENT)
        absent = bool(frame) and not existing and TABLE.is_absent(sock)
        if not changes or not refused(commit(sock, changes, bound), *raced):
            TABLE.made_here |= absent
            break
    return sock


def rules_by_name(sock: Socket) -> bytes:
    """The rules of our chain, as one run of bytes to search."""
    return b"".join(TABLE.rules(sock, CHAIN))


def _has_rule(existing: bytes, name: str) -> bool:
    return rules.looks_up(existing, name)


def _missing_frame(
    network: str, wanted: dict[tuple[str, bytes], Prefix], existing: bytes
) -> list[Message]:
    """Table, chain, rules and sets, unless all of them are there."""
    names = {name: prefix for (name, _), prefix in wanted.items()}
    multicast = _has_multicast(existing)
    if multicast and all(_has_rule(existing, name) for name in names):
        return []
    frame = [
        TABLE.create(),
        TABLE.create_base_chain(CHAIN, "nat", _POST_ROUTING, _SOURCE_NAT),
    ]
    if not multicast:
        frame += _multicast_rules(existing)
    for number, (name, prefix) in enumerate(names.items(), 1):
        frame += _frame(network, name, prefix, number, existing)
    return frame


def _has_multicast(existing: bytes) -> bool:
    """True when both families' rules are there: they have the same comment."""
    return existing.count(comment_of(_MULTICAST)) >= len(_MULTICAST_NETWORKS)


def _multicast_rules(existing: bytes) -> list[Message]:
    """Those that are missing."""
    return [
        TABLE.add_rule(
            CHAIN,
            [
                *expressions.family(family),
                *expressions.destination_in(family, network, length),
                expressions.verdict(expressions.RETURN),
            ],
            _MULTICAST,
            first=True,
        )
        for family, network, length in _MULTICAST_NETWORKS
        if not (rules.has_comment(existing, _MULTICAST) and rules.compares_with(existing, network))
    ]


def _frame(network: str, name: str, prefix: Prefix, number: int, existing: bytes) -> list[Message]:
    """The set, and its rule where the chain has none."""
    subnet = prefix.network()
    family = subnet.family
    comment = f"network {network[:60]}, subnet {subnet.text()}"
    type = sets.IPV4_ADDRESS if family == AF_INET else sets.IPV6_ADDRESS
    frame = [sets.create_set(TABLE, name, type, comment, number)]
    if not _has_rule(existing, name):
        frame.append(
            TABLE.add_rule(
                CHAIN,
                [
                    *expressions.family(family),
                    expressions.source_address(family),
                    expressions.lookup(name),
                    *expressions.destination_in(family, subnet.packed, subnet.length, True),
                    expressions.masquerade(),
                ],
                comment,
            )
        )
    return frame


def remove(attachment: Attachment, prefixes: list[Prefix] | None) -> Socket:
    """Remove what masquerades for an attachment, the Go plugins' rules too. Idempotent.

    With the addresses known it looks at these keys; where one is not the attachment's, or
    without addresses, at all elements of the network. Go's rules are recognised in its own
    table and in those of iptables-nft. Returns the open socket: close it, or leave it to a
    child, once nothing else needs to be waited for. Raises NetlinkError, or CniError 11.
    """
    sock = open_socket()
    comment = attachment.comment
    chain = attachment.go_masquerade_chain
    names = [(set_name(attachment.network, prefix), prefix.packed) for prefix in prefixes or ()]
    looks = [
        get_generation(),
        GO_TABLE.get(),
        *[table.get_chain(chain) for table in NAT_TABLES],
        *[sets.get_element(TABLE, name, key) for name, key in names],
    ]
    for _ in attempts("masquerade"):
        replies = sock.batch(looks)
        if replies[0].error in MISSING:
            break  # no nftables in this kernel: nothing of it to remove
        number = generation(replies[0])
        keys: dict[str, list[bytes]] = {}
        for (name, key), reply in zip(names, replies[4:], strict=True):
            element = sets.found(reply)
            if element is not None and element.comment == comment:
                keys.setdefault(name, []).append(key)
        if not prefixes or sum(map(len, keys.values())) < len(names):
            keys = {
                name: sets.owned(sock, TABLE, name, comment)
                for name in sets.set_names(sock, TABLE)
                if _is_of(attachment.network, name)
            }
        changes: list[Message] = []
        for name, owned in keys.items():
            if owned:
                changes += sets.delete_elements(TABLE, name, owned)
                if name.endswith(("/32", "/128")):
                    changes += delete_frame(sock, name)  # it held this one address
        if not all(reply.error for reply in replies[1:4]):
            from libcni.ipmasq import leftovers

            tables = [
                table
                for table, reply in zip(NAT_TABLES, replies[2:4], strict=True)
                if not reply.error
            ]
            changes += leftovers.removal(sock, attachment, prefixes, tables)
        if not changes or not refused(commit(sock, changes, number), ENOENT, *TRANSIENT):
            break
    return sock


def undo(attachment: Attachment, prefixes: list[Prefix]) -> Socket:
    """`remove` what this process has made; the table too, if it made that and it is not used."""
    sock = remove(attachment, prefixes)
    TABLE.undo(sock)
    return sock


def delete_frame(sock: Socket, name: str) -> list[Message]:
    """Messages that delete a set and the rules that use it."""
    return [
        *[
            TABLE.delete_rule(CHAIN, rule)
            for rule in TABLE.rules(sock, CHAIN)
            if rules.looks_up(rule, name)
        ],
        sets.delete_set(TABLE, name),
    ]


def check(attachment: Attachment, prefixes: list[Prefix]) -> None:
    """Raise CniError 103 naming what is missing for one of the addresses."""
    sock = open_socket()
    try:
        names = [(set_name(attachment.network, prefix), prefix) for prefix in prefixes]
        replies = sock.batch(
            [
                TABLE.get_chain(CHAIN),
                *[sets.get_element(TABLE, name, prefix.packed) for name, prefix in names],
            ]
        )
        if not replies[0].check(ENOENT):
            raise _missing(f"chain inet {TABLE.name} {CHAIN}")
        idle = TABLE.idle(sock, {CHAIN: (_POST_ROUTING, _SOURCE_NAT)})
        if idle:
            raise CniError(CHECK_FAILED, f"masquerade: nftables: {idle}")
        existing = rules_by_name(sock)
        for (name, prefix), reply in zip(names, replies[1:], strict=True):
            element = sets.found(reply)
            address = prefix.text().partition("/")[0]
            if element is None:
                raise _missing(f"address {address} in set inet {TABLE.name} {name}")
            if element.comment != attachment.comment:
                raise CniError(
                    CHECK_FAILED,
                    f"masquerade: address {address} belongs to another attachment",
                    f"set inet {TABLE.name} {name} says {element.comment!r}",
                )
            if not _has_rule(existing, name):
                raise _missing(f"the rule for set {name} in chain inet {TABLE.name} {CHAIN}")
        if not _has_multicast(existing):
            raise _missing(f"the rules for multicast in chain inet {TABLE.name} {CHAIN}")
    finally:
        sock.close()


def _missing(what: str) -> CniError:
    return CniError(CHECK_FAILED, f"masquerade: {what} is missing")


def is_masqueraded_by_go(attachment: Attachment) -> bool:
    """True if the Go plugins' nftables backend has a rule for the attachment."""
    from libcni.ipmasq import leftovers

    sock = open_socket()
    try:
        return leftovers.is_masqueraded_by_go(sock, attachment)
    finally:
        sock.close()


def gc(network: str, valid: set[tuple[str, str]]) -> None:
    """Remove what masquerades for attachments of the network other than `valid`.

    valid: (container ID, ifname). A set that is then empty goes with its rule. Elements that
    somebody else put into our sets are left alone. Raises NetlinkError, or CniError 11.
    """
    from libcni.ipmasq import leftovers

    keep = {Attachment(network, *pair).comment for pair in valid}
    sock = open_socket()
    try:
        for _ in attempts("masquerade"):
            number = generation(sock.batch([get_generation()])[0])
            changes: list[Message] = leftovers.stale(sock, network, valid)
            for name in sets.set_names(sock, TABLE):
                if _is_of(network, name):
                    changes += _stale(sock, name, keep)
            if not changes:
                return
            # Each commit is a new generation; what does not fit is for the next attempt.
            refused(commit(sock, changes[:LIMIT], number), ENOENT, *TRANSIENT)
    finally:
        sock.close()


def _stale(sock: Socket, name: str, keep: set[str]) -> list[Message]:
    stale = []
    others = False
    for body in sets.elements(sock, TABLE, name):
        for element in sets.read_elements(body):
            if element.comment.startswith("cni:") and element.comment not in keep:
                stale.append(element.key)
            else:
                others = True
    if others:
        return sets.delete_elements(TABLE, name, stale)
    return delete_frame(sock, name)


def unusable() -> str:
    """Why nftables cannot be used here, or "" if it can. Forks nothing."""
    try:
        sock = open_socket()
        try:
            generation(sock.batch([get_generation()])[0])
        finally:
            sock.close()
    except CniError as error:
        return error.msg
    return ""
