# SPDX-License-Identifier: Apache-2.0
"""What is done to a directory outlives a power loss."""

from __future__ import annotations

import os
import pathlib


def sync_directory(path: pathlib.Path) -> None:
    """Have the names in a directory on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
