# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: opened once, verified, held by one descriptor, entered when needed.

A path that names something else than a network namespace, or our own, is refused before
anything acts on it: after a reboot a stale /proc/PID/ns/net has been the host's own.
"""

from __future__ import annotations

import errno
import fcntl
import posix

from libcni.types.errors import INVALID_ENVIRONMENT, INVALID_NETNS, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: linux/nsfs.h: the type of the namespace behind a descriptor; ENOTTY on any other file.
_NS_GET_NSTYPE = 0xB703
#: linux/sched.h
_CLONE_NEWNET = 0x40000000
#: What opening a path says at which no namespace can be.
_GONE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ESRCH,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
_S_IFMT = 0o170000
_S_IFREG = 0o100000


class Namespace:
    """An open network namespace. `fd` is valid until `close`; `identity` is (st_dev, st_ino)."""

    __slots__ = ("fd", "identity", "path")

    def __init__(self, path: str, fd: int, identity: tuple[int, int]) -> None:
        self.path = path
        self.fd = fd
        self.identity = identity

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            posix.close(fd)


def _is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def own() -> tuple[int, int]:
    """(st_dev, st_ino) of the namespace this thread is in."""
    status = posix.stat("/proc/thread-self/ns/net")
    return status.st_dev, status.st_ino


def open_netns(path: str, allow_own: bool = False) -> Namespace:
    """Open and verify the namespace at `path` (a bind mount or /proc/PID/ns/net).

    Raises CniError 4 when the path cannot be opened or is not a network namespace, CniError 8
    when it is the caller's own and `allow_own` is false. Its __cause__ is the OSError, if any.
    """
    try:
        status = posix.stat(path)
        if status.st_mode & _S_IFMT != _S_IFREG:
            raise _not_a_namespace(path)
        # Never block on what was swapped in since the look above.
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except (OSError, ValueError) as error:
        cause = posix.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise CniError(
            INVALID_ENVIRONMENT, f"CNI_NETNS: cannot open {_shown(path)}: {cause}"
        ) from error
    try:
        if not _is_network_namespace(fd):
            raise _not_a_namespace(path)
        status = posix.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        if not allow_own and identity == own():
            raise CniError(
                INVALID_NETNS,
                "plugin's netns and netns from CNI_NETNS should not be the same",
                f"CNI_NETNS is {_shown(path)}; set CNI_NETNS_OVERRIDE=1 if that is meant",
            )
    except BaseException:
        posix.close(fd)
        raise
    return Namespace(path, fd, identity)


def _shown(path: str) -> str:
    """A path for a message, cut where somebody sent kilobytes."""
    return repr(path if len(path) <= 256 else path[:250] + "…")


def _not_a_namespace(path: str) -> CniError:
    return CniError(
        INVALID_ENVIRONMENT,
        f"CNI_NETNS: {_shown(path)} is not a network namespace",
        "it must be a mounted namespace (ip netns add) or /proc/PID/ns/net",
    )


def is_gone(error: CniError) -> bool:
    """True when `open_netns` failed since nothing (any more) is at the path.

    A regular file counts as gone: it is the mount point that stays behind when only the mount
    is removed, and DEL must not fail for it.
    """
    if error.code != INVALID_ENVIRONMENT:
        return False
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _GONE
    return "is not a network namespace" in error.msg


def _find_setns() -> Any:
    """setns(2): the launcher's when frozen, Python's own from 3.12 on, else the C library's.

    `ctypes` costs 1.4 ms more than the `_ctypes` under it.
    """
    try:
        from _adder import setns as ours

        return ours
    except ImportError:
        pass
    builtin = getattr(posix, "setns", None)
    if builtin is not None:
        return builtin
    import _ctypes

    class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class _Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = _Int

    function: Any = _Function
    library = _ctypes.dlopen(None, 2)  # type: ignore[arg-type]
    call = function(_ctypes.dlsym(library, "setns"))

    def setns(fd: int, kind: int) -> None:
        if call(fd, kind):
            number = _ctypes.get_errno()
            raise OSError(number, posix.strerror(number))

    return setns


def enter(namespace: Namespace) -> None:
    """Move this thread into the namespace; it stays there. Raises CniError 102."""
    setns = _find_setns()
    try:
        setns(namespace.fd, _CLONE_NEWNET)
    except OSError as error:
        cause = posix.strerror(error.errno or 0)
        raise CniError(KERNEL, f"cannot enter netns {namespace.path!r}: {cause}") from error


class Inside:
    """`with Inside(namespace):` - this thread is in the namespace, and afterwards back."""

    __slots__ = ("_namespace", "_outside")

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        fd = posix.open("/proc/thread-self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        self._outside = Namespace("the plugin's own", fd, (0, 0))

    def __enter__(self) -> None:
        try:
            enter(self._namespace)
        except BaseException:
            self._outside.close()
            raise

    def __exit__(self, *_: object) -> None:
        enter(self._outside)
        self._outside.close()
