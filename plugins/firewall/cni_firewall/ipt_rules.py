# SPDX-License-Identifier: Apache-2.0
"""The rules of the backend iptables in the words of `iptables-save`.

    -A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
    -A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
    -A CNI-FORWARD -d 10.1.2.3/32 -m conntrack --ctstate RELATED,ESTABLISHED … -j ACCEPT
    -A CNI-FORWARD -s 10.1.2.3/32 … -j ACCEPT

A container's bear its identity as a comment, which Go's do not.
"""

from __future__ import annotations

from _socket import AF_INET

from cni_firewall.config import ISOLATED, SAME_BRIDGE, Config
from libcni import iptables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.inet import Prefix

TABLE = "filter"
CHAIN = "CNI-FORWARD"
STAGE1, STAGE2 = "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2"
#: What rules of ours in FORWARD lead to.
ENTRIES = (CHAIN, STAGE1)
_FORWARD_COMMENT = "CNI firewall plugin rules"
_ADMIN_COMMENT = "CNI firewall plugin admin overrides"


def version_of(address: Prefix) -> int:
    """4 or 6."""
    return 4 if address.family == AF_INET else 6


def _comment(text: str) -> str:
    return f"-m comment --comment {iptables.quoted(text)}"


def frame(config: Config) -> list[tuple[str, str]]:
    """What all containers share: (chain, the rest of the rule), first in its chain."""
    return [
        ("FORWARD", f"{_comment(_FORWARD_COMMENT)} -j {CHAIN}"),
        (CHAIN, f"{_comment(_ADMIN_COMMENT)} -j {config.admin_chain}"),
    ]


def _policy_comment(policy: str) -> str:
    return _comment(f"CNI firewall plugin rules (ingressPolicy: {policy})")


def isolating(bridge: str) -> str:
    """The rule of STAGE1 that keeps the containers on a bridge apart."""
    return f"-i {bridge} -o {bridge} {_policy_comment(ISOLATED)} -j DROP"


def isolation(policy: str, bridge: str) -> dict[str, list[str]]:
    """Rules by chain that keep a bridge apart, each chain's in order."""
    text = _policy_comment(policy)
    first = [f"-i {bridge} ! -o {bridge} {text} -j {STAGE2}"]
    if policy == ISOLATED:
        first.append(isolating(bridge))
    return {
        "FORWARD": [f"{text} -j {STAGE1}"],
        STAGE1: [*first, f"{text} -j RETURN"],
        STAGE2: [f"-o {bridge} {text} -j DROP", f"{text} -j RETURN"],
    }


def accepts(address: Prefix, attachment: Attachment | None) -> list[str]:
    """A container's two rules for one of its addresses; None for Go's, which tell no owner."""
    mark = f"{_comment(attachment.comment)} " if attachment is not None else ""
    text = address.text()
    established = f"-d {text} -m conntrack --ctstate RELATED,ESTABLISHED"
    return [f"{established} {mark}-j ACCEPT", f"-s {text} {mark}-j ACCEPT"]


class Saved:
    """A table as `iptables-save` shows it, which puts comments without blanks in no quotes."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = {line.replace('"', "") for line in lines}

    def has_chain(self, name: str) -> bool:
        """True if there is the chain."""
        return any(line.startswith(f":{name} ") for line in self._lines)

    def has(self, chain: str, rule: str) -> bool:
        """True if the chain has the rule."""
        return f"-A {chain} {rule}".replace('"', "") in self._lines


def stays_isolated(saved: Saved, policy: str, bridge: str) -> bool:
    """True if containers on the bridge are kept apart, against the policy (see `strictest`)."""
    return policy == SAME_BRIDGE and saved.has(STAGE1, isolating(bridge))


def missing(
    saved: Saved, attachment: Attachment, addresses: list[Prefix], config: Config, bridge: str
) -> list[str]:
    """The lines that make what is not there."""
    lines = [f"-N {name}" for name in (CHAIN, config.admin_chain) if not saved.has_chain(name)]
    for chain, rule in frame(config):
        if not saved.has(chain, rule):
            lines.append(f"-I {chain} 1 {rule}")
    for address in addresses:
        for rule in accepts(address, attachment):
            if not saved.has(CHAIN, rule):
                lines.append(f"-A {CHAIN} {rule}")
    if bridge:
        lines += [f"-N {name}" for name in (STAGE1, STAGE2) if not saved.has_chain(name)]
        for chain, wanted in isolation(config.policy, bridge).items():
            for rule in wanted:
                if saved.has(chain, rule):
                    continue
                last = rule.endswith("-j RETURN")
                lines.append(f"-A {chain} {rule}" if last else f"-I {chain} 1 {rule}")
    return lines
