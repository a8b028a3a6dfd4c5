# SPDX-License-Identifier: Apache-2.0
"""CHECK: everything that ADD made is there and leads where it shall; nothing else is looked at."""

from __future__ import annotations

from _socket import AF_INET

from cni_portmap import config as configuration
from cni_portmap.config import IPTABLES, NFTABLES, Config
from cni_portmap.taken import has_host_end
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_portmap.mapping import Claim
    from libcni.inet import Prefix
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 naming what is missing or another one.

    Where any backend will do, what the Go plugin made by iptables is as good.
    """
    result = request.require_prev_result()
    config = Config(request)
    targets = configuration.targets(request, result)
    claims = configuration.claims(request, targets)
    if not claims:
        return
    failures: list[CniError] = []
    if config.backend != IPTABLES:
        try:
            _check_nftables(request, config, targets, claims, has_host_end(request, result))
        except CniError as error:
            failures.append(error)
    if config.backend == IPTABLES or (failures and config.backend != NFTABLES):
        from cni_portmap import ipt

        try:
            ipt.check(request.attachment, config, targets, claims)
            failures = []
        except CniError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    target = targets.get(AF_INET)
    if config.snat and target is not None:
        from cni_portmap import localnet

        name, is_set = localnet.is_set(target.packed)
        if not is_set:
            raise CniError(CHECK_FAILED, f"portmap: sysctl net/{name}: expected 1, found 0")


def _check_nftables(
    request: Request,
    config: Config,
    targets: dict[int, Prefix],
    claims: list[Claim],
    host_end: bool,
) -> None:
    from cni_portmap import nft

    wanted, sources, conditional = nft.wanted(config, targets, claims, host_end)
    if conditional:
        from cni_portmap import conditional as rules

        rules.check(request.attachment, conditional)
        wanted.digest = rules.digest(request.attachment, conditional, config.conditions)
    nft.check(request.attachment, wanted, sources)
