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
from cni_firewall.dropping import ACCEPT_THERE, USE_IPTABLES, Dropping
from cni_firewall.ipt_rules import ENTRIES, TABLE
from libcni.legacy_tables import legacy_versions
from libcni.netlink.codec import Reader
from libcni.netlink.socket import NetlinkError
from libcni.netlink.tables.nft import CHAIN_ATTRIBUTES
from libcni.nftables import rules
from libcni.nftables.transaction import INET, IPV4, IPV6, MISSING, find_socket
from libcni.types.errors import CniError

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


def _is_iptables(family: int, table: str, chain: str) -> bool:
    return family != INET and (table, chain) == (TABLE, "FORWARD")


def usual(backend: str, config: Config, versions: list[int]) -> list[Dropping]:
    """Such chains among those that are called as usual: 30 us, for each ADD.

    versions: the IP versions of the container; what sees others only is left out. Where there is
    iptables-legacy its tool is asked, in 3 ms. Raises NetlinkError.
    """
    return _usual(backend, config, versions) + _legacy(backend, config, versions)


def _legacy(backend: str, config: Config, versions: list[int]) -> list[Dropping]:
    there = [version for version in legacy_versions(TABLE) if version in versions]
    if not there:
        return []
    from cni_firewall import legacy_policy

    try:
        return list(legacy_policy.dropping(backend, config, there))
    except CniError as error:
        # It is a warning that is lost, which is worth one, and not the attachment.
        say(f"firewall: whether iptables-legacy's policy drops is not known: {error.msg}")
        return []


def _usual(backend: str, config: Config, versions: list[int]) -> list[Dropping]:
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
    """Such chains of all tables, however they are called. Raises as `usual`."""
    return _any_chain(backend, config) + _legacy(backend, config, [4, 6])


def _any_chain(backend: str, config: Config) -> list[Dropping]:
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
        shown = f"chain {_FAMILIES[family]} {table} {name}"
        if not _is_iptables(family, table, name):
            is_empty = not in_table.rules(sock, name)
            found.append(Dropping(shown, _VERSIONS[family], ACCEPT_THERE, is_empty))
        elif backend != IPTABLES:
            found.append(Dropping(shown, _VERSIONS[family], USE_IPTABLES, True))
        elif _has_only_ours(sock, in_table, config.admin_chain):
            # Else it has been decided what comes in.
            found.append(Dropping.own(shown, min(_VERSIONS[family]), config.admin_chain))
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
