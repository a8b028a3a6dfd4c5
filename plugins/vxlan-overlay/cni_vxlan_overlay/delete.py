# SPDX-License-Identifier: Apache-2.0
"""DEL: the delegate's, with what it was given at ADD; then that is forgotten."""

from __future__ import annotations

from cni_vxlan_overlay import state
from cni_vxlan_overlay.config import DEFAULT_DATA_DIRECTORY, Config
from cni_vxlan_overlay.delegation import BRIDGE, render
from libcni.fs import usable_path
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_vxlan_overlay.lease import Lease
    from libcni.skel.request import Request


#: What the delegate's configuration is made of, which nobody validates for a DEL.
_RENDERED = {
    "delegate": dict,
    "ipam": dict,
    "runtimeConfig": dict,
    "subnetFile": str,
    "mtu": int,
}


def delete(request: Request) -> None:
    """Remove every trace of the attachment. Idempotent. Raises the delegate's CniError.

    Without a kept configuration the present one has to do, which finds all that bears the
    attachment's name.
    """
    own = state.path_of(data_directory(request.config), request.attachment)
    path, document = own, None
    # The flannel plugin's may be another interface's: it goes only where there is none of ours.
    for candidate in (own, own.rpartition(":")[0]):
        kept = state.load(candidate)
        if kept is not None and kept.get("name") == request.network:
            path, document = candidate, kept
            break
    if document is None:
        document = rendered_leniently(request)
    if request.config.get("prevResult") is not None:
        document["prevResult"] = request.config["prevResult"]
    document["cniVersion"] = request.version
    forget_masquerade(request, document)
    from libcni.invoke.delegate import delegate_delete

    delegate_delete(request, _type_of(document), document)
    state.remove(path)


def data_directory(document: dict[str, Any]) -> str:
    """`dataDir`, of a configuration that nobody has validated. Raises CniError 7 if no path."""
    directory = document.get("dataDir")
    if not isinstance(directory, str) or not directory:
        return DEFAULT_DATA_DIRECTORY
    return usable_path(directory, "dataDir")


def _type_of(document: dict[str, Any]) -> str:
    kind = document.get("type")
    return kind if isinstance(kind, str) and kind else BRIDGE


def rendered_leniently(request: Request) -> dict[str, Any]:
    """The delegate's configuration as far as it can be told now."""
    document = {
        key: value
        for key, value in request.config.items()
        if key not in _RENDERED or isinstance(value, _RENDERED[key])
    }
    try:
        config = Config(document)
    except (CniError, ValueError, TypeError, AttributeError):
        # It is broken by now: the delegate's defaults find what is usual.
        config = Config({"name": request.network})
    lease: Lease | None
    try:
        lease = config.current_lease()
    except CniError:
        lease = None  # the agent's file went with the boot; names are enough
    return render(request, config, lease).document


def forget_masquerade(request: Request, document: dict[str, Any]) -> None:
    """Our masquerade goes with the delegate's where that is our own bridge; else by ourselves.

    The bridge removes whatever masquerades for the attachment, in one search with the rest. What
    a delegate masquerades itself is left to it: Go's DEL fails when it finds nothing any more.
    """
    if document.get("ipMasq") is True:
        return
    if _type_of(document) == BRIDGE:
        from libcni.invoke.find import find_in_path
        from libcni.invoke.installation import is_ours

        if is_ours(find_in_path(BRIDGE, request.path)):
            document["ipMasq"] = True
            return
    from libcni import ipmasq

    ipmasq.remove(request.attachment).close()
