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
_libc = ctypes.CDLL(None, use_errno=True)
_numbers: Iterator[int] = itertools.count()


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
