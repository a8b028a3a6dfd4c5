# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_macvlan.config import Config
from cni_macvlan.master import require_master
from libcni.interface.ipam import inquire
from libcni.netlink.socket import Socket
from libcni.types.errors import LIMITED_CONNECTIVITY, PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when the master is not there or has too small an MTU, and 51 when it is
    down: an ADD succeeds, but neither that container nor those before it reach anybody.

    Also what the IPAM plugin's STATUS raises.
    """
    config = Config(request)
    master = None
    if not config.in_container:
        master = require_master(Socket(), config, PLUGIN_NOT_AVAILABLE)
    inquire(request)
    if master is not None and not master.is_up:
        raise CniError(
            LIMITED_CONNECTIVITY,
            f"master {master.name} is down",
            f"ip link set {master.name} up",
        )
