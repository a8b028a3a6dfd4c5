# SPDX-License-Identifier: Apache-2.0
"""The only way to start a process: a clean environment, pipes, a time-out, nothing left behind.

On posix_spawn and poll alone, as `import subprocess` costs 14 ms.
"""

from __future__ import annotations

import _signal
import errno
import fcntl
import posix
import select
from time import monotonic, sleep

from libcni.interrupt import waiting
from libcni.types.errors import DELEGATE_FAILED, CniError

#: Bytes of standard output that are taken; a process that writes more is ended.
STDOUT_LIMIT = 8 << 20
#: Bytes of standard error that are kept; the rest is read and dropped.
STDERR_LIMIT = 64 << 10
#: Seconds before each new try while the executable is still being written (ETXTBSY).
_BUSY_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
#: Seconds between asking a process to end (so that it can undo) and ending it.
_GRACE = 1.0
#: Signals that Python, we or our caller may have set to be ignored, which a child would inherit.
_RESET = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGTERM, _signal.SIGINT, _signal.SIGCHLD)


class Outcome:
    """How a process ended. status: its exit status, or the negative number of a signal."""

    __slots__ = ("status", "stderr", "stdout")

    def __init__(self, status: int, stdout: bytes, stderr: bytes) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr

    def describe(self) -> str:
        """ "exit status 3" or "signal: 9", as Go words it."""
        return f"exit status {self.status}" if self.status >= 0 else f"signal: {-self.status}"


