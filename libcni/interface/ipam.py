# SPDX-License-Identifier: Apache-2.0
"""Addresses of an interface: what the IPAM plugin gives, releases, compares and cleans up.

`ipam` is read leniently here, as DEL and GC are not validated.
"""

from __future__ import annotations

from libcni.types.errors import DELEGATE_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request
    from libcni.types.result import Result


def ipam_type(document: dict[str, Any]) -> str:
    """`ipam.type`; "" for an interface without addresses."""
    ipam = document.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    return kind if isinstance(kind, str) else ""


def obtain(request: Request) -> Result:
    """The IPAM plugin's result, each address on the first interface. Empty without `ipam.type`.

    Raises the plugin's CniError, and CniError 104 when it gives no address.
    """
    kind = ipam_type(request.config)
    if not kind:
        from libcni.types.result import Result

        return Result()
    from libcni.invoke.delegate import delegate_add

    result = delegate_add(request, kind)
    if not result.ips:
        raise no_address(kind)
    for ip in result.ips:
        ip.interface = 0
    return result


def no_address(kind: str) -> CniError:
    """The CniError 104 of an ADD whose IPAM plugin succeeded, but gave no address."""
    remedy = "does `ipam` say which, spelt as its page has it?"
    if kind == "static":
        # Which succeeds, as Go's: without addresses it is of use for routes and DNS alone.
        remedy = (
            "ipam.addresses names none, and nor do runtimeConfig.ips, args.cni.ips and CNI_ARGS IP"
        )
    return CniError(
        DELEGATE_FAILED,
        "IPAM plugin returned missing IP config",
        f"{kind} gave no address; {remedy}",
    )


def release(request: Request) -> None:
    """DEL of the IPAM plugin, if there is one. Raises its CniError."""
    kind = ipam_type(request.config)
    if kind:
        from libcni.invoke.delegate import delegate_delete

        delegate_delete(request, kind)


def compare(request: Request) -> None:
    """CHECK of the IPAM plugin, if there is one. Raises its CniError."""
    kind = ipam_type(request.config)
    if kind:
        from libcni.invoke.delegate import delegate_check

        delegate_check(request, kind)


def collect(request: Request) -> None:
    """GC of the IPAM plugin, if there is one. Raises its CniError."""
    kind = ipam_type(request.config)
    if kind:
        from libcni.invoke.delegate import delegate_gc

        delegate_gc(request, kind)


def inquire(request: Request) -> None:
    """STATUS of the IPAM plugin, if there is one. Raises its CniError."""
    kind = ipam_type(request.config)
    if kind:
        from libcni.invoke.delegate import delegate_status

        delegate_status(request, kind)
