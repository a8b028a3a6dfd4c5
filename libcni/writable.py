# SPDX-License-Identifier: Apache-2.0
"""Whether files could be made in a directory, for STATUS: it makes none."""

from __future__ import annotations

import posix

from libcni.fs import io_error
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError


def require_writable(directory: str, key: str) -> None:
    """Raise CniError 50 unless a file could be made in `directory`, or it in one that is there.

    key: of the configuration, that names it. Changes nothing.
    """
    place = directory
    while True:
        try:
            posix.stat(place)
            break
        except FileNotFoundError:
            # Made by the first ADD.
            place = place.rpartition("/")[0] or ("/" if place.startswith("/") else ".")
        except OSError as error:
            failure = io_error(error, "use", directory)
            raise CniError(PLUGIN_NOT_AVAILABLE, f"{key}: {failure.msg}") from None
    system = posix.statvfs(place)
    blocks = system.f_bavail
    if not blocks and posix.geteuid() == 0 and system.f_bfree <= system.f_blocks // 10:
        # What file systems keep back for root. (More than that is btrfs without metadata.)
        blocks = system.f_bfree
    reason = ""
    if system.f_flag & posix.ST_RDONLY:
        reason = "Read-only file system"
    elif not posix.access(place, posix.W_OK | posix.X_OK):
        reason = "Permission denied"
    elif system.f_blocks and not blocks:
        reason = "No space left on device"
    elif system.f_files and not system.f_favail:
        reason = "No space left on device (inodes)"
    if reason:
        raise CniError(PLUGIN_NOT_AVAILABLE, f"{key}: cannot write {place}: {reason}")
