# SPDX-License-Identifier: Apache-2.0
"""Which files on CNI_PATH are this very program under another name.

Executing a sibling costs 10 ms, calling it 0.1 ms. An administrator may have put another
program of the name first on CNI_PATH, though, and that one must win: so it is the file that was
found, not its name, that says whether it is ours.
"""

from __future__ import annotations

import posix

from libcni import boot

#: The build appends its name, which holds the fingerprint of all sources, to the executable.
_TAIL = 64


def is_ours(path: str) -> bool:
    """True when `path` is the running program: the same file, or a copy of the same build."""
    try:
        found = posix.stat(path)
        mine = posix.stat(boot.program)
        if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            return True
        if found.st_size != mine.st_size:
            return False
        return _tail(path, found.st_size) == _tail(boot.program, mine.st_size)
    except OSError:
        return False


def _tail(path: str, size: int) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.pread(fd, _TAIL, max(0, size - _TAIL))
    finally:
        posix.close(fd)
