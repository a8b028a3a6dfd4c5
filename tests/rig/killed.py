# SPDX-License-Identifier: Apache-2.0
"""Work in a child that kills itself before or after one of its system calls."""

from __future__ import annotations

import itertools
import os
import posix
import signal
from collections.abc import Callable
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
