# SPDX-License-Identifier: Apache-2.0
"""CHECK: devices, peers, masquerade, and what the delegate made."""

from __future__ import annotations

from cni_vxlan_overlay.config import Config
from cni_vxlan_overlay.delegation import render
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_vxlan_overlay.lease import Lease
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 naming what is missing or differs, or the delegate's CniError."""
    result = request.require_prev_result()
    config = Config(request.config)
    lease = config.current_lease()
    if config.lease is not None:
        from cni_vxlan_overlay.embedded import Overlay

        Overlay(config, lease).check()
    else:
        check_agent(lease)
    rendered = render(request, config, lease)
    if rendered.masquerade:
        from cni_vxlan_overlay.masquerade import addresses_of
        from libcni import ipmasq

        addresses = addresses_of(result, rendered.networks, request.ifname)
        ipmasq.check(request.attachment, addresses, rendered.backend)
    from libcni.invoke.delegate import delegate_check

    delegate_check(request, rendered.type, rendered.document)


def check_agent(lease: Lease) -> None:
    """Raise CniError 103 when what the agent keeps in the kernel is not there.

    flanneld tells neither its devices nor its peers: there is nothing to compare with.
    """
    if not lease.devices:
        return
    from cni_vxlan_overlay import agent_state

    problem = agent_state.problem(lease)
    if problem is not None:
        raise CniError(CHECK_FAILED, problem.text, problem.hint)
