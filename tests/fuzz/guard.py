# SPDX-License-Identifier: Apache-2.0
"""A plugin in this very process, up to its first effect.

Python tells an audit hook of everything that leaves the process: files opened for writing,
sockets, processes. While a plugin runs here the hook stops it at the first of these, so that a
thousand inputs a second can be tried and none can do anything.
"""

from __future__ import annotations

import os
import posix
import signal
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from libcni.skel.main import run

#: PEP 578 events that change something or ask somebody.
_EFFECTS = {
    *("socket.__new__", "ctypes.dlopen", "subprocess.Popen"),
    *("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "os.kill"),
    *("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate"),
    *("os.utime", "os.chmod", "os.chown", "os.setxattr", "os.removexattr"),
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class FirstEffect(BaseException):
    """What stops the plugin; no handler of its may take it for a failure."""


class Answer(NamedTuple):
    """effect: the event that stopped it, or ""; else status, stdout and stderr count."""

    effect: str
    status: int
    stdout: bytes
    stderr: bytes


_armed = False
_stopped_by = ""


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    global _stopped_by
    if not _armed:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
    if event in _EFFECTS or writes:
        _stopped_by = _stopped_by or event
        raise FirstEffect(event)


_installed = False


def install() -> None:
    """Add the hook, which stays for the life of the process and does nothing while unarmed."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def call(type: str, environment: Mapping[str, bytes], stdin: bytes) -> Answer:
    """Run a plugin's entry with this environment and stdin until it ends or would act."""
    install()
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    kept = [os.dup(number) for number in range(3)]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    variables = dict(posix.environ)
    try:
        os.write(streams[0], stdin)
        os.lseek(streams[0], 0, os.SEEK_SET)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        posix.environ.clear()
        posix.environ.update({name.encode(): value for name, value in environment.items()})
        effect, status = _guarded(lambda: run(type))
    finally:
        posix.environ.clear()
        posix.environ.update(variables)
        for number, stream in enumerate(kept):
            os.dup2(stream, number)
            os.close(stream)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    written = []
    for stream in streams:
        os.lseek(stream, 0, os.SEEK_SET)
        written.append(b"" if stream == streams[0] else _read(stream))
        os.close(stream)
    return Answer(effect, status, written[1], written[2])


def _guarded(function: Callable[[], int]) -> tuple[str, int]:
    global _armed, _stopped_by
    _stopped_by = ""
    # What is imported while armed must not leave its bytecode.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _armed = True
    try:
        status = function()
    except FirstEffect:
        status = -1
    finally:
        _armed = False
        sys.dont_write_bytecode = writes
    return _stopped_by, status


def _read(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)
