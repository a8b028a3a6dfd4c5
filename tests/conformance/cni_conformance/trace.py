# SPDX-License-Identifier: Apache-2.0
"""Running a plugin with a stop at each of its system calls, and ending it at one of them.

By ptrace(2) alone, so for a program in any language on any architecture (Linux 5.3 and later).
What the plugin starts (threads, delegates, `iptables`) is followed and its calls are counted as
the plugin's own, for they are where a runtime that gives up may strike as well. But a signal goes
to the plugin's process alone, as a runtime knows no other: a delegate lives on, as it does there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

#: Seconds for one run, processes that it left behind included.
TIMEOUT = 60.0

# linux/ptrace.h
_CONT = 7
_SYSCALL = 24
_SEIZE = 0x4206
_GET_SYSCALL_INFO = 0x420E
_OPTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x100000  # SYSGOOD FORK VFORK CLONE EXEC EXITKILL
_EVENT_EXEC = 4
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY, _EXIT = 1, 2
# linux/wait.h: children and tracees of this thread only, of whatever kind.
_WNOTHREAD = 0x20000000
_WALL = 0x40000000

#: Waits to be seized, then becomes the plugin with exactly the environment that follows. Code of
#: our own between fork and exec could hang, as we have threads.
_LAUNCH = ("/bin/sh", "-c", 'kill -STOP $$; exec /usr/bin/env -i "$@"', "sh")
#: The programs executed after that: `env`, and the plugin.
_EXECUTED = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info; at an exit `number` is the value returned."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_int64),
        ("args", ctypes.c_uint64 * 6),
    )


class Stop(NamedTuple):
    """A system call that begins or has ended.

    nth: which beginning it is, from 1, over all processes. pid: the thread that makes it. number,
    args: as the architecture has them. result: None where it begins, later what it returned, an
    error as its negative number.
    """

    nth: int
    pid: int
    number: int
    args: tuple[int, ...]
    result: int | None = None


class Ended(NamedTuple):
    """How a run ended. status: the plugin's exit status, or the negative number of a signal.

    calls: system calls that began before the signal, of all processes. interrupted: whether the
    signal was sent.
    """

    status: int
    stdout: bytes
    stderr: bytes
    calls: int
    interrupted: bool


class TraceError(Exception):
    """The run could not be followed: ptrace is forbidden, or the time is over."""


#: Called at each stop; the signal to send to the plugin, which ends the following.
Visitor = Callable[[Stop], signal.Signals | None]


def calls(argv: Sequence[str], env: Mapping[str, str], stdin: bytes) -> int:
    """Number of system calls that a plugin, and whatever it starts, makes until all have ended.

    It may differ a little from run to run, as waits do.
    """
    return follow(argv, env, stdin, lambda stop: None).calls


def interrupt_at(
    argv: Sequence[str], env: Mapping[str, str], stdin: bytes, n: int, number: signal.Signals
) -> Ended:
    """Run a plugin and send it a signal as the n-th system call (from 1) begins.

    SIGKILL keeps that call from being made, unless it is a child's. Other signals arrive as it
    ends, and interrupt it where it waits. Returns after all processes have ended; a run of fewer
    calls is not interrupted.
    """
    return follow(argv, env, stdin, lambda stop: number if stop.nth == n else None)


def follow(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: bytes,
    visit: Visitor,
    exits: bool = False,
    timeout: float = TIMEOUT,
) -> Ended:
    """Run a program, calling `visit` at each system call's beginning (and `exits`: its end too).

    Raises TraceError, with every process ended, when it takes longer than `timeout` seconds or
    cannot be executed or traced; and whatever `visit` raises.
    """
    # ptrace(2) ties tracees to a thread: one of our own leaves the caller's children alone.
    outcome: list[Ended] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(_Run(visit, exits).run(argv, env, stdin, timeout))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="tracer")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


class _Run:
    """One run, from one thread. The kernel kills what is left when that thread ends."""

    def __init__(self, visit: Visitor, exits: bool) -> None:
        self._visit = visit
        self._exits = exits
        self._plugin = 0
        self._alive: set[int] = set()
        #: The call that each thread is in: (which, number, arguments).
        self._inside: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        self._calls = 0
        self._interrupted = False
        self._late = False
        self._executed = 0

    def run(
        self, argv: Sequence[str], env: Mapping[str, str], stdin: bytes, timeout: float
    ) -> Ended:
        # Files rather than pipes: nobody has to feed and drain them meanwhile.
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        try:
            os.pwrite(files[0], stdin, 0)
            variables = [f"{name}={value}" for name, value in env.items()]
            process = subprocess.Popen(
                [*_LAUNCH, *variables, *argv], stdin=files[0], stdout=files[1], stderr=files[2]
            )
            self._plugin = process.pid
            self._alive.add(process.pid)
            watchdog = threading.Timer(timeout, self._give_up)
            watchdog.start()
            try:
                self._seize()
                status = self._loop()
            finally:
                watchdog.cancel()
                process.returncode = 0  # taken here; Popen need not look for it
            if self._late:
                raise TraceError(f"{argv[0]} and what it started did not end in {timeout:g} s")
            if self._executed < _EXECUTED:
                said = os.pread(files[2], 500, 0).decode("utf-8", "replace").strip()
                raise TraceError(f"cannot execute {argv[0]}: {said}")
            output = [os.pread(fd, os.fstat(fd).st_size, 0) for fd in files[1:]]
            return Ended(status, output[0], output[1], self._calls, self._interrupted)
        finally:
            for fd in files:
                os.close(fd)

    def _seize(self) -> None:
        """Take hold of the launcher, which has stopped itself."""
        _, what = os.waitpid(self._plugin, os.WUNTRACED)
        if not os.WIFSTOPPED(what):
            self._alive.clear()
            return
        try:
            self._ptrace(_SEIZE, self._plugin, 0, _OPTIONS)
        except TraceError:
            self._end_all()
            os.waitpid(self._plugin, 0)
            raise
        _kill(self._plugin, signal.SIGCONT)

    def _give_up(self) -> None:
        self._late = True
        self._end_all()

    def _end_all(self) -> None:
        for pid in list(self._alive):
            _kill(pid, signal.SIGKILL)

    def _loop(self) -> int:
        """Follow until all have ended; the plugin's status. What `visit` raised comes last."""
        status = 0
        failure: BaseException | None = None
        while self._alive:
            pid, what = os.waitpid(-1, _WALL | _WNOTHREAD)
            if not os.WIFSTOPPED(what):
                self._alive.discard(pid)
                self._inside.pop(pid, None)
                if pid == self._plugin:
                    status = os.waitstatus_to_exitcode(what)
                continue
            try:
                self._stopped(pid, what)
            except BaseException as error:
                failure = failure or error
                self._end_all()
        if failure is not None:
            raise failure
        return status

    def _stopped(self, pid: int, what: int) -> None:
        number = os.WSTOPSIG(what)
        event = what >> 16
        self._alive.add(pid)
        if number == _SYSCALL_STOP:
            if self._executed >= _EXECUTED and not self._interrupted:
                self._call(pid)
            number = 0
        elif event:
            # ptrace's own: a child was made or begins, a program was executed, a group stops.
            self._executed += event == _EVENT_EXEC and pid == self._plugin
            number = 0
        self._resume(pid, number)

    def _call(self, pid: int) -> None:
        info = _Info()
        self._ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.byref(info))
        if info.op == _ENTRY:
            self._calls += 1
            call = (self._calls, info.number, tuple(info.args))
            self._inside[pid] = call
            wanted = self._visit(Stop(call[0], pid, call[1], call[2]))
        elif info.op == _EXIT and self._exits and pid in self._inside:
            nth, syscall, args = self._inside.pop(pid)
            wanted = self._visit(Stop(nth, pid, syscall, args, info.number))
        else:
            return
        if wanted is not None:
            self._interrupted = True
            _kill(self._plugin, wanted)

    def _resume(self, pid: int, number: int) -> None:
        """Go on to the next stop, or to the end if the signal was sent. It may be gone already."""
        request = _CONT if self._interrupted else _SYSCALL
        self._ptrace(request, pid, 0, number or None)

    def _ptrace(self, request: int, pid: int, address: int, data: Any = None) -> None:
        if _libc.ptrace(request, pid, address, data) < 0:
            number = ctypes.get_errno()
            if number != errno.ESRCH:
                raise TraceError(f"ptrace {request:#x}: {os.strerror(number)}")


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
