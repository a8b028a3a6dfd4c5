# SPDX-License-Identifier: Apache-2.0
"""Files: whole reads and writes, atomic replacement, directories, bounded locks.

On `posix` alone (`import os` costs 0.7 ms). Errors come out as CniError 5 naming path and cause.
"""

from __future__ import annotations

import errno
import fcntl
import posix
from time import monotonic, sleep

from libcni.interrupt import checkpoint
from libcni.types.errors import IO_FAILURE, TRY_AGAIN_LATER, CniError

_S_IFMT = 0o170000
_S_IFDIR = 0o040000
#: Seconds to wait for a lock before giving up with code 11; a runtime retries.
LOCK_TIMEOUT = 10.0


def io_error(error: OSError, doing: str, path: str) -> CniError:
    """A CniError 5 such as "cannot write /x/y: No space left on device"."""
    return CniError(IO_FAILURE, f"cannot {doing} {path}: {posix.strerror(error.errno or 0)}")


def read_fd(fd: int, limit: int = 1 << 30) -> bytes:
    """Everything up to end of file, or the first `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    while size < limit:
        part = posix.read(fd, min(65536, limit - size))
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def read_file(path: str) -> bytes:
    """The whole file. Raises OSError (callers differ in what absence means)."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return read_fd(fd)
    finally:
        posix.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however many calls it takes. Raises OSError."""
    while data:
        data = data[posix.write(fd, data) :]


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, complete or not at all, also across a power loss.

    Writes beside it, syncs, renames. Raises OSError and leaves no temporary file.
    """
    temporary = f"{path}.{posix.getpid()}.tmp"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW
    fd = posix.open(temporary, flags, mode)
    try:
        try:
            write_all(fd, data)
            posix.fsync(fd)
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except OSError:
        remove_file(temporary)
        raise


def remove_file(path: str) -> bool:
    """Unlink `path`; True if it was there. Raises OSError other than absence."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return False
    return True


def ensure_directory(path: str, mode: int = 0o755) -> None:
    """Make a directory and its parents. Idempotent. Raises OSError."""
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        if posix.stat(path).st_mode & _S_IFMT != _S_IFDIR:
            raise
    except FileNotFoundError:
        parent = path.rstrip("/").rpartition("/")[0]
        if not parent:
            raise
        ensure_directory(parent, mode)
        ensure_directory(path, mode)


class Lock:
    """An exclusive flock(2) on a file, waited for with a bound, released by `with`.

    The file is made when absent (its directory is not) and never removed, as other processes
    may hold it. Raises CniError 11 when the bound is over and CniError 5 when it cannot open.
    """

    __slots__ = ("fd", "path", "timeout")

    def __init__(self, path: str, timeout: float = LOCK_TIMEOUT) -> None:
        self.path = path
        self.timeout = timeout
        self.fd = -1

    def __enter__(self) -> Lock:
        flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC
        try:
            self.fd = posix.open(self.path, flags, 0o644)
        except OSError as error:
            raise io_error(error, "open lock", self.path) from None
        try:
            self._acquire()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _acquire(self) -> None:
        deadline = monotonic() + self.timeout
        pause = 0.0005
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                    raise io_error(error, "lock", self.path) from None
            checkpoint()
            if monotonic() > deadline:
                raise CniError(
                    TRY_AGAIN_LATER,
                    f"lock {self.path} is held by another process",
                    f"waited {self.timeout:g} s; `fuser {self.path}` names the holder",
                )
            sleep(pause)
            pause = min(pause * 1.5, 0.02)

    def __exit__(self, *_: object) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            posix.close(fd)
