# SPDX-License-Identifier: Apache-2.0
"""Work that is killed: before or after one of its system calls, or after some time."""

from __future__ import annotations

import itertools
import os
import pathlib
import posix
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

#: The calls that change something, and close.
CALLS = ("open", "write", "fsync", "link", "unlink", "ftruncate", "utime", "mkdir", "close")


def killed_at(step: int, work: Callable[[], Any], errors: bool = False) -> bool:
    """Run `work` in a child that kills itself at `step`; False when it ended before that.

    Even steps are before a call, odd ones after it; a write is also torn in the middle. errors:
    whether the work may raise one.
    """
    child = os.fork()
    if child == 0:
        counter = itertools.count()

        def die_at() -> None:
            if next(counter) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **keywords: Any) -> Any:
                die_at()
                if name == "write" and len(args[1]) > 1:
                    half = real(args[0], args[1][: len(args[1]) // 2])
                    die_at()
                    return half
                result = real(*args, **keywords)
                die_at()
                return result

            return call

        for name in CALLS:
            setattr(posix, name, wrap(name, getattr(posix, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert errors or os.WEXITSTATUS(status) == 0
    return False


def killed_after(
    seconds: float, program: pathlib.Path, environment: Mapping[str, str], stdin: bytes
) -> None:
    """Start a program, kill it after so long a time, if it has not ended before, and await it."""
    process = subprocess.Popen(
        [program],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
