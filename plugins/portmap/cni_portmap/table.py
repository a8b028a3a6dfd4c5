# SPDX-License-Identifier: Apache-2.0
"""The nftables table, and what of the claims is an element of which map.

    table inet adder_portmap {
        map ports4 { type inet_proto . inet_service : ipv4_addr . inet_service
                     elements = { tcp . 8080 comment "cni:podnet:0a1b:eth0" : 10.244.1.2 . 80 } }
        map addresses4 { type inet_proto . inet_service . ipv4_addr : ipv4_addr . inet_service }
        map waiting4 { type inet_proto . inet_service . ipv4_addr . mark : ... }
        set localhost4 { type ipv4_addr    elements = { 10.244.1.2 } }
        set neighbours4_24 { type ipv4_addr . ipv4_addr
                             elements = { 10.244.1.0 . 10.244.1.2 } }
        set everybody4 { type ipv4_addr }
        (and those of IPv6)
        set owners { type ifname }
        chain conditional { }
        chain hostports {
            jump conditional
            dnat ip to meta l4proto . th dport . ip daddr map @addresses4
            dnat ip to meta l4proto . th dport map @ports4
            ...
        }
        chain prerouting { type nat hook prerouting priority dstnat
                           fib daddr type local jump hostports }
        chain output { the same }
        chain postrouting { type nat hook postrouting priority srcnat
            ct status dnat ip saddr 127.0.0.1 ip daddr @localhost4 masquerade
            ct status dnat ip saddr & 255.255.255.0 . ip daddr @neighbours4_24 masquerade
            ct status dnat ip daddr @everybody4 masquerade
        }
    }

One look-up decides, however many mappings there are. What is masqueraded is what the container
would answer past the host: connections from its own subnet (its own too), and from 127.0.0.1;
each length of a subnet's prefix has a set and a rule, made when it is first met. `owners` has
an element for each attachment, named by its digest, whose record lists what else belongs to it:
so DEL looks for nothing.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from _struct import pack

from cni_portmap.mapping import Claim
from libcni.nftables import expressions, maps, rules, sets
from libcni.nftables.transaction import INET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Socket
    from libcni.nftables.expressions import Expression

TABLE = rules.Table(INET, "adder_portmap")
OWNERS = "owners"
CONDITIONAL = "conditional"
_HOSTPORTS = "hostports"
_POSTROUTING = "postrouting"
FAMILIES = (AF_INET, AF_INET6)
VERSIONS = {AF_INET: 4, AF_INET6: 6}
#: The maps of claims on any address, and on one.
PORTS = {AF_INET: "ports4", AF_INET6: "ports6"}
ADDRESSES = {AF_INET: "addresses4", AF_INET6: "addresses6"}
#: Claims that another attachment of the same container holds already.
WAITING = {AF_INET: "waiting4", AF_INET6: "waiting6"}
#: Containers that 127.0.0.1 leads to, and containers to which everything is masqueraded.
LOCALHOST = "localhost4"
_EVERYBODY = {AF_INET: "everybody4", AF_INET6: "everybody6"}
#: And (subnet, container), one for each length of a prefix.
_NEIGHBOURS = {AF_INET: "neighbours4_", AF_INET6: "neighbours6_"}

# enum nf_inet_hooks and nf_ip_hook_priorities
_PRE_ROUTING, _OUTPUT, _POST_ROUTING = 0, 3, 4
_DESTINATION_NAT, _SOURCE_NAT = -100, 100
#: Hook and priority of the base chains.
HOOKS = {
    "prerouting": (_PRE_ROUTING, _DESTINATION_NAT),
    "output": (_OUTPUT, _DESTINATION_NAT),
    _POSTROUTING: (_POST_ROUTING, _SOURCE_NAT),
}
#: Registers by 4 bytes: NFT_REG32_01 and _02. Behind an IPv6 address comes NFT_REG_2.
_SECOND, _THIRD = 9, 10


def place(claim: Claim) -> str:
    """The map that a claim's elements are in."""
    return (ADDRESSES if claim.address else PORTS)[claim.family]


