# SPDX-License-Identifier: Apache-2.0
"""Masquerade and forwarding of the overlay's traffic: one nftables table of the agent's own.

    table inet adder_overlay {
        chain forward {
            type filter hook forward priority filter; policy accept;
            ip saddr 10.244.0.0/16 accept
            ip daddr 10.244.0.0/16 accept
        }
        chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            meta mark & 0x00004000 == 0x00004000 return
            ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return
            ip daddr 10.244.1.0/24 return
            ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
            ip daddr 10.244.0.0/16 masquerade fully-random
        }
    }

and the same for IPv6. What flannel's iptables rules do: pods see each other's addresses, the
world sees the node's, and what a node port hands to a pod of another node comes back through
this node. A change replaces the table in one transaction, so there is no moment without rules.
"""

from __future__ import annotations

import dataclasses
import logging
from _socket import AF_INET, AF_INET6
from errno import ENOENT
from typing import TYPE_CHECKING

from libcni.inet import Prefix
from libcni.netlink.codec import Message
from libcni.netlink.socket import Socket
from libcni.nftables import expressions, rules
from libcni.nftables.transaction import (
    INET,
    TRANSIENT,
    attempts,
    commit,
    open_socket,
    refused,
)

if TYPE_CHECKING:
    from libcni.nftables.expressions import Expression

log = logging.getLogger(__name__)

TABLE = rules.Table(INET, "adder_overlay")
_FORWARD, _POSTROUTING = "forward", "postrouting"
#: enum nf_inet_hooks and nf_ip_hook_priorities (linux/netfilter.h, netfilter_ipv4.h).
_HOOK_FORWARD, _HOOK_POSTROUTING = 2, 4
_FILTER, _SOURCE_NAT = 0, 100
#: kube-proxy's, on what it will masquerade itself; host byte order, as the kernel keeps marks.
_KUBE_PROXY_MARK = (0x4000).to_bytes(4, "little")
_META_MARK = 3
#: NF_NAT_RANGE_PROTO_RANDOM_FULLY (linux/netfilter/nf_nat.h).
_FULLY_RANDOM = 1 << 4
_MULTICAST = {AF_INET: (b"\xe0\0\0\0", 4), AF_INET6: (b"\xff" + bytes(15), 8)}


@dataclasses.dataclass(frozen=True)
class TrafficRules:
    """What the rules depend on.

    networks: of all pods. subnets: of this node's pods. masquerade: what pods send to outside
    of the networks. forward: accept what comes from and goes to pods. fully_random: source
    ports are drawn from all, which avoids races between connections.
    """

    networks: tuple[Prefix, ...]
    subnets: tuple[Prefix, ...]
    masquerade: bool
    forward: bool
    fully_random: bool = True

    def messages(self) -> list[Message]:
        """The transaction that leaves exactly these rules in the table, whatever was there."""
        # Making it first lets the deletion succeed where there is none.
        found = [TABLE.create(), TABLE.delete(), TABLE.create()]
        if self.forward:
            found.append(TABLE.create_base_chain(_FORWARD, "filter", _HOOK_FORWARD, _FILTER))
            for network in self.networks:
                for source in (True, False):
                    words = f"{'from' if source else 'to'} pods of the overlay"
                    accept = [*_matches(network, source), expressions.verdict(expressions.ACCEPT)]
                    found.append(TABLE.add_rule(_FORWARD, accept, words))
        if self.masquerade:
            found.append(
                TABLE.create_base_chain(_POSTROUTING, "nat", _HOOK_POSTROUTING, _SOURCE_NAT)
            )
            found += [
                TABLE.add_rule(_POSTROUTING, rule, words) for rule, words in self._postrouting()
            ]
        return found

    def _postrouting(self) -> list[tuple[list[Expression], str]]:
        leave = expressions.verdict(expressions.RETURN)
        masquerade = expressions.expression(
            "masq", {"NFTA_MASQ_FLAGS": _FULLY_RANDOM if self.fully_random else None}
        )
        marked = [
            expressions.meta(_META_MARK),
            expressions.keep_bits(_KUBE_PROXY_MARK),
            expressions.compare(_KUBE_PROXY_MARK),
        ]
        found = [([*marked, leave], "kube-proxy masquerades it")]
        for network in self.networks:
            for subnet in self.subnets:
                if subnet.family != network.family:
                    continue
                inside = [*_matches(subnet, True), *_in(network, False)]
                found.append(([*inside, leave], "pods see each other's addresses"))
                found.append(([*_matches(subnet, False), leave], "our pods see who calls"))
            multicast, length = _MULTICAST[network.family]
            outside = expressions.destination_in(network.family, multicast, length, True)
            found.append(([*_matches(network, True), *outside, masquerade], "pods call the world"))
            # Ours return to us: another node's pod would answer the caller by its own way.
            found.append(([*_matches(network, False), masquerade], "the world calls other pods"))
        return found


