# SPDX-License-Identifier: Apache-2.0
"""What a killed ADD has left running: a tool that goes on to change the host.

SIGKILL ends a plugin, not the iptables-restore that it has started, whose transaction may then
come after the DEL that a runtime calls next. So an ADD that starts such tools listens on a
socket that they inherit: an abstract one, which needs no file and is gone with the last of
them. DEL connects, and waits for that end.
"""

from __future__ import annotations

import posix
import select
from _socket import AF_UNIX, SO_PEERCRED, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket
from _struct import pack, unpack

from libcni.fs import LOCK_TIMEOUT
from libcni.interrupt import checkpoint, waiting
from libcni.types.errors import TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment

#: Those that DELs may wait with, beside each other.
_BACKLOG = 64
#: This process's own, by name.
_held: dict[bytes, socket] = {}


def _name(attachment: Attachment) -> bytes:
    return b"\0adder:" + attachment.digest()[:32].encode()


def hold(attachment: Attachment) -> None:
    """Let DELs of the attachment wait for what this process starts from now on. Idempotent.

    It ends with this process and those tools. What an earlier ADD left is waited for. Raises
    CniError 11 when that does not end.
    """
    name = _name(attachment)
    if name in _held:
        return
    wait(attachment)
    made = socket(AF_UNIX, SOCK_STREAM, 0)
    try:
        made.bind(name)
        made.listen(_BACKLOG)
        posix.set_inheritable(made.fileno(), True)
    except OSError:
        made.close()  # somebody took the name, who is not us: as if no one ever were killed
        return
    _held[name] = made


def wait(attachment: Attachment) -> None:
    """Wait until nothing is left of an ADD that was killed; at once where nothing is.

    A socket of another user's is none of ours. Raises CniError 11 when the wait is over.
    """
    name = _name(attachment)
    if name in _held:
        return
    sock = socket(AF_UNIX, SOCK_STREAM, 0)
    try:
        # Where more DELs wait than the backlog has room for, so does this one: unix(7), EAGAIN.
        timeout = pack("ll", int(LOCK_TIMEOUT), int(LOCK_TIMEOUT % 1 * 1_000_000))
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, timeout)
        try:
            with waiting():
                sock.connect(name)
            _, user, _ = unpack("iII", sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
        except BlockingIOError:
            raise _still_running(attachment) from None
        except OSError:
            return  # nobody listens
        if user != posix.geteuid():
            return
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        with waiting():
            # The end of the listener is the end of a connection that nobody accepts.
            if poll.poll(LOCK_TIMEOUT * 1000):
                return
    finally:
        sock.close()
    checkpoint()
    raise _still_running(attachment)


def _still_running(attachment: Attachment) -> CniError:
    return CniError(
        TRY_AGAIN_LATER,
        f"a tool that an ADD of {attachment.text} started is still running",
        f"waited {LOCK_TIMEOUT:g} s; the ADD was killed, and its iptables-restore goes on",
    )