def elements(claim: Claim, comment: str = "") -> list[maps.MapElement]:
    """An element for each of the claim's ports."""
    head, tail = pack(">B3x", claim.protocol), b"\0\0" + claim.address
    return [
        maps.MapElement(
            head + pack(">H", claim.port + offset) + tail,
            claim.target + pack(">H2x", (claim.target_port + offset) & 0xFFFF),
            comment,
        )
        for offset in range(claim.count)
    ]


def waiting_key(key: bytes, family: int, attachment_key: bytes) -> bytes:
    """The key in WAITING of what has `key` in one of the other maps."""
    size = 4 if family == AF_INET else 16
    return (key if len(key) > 8 else key + bytes(size)) + attachment_key[:4]


def awaited(key: bytes) -> tuple[bytes, bool]:
    """The key in the other maps of what waits under `key`, and whether that has an address."""
    address = key[8:-4]
    return (key[:-4], True) if any(address) else (key[:8], False)


def sources(target: Prefix, everything: bool) -> list[tuple[str, bytes]]:
    """(set, key) of what is masqueraded on the way to a container's address."""
    family = target.family
    if everything:
        return [(_EVERYBODY[family], target.packed)]
    subnet = target.network().packed
    found = [(f"{_NEIGHBOURS[family]}{target.length}", subnet + target.packed)]
    if family == AF_INET:
        # There is none for ::1, which the kernel lets out of no other interface.
        found.append((LOCALHOST, target.packed))
    return found


def wanted_rules() -> list[tuple[str, str, list[Expression]]]:
    """(chain, comment, expressions) of every rule, in order; the comments are unlike."""
    found: list[tuple[str, str, list[Expression]]] = [
        (_HOSTPORTS, "mappings with conditions", [expressions.jump(CONDITIONAL)])
    ]
    for family in FAMILIES:
        version = VERSIONS[family]
        port = [
            expressions.meta(expressions.META_L4PROTO),
            expressions.payload(expressions.TRANSPORT_HEADER, 2, 2, _SECOND),
        ]
        nat = expressions.destination_nat(family, _SECOND if family == AF_INET else 2)
        address = expressions.destination_address(family, _THIRD)
        found += [
            (
                _HOSTPORTS,
                f"IPv{version} ports of one address",
                [
                    *expressions.family(family),
                    *port,
                    address,
                    expressions.translate_by(ADDRESSES[family]),
                    nat,
                ],
            ),
            (
                _HOSTPORTS,
                f"IPv{version} ports of any address",
                [
                    *expressions.family(family),
                    *port,
                    expressions.translate_by(PORTS[family]),
                    nat,
                ],
            ),
        ]
    for chain in ("prerouting", "output"):
        local = [*expressions.destination_is_local(), expressions.jump(_HOSTPORTS)]
        found.append((chain, f"to this host, {chain}", local))
    for family in FAMILIES:
        found.append(
            (
                _POSTROUTING,
                f"IPv{VERSIONS[family]} from everybody",
                [
                    *expressions.destination_was_translated(),
                    *expressions.family(family),
                    expressions.destination_address(family),
                    expressions.lookup(_EVERYBODY[family]),
                    expressions.masquerade(),
                ],
            )
        )
    found.append(
        (
            _POSTROUTING,
            "IPv4 from localhost",
            [
                *expressions.destination_was_translated(),
                *expressions.family(AF_INET),
                *expressions.source_in(AF_INET, b"\x7f\0\0\1", 32),
                expressions.destination_address(AF_INET),
                expressions.lookup(LOCALHOST),
                expressions.masquerade(),
            ],
        )
    )
    return found


def _neighbour_comment(name: str) -> str:
    version, length = name.removeprefix("neighbours").split("_")
    return f"IPv{version} from the container's own /{length}"


