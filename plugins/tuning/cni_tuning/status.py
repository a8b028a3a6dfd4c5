# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

import posix

from cni_tuning.config import Config, data_directory
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 7 when the configuration is wrong, 50 when backups cannot be kept."""
    config = Config(request)
    if not config.sysctls and not config.has_link_changes:
        return
    directory = data_directory(request.config)
    existing = directory
    while existing and not posix.access(existing, posix.F_OK):
        existing = existing.rpartition("/")[0]
    if not posix.access(existing or "/", posix.W_OK | posix.X_OK):
        raise CniError(
            PLUGIN_NOT_AVAILABLE, f"dataDir {directory} cannot be written", "see `dataDir`"
        )
