# SPDX-License-Identifier: Apache-2.0
"""What host-local refuses when it reads its configuration; `cnitool validate` asks for it."""

from __future__ import annotations

from cni_host_local.config import load
from libcni.inet import ntop
from libcni.types.result import IPConfig, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def refuse(request: Request) -> None:
    """Read what ADD reads before it looks at the store. Raises CniError as ADD would."""
    if not _is_told_later(request):
        load(request)


def example(request: Request) -> Result:
    """What ADD may give: of every range its first address. Raises CniError as ADD would."""
    if _is_told_later(request):
        return Result()
    config = load(request)
    ips = [
        IPConfig(f"{one.address(one.first)}/{one.subnet.length}", ntop(one.gateway))
        for pool in config.range_sets
        for one in pool.ranges
    ]
    return Result(ips=ips, routes=config.result_routes())


def _is_told_later(request: Request) -> bool:
    """Whether it is the runtime that says the ranges."""
    ipam = request.config.get("ipam") or {}
    capabilities = request.config.get("capabilities") or {}
    return bool(capabilities.get("ipRanges")) and not (ipam.get("ranges") or ipam.get("subnet"))
