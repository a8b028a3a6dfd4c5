# SPDX-License-Identifier: Apache-2.0
"""A lock on a network namespace: flock(2) on the namespace itself, as Go's plugins take it.

It needs no directory to be in, and is gone with its holder and with the namespace.
"""

from __future__ import annotations

import posix

from libcni.fs import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netns import Namespace

_OWN = "/proc/thread-self/ns/net"


class NamespaceLock(Lock):
    """`with NamespaceLock(namespace):` no other plugin that asks for it is in there.

    namespace: a container's, or None for the host's own, the one that this thread is in. Raises
    CniError 11 when another holds it for longer than `fs.LOCK_TIMEOUT`.
    """

    __slots__ = ("_opened",)

    def __init__(self, namespace: Namespace | None = None) -> None:
        super().__init__(namespace.path if namespace is not None else _OWN)
        # The very namespace that was verified, whatever the path names by now.
        self._opened = f"/proc/self/fd/{namespace.fd}" if namespace is not None else _OWN

    def _open(self) -> int:
        return posix.open(self._opened, posix.O_RDONLY | posix.O_CLOEXEC)