def environment(overrides: dict[str, str] | None = None) -> dict[bytes, bytes]:
    """Our environment without what PyInstaller's bootloader puts there, and `overrides`.

    Ours adds nothing; a runtime that was frozen with PyInstaller may hand its own down, whose
    libraries must not reach programs that come with theirs. An LD_LIBRARY_PATH of the operator's
    stays.
    """
    clean = dict(posix.environ)
    launched = False
    for key in posix.environ:
        if key.startswith((b"_PYI_", b"_MEIPASS")):
            del clean[key]
            launched = True
    original = clean.pop(b"LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        clean[b"LD_LIBRARY_PATH"] = original
    elif launched:
        clean.pop(b"LD_LIBRARY_PATH", None)
    for name, value in (overrides or {}).items():
        clean[name.encode()] = value.encode("utf-8", "surrogateescape")
    return clean


def spawn(
    path: str,
    arguments: list[str] | tuple[str, ...] = (),
    overrides: dict[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = 60.0,
) -> Outcome:
    """Run a program to its end and take what it writes.

    arguments: without the program's own name. overrides: variables on top of `environment()`.
    timeout: seconds, after which its process group is ended. What a child of it writes after
    it has ended is not waited for. Raises CniError 104 when it cannot be started, is timed
    out, or writes more than STDOUT_LIMIT; CniError 11 when a signal tells us to stop.
    """
    argv = [path, *arguments]
    clean = environment(overrides)
    pipes: list[int] = []
    try:
        for _ in range(3):
            pipes += _pipe()
        stdin_read, stdin_write, stdout_read, stdout_write, stderr_read, stderr_write = pipes
        actions = [
            (posix.POSIX_SPAWN_DUP2, stdin_read, 0),
            (posix.POSIX_SPAWN_DUP2, stdout_write, 1),
            (posix.POSIX_SPAWN_DUP2, stderr_write, 2),
        ]
        pid = _start(path, argv, clean, actions)
        process = _Process(path, pid, stdin, timeout)
        try:
            for fd in (stdin_read, stdout_write, stderr_write):
                posix.close(fd)
                pipes.remove(fd)
            with waiting():
                process.communicate(stdin_write, stdout_read, stderr_read, pipes)
        except BaseException:
            process.end()
            raise
        finally:
            process.finish()
    finally:
        for fd in pipes:
            posix.close(fd)
    return Outcome(process.status, bytes(process.stdout), bytes(process.stderr))


def _pipe() -> tuple[int, int]:
    """Two descriptors above 2: one below would be overwritten on the way into the child."""
    ends = posix.pipe2(posix.O_CLOEXEC)
    if min(ends) > 2:
        return ends
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in ends]
    for fd in ends:
        posix.close(fd)
    return moved[0], moved[1]


def _start(
    path: str,
    argv: list[str],
    clean: dict[bytes, bytes],
    actions: list[tuple[int, int, int]],
) -> int:
    # Ignored, as a caller may have left it, the kernel would keep the exit status from us.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    pauses = iter(_BUSY_PAUSES)
    while True:
        try:
            return posix.posix_spawn(
                path,
                argv,
                clean,
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=_RESET,
            )
        except (OSError, ValueError) as error:
            pause = next(pauses, None)
            if isinstance(error, OSError) and error.errno == errno.ETXTBSY and pause is not None:
                with waiting():
                    sleep(pause)
                continue
            cause = posix.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            raise CniError(DELEGATE_FAILED, f"cannot execute {path}: {cause}") from None


class _Process:
    """One running process and what it has written so far."""

    __slots__ = ("_deadline", "_pidfd", "_reaped", "path", "pid", "status", "stderr", "stdin",
                 "stdout", "timeout")  # fmt: skip

    def __init__(self, path: str, pid: int, stdin: bytes, timeout: float) -> None:
        self.path = path
        self.pid = pid
        self.stdin = memoryview(stdin)
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.status = 0
        self.timeout = timeout
        self._deadline = monotonic() + timeout
        self._reaped = False
        try:
            self._pidfd = posix.pidfd_open(pid)
        except OSError:
            self._pidfd = -1  # Linux before 5.3: the end of its output stands for its end

    def communicate(self, stdin: int, stdout: int, stderr: int, pipes: list[int]) -> None:
        """Feed and drain until the process ends. Closes `stdin`, removing it from `pipes`."""
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        poll.register(stderr, select.POLLIN)
        open_outputs = 2
        for fd in (stdin, stdout, stderr):
            posix.set_blocking(fd, False)
        feeding = self._feed(stdin, pipes)
        if feeding:
            poll.register(stdin, select.POLLOUT)
        if self._pidfd >= 0:
            poll.register(self._pidfd, select.POLLIN)
        while open_outputs or self._pidfd >= 0:
            left = self._deadline - monotonic()
            events = poll.poll(left * 1000) if left > 0 else []
            if not events:
                raise CniError(
                    DELEGATE_FAILED,
                    f"{self.path} did not finish within {self.timeout:g} s",
                    "it was ended" + self._last_words(),
                )
            ended = False
            for fd, _ in events:
                if fd == stdin:
                    if not self._feed(stdin, pipes):
                        poll.unregister(stdin)
                elif fd == self._pidfd:
                    ended = True
                elif self._drain(fd, fd == stdout) == 0:
                    poll.unregister(fd)
                    open_outputs -= 1
            if ended:
                for fd in (stdout, stderr):
                    while self._drain(fd, fd == stdout) > 0 and monotonic() < self._deadline:
                        pass
                return

    def _last_words(self) -> str:
        said = self.stderr[:200].decode("utf-8", "replace").strip()
        return f"; it had written {said!r}" if said else ""

    def _feed(self, fd: int, pipes: list[int]) -> bool:
        """Write what fits; False when all is written or nobody reads, and `fd` is closed."""
        try:
            while self.stdin:
                self.stdin = self.stdin[posix.write(fd, self.stdin) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            pass
        # In this order: a signal between the two must not have it closed twice.
        pipes.remove(fd)
        posix.close(fd)
        return False

    def _drain(self, fd: int, is_stdout: bool) -> int:
        """Read once: the number of bytes, 0 at the end, -1 when there is nothing yet."""
        try:
            data = posix.read(fd, 65536)
        except BlockingIOError:
            return -1
        if is_stdout:
            self.stdout += data
            if len(self.stdout) > STDOUT_LIMIT:
                raise CniError(
                    DELEGATE_FAILED,
                    f"{self.path} wrote more than {STDOUT_LIMIT} bytes to stdout",
                    "it was ended",
                )
        elif len(self.stderr) < STDERR_LIMIT:
            self.stderr += data[: STDERR_LIMIT - len(self.stderr)]
        return len(data)

    def finish(self) -> None:
        """Take the exit status of a process that has ended or is about to."""
        self._reap(0)
        if self._pidfd >= 0:
            posix.close(self._pidfd)
            self._pidfd = -1

    def end(self) -> None:
        """SIGTERM, time to undo, SIGKILL, all to the process group."""
        self._signal(_signal.SIGTERM)
        deadline = monotonic() + _GRACE
        while not self._reap(posix.WNOHANG) and monotonic() < deadline:
            sleep(0.01)
        self._signal(_signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            posix.killpg(self.pid, number)
        except OSError:
            pass

    def _reap(self, options: int) -> bool:
        if self._reaped:
            return True
        try:
            pid, status = posix.waitpid(self.pid, options)
        except ChildProcessError:
            self._reaped = True
            raise CniError(
                DELEGATE_FAILED, f"the exit status of {self.path} was taken by somebody else"
            ) from None
        if pid:
            self._reaped = True
            self.status = posix.waitstatus_to_exitcode(status)
        return self._reaped
