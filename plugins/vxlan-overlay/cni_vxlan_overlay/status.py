# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now, and would its pod reach the others?"""

from __future__ import annotations

from cni_vxlan_overlay.config import Config
from cni_vxlan_overlay.delegation import render
from libcni.types.errors import LIMITED_CONNECTIVITY, PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 while no subnet is known, the agent's device is missing or an ADD could
    not be done, 51 while peers cannot be reached, or what the delegate's STATUS raises.

    Without an agent nothing that the next ADD would make is missed: a node that is said not to
    be ready gets no ADD.
    """
    config = Config(request.config)
    lease = config.current_lease()
    if config.lease is not None:
        from cni_vxlan_overlay.embedded import Overlay

        try:
            Overlay(config, lease).ready()
        except CniError as error:
            if error.code in (PLUGIN_NOT_AVAILABLE, LIMITED_CONNECTIVITY):
                raise
            raise CniError(PLUGIN_NOT_AVAILABLE, error.msg, error.details) from None
    elif lease.devices:
        from cni_vxlan_overlay import agent_state

        problem = agent_state.problem(lease)
        if problem is not None:
            code = PLUGIN_NOT_AVAILABLE if problem.device else LIMITED_CONNECTIVITY
            raise CniError(code, problem.text, problem.hint)
    rendered = render(request, config, lease)
    if rendered.masquerade:
        from libcni import ipmasq

        reason = ipmasq.unusable(rendered.backend)
        if reason:
            raise CniError(PLUGIN_NOT_AVAILABLE, f"cannot masquerade: {reason}")
    from libcni.invoke.delegate import delegate_status

    delegate_status(request, rendered.type, rendered.document)
