# SPDX-License-Identifier: Apache-2.0
"""The policy of iptables-legacy's FORWARD, which netlink does not show.

A node may have rules there while its iptables is iptables-nft by now, or another program's is.
"""

from __future__ import annotations

from cni_firewall.config import IPTABLES
from cni_firewall.dropping import ACCEPT_THERE, USE_IPTABLES, Dropping
from cni_firewall.ipt_rules import ENTRIES, TABLE
from libcni import iptables
from libcni.invoke.spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_firewall.config import Config

#: Seconds for a tool that says what it is.
_TIMEOUT = 10.0


def dropping(backend: str, config: Config, versions: Iterable[int]) -> Iterator[Dropping]:
    """FORWARD of these IP versions, which have a table there, if its policy is to drop.

    Without the tool nobody can say. Raises CniError 11, 102.
    """
    for version in versions:
        path = iptables.find(version, "save", iptables.LEGACY)
        if not path or not _is_legacy(path):
            continue
        saved = iptables.save(version, TABLE, iptables.LEGACY)
        if not any(line.startswith(":FORWARD DROP ") for line in saved):
            continue
        name = f"chain FORWARD of {iptables.program(version)}-legacy"
        is_systems = _is_legacy(iptables.find(version, "save"))
        if backend == IPTABLES and is_systems:
            if _has_only_ours(saved, config.admin_chain):
                yield Dropping.own(name, version, config.admin_chain)
        elif is_systems:
            yield Dropping(name, [version], USE_IPTABLES, True)
        else:
            is_empty = not any(line.startswith("-A FORWARD ") for line in saved)
            yield Dropping(name, [version], ACCEPT_THERE, is_empty)


def _has_only_ours(saved: list[str], admin_chain: str) -> bool:
    """As `policy._has_only_ours`, of what the tool shows."""
    ours = tuple([f" -j {chain}" for chain in ENTRIES])
    rules = [line for line in saved if line.startswith("-A FORWARD ")]
    administrators = any(line.startswith(f"-A {admin_chain} ") for line in saved)
    return not administrators and all(line.endswith(ours) for line in rules)


def _is_legacy(path: str) -> bool:
    """True unless a tool says that it is a front end of nftables; before 1.8 it says nothing."""
    return b"nf_tables" not in spawn(path, ["--version"], None, b"", _TIMEOUT).stdout
