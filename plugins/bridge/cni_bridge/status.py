# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_bridge.config import Config
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 naming what is in the way, or what the IPAM plugin's STATUS raises."""
    config = Config(request.config)
    from libcni.netlink.link import find_link
    from libcni.netlink.socket import Socket

    link = find_link(Socket(), config.bridge)
    if link is not None and link.kind != "bridge":
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f'"{config.bridge}" already exists but is not a bridge',
            f"it is a {link.kind or 'plain'} device; set `bridge` to another name",
        )
    if config.masquerade or config.spoof_check:
        from libcni import ipmasq

        if config.masquerade:
            _require("ipMasq", ipmasq.unusable(config.masquerade_backend))
        if config.spoof_check:
            _require("macspoofchk", ipmasq.unusable("nftables"))
    if config.ipam:
        from libcni.invoke.delegate import delegate_status

        delegate_status(request, config.ipam)


def _require(key: str, reason: str) -> None:
    if reason:
        raise CniError(PLUGIN_NOT_AVAILABLE, f"{key} cannot work here: {reason}")
