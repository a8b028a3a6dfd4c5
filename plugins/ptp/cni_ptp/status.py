# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_ptp.config import Config
from libcni.interface.ipam import inquire
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when masquerading cannot work, or what the IPAM plugin's STATUS raises."""
    config = Config(request.config)
    if config.masquerade:
        from libcni import ipmasq

        reason = ipmasq.unusable(config.masquerade_backend)
        if reason:
            raise CniError(PLUGIN_NOT_AVAILABLE, f"ipMasq cannot work here: {reason}")
    inquire(request)
