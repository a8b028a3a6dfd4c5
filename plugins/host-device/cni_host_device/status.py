# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_host_device.find import Config, find_device, is_userspace, refuse_loopback
from libcni.interface.ipam import inquire
from libcni.netlink.socket import Socket
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when the device is not on the host, or has to stay there, and what IPAM's
    STATUS raises."""
    config = Config(request.config)
    if not is_userspace(config):
        device = find_device(Socket(), config)
        if device is None:
            raise CniError(
                PLUGIN_NOT_AVAILABLE,
                f"{config.wanted} is not on the host",
                "has another container got it?",
            )
        refuse_loopback(device, PLUGIN_NOT_AVAILABLE)
    inquire(request)
