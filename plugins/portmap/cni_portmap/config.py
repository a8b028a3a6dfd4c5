# SPDX-License-Identifier: Apache-2.0
"""The configuration of portmap, and which backend it means."""

from __future__ import annotations

from cni_portmap.mapping import Claim, invalid, parse
from libcni.inet import Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Result

IPTABLES, NFTABLES = "iptables", "nftables"
#: The mark of what is to be masqueraded, iptables only: bit 13, 0x2000, as Kubernetes had it.
_DEFAULT_BIT = 13


class Config:
    """What is to be mapped, and how.

    backend: "iptables", "nftables", or "" for nftables where the kernel has it. conditions:
    further matches by IP version (4, 6). mark_chain: of somebody else's, "" for our own.
    """

    __slots__ = ("backend", "conditions", "mark_bit", "mark_chain", "masquerade_all", "snat")

    def __init__(self, request: Request) -> None:
        """Read a canonical document. Raises CniError 7 naming the keys."""
        document = request.config
        self.snat: bool = document.get("snat", True)
        self.masquerade_all: bool = document.get("masqAll", False)
        self.mark_bit: int = document.get("markMasqBit", _DEFAULT_BIT)
        self.mark_chain: str = document.get("externalSetMarkChain") or ""
        self.conditions: dict[int, list[str]] = {}
        for version, key in ((4, "conditionsV4"), (6, "conditionsV6")):
            if document.get(key):
                self.conditions[version] = document[key]
        if self.mark_chain and "markMasqBit" in document:
            raise invalid("Cannot specify externalSetMarkChain and markMasqBit")
        self.backend = self._backend(document.get("backend") or "")

    def _backend(self, asked: str) -> str:
        """The backend that was asked for, or the one that the other keys are for."""
        if asked not in ("", IPTABLES, NFTABLES):
            raise invalid(f"unrecognized backend {asked!r}", 'backend is "nftables" or "iptables"')
        implied = {
            f"conditionsV{version}": IPTABLES if words[0][:1] in ("-", "!") else NFTABLES
            for version, words in self.conditions.items()
        }
        if self.mark_chain:
            implied["externalSetMarkChain"] = IPTABLES
        if not asked and implied:
            asked = next(iter(implied.values()))
        wrong = [key for key, backend in implied.items() if backend != asked]
        if wrong:
            raise invalid(
                f"{' and '.join(wrong)} cannot be used with the {asked} backend",
                "conditions that begin with - or ! are iptables', all others nftables'",
            )
        return asked


def targets(request: Request, result: Result) -> dict[int, Prefix]:
    """The container's first address of each family; mappings lead there.

    One whose interface is known not to be this attachment's is passed over, as in Go.
    """
    found: dict[int, Prefix] = {}
    for ip in result.ips:
        if ip.interface is not None and 0 <= ip.interface < len(result.interfaces):
            interface = result.interfaces[ip.interface]
            if interface.name != request.ifname or not interface.sandbox:
                continue
        prefix = Prefix.parse(ip.address)
        found.setdefault(prefix.family, prefix)
    return found


def claims(request: Request, addresses: dict[int, Prefix]) -> list[Claim]:
    """The claims of the mappings that the runtime gives. Raises CniError 7."""
    entries = (request.config.get("runtimeConfig") or {}).get("portMappings") or []
    return parse(entries, {family: prefix.packed for family, prefix in addresses.items()})
