# SPDX-License-Identifier: Apache-2.0
"""CHECK: the container's rules, and what they need, are there; nothing else is looked at."""

from __future__ import annotations

from cni_firewall.config import (
    FIREWALLD,
    NFTABLES,
    OPEN,
    Config,
    addresses_of,
    bridge_of,
    choose,
    versions_of,
)
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 naming the rule, element or source that is missing, or why the ingress
    policy does not hold with all of them."""
    result = request.require_prev_result()
    config = Config(request.config)
    addresses = addresses_of(result)
    bridge = bridge_of(result) if config.policy != OPEN else ""
    backend = choose(config)
    _check_made(request, config, backend, addresses, bridge)
    if not bridge:
        return
    from cni_firewall.gaps import gaps

    versions = versions_of(addresses) if addresses else []
    for gap in gaps(config.policy, backend, versions, bridge):
        raise CniError(CHECK_FAILED, f"firewall: {gap.words(config.policy, bridge)}", gap.advice)


def _check_made(
    request: Request, config: Config, backend: str, addresses: list[Prefix], bridge: str
) -> None:
    if backend == NFTABLES:
        from cni_firewall import nft

        nft.check(request.attachment, addresses, config.policy, bridge)
        return
    if backend == FIREWALLD:
        from cni_firewall import firewalld

        firewalld.check(addresses, config.zone)
        if not bridge:
            return
        addresses = []
    from cni_firewall import ipt

    ipt.check(request.attachment, addresses, config, bridge)