def _neighbours(name: str, number: int, has_rule: bool) -> list[Message]:
    """The set and the rule for prefixes of one length."""
    version, length = name.removeprefix("neighbours").split("_")
    family, address = (AF_INET, maps.IPV4_ADDRESS) if version == "4" else (AF_INET6, 8)
    code, size = maps.type_of(address, address)
    changes = [sets.create_set(TABLE, name, (code, size, 0), "", number)]
    if not has_rule:
        bits = size * 4
        mask = ((1 << int(length)) - 1) << (bits - int(length))
        content = [
            *expressions.destination_was_translated(),
            *expressions.family(family),
            expressions.source_address(family),
            expressions.keep_bits(mask.to_bytes(size // 2, "big")),
            expressions.destination_address(family, _SECOND if family == AF_INET else 2),
            expressions.lookup(name),
            expressions.masquerade(),
        ]
        changes.append(TABLE.add_rule(_POSTROUTING, content, _neighbour_comment(name)))
    return changes


#: The comments of all rules but those for neighbours.
RULES = tuple([comment for _, comment, _ in wanted_rules()])


def missing_rule(existing: bytes, sources: list[tuple[str, bytes]]) -> str:
    """The comment of the first rule that is not there, or "".

    existing: the rules of the whole table. sources: see `sources`.
    """
    for comment in RULES:
        if not rules.has_comment(existing, comment):
            return comment
    for name, _ in sources:
        if name.startswith("neighbours"):
            comment = _neighbour_comment(name)
            if not rules.has_comment(existing, comment):
                return comment
    return ""


def frame(sock: Socket, existing: bytes, sources: list[tuple[str, bytes]]) -> list[Message]:
    """Make whatever is missing of table, sets, maps, chains and rules."""
    neighbours = {name: b"" for name, _ in sources if name.startswith("neighbours")}
    if not missing_rule(existing, []):
        return [
            message
            for number, name in enumerate(neighbours, 1)
            for message in _neighbours(
                name, number, rules.has_comment(existing, _neighbour_comment(name))
            )
        ]
    for name in sets.set_names(sock, TABLE):
        if name.startswith("neighbours"):
            neighbours[name] = b""
    changes = [TABLE.create(), *_sets()]
    changes += [TABLE.create_chain(CONDITIONAL), TABLE.create_chain(_HOSTPORTS)]
    for chain, (hook, priority) in HOOKS.items():
        changes.append(TABLE.create_base_chain(chain, "nat", hook, priority))
    for chain in (_HOSTPORTS, "prerouting", "output", _POSTROUTING):
        changes.append(TABLE.flush_chain(chain))
    for chain, comment, content in wanted_rules():
        changes.append(TABLE.add_rule(chain, content, comment))
    for number, name in enumerate(neighbours, 20):
        changes += _neighbours(name, number, False)
    return changes


def _sets() -> list[Message]:
    """Make all sets and maps but those for neighbours."""
    changes = []
    number = 0
    port = (maps.PROTOCOL, maps.SERVICE)
    for family in FAMILIES:
        address = maps.IPV4_ADDRESS if family == AF_INET else maps.IPV6_ADDRESS
        data = maps.type_of(address, maps.SERVICE)
        for name, key in (
            (PORTS[family], maps.type_of(*port)),
            (ADDRESSES[family], maps.type_of(*port, address)),
            (WAITING[family], maps.type_of(*port, address, maps.MARK)),
        ):
            number += 1
            changes.append(maps.create_map(TABLE, name, key, data, number))
        type = sets.IPV4_ADDRESS if family == AF_INET else sets.IPV6_ADDRESS
        number += 1
        changes.append(sets.create_set(TABLE, _EVERYBODY[family], type, "", number))
    changes.append(sets.create_set(TABLE, LOCALHOST, sets.IPV4_ADDRESS, "", number + 1))
    changes.append(sets.create_set(TABLE, OWNERS, sets.INTERFACE_NAME, "", number + 2))
    return changes
