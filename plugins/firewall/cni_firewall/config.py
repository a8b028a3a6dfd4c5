# SPDX-License-Identifier: Apache-2.0
"""The configuration of firewall, and what of prevResult it is about."""

from __future__ import annotations

from libcni.inet import Prefix
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.types.result import Result

#: Where administrators put rules that go before ours.
ADMIN_CHAIN = "CNI-ADMIN"
ZONE = "trusted"
OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
IPTABLES, NFTABLES, FIREWALLD = "iptables", "nftables", "firewalld"


class Config:
    """backend: as configured, "" to choose. policy: OPEN, SAME_BRIDGE or ISOLATED."""

    __slots__ = ("admin_chain", "backend", "policy", "zone")

    def __init__(self, document: dict[str, Any]) -> None:
        """Read a document that need not have been validated (DEL, GC)."""

        def text(key: str, default: str) -> str:
            value = document.get(key)
            return value if isinstance(value, str) and value else default

        self.backend = text("backend", "")
        self.admin_chain = text("iptablesAdminChainName", ADMIN_CHAIN)
        self.zone = text("firewalldZone", ZONE)
        self.policy = text("ingressPolicy", OPEN)


def choose(config: Config) -> str:
    """The backend: as configured, else firewalld if it runs, iptables if it is installed, and
    nftables where it is not. As in Go, but for the last. Raises nothing."""
    if config.backend in (IPTABLES, NFTABLES, FIREWALLD):
        return config.backend
    from cni_firewall import firewalld

    if firewalld.is_running():
        return FIREWALLD
    from libcni import iptables

    if iptables.find(4, "restore") or iptables.find(6, "restore"):
        return IPTABLES
    return NFTABLES


def addresses_of(result: Result) -> list[Prefix]:
    """The container's addresses, each with its full prefix length. Raises CniError 7."""
    found: dict[Prefix, None] = {}
    for ip in result.ips:
        address = Prefix.parse(ip.address)
        found[Prefix(address.packed, address.bits)] = None
    return list(found)


def versions_of(addresses: list[Prefix]) -> list[int]:
    """The IP versions (4, 6) of the addresses; without any, both, as a bridge carries both."""
    return sorted({4 if len(address.packed) == 4 else 6 for address in addresses}) or [4, 6]


def bridge_of(result: Result) -> str:
    """The interface that an ingress policy is about: the first of prevResult.

    Raises CniError 7 when that is not one on the host.
    """
    first = result.interfaces[0] if result.interfaces else None
    if first is None or first.sandbox or not first.name:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            "ingressPolicy needs a bridge as the first interface of prevResult",
            f"it is {first.name if first is not None else 'missing'}",
        )
    return first.name
