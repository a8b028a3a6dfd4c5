# SPDX-License-Identifier: Apache-2.0
"""ADD: the overlay if there is no agent, then the delegate, then masquerade."""

from __future__ import annotations

from cni_vxlan_overlay import state
from cni_vxlan_overlay.config import Config
from cni_vxlan_overlay.delegation import render
from cni_vxlan_overlay.masquerade import addresses_of
from libcni.invoke.delegate import delegate_add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_vxlan_overlay.delegation import Rendered
    from cni_vxlan_overlay.embedded import Overlay
    from libcni.skel.request import Request
    from libcni.types.result import Result


def add(request: Request) -> Result:
    """Attach the container. Leaves everything as it was when it fails (CniError)."""
    config = Config(request.config)
    lease = config.current_lease()
    overlay: Overlay | None = None
    if config.lease is not None:
        from cni_vxlan_overlay.embedded import Overlay

        overlay = Overlay(config, lease)
    rendered = render(request, config, lease)
    _keep(request, config, rendered)
    if overlay is not None:
        request.undo.push(_take_back, request, config, overlay)
        overlay.ensure()
    result = delegate_add(request, rendered.type, rendered.document)
    if rendered.masquerade:
        from libcni import ipmasq

        addresses = addresses_of(result, rendered.networks)
        request.undo.push(ipmasq.undo, request.attachment, addresses)
        ipmasq.ensure(request.attachment, addresses, rendered.backend)
    if overlay is not None and not overlay.is_whole():
        # The first ADD made it, failed, and saw nobody else who needs it.
        overlay.ensure()
    return result


def _keep(request: Request, config: Config, rendered: Rendered) -> None:
    """Write down for DEL what the delegate is given, unless an earlier ADD's is there."""
    path = state.path_of(config.data_directory, request.attachment)
    if state.load(path) is None:
        request.undo.push(state.remove, path)
        state.save(path, rendered.document)


def _take_back(request: Request, config: Config, overlay: Overlay) -> None:
    """The inverse of making the overlay: if this ADD did, and no other attachment uses it."""
    if not overlay.made:
        return
    own = request.attachment
    for container_id, ifname, _ in state.kept(config.data_directory, request.network):
        if (container_id, ifname) != (own.container_id, own.ifname):
            return
    overlay.remove()
