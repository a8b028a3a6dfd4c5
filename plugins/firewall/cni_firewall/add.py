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

    Idempotent. Raises CniError; then what it made is taken back, but for what all containers
    share: chains, their jumps, and a bridge's isolation.
    """
    result = request.chained_result()
    config = Config(request.config)
    addresses = addresses_of(result)
    bridge = bridge_of(result) if config.policy != OPEN else ""
    backend = choose(config)
    request.undo.push(_undo, request, config, backend)
    ruled = addresses
    if backend == FIREWALLD:
        from cni_firewall import sources

        sources.ensure(request.attachment, addresses, config.zone)
        ruled = []
    # Zones know nothing of bridges; iptables does, as in Go.
    if (backend == IPTABLES and (ruled or bridge)) or (backend == FIREWALLD and bridge):
        from cni_firewall import ipt

        ipt.ensure(request.attachment, ruled, config, bridge)
    if backend == NFTABLES:
        from cni_firewall import nft

        nft.ensure(request.attachment, addresses, config.policy, bridge).close()
    if bridge:
        _tell_gaps(config, backend, addresses, bridge)
    _warn(request, backend)
    return result


def _tell_gaps(config: Config, backend: str, addresses: list[Prefix], bridge: str) -> None:
    """On stderr: the container is less apart than was asked for."""
    from cni_firewall.gaps import gaps
    from cni_firewall.policy import say

    for gap in gaps(config.policy, backend, versions_of(addresses), bridge):
        say(f"firewall: {gap.words(config.policy, bridge)}; {gap.advice}")


def _warn(request: Request, backend: str) -> None:
    """On stderr, where runtimes keep it: traffic is still dropped."""
    from cni_firewall import policy

    dropping = policy.usual(backend)
    if dropping is None:
        return
    policy.say(
        f"firewall: {dropping.name} drops what it does not accept itself, so that the traffic of "
        f"{request.container_id} may not pass; {dropping.advice}"
    )


def _undo(request: Request, config: Config, backend: str) -> None:
    from cni_firewall.delete import remove

    remove(request, config, backend)
