# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

import posix

from cni_tap.config import Config
from cni_tap.device import DEVICE
from libcni.interface.ipam import inquire
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when no tap can be made here, and what IPAM's STATUS raises."""
    config = Config(request)
    try:
        posix.close(posix.open(DEVICE, posix.O_RDWR | posix.O_CLOEXEC))
    except OSError as error:
        cause = posix.strerror(error.errno or 0)
        raise CniError(
            PLUGIN_NOT_AVAILABLE, f"cannot open {DEVICE}: {cause}", "modprobe tun"
        ) from None
    if config.context and not posix.access("/sys/fs/selinux/enforce", posix.F_OK):
        raise CniError(PLUGIN_NOT_AVAILABLE, "selinuxContext is set, but SELinux is not in use")
    inquire(request)
