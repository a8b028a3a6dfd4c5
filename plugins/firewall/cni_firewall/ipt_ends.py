# SPDX-License-Identifier: Apache-2.0
"""Rules of the backend iptables, and Go's, that keep a container's own veth apart (see `ends`)."""

from __future__ import annotations

from errno import ENOENT

from cni_firewall import ends
from cni_firewall.handles import FILTERS
from cni_firewall.ipt_rules import STAGE1, STAGE2, TABLE
from libcni import iptables
from libcni.legacy_tables import legacy_versions
from libcni.netlink.socket import NetlinkError
from libcni.nftables.transaction import (
    LIMIT,
    MISSING,
    TRANSIENT,
    attempts,
    commit,
    find_socket,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Socket

_CHAINS = (STAGE1, STAGE2)
#: What the comment of ours and Go's begins with.
_COMMENT = "CNI firewall plugin rules (ingressPolicy: "


def remove(names: Iterable[str]) -> Socket | None:
    """Remove the rules about the interfaces of these names. Idempotent; no tool is run where
    iptables is iptables-nft.

    Returns the socket, whose closing waits (see `libcni.nftables.closing`); None without any.
    Raises CniError 11 or 102.
    """
    meant = set(names)
    sock = find_socket()
    for _ in attempts("firewall"):
        changes = [change for name, change in _rules(sock) if name in meant]
        if sock is None or not changes:
            break
        whole = len(changes) <= LIMIT
        if not refused(commit(sock, changes[:LIMIT]), ENOENT, *TRANSIENT) and whole:
            break
    for version in legacy_versions(TABLE):
        lines = [f"-D{line[2:]}" for name, line in _lines(version) if name in meant]
        if lines:
            iptables.restore(version, TABLE, lines, iptables.LEGACY)
    return sock


def gc() -> None:
    """Remove the rules about those that are gone, whoever's they were. Raises as `remove`."""
    sock = find_socket()
    try:
        names = [name for name, _ in _rules(sock)]
    finally:
        if sock is not None:
            sock.close()
    for version in legacy_versions(TABLE):
        names += [name for name, _ in _lines(version)]
    stale = ends.gone(names)
    if stale:
        sock = remove(stale)
        if sock is not None:
            sock.close()


def _rules(sock: Socket | None) -> Iterator[tuple[str, Message]]:
    """(interface, what deletes the rule) of each in the chains of iptables-nft."""
    if sock is None:
        return
    try:
        for table in FILTERS.values():
            for chain in _CHAINS:
                for rule in table.rules(sock, chain):
                    # As the kernel compares it, to its end.
                    at = rule.find(b"veth")
                    if at >= 0 and _COMMENT.encode() in rule:
                        name = rule[at : at + 16].partition(b"\0")[0]
                        yield name.decode("utf-8", "replace"), table.delete_rule(chain, rule)
    except NetlinkError as error:
        if error.errno not in MISSING:
            raise


def _lines(version: int) -> Iterator[tuple[str, str]]:
    """(interface, the line) of each rule in the chains of iptables-legacy."""
    if not iptables.find(version, "save", iptables.LEGACY):
        return
    for line in iptables.save(version, TABLE, iptables.LEGACY):
        words = line.split()
        if words[0] == "-A" and words[1] in _CHAINS and _COMMENT in line:
            at = next((n for n, word in enumerate(words) if word in ("-i", "-o")), -1)
            if at >= 0:
                yield words[at + 1], line
