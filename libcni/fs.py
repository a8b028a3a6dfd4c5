# SPDX-License-Identifier: Apache-2.0
"""Files: whole reads and writes, atomic replacement, directories, bounded locks.

On `posix` alone (`import os` costs 0.7 ms). Errors come out as CniError 5 naming path and cause.
"""

from __future__ import annotations

import errno
import fcntl
import posix
from time import clock_gettime, monotonic, sleep

from libcni.interrupt import checkpoint
from libcni.types.errors import INVALID_NETWORK_CONFIG, IO_FAILURE, TRY_AGAIN_LATER, CniError

_S_IFMT = 0o170000
_S_IFDIR = 0o040000
#: Bytes; a peers file of 65,536 nodes has some 15 million.
_LARGEST = 1 << 26
#: linux/time.h
_CLOCK_REALTIME_COARSE = 5
#: Seconds to wait for a lock before giving up with code 11; a runtime retries.
LOCK_TIMEOUT = 10.0


def file_clock() -> float:
    """Seconds of the epoch, by the clock that stamps files: what is made from now on bears no
    earlier time, but for what a float cannot tell apart, which is taken off."""
    return clock_gettime(_CLOCK_REALTIME_COARSE) - 1e-6


def io_error(error: OSError, doing: str, path: str) -> CniError:
    """A CniError 5 such as "cannot write /x/y: No space left on device"."""
    return CniError(IO_FAILURE, f"cannot {doing} {path}: {posix.strerror(error.errno or 0)}")


def usable_path(path: str, key: str) -> str:
    """`path`, which an unchecked configuration gives as `key`. Raises CniError 7 for one with a
    NUL, for which the schema has no words at DEL and GC."""
    if "\0" in path:
        raise CniError(INVALID_NETWORK_CONFIG, f"{key}: {path!r} is not a path")
    return path


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
    """The whole file. Raises OSError (callers differ in what absence means).

    Whatever is at the path it ends: a pipe that nobody writes to is empty, a device that never
    stops giving is EFBIG.
    """
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    try:
        data = read_fd(fd, _LARGEST + 1)
    finally:
        posix.close(fd)
    if len(data) > _LARGEST:
        raise OSError(errno.EFBIG, posix.strerror(errno.EFBIG), path)
    return data


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however many calls it takes. Raises OSError."""
    while data:
        data = data[posix.write(fd, data) :]


def write_setting(path: str, value: bytes) -> None:
    """Write to a file of /proc or /sys, which is there, at once. Raises OSError."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, value)
    finally:
        posix.close(fd)


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, complete or not at all, also across a power loss.

    A new file is synced before it has a name, so that one who is killed leaves nothing. Where
    there is one already, or no file without a name: writes beside it, syncs, renames. Raises
    OSError and leaves no temporary file.
    """
    if _create_whole(path, data, mode):
        return
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


def _create_whole(path: str, data: bytes, mode: int) -> bool:
    """Make a file with this content; False, with nothing done, when it cannot be made so."""
    try:
        posix.stat(path, follow_symlinks=False)
        return False
    except OSError:
        pass
    try:
        fd = posix.open(
            path.rpartition("/")[0] or ("/" if path[:1] == "/" else "."),
            posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC,
            mode,
        )
    except OSError:
        return False
    try:
        write_all(fd, data)
        posix.fsync(fd)
        # Only with a descriptor for a directory Python asks the kernel to follow.
        posix.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
    except OSError:
        # Not only where there is no /proc or no linking (EXDEV, EPERM, ENOENT): the name may have
        # been taken meanwhile, which a rename replaces. A disk that is full or broken says so
        # again, to the caller, and this one has left no file.
        return False
    finally:
        posix.close(fd)
    return True


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
        _make_directory(path, mode)
    except FileNotFoundError:
        parent = path.rstrip("/").rpartition("/")[0]
        if not parent:
            raise
        ensure_directory(parent, mode)
        # Where nothing can be made (/proc) it is ENOENT again.
        _make_directory(path, mode)


def _make_directory(path: str, mode: int) -> None:
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        if posix.stat(path).st_mode & _S_IFMT != _S_IFDIR:
            raise


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
        try:
            self.fd = self._open()
        except OSError as error:
            raise io_error(error, "open lock", self.path) from None
        try:
            self._acquire()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> int:
        return posix.open(self.path, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o644)

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
