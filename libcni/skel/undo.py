# SPDX-License-Identifier: Apache-2.0
"""The undo stack: how an operation that fails half way leaves things as they were."""

from __future__ import annotations

import posix

from libcni.interrupt import checkpoint, shield

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Undo:
    """Inverses of the effects so far, run in reverse order on failure.

    An inverse is registered before its effect, or between two system calls that no signal can
    part (signals are noticed at `push` only), and succeeds when there is nothing to undo.
    """

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def push(self, inverse: Callable[..., Any], *args: Any) -> None:
        """Remember an inverse. A pending SIGTERM or SIGINT raises here, as CniError 11."""
        checkpoint()
        self._steps.append((inverse, args))

    def adopt(self, other: Undo) -> None:
        """Take over the inverses of a delegate that ran in this process. Never raises."""
        self._steps += other._steps
        other._steps = []

    def run(self) -> None:
        """Undo everything, last effect first, whatever fails on the way; then be empty.

        A failing inverse is reported on stderr: the runtime will call DEL after a failed ADD.
        """
        shield()
        self.run_nested()

    def run_nested(self) -> None:
        """`run` for the stack of a delegate in this process; signals stay noticed."""
        while self._steps:
            inverse, args = self._steps.pop()
            try:
                inverse(*args)
            except Exception as error:
                _report(error)

    def commit(self) -> None:
        """Forget the inverses: the operation stands."""
        self._steps.clear()


def _report(error: Exception) -> None:
    """On stderr; that it is closed or full must not keep the next inverse from running."""
    try:
        posix.write(2, f"undo: {error}\n".encode("utf-8", "replace"))
    except OSError:
        pass
