# SPDX-License-Identifier: Apache-2.0
"""A child that sits out a wait of the kernel's after the plugin has answered."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: A plugin holds a handful of descriptors, and inherits few.
_DESCRIPTORS = 4096


def is_wanted() -> bool:
    """False with CNI_SYNC_DEL=1 in the environment: then the plugin itself shall wait."""
    return posix.environ.get(b"CNI_SYNC_DEL", b"") not in (b"1", b"true")


def detach(work: Callable[[], object], keep: Iterable[int]) -> None:
    """Start a child that does `work` and ends, of which the caller of the plugin notices nothing.

    It is in a session of its own and in the root directory, and has no descriptors but `keep`;
    a negative one is none. What `work` returns or raises is lost. Raises OSError, with nothing
    done, where there can be no child.
    """
    if posix.fork():
        return
    try:
        posix.setsid()
        # The caller may unmount its working directory as soon as the plugin has answered.
        posix.chdir("/")
        # Above all without the runtime's pipes, whose end it waits for.
        low = 0
        for fd in sorted(fd for fd in keep if fd >= 0):
            posix.closerange(low, fd)
            low = fd + 1
        posix.closerange(low, _DESCRIPTORS)
        work()
    finally:
        posix._exit(0)
