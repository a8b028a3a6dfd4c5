# SPDX-License-Identifier: Apache-2.0
"""Closing a socket whose closing waits, without waiting.

After a deletion the kernel lets no nfnetlink socket of the namespace be closed before it has
freed what was deleted, 8-16 ms later (see `transaction`). The deletion itself has happened by
then, so a child keeps the socket and sits that out. CNI_SYNC_DEL=1 in the environment switches
this off.
"""

from __future__ import annotations

import posix

from libcni.detached import detach, is_wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.socket import Socket


def leave(*sockets: Socket) -> None:
    """Close the sockets, in a child if need be. Where there can be no child, wait."""
    held = [sock.fileno() for sock in sockets if sock.fileno() >= 0]
    if held and is_wanted():
        try:
            _hold(held)
        except OSError:
            pass  # no process or descriptor left: slower, but done
    for sock in sockets:
        sock.close()


def _hold(held: list[int]) -> None:
    """Let a child hold descriptors until this process has closed its own."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    try:
        detach(lambda: posix.read(reader, 1), [*held, reader])
    except OSError:
        posix.close(writer)
        raise
    finally:
        posix.close(reader)
    # The writer stays open until this process ends.
