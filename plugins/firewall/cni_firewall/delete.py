# SPDX-License-Identifier: Apache-2.0
"""DEL: the container's rules go, of whichever backend."""

from __future__ import annotations

from cni_firewall.config import IPTABLES, NFTABLES, OPEN, Config, addresses_of, bridge_of
from libcni import orphans
from libcni.attempts import Attempts
from libcni.nftables.closing import leave
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from libcni.inet import Prefix
    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Remove rules and sources, found by the attachment's identity; Go's by the addresses of
    prevResult. Idempotent. Raises the first CniError after trying everything.
    """
    config = Config(request.config)
    addresses = _addresses(request)
    attempts = Attempts()
    attempts.attempt(orphans.wait, request.attachment)
    from cni_firewall import ipt, nft, sources

    known = addresses if config.backend not in (IPTABLES, NFTABLES) else []
    ends: list[str] = []
    if config.policy != OPEN:
        ends = attempts.attempt(_ends, request) or []
    steps: list[tuple[Callable[..., Socket | None], tuple[Any, ...]]] = [
        (ipt.remove, (addresses,)),
        (nft.remove, (addresses, ends)),
        (sources.remove, (known, config.zone)),
    ]
    open_sockets = []
    for step, arguments in steps:
        sock = attempts.attempt(step, request.attachment, *arguments)
        if sock is not None:
            open_sockets.append(sock)
    if ends:
        from cni_firewall import ipt_ends

        sock = attempts.attempt(ipt_ends.remove, ends)
        if sock is not None:
            open_sockets.append(sock)
    leave(*open_sockets)
    attempts.report()


def _addresses(request: Request) -> list[Prefix]:
    """Those of prevResult; none where it is missing or damaged."""
    try:
        result = request.prev_result()
        return addresses_of(result) if result is not None else []
    except (CniError, ValueError):
        return []


def _ends(request: Request) -> list[str]:
    """The host's ends of the container's own veths, as far as they are known."""
    from cni_firewall import ends

    try:
        result = request.prev_result()
        first = bridge_of(result) if result is not None else ""
    except (CniError, ValueError):
        first = ""
    return ends.of(request.attachment, first)
