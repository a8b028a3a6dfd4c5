# SPDX-License-Identifier: Apache-2.0
"""The subnet file, flannel's: once it is there, runtimes attach pods to this node."""

from __future__ import annotations

import logging
import os

from cni_vxlan_overlay.lease import Lease, format_lease
from libcni.fs import ensure_directory, write_atomic

log = logging.getLogger(__name__)


class SubnetFile:
    """The file at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        #: What it has, as far as we know.
        self._written = ""

    def has(self, lease: Lease) -> bool:
        """True if this is what was written last."""
        return self._written == format_lease(lease)

    def write(self, lease: Lease) -> None:
        """Write the lease, whole or not at all. Raises OSError."""
        text = format_lease(lease)
        ensure_directory(os.path.dirname(self.path) or "/")
        write_atomic(self.path, text.encode(), 0o644)
        self._written = text

    def look_after(self) -> None:
        """Notice that others removed it: then `has` is False until it is written again."""
        if self._written and not os.path.exists(self.path):
            log.warning("%s was removed by others: writing it", self.path)
            self._written = ""
