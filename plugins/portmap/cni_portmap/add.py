# SPDX-License-Identifier: Apache-2.0
"""ADD: take the ports of the host, and let them lead to the container."""

from __future__ import annotations

from _socket import AF_INET
from errno import ENOENT

from cni_portmap import config as configuration
from cni_portmap.config import IPTABLES, Config
from cni_portmap.taken import Taken, has_host_end, make_room
from libcni.netlink.socket import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_portmap.mapping import Claim
    from libcni.inet import Prefix
    from libcni.skel.request import Request
    from libcni.types.result import Result

#: Holders of ports that may turn out to be gone, one after the other.
_GONE = 100


def add(request: Request) -> Result:
    """Make the mappings; returns prevResult. Without mappings there is nothing to do.

    Raises CniError: 7 for what cannot be, 101 for a port that another container has, before
    anything has changed; then, and after any other failure, everything is as it was.
    """
    result = request.chained_result()
    config = Config(request)
    targets = configuration.targets(request, result)
    claims = configuration.claims(request, targets)
    if not claims:
        return result
    host_end = has_host_end(request, result)
    for left in range(_GONE, -1, -1):
        try:
            _take(request, config, targets, claims, host_end)
            break
        except Taken as taken:
            if not left:
                raise
            make_room(taken, targets)
    target = targets.get(AF_INET)
    if config.snat and target is not None:
        from cni_portmap import localnet

        localnet.ensure(target.packed, request.attachment.comment, request.undo)
    from cni_portmap.flows import forget_strays

    forget_strays(claims)
    return result


def _take(
    request: Request,
    config: Config,
    targets: dict[int, Prefix],
    claims: list[Claim],
    host_end: bool,
) -> None:
    """Make the mappings by the backend that is asked for, or can. Raises Taken, CniError."""
    undo = _Undo(request).push
    if config.backend != IPTABLES and _by_nftables(
        request, config, targets, claims, host_end, undo
    ):
        return
    from cni_portmap import ipt

    ipt.ensure(request.attachment, config, targets, claims, undo)


class _Undo:
    """Registers the inverse once, when something is about to change.

    Not before: an ADD that is refused must not cost a live attachment what it has.
    """

    __slots__ = ("_pushed", "_request")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._pushed = False

    def push(self) -> None:
        """Register it, unless that is done."""
        if not self._pushed:
            from cni_portmap import delete

            self._request.undo.push(delete.undo, self._request.attachment)
            self._pushed = True


def _by_nftables(
    request: Request,
    config: Config,
    targets: dict[int, Prefix],
    claims: list[Claim],
    host_end: bool,
    undo: Callable[[], None],
) -> bool:
    """False, with nothing changed, where the kernel cannot and any backend will do."""
    from cni_portmap import nft

    wanted, sources, conditional = nft.wanted(config, targets, claims, host_end)
    try:
        nft.ensure(request.attachment, wanted, sources, undo)
    except NetlinkError as error:
        from libcni.nftables.transaction import UNSUPPORTED, is_missing

        # ENOENT: nftables without NAT in inet tables, as in Linux before 5.2.
        if config.backend or not (error.errno in (ENOENT, *UNSUPPORTED) or is_missing()):
            raise
        return False
    if conditional:
        from cni_portmap import conditional as rules

        rules.ensure(request.attachment, conditional, config.conditions)
    return True
