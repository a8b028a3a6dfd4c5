# SPDX-License-Identifier: Apache-2.0
"""What the kernel answers to each of our questions: well-framed messages with any body.

An input is a line that names the question, then bodies, each after its length (two bytes,
little-endian).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libcni.netlink.tables.kinds  # noqa: F401  (registers the attributes of more kinds)
from cni_portmap import leftovers as portmap_leftovers
from cni_portmap import record
from libcni.attachment import Attachment
from libcni.inet import Prefix
from libcni.ipmasq import leftovers, nft
from libcni.netlink import addr, conntrack, fdb, link, neigh, route, rule, tc, vlan
from libcni.netlink.socket import Socket
from libcni.nftables import maps, rules, sets, transaction
from tests.fuzz import properties
from tests.fuzz.kernel import answers, ask
from tests.fuzz.target import Target

ATTACHMENT = Attachment("net", "c1", "eth0")
#: Of the link that questions about one are about.
INDEX = 22
_PREFIX = Prefix(b"\x0a\x01\x02\x03", 24)
_TABLE = rules.Table(transaction.INET, "adder_portmap")


def _shown(found: Any) -> None:
    """Whatever came is shown in messages sooner or later."""
    for item in found if isinstance(found, list) else [found]:
        repr(item)


def _connections(sock: Socket) -> None:
    for body in conntrack._list(sock, conntrack.list_connections(2, 17, 53)):
        conntrack.Connection(body).delete()


def _elements(sock: Socket) -> None:
    for body in sets.elements(sock, _TABLE, "ports"):
        for element in sets.read_elements(body):
            sets.delete_elements(_TABLE, "ports", [element.key])


def _map_elements(sock: Socket) -> None:
    for body in sets.elements(sock, _TABLE, "ports"):
        for element in maps.read(body):
            record.unpack(element.record)
            maps.delete(_TABLE, "ports", [element])


def _one_element(sock: Socket) -> None:
    sets.found(sock.batch([sets.get_element(_TABLE, "ports", b"\0\0\0\1")])[0])


def _one_map_element(sock: Socket) -> None:
    maps.found(sock.batch([sets.get_element(_TABLE, "ports", b"\0\0\0\1")])[0], 2)


def _rules(sock: Socket) -> None:
    for raw in _TABLE.rules(sock, "postrouting"):
        _TABLE.delete_rule("postrouting", raw)
        rules.has_comment_prefix(raw, "cni:")


QUESTIONS: dict[str, Callable[[Socket], Any]] = {
    "link": lambda sock: _shown(link.find_link(sock, "eth0")),
    "links": lambda sock: _shown(link.dump_links(sock, "bridge")),
    "all-links": lambda sock: _shown(link.dump_links(sock)),
    "addresses": lambda sock: _shown(addr.dump_addresses(sock)),
    "routes": lambda sock: _shown(route.dump_routes(sock, 2, table=0)),
    "route": lambda sock: _shown(route.find_route(sock, b"\x0a\1\2\3")),
    "neighbours": lambda sock: _shown(neigh.dump_neighbours(sock, 2)),
    "forwarding": lambda sock: _shown(fdb.dump_entries(sock)),
    "rules": lambda sock: _shown(rule.dump_rules(sock)),
    "bucket": lambda sock: _shown(tc.find_token_bucket(sock, INDEX)),
    "ingress": lambda sock: tc.has_ingress(sock, INDEX),
    "redirections": lambda sock: tc.redirections(sock, INDEX),
    "vlans": lambda sock: vlan.dump_vlans(sock, INDEX),
    "connections": _connections,
    "generation": lambda sock: transaction.generation(sock.batch([_generation()])[0]),
    "sets": lambda sock: sets.set_names(sock, _TABLE),
    "elements": _elements,
    "map": _map_elements,
    "element": _one_element,
    "map-element": _one_map_element,
    "nft-rules": _rules,
    "go-masquerade": lambda sock: leftovers.removal(
        sock, ATTACHMENT, [_PREFIX], [*nft.NAT_TABLES]
    ),
    "go-masquerade-gc": lambda sock: leftovers.stale(sock, "net", set()),
    "go-portmap": lambda sock: portmap_leftovers.removal(sock, ATTACHMENT),
    "go-portmap-gc": lambda sock: portmap_leftovers.stale(sock, "net", []),
}


def _generation() -> Any:
    return transaction.get_generation()


def bodies(data: bytes) -> list[bytes]:
    """The bodies of an input; the last may be shorter than its length says."""
    found: list[bytes] = []
    while len(data) >= 2 and len(found) < 64:
        size = int.from_bytes(data[:2], "little")
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found


def build(question: str, parts: list[bytes]) -> bytes:
    """An input of these."""
    return question.encode() + b"\n" + b"".join(_counted(part) for part in parts)


def _counted(part: bytes) -> bytes:
    return len(part).to_bytes(2, "little") + part


def run(data: bytes) -> None:
    """Ask, and be answered so."""
    first, _, rest = data.partition(b"\n")
    names = list(QUESTIONS)
    name = first.decode("utf-8", "replace")
    if name not in QUESTIONS:
        name = names[sum(first) % len(names)]
    properties.coded(ask, QUESTIONS[name], answers(bodies(rest)))


def seeds() -> list[bytes]:
    """Nothing, and too little, to each question; what kernels say is in the corpus."""
    return [build(name, parts) for name in QUESTIONS for parts in ([], [b""], [bytes(20)])]


TARGET = Target(run, seeds)
