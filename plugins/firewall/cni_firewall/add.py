# SPDX-License-Identifier: Apache-2.0
"""ADD: the container's traffic passes, and its bridge is kept apart if so configured."""

from __future__ import annotations

from cni_firewall.config import (
    FIREWALLD,
    IPTABLES,
    NFTABLES,
    OPEN,
    Config,
    addresses_of,
    bridge_of,
    choose,
    versions_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix
    from libcni.skel.request import Request
    from libcni.types.result import Result


def add(request: Request) -> Result:
    """Let the container's traffic through; returns prevResult.

    Idempotent. Raises CniError; then what it made is taken back, but not what was there before,
    nor what all containers share: chains, their jumps, and a bridge's isolation.
    """
    result = request.chained_result()
    config = Config(request.config)
    addresses = addresses_of(result)
    bridge = bridge_of(result) if config.policy != OPEN else ""
    backend = choose(config)
    if backend == NFTABLES:
        from cni_firewall.nft_change import Change

        change = Change(request.attachment)
        request.undo.push(change.undo)
        change.make(addresses, config.policy, bridge)
        if change.stays_isolated:
            from cni_firewall.nft import reopening

            _tell_strictest(bridge, reopening(bridge))
    else:
        _add_to_tools(request, config, backend, addresses, bridge)
    if bridge:
        _tell_gaps(config, backend, addresses, bridge)
    _warn(request, config, backend, addresses)
    return result


def _add_to_tools(
    request: Request, config: Config, backend: str, addresses: list[Prefix], bridge: str
) -> None:
    ruled = addresses
    if backend == FIREWALLD:
        from cni_firewall import sources

        sources.ensure(request.attachment, addresses, config.zone, request.undo)
        ruled = []
    # Zones know nothing of bridges; iptables does, as in Go.
    if (backend == IPTABLES and (ruled or bridge)) or (backend == FIREWALLD and bridge):
        from cni_firewall import ipt

        isolated = ipt.ensure(request.attachment, ruled, config, bridge, request.undo)
        if isolated:
            _tell_strictest(bridge, ipt.reopening(bridge, isolated))


def _tell_strictest(bridge: str, command: str) -> None:
    """On stderr: an earlier policy holds. command: what ends that."""
    from cni_firewall import strictest
    from cni_firewall.policy import say

    say(f"firewall: {strictest.words(bridge)}; {strictest.advice(command)}")


def _tell_gaps(config: Config, backend: str, addresses: list[Prefix], bridge: str) -> None:
    """On stderr: the container is less apart than was asked for."""
    from cni_firewall.gaps import gaps
    from cni_firewall.policy import say

    for gap in gaps(config.policy, backend, versions_of(addresses), bridge):
        say(f"firewall: {gap.words(config.policy, bridge)}; {gap.advice}")


def _warn(request: Request, config: Config, backend: str, addresses: list[Prefix]) -> None:
    """On stderr, where runtimes keep it: traffic is still dropped."""
    from cni_firewall import policy

    for dropping in policy.usual(backend, config, versions_of(addresses)):
        policy.say(f"firewall: {dropping.words(request.container_id)}; {dropping.advice}")
