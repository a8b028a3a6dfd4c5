# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_ptp.config import Config
from libcni.interface.ipam import inquire
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when masquerading cannot work, or a configured address has no gateway,
    and what the IPAM plugin's STATUS raises."""
    config = Config(request.config)
    if config.masquerade:
        from libcni import ipmasq

        reason = ipmasq.unusable(config.masquerade_backend)
        if reason:
            raise CniError(PLUGIN_NOT_AVAILABLE, f"ipMasq cannot work here: {reason}")
    inquire(request)
    _require_gateways(request.config)


def _require_gateways(document: dict[str, Any]) -> None:
    """Raise CniError 50 for an address of static that has no gateway. Leniently: what is wrong
    with the IPAM's keys is for its own STATUS to say."""
    ipam = document.get("ipam") or {}
    asked = ((document.get("args") or {}).get("cni") or {}).get("ips")
    # Which take the place of the configured ones.
    if ipam.get("type") != "static" or asked or (document.get("capabilities") or {}).get("ips"):
        return
    for index, one in enumerate(ipam.get("addresses") or ()):
        if not one.get("gateway"):
            raise CniError(
                PLUGIN_NOT_AVAILABLE,
                f"ipam.addresses[{index}] has no gateway, which ptp cannot do without",
                "set `gateway`: an address that the host shall have",
            )