def _matches(prefix: Prefix, source: bool) -> list[Expression]:
    return [*expressions.family(prefix.family), *_in(prefix, source)]


def _in(prefix: Prefix, source: bool) -> list[Expression]:
    within = expressions.source_in if source else expressions.destination_in
    return within(prefix.family, prefix.packed, prefix.length)


class Traffic:
    """The table as this process last made it; `ensure` tells when somebody has changed it."""

    def __init__(self) -> None:
        self._rules: TrafficRules | None = None
        self._made: list[list[bytes]] = []
        self._warned = ""

    def ensure(self, wanted: TrafficRules) -> bool:
        """Have these rules in the kernel; True when others had changed what was made here.

        Idempotent. Raises NetlinkError, or CniError 11 when the rule set never stops changing;
        the rules are then as they were before.
        """
        if not wanted.masquerade and not wanted.forward:
            remove()
            self._rules = None
            return False
        sock = open_socket()
        try:
            self._warn_of_policies(sock, wanted)
            same = wanted == self._rules
            if same and _listing(sock) == self._made:
                return False
            for _ in attempts("traffic rules"):
                if not refused(commit(sock, wanted.messages()), *TRANSIENT):
                    break
            self._rules, self._made = wanted, _listing(sock)
            return same
        finally:
            sock.close()

    def _warn_of_policies(self, sock: Socket, wanted: TrafficRules) -> None:
        """An accept of ours is not the last word: a chain that drops what it does not know is."""
        if not wanted.forward:
            return
        dropping = forward_drops(sock)
        if dropping and dropping != self._warned:
            log.warning(
                "%s drops what no rule of it accepts: pods are reached only if a rule there "
                "accepts %s (the firewall plugin adds one for each pod)",
                dropping,
                " and ".join(network.text() for network in wanted.networks),
            )
        self._warned = dropping


def _listing(sock: Socket) -> list[list[bytes]]:
    """All rules, with their handles: what somebody replaced by its like is another one."""
    return [TABLE.rules(sock, chain) for chain in (_FORWARD, _POSTROUTING)]


def remove() -> None:
    """Delete the table. Idempotent. Raises NetlinkError, CniError 11."""
    sock = open_socket()
    try:
        # A look costs others nothing; a transaction that fails has them wait for it too.
        if not sock.batch([TABLE.get()])[0].check(ENOENT):
            return
        for _ in attempts("traffic rules"):
            if refused(commit(sock, [TABLE.delete()]), ENOENT, *TRANSIENT) <= {ENOENT}:
                return
    finally:
        sock.close()


#: Where iptables has its rules; others' tables have names that nobody knows beforehand.
_FILTER_TABLES = ((AF_INET, "ip filter FORWARD"), (AF_INET6, "ip6 filter FORWARD"))


def forward_drops(sock: Socket) -> str:
    """Name the first of iptables' FORWARD chains whose policy is to drop; "" if none is."""
    from libcni.netlink.codec import Reader
    from libcni.netlink.tables.nft import CHAIN_ATTRIBUTES
    from libcni.nftables.transaction import IPV4, IPV6

    policy = Reader("NFTA_CHAIN_POLICY")
    for (_, words), number in zip(_FILTER_TABLES, (IPV4, IPV6), strict=True):
        reply = sock.batch([rules.Table(number, "filter").get_chain("FORWARD")])[0]
        if not reply.check(ENOENT):
            continue
        for item in reply.items:
            if policy.read(CHAIN_ATTRIBUTES, item, 4).get("NFTA_CHAIN_POLICY") == 0:
                return f"chain {words}"
    return ""
