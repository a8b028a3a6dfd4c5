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
    from libcni.attachment import Attachment
    from libcni.inet import Prefix
    from libcni.skel.request import Request
    from libcni.types.result import Result

#: Holders of ports that may turn out to be gone, one after the other.
_GONE = 100


def add(request: Request) -> Result:
    """Make the mappings; returns prevResult. Without mappings nothing is done.

    What the attachment has from an ADD before is replaced, by whichever backend it was made;
    iptables-legacy is only asked where the ADD is by iptables. Raises CniError: 7 for what
    cannot be, 101 for a port that another container has, before anything has changed; then, and
    after any other failure, everything is as it was, but that what this ADD does not replace by
    itself (see `_Leftovers`) stays gone if only the result could not be written.
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
            leave = _take(request, config, targets, claims, host_end)
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
    if leave is not None:
        leave()
    return result


def _take(
    request: Request,
    config: Config,
    targets: dict[int, Prefix],
    claims: list[Claim],
    host_end: bool,
) -> Callable[[], None] | None:
    """Make the mappings by the backend that is asked for, or can. Raises Taken, CniError.

    Returns what removes those of the other backend, if there may be any.
    """
    if config.backend != IPTABLES:
        try:
            is_in_iptables = _by_nftables(request, config, targets, claims, host_end)
        except NetlinkError as error:
            from libcni.nftables.transaction import UNSUPPORTED, is_missing

            # ENOENT: nftables without NAT in inet tables, as in Linux before 5.2.
            if config.backend or not (error.errno in (ENOENT, *UNSUPPORTED) or is_missing()):
                raise
        else:
            return _Leftovers(request.attachment, targets).leave if is_in_iptables else None
    from cni_portmap import ipt

    versions = ipt.ensure(request.attachment, config, targets, claims, _Undo(request).push)
    return _Leftovers(request.attachment, targets, versions).leave


class _Leftovers:
    """What an ADD before has made that this one does not replace by itself.

    targets: where this one leads. versions: those of IP that it has made rules of iptables for.
    """

    __slots__ = ("_addresses", "_attachment", "_versions")

    def __init__(
        self,
        attachment: Attachment,
        targets: dict[int, Prefix],
        versions: tuple[int, ...] = (),
    ) -> None:
        self._addresses = {target.packed for target in targets.values()}
        self._attachment = attachment
        self._versions = versions

    def leave(self) -> None:
        """Remove it. Idempotent. Raises NetlinkError, CniError."""
        from cni_portmap import delete
        from cni_portmap.flows import forget_translated
        from libcni.nftables.transaction import find_socket

        others = tuple([version for version in (4, 6) if version not in self._versions])
        sock = find_socket()
        led_to: set[bytes] = set()
        if sock is not None and others:
            led_to = delete.remove_leftovers(sock, self._attachment, others, self._addresses)
        if self._versions:
            delete.remove_ours(self._attachment)
            from libcni.legacy_tables import legacy_versions

            legacy = [version for version in legacy_versions("nat") if version in others]
            if legacy:
                from cni_portmap import ipt

                led_to |= ipt.remove_legacy(self._attachment, legacy, marked=True)
        forget_translated(led_to)


class _Undo:
    """What undoes a backend's `ensure`, which may look and try repeatedly: what is the last look's
    counts."""

    __slots__ = ("_args", "_inverse", "_request")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._inverse: Callable[..., None] | None = None
        self._args: tuple[object, ...] = ()

    def push(self, inverse: Callable[..., None], *args: object) -> None:
        """Register it, in the place of an earlier one."""
        if self._inverse is None:
            self._request.undo.push(self._run)
        self._inverse, self._args = inverse, args

    def _run(self) -> None:
        if self._inverse is not None:
            self._inverse(*self._args)


def _by_nftables(
    request: Request,
    config: Config,
    targets: dict[int, Prefix],
    claims: list[Claim],
    host_end: bool,
) -> bool:
    """Make the mappings; returns whether iptables too may hold some of the attachment."""
    from cni_portmap import nft

    wanted, sources, conditional = nft.wanted(config, targets, claims, host_end)
    is_in_iptables = nft.ensure(request.attachment, wanted, sources, _Undo(request).push)
    if conditional:
        from cni_portmap import conditional as rules

        rules.ensure(request.attachment, conditional, config.conditions)
        wanted.digest = rules.digest(request.attachment, conditional, config.conditions)
        nft.remember(request.attachment, wanted)
    return is_in_iptables
