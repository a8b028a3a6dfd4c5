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

    from libcni.netlink.socket import Socket

_FAMILIES = {IPV4: "ip", IPV6: "ip6", INET: "inet"}
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
    """A chain whose policy is drop.

    is_certain: it is known not to accept the containers. is_own: it accepts what they begin, and
    nothing of it what begins elsewhere.
    """

    __slots__ = ("advice", "is_certain", "is_own", "name")

    def __init__(
        self, family: int, table: str, chain: str, is_empty: bool, admin_chain: str = ""
    ) -> None:
        """admin_chain: of the backend, where the chain is the backend's own."""
        self.name = f"chain {_FAMILIES[family]} {table} {chain}"
        self.is_own = bool(admin_chain)
        of_iptables = _is_iptables(family, table, chain)
        self.is_certain = (is_empty or of_iptables) and not self.is_own
        if self.is_own:
            self.advice = f"{admin_chain} is for rules that accept them"
        elif of_iptables:
            self.advice = 'use "backend": "iptables", whose rules are in that chain'
        else:
            self.advice = "have that chain accept what is from and to containers"

    def warning(self, whose: str) -> str:
        """A line for stderr. whose: traffic of what."""
        if self.is_own:
            return (
                f"firewall: {self.name} drops new connections to containers, published ports "
                f"too, and none of its rules accepts them; {self.advice}"
            )
        return (
            f"firewall: {self.name} drops what it does not accept itself, so that {whose} may "
            f"not pass; {self.advice}"
        )


def _is_iptables(family: int, table: str, chain: str) -> bool:
    return family != INET and (table, chain) == (TABLE, "FORWARD")


def usual(backend: str, admin_chain: str) -> Dropping | None:
    """The first such chain among those that are called as usual: 20 us, for each ADD.

    backend: whose own chain counts after all others, and only if no rule there can accept what
    begins elsewhere. admin_chain: its chain for the administrator's rules. Raises NetlinkError.
    """
    sock = find_socket()
    if sock is None:
        return None
    try:
        asked = [rules.Table(family, table).get_chain(chain) for family, table, chain in _USUAL]
        bodies = [reply.item() for reply in sock.batch(asked) if not reply.error]
        return _first(sock, bodies, backend, admin_chain)
    finally:
        sock.close()


def any_chain(backend: str, admin_chain: str) -> Dropping | None:
    """The first such chain of all tables, however it is called; see `usual`. NetlinkError."""
    sock = find_socket()
    if sock is None:
        return None
    try:
        return _first(sock, rules.all_chains(sock), backend, admin_chain)
    except NetlinkError as error:
        if error.errno in MISSING:
            return None
        raise
    finally:
        sock.close()


def _first(sock: Socket, bodies: list[bytes], backend: str, admin_chain: str) -> Dropping | None:
    own: Dropping | None = None
    for body in bodies:
        chain: dict[str, Any] = _CHAIN.read(CHAIN_ATTRIBUTES, body, 4)
        hook = chain.get("NFTA_CHAIN_HOOK", {}).get("NFTA_HOOK_HOOKNUM")
        if hook != _FORWARD or chain.get("NFTA_CHAIN_POLICY") != _DROP or body[0] not in _FAMILIES:
            continue
        table, name = chain.get("NFTA_CHAIN_TABLE", ""), chain.get("NFTA_CHAIN_NAME", "")
        if not _is_own(backend, body[0], table, name):
            is_empty = not rules.Table(body[0], table).rules(sock, name)
            return Dropping(body[0], table, name, is_empty)
        if own is None and backend == IPTABLES and _has_only_ours(sock, body[0], admin_chain):
            own = Dropping(body[0], table, name, False, admin_chain)
    return own


def _has_only_ours(sock: Socket, family: int, admin_chain: str) -> bool:
    """Whether iptables' FORWARD has no rules but those that lead to our chains, and the
    administrator has added none. Raises NetlinkError."""
    table = rules.Table(family, TABLE)
    for rule in table.rules(sock, "FORWARD"):
        if not any(rules.jumps_to(rule, chain) for chain in ENTRIES):
            return False
    return not table.rules(sock, admin_chain)


def _is_own(backend: str, family: int, table: str, chain: str) -> bool:
    if backend == FIREWALLD:
        return table == "firewalld"
    return backend == IPTABLES and _is_iptables(family, table, chain)


def say(text: str) -> None:
    """Write a line to stderr, where runtimes keep it, if anywhere."""
    try:
        posix.write(2, f"{text}\n".encode("utf-8", "replace"))
    except OSError:
        pass
