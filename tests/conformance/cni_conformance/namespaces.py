# SPDX-License-Identifier: Apache-2.0
"""Moving into namespaces of one's own: what a case's host and its sandboxes are made of."""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

#: linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
#: linux/mount.h
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2
#: linux/prctl.h
PR_SET_PDEATHSIG = 1

#: What plugins and runtimes write to; each is an empty tmpfs on a case's host.
PRIVATE = ("/run", "/var/lib/cni", "/etc/cni")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(status: int, what: str) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2) for this thread. Raises OSError (EPERM without root)."""
    _check(_libc.unshare(flags), "unshare")


def setns(path: str) -> None:
    """Move this thread into the network namespace at `path`. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(fd)


def mount(source: str, target: str, type: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    words = [word.encode() if word else None for word in (source, target, type)]
    _check(_libc.mount(*words, flags, data.encode() or None), f"mount {target}")


def unmount(target: str) -> None:
    """umount2(2) without waiting for its users. Raises OSError."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def die_with_parent(signal: int) -> None:
    """Have the kernel send this signal when the parent ends, however it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")


def in_thread(function: Callable[[], T]) -> T:
    """Call it in a thread of its own, which may move elsewhere and takes nobody along."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def within(path: str, function: Callable[[], T]) -> T:
    """Call `function` inside the network namespace at `path`; so are children it starts."""

    def work() -> T:
        setns(path)
        return function()

    return in_thread(work)


def pin_new_network(path: pathlib.Path) -> None:
    """Make a network namespace and mount it at `path`, a file, as runtimes do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(exist_ok=False)

    def work() -> None:
        unshare(CLONE_NEWNET)
        mount("/proc/thread-self/ns/net", str(path), flags=MS_BIND)

    in_thread(work)


def enter_private_host(visible: Iterable[pathlib.Path]) -> None:
    """Make this process the first of an empty host: network, mounts, /proc and /sys of its own.

    To be called by a child that was forked after unshare(CLONE_NEWPID). visible: directories
    that have to be reachable though they are below one that becomes empty.
    """
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    hidden = [path for path in visible if str(path).startswith(tuple(f"{p}/" for p in PRIVATE))]
    kept = [(path, os.open(path, os.O_PATH)) for path in hidden]
    for directory in PRIVATE:
        pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        mount("tmpfs", directory, "tmpfs", data="mode=755")
    for path, fd in kept:
        path.mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{fd}", str(path), flags=MS_BIND)
        os.close(fd)
