# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_sbr.config import configured_gateways
from libcni.netlink.rule import dump_rules
from libcni.netlink.socket import NetlinkError, Socket
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when the kernel has no rules (CONFIG_IP_MULTIPLE_TABLES), 7 for
    `gateways` of one family."""
    configured_gateways(request)
    try:
        usable = bool(dump_rules(Socket(), 2))
    except NetlinkError:
        usable = False
    if not usable:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            "this kernel has no routing rules",
            "it needs CONFIG_IP_MULTIPLE_TABLES",
        )
