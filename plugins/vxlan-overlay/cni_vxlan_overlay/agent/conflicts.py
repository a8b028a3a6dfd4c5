# SPDX-License-Identifier: Apache-2.0
"""Which nodes can be peers: those whose addresses, MACs and pods nobody older has. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping

from cni_vxlan_overlay.agent.model import Node
from libcni.inet import Prefix


class Claims:
    """Who has which public address, VTEP MAC and pods. Prefixes in it never overlap."""

    def __init__(self) -> None:
        self._addresses: dict[str, Node] = {}
        #: By underlay family (each has its own device) and MAC: machines that were cloned.
        self._macs: dict[tuple[bool, str], Node] = {}
        #: By length of the address in bytes: first addresses, ascending, and (last, owner).
        self._starts: dict[int, list[int]] = {4: [], 16: []}
        self._ends: dict[int, list[tuple[int, Node]]] = {4: [], 16: []}

    def conflict(self, node: Node) -> tuple[str, Node] | None:
        """Why a node cannot have what it claims, in words, and who has it; None if it can."""
        for endpoint in node.peer.endpoints:
            owner = self._addresses.get(endpoint.public_ip)
            if owner is not None:
                words = f"public address {endpoint.public_ip} is that of {owner.name} already"
                return words, owner
            owner = self._macs.get((endpoint.is_ipv6, endpoint.mac))
            if owner is not None:
                return f"VTEP MAC {endpoint.mac} is that of {owner.name} already", owner
        for subnet in node.peer.subnets:
            owner = self._owner(subnet)
            if owner is not None:
                return f"pod CIDR {subnet.text()} overlaps with that of {owner.name}", owner
        return None

    def take(self, node: Node) -> None:
        """Let a node without conflict have what it claims."""
        for endpoint in node.peer.endpoints:
            self._addresses[endpoint.public_ip] = node
            self._macs[endpoint.is_ipv6, endpoint.mac] = node
        for subnet in node.peer.subnets:
            first, last = _bounds(subnet)
            size = len(subnet.packed)
            place = bisect.bisect_left(self._starts[size], first)
            self._starts[size].insert(place, first)
            self._ends[size].insert(place, (last, node))

    def release(self, node: Node) -> None:
        """Take back what was given to a node by `take`."""
        for endpoint in node.peer.endpoints:
            self._addresses.pop(endpoint.public_ip, None)
            self._macs.pop((endpoint.is_ipv6, endpoint.mac), None)
        for subnet in node.peer.subnets:
            first, _ = _bounds(subnet)
            size = len(subnet.packed)
            place = bisect.bisect_left(self._starts[size], first)
            del self._starts[size][place]
            del self._ends[size][place]

    def _owner(self, subnet: Prefix) -> Node | None:
        first, last = _bounds(subnet)
        starts, ends = self._starts[len(subnet.packed)], self._ends[len(subnet.packed)]
        # Those that begin at or before our last address: the last of them reaches furthest.
        place = bisect.bisect_right(starts, last) - 1
        if place >= 0 and ends[place][0] >= first:
            return ends[place][1]
        return None


def _bounds(prefix: Prefix) -> tuple[int, int]:
    first = int.from_bytes(prefix.packed, "big")
    return first, first | ((1 << (len(prefix.packed) * 8 - prefix.length)) - 1)


def resolve(nodes: Iterable[Node], own: Node | None) -> tuple[list[Node], dict[str, str]]:
    """The nodes to use as peers, and for each other one, by uid, why not.

    The older of two keeps what both claim, whatever the order in which they were heard of, so
    that all nodes come to the same view and nothing flaps. What this node has itself is never
    given up here: its pods are where they are; the text says so when the other is older.
    """
    return _resolve(nodes, own, Claims())


class Resolver:
    """`resolve` for nodes of which few change from one time to the next.

    While there is no conflict, the order does not matter, and only what has changed is looked
    at: among 5,000 nodes a twentieth of the time.
    """

    def __init__(self) -> None:
        self._own: Node | None = None
        self._nodes: dict[str, Node] = {}
        #: What `_nodes` and `_own` claim; None while there are conflicts.
        self._claims: Claims | None = None

    def resolve(
        self, nodes: Mapping[str, Node], own: Node | None
    ) -> tuple[list[Node], dict[str, str]]:
        """As the function, of nodes by uid; the peers are in no order."""
        others = dict(nodes)
        if own is not None:
            others.pop(own.uid, None)
        if self._claims is not None and self._own == own and self._follow(self._claims, others):
            peers, problems = list(others.values()), dict[str, str]()
        else:
            claims = Claims()
            peers, problems = _resolve(others.values(), own, claims)
            self._claims = None if problems else claims
        self._own, self._nodes = own, others
        return peers, problems

    def _follow(self, claims: Claims, nodes: dict[str, Node]) -> bool:
        """Let claims be those of `nodes`; False if there is a conflict, and half of it done."""
        before = self._nodes
        for uid, node in before.items():
            if nodes.get(uid) is not node:
                claims.release(node)
        for uid, node in nodes.items():
            if before.get(uid) is not node:
                if claims.conflict(node):
                    return False
                claims.take(node)
        return True


def _resolve(
    nodes: Iterable[Node], own: Node | None, claims: Claims
) -> tuple[list[Node], dict[str, str]]:
    peers: list[Node] = []
    problems: dict[str, str] = {}
    if own is not None:
        claims.take(own)
    for node in sorted(nodes, key=lambda node: (node.age, node.uid)):
        if own is not None and node.uid == own.uid:
            continue
        conflict = claims.conflict(node)
        if conflict is not None:
            problem, owner = conflict
            if owner is own and _is_older(node, own):
                problem += "; it is older than this node, which has to get another"
            problems[node.uid] = problem
            continue
        claims.take(node)
        peers.append(node)
    return peers, problems


def _is_older(node: Node, own: Node) -> bool:
    return (node.age, node.uid) < (own.age, own.uid)
