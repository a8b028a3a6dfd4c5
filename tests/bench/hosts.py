# SPDX-License-Identifier: Apache-2.0
"""Namespaces for measurements: made by system calls, as a process each would cost 5 ms."""

from __future__ import annotations

import ctypes
import itertools
import os
import pathlib
import threading
from collections.abc import Iterator

from tests.rig import isolation

_MS_BIND = 4096
_MNT_DETACH = 2
_SYS = b"/sys"
_libc = ctypes.CDLL(None, use_errno=True)
_numbers: Iterator[int] = itertools.count()
_covered = False


def uncover() -> None:
    """Undo the last `Namespace.enter_with_devices`, as far as /sys is concerned. Idempotent."""
    global _covered
    if _covered:
        isolation.check(_libc.umount2(_SYS, _MNT_DETACH), "umount /sys")
        _covered = False


class Namespace:
    """A network namespace mounted at `path`; `fd` stays open until `remove`."""

    def __init__(self, lo_up: bool = False) -> None:
        self.path = f"/run/netns/b{next(_numbers)}"
        thread = threading.Thread(target=self._make, args=(lo_up,))
        thread.start()
        thread.join()
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _make(self, lo_up: bool) -> None:
        isolation.unshare(isolation.CLONE_NEWNET)
        if lo_up:
            isolation.command("ip", "link", "set", "lo", "up")
        pathlib.Path(self.path).touch()
        if _libc.mount(b"/proc/thread-self/ns/net", self.path.encode(), b"", _MS_BIND, None):
            raise OSError(ctypes.get_errno(), f"mount {self.path}")

    def remove(self) -> None:
        """Unmount it; the kernel frees it in the background."""
        os.close(self.fd)
        _libc.umount2(self.path.encode(), _MNT_DETACH)
        os.unlink(self.path)

    def enter(self) -> None:
        """Move this thread, and what it starts from now on, into the namespace."""
        isolation.setns(self.fd)

    def enter_with_devices(self) -> None:
        """`enter`, and have /sys show the devices of the namespace, as a host's does.

        What else is mounted below /sys, such as control groups, is covered until `uncover`.
        """
        global _covered
        self.enter()
        uncover()
        isolation.check(_libc.mount(b"sysfs", _SYS, b"sysfs", 0, None), "mount /sys")
        _covered = True
