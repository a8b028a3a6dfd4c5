# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_portmap.config import IPTABLES, NFTABLES, Config
from libcni.nftables.transaction import is_missing
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 7 when the configuration is wrong, 50 when the backend cannot be used."""
    config = Config(request)
    if config.backend == IPTABLES or (not config.backend and is_missing()):
        from cni_portmap import ipt

        reason = ipt.unusable(tuple(config.conditions) or (4,))
    else:
        reason = _nftables(config)
    if reason:
        raise CniError(PLUGIN_NOT_AVAILABLE, f"portmap: {reason}", "see `backend`")


def _nftables(config: Config) -> str:
    """Why nftables cannot be used here, or ""."""
    from libcni.ipmasq import unusable

    reason = unusable(NFTABLES)
    if not reason and config.conditions:
        from cni_portmap.conditional import find_nft

        reason = "" if find_nft() else "nft is not installed, which reads conditionsV4 and V6"
    return reason
