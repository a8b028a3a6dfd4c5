# SPDX-License-Identifier: Apache-2.0
"""Private namespaces for the test process: mounts for its whole life, a network per test.

`unshare -n -m` around pytest would give all xdist workers one network; so each process moves
itself, and every child it starts follows. Only the calling thread moves, which is the main
thread, the one that /proc/self means.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
#: Directories that plugins, runtimes and `ip netns` write to; each becomes an empty tmpfs.
PRIVATE = ("/run", "/var/lib/cni", "/etc/cni", "/var/lib/containers")

_libc = ctypes.CDLL(None, use_errno=True)
_base: int | None = None


def check(status: int, what: str) -> None:
    """Raise the OSError of a C function that has failed (`use_errno`)."""
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2) for this thread (Python has os.unshare from 3.12 on). Raises OSError."""
    check(_libc.unshare(flags), "unshare")


def setns(fd: int) -> None:
    """Move this thread into the network namespace behind `fd`. Raises OSError."""
    check(_libc.setns(fd, CLONE_NEWNET), "setns")


def command(*words: str | os.PathLike[str]) -> str:
    """Run a tool that has to succeed; its stdout. The error of a failure has its stderr."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def enter() -> None:
    """Give this process mounts and a network of its own. Once per process; needs root."""
    global _base
    if _base is not None:
        return
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    command("mount", "--make-rprivate", "/")
    for directory in PRIVATE:
        pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", directory)
    # The first `ip netns add` turns /run/netns into a shared mount; were that to happen while a
    # runtime has a sandbox mounted there, its removal would fail with EBUSY.
    command("ip", "netns", "add", "first")
    command("ip", "netns", "delete", "first")
    command("ip", "link", "set", "lo", "up")
    _base = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def entered() -> bool:
    """True once this process is isolated."""
    return _base is not None


def fresh_network() -> None:
    """Move into a new, empty network namespace with `lo` up."""
    unshare(CLONE_NEWNET)
    command("ip", "link", "set", "lo", "up")


def base_network() -> None:
    """Move back into the process's own namespace; the kernel frees the one left behind."""
    assert _base is not None
    setns(_base)


def unmount(*prefixes: str) -> None:
    """Detach all that is mounted at paths that begin with one of these. Idempotent."""
    for line in reversed(pathlib.Path("/proc/self/mounts").read_text().splitlines()):
        target = line.split()[1]
        if target.startswith(prefixes):
            subprocess.run(["umount", "-l", target], capture_output=True, check=False)


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


def within(path: str | os.PathLike[str], function: Callable[[], T]) -> T:
    """Call `function` inside the network namespace at `path`; children it starts are there too.

    A thread of its own makes the move, so the caller stays where it is.
    """

    def work() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd)
        finally:
            os.close(fd)
        return function()

    return in_thread(work)
