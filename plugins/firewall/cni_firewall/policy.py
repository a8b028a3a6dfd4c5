# SPDX-License-Identifier: Apache-2.0
"""Chains that drop what they do not accept themselves.

Every chain of the hook forward sees a packet, in whichever table, and one drop is enough: what
this plugin accepts in its own chain helps against none of the others. And in its own it accepts
what containers begin, not what begins elsewhere: new connections to them, to ports that portmap
publishes for example, are for other rules of that chain to accept.
"""

from __future__ import annotations

import posix

from cni_firewall.config import FIREWALLD, IPTABLES
from cni_firewall.ipt_rules import ENTRIES, TABLE
from libcni.netlink.codec import Reader
from libcni.netlink.socket import NetlinkError
from libcni.netlink.tables.nft import CHAIN_ATTRIBUTES
from libcni.nftables import rules
from libcni.nftables.transaction import INET, IPV4, IPV6, MISSING, find_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_firewall.config import Config
    from libcni.netlink.socket import Socket

_FAMILIES = {IPV4: "ip", IPV6: "ip6", INET: "inet"}
_VERSIONS = {IPV4: frozenset((4,)), IPV6: frozenset((6,)), INET: frozenset((4, 6))}
#: enum nf_inet_hooks NF_INET_FORWARD; NF_DROP.
_FORWARD, _DROP = 2, 0
#: What iptables-nft, and the examples of nft and distributions, call their chains.
_USUAL = [
    (family, TABLE, chain) for family in (IPV4, IPV6, INET) for chain in ("FORWARD", "forward")
]
_CHAIN = Reader(
    "NFTA_CHAIN_TABLE",
    "NFTA_CHAIN_NAME",
    "NFTA_CHAIN_TYPE",
    "NFTA_CHAIN_POLICY",
    "NFTA_CHAIN_HOOK",
    "NFTA_HOOK_HOOKNUM",
)


class Dropping:
    """A chain whose policy is drop. versions: the IP versions that it sees.

    is_own: it is where the backend accepts what containers begin, and drops what others do.
    is_certain: it is known not to accept the containers.
    """

    __slots__ = ("advice", "is_certain", "is_own", "name", "versions")

    def __init__(
        self, family: int, table: str, chain: str, is_empty: bool, admin_chain: str
    ) -> None:
        """admin_chain: where rules of its own may accept what comes in; "" if it is not own."""
        self.name = f"chain {_FAMILIES[family]} {table} {chain}"
        self.versions = _VERSIONS[family]
        self.is_own = bool(admin_chain)
        of_iptables = _is_iptables(family, table, chain)
        self.is_certain = not self.is_own and (is_empty or of_iptables)
        self.advice = "have that chain accept what is from and to containers"
        if self.is_own:
            tool = "iptables" if family == IPV4 else "ip6tables"
            rule = f"{tool} -A {admin_chain} -m conntrack --ctstate DNAT -j ACCEPT"
            self.advice = f"accept what may come in, published ports say: {rule}"
        elif of_iptables:
            self.advice = 'use "backend": "iptables", whose rules are in that chain'

    def words(self, whose: str) -> str:
        """What it does to the traffic of `whose`."""
        if self.is_own:
            return (
                f"{self.name} drops connections to {whose} that others begin, by published ports "
                "too, unless it accepts them itself"
            )
        return (
            f"{self.name} drops what it does not accept itself, so that the traffic of {whose} "
            "may not pass"
        )


def _is_iptables(family: int, table: str, chain: str) -> bool:
    return family != INET and (table, chain) == (TABLE, "FORWARD")


def usual(backend: str, config: Config, versions: list[int]) -> list[Dropping]:
    """Such chains among those that are called as usual: 20 us, for each ADD.

    versions: the IP versions of the container; what sees others only is left out. Raises
    NetlinkError.
    """
    sock = find_socket()
    if sock is None:
        return []
    try:
        asked = [
            rules.Table(family, table).get_chain(chain)
            for family, table, chain in _USUAL
            if not _VERSIONS[family].isdisjoint(versions)
        ]
        bodies = [reply.item() for reply in sock.batch(asked) if not reply.error]
        return _dropping(sock, bodies, backend, config)
    finally:
        sock.close()


def any_chain(backend: str, config: Config) -> list[Dropping]:
    """Such chains of all tables, however they are called. Raises NetlinkError."""
    sock = find_socket()
    if sock is None:
        return []
    try:
        return _dropping(sock, rules.all_chains(sock), backend, config)
    except NetlinkError as error:
        if error.errno in MISSING:
            return []
        raise
    finally:
        sock.close()


def _dropping(sock: Socket, bodies: list[bytes], backend: str, config: Config) -> list[Dropping]:
    found = []
    for body in bodies:
        chain: dict[str, Any] = _CHAIN.read(CHAIN_ATTRIBUTES, body, 4)
        hook = chain.get("NFTA_CHAIN_HOOK", {}).get("NFTA_HOOK_HOOKNUM")
        if hook != _FORWARD or chain.get("NFTA_CHAIN_POLICY") != _DROP or body[0] not in _FAMILIES:
            continue
        family, table = body[0], chain.get("NFTA_CHAIN_TABLE", "")
        name, in_table = chain.get("NFTA_CHAIN_NAME", ""), rules.Table(family, table)
        if backend == FIREWALLD and table == "firewalld":
            continue
        admin = ""
        if backend == IPTABLES and _is_iptables(family, table, name):
            admin = config.admin_chain
            if not _has_only_ours(sock, in_table, admin):
                continue  # it has been decided what comes in
        is_empty = not in_table.rules(sock, name)
        found.append(Dropping(family, table, name, is_empty, admin))
    return found


def _has_only_ours(sock: Socket, table: rules.Table, admin_chain: str) -> bool:
    """Whether iptables' FORWARD has no rules but those that lead to our chains, and the
    administrator has added none. Raises NetlinkError."""
    for rule in table.rules(sock, "FORWARD"):
        if not any(rules.jumps_to(rule, chain) for chain in ENTRIES):
            return False
    return not table.rules(sock, admin_chain)


def say(text: str) -> None:
    """Write a line to stderr, where runtimes keep it, if anywhere."""
    try:
        posix.write(2, f"{text}\n".encode("utf-8", "replace"))
    except OSError:
        pass
