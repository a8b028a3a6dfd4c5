# SPDX-License-Identifier: Apache-2.0
"""CHECK: prevResult has the addresses that ADD would give now."""

from __future__ import annotations

from cni_static.config import addresses_of
from libcni.inet import Prefix
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 naming an address that is missing, or whose gateway differs.

    With `exclusive` also one that this attachment does not hold.
    """
    present = {Prefix.parse(ip.address): ip for ip in request.require_prev_result().ips}
    exclusive = request.config["ipam"].get("exclusive")
    for wanted in addresses_of(request):
        found = present.get(Prefix.parse(wanted.address))
        if found is None:
            others = ", ".join(ip.address for ip in present.values()) or "none"
            raise CniError(
                CHECK_FAILED, f"addresses of prevResult: expected {wanted.address}, found {others}"
            )
        if wanted.gateway and found.gateway != wanted.gateway:
            raise CniError(
                CHECK_FAILED,
                f"gateway of {wanted.address} in prevResult: expected {wanted.gateway}, found "
                f"{found.gateway or 'none'}",
            )
        if exclusive:
            _check_holder(request, wanted.address.partition("/")[0])


def _check_holder(request: Request, address: str) -> None:
    from cni_static.holders import describe, holder_of, owner_of

    mine, holder = owner_of(request.attachment), holder_of(request, address)
    if holder != mine:
        raise CniError(
            CHECK_FAILED,
            f"holder of {address}: expected {describe(mine)}, found "
            f"{describe(holder) if holder else 'none'}",
        )
