# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT, noticed only where an operation can be undone.

A handler that raised anywhere could strike between an effect and the note of how to undo it.
So it only sets a flag; `checkpoint` (which every `Undo.push` calls) raises, and a wait that may
last declares itself with `waiting` so that the signal ends it at once.
"""

from __future__ import annotations

import _signal

from libcni.types.errors import TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_pending = 0
_waiting = 0


def _notice(number: int, frame: FrameType | None) -> None:
    global _pending
    _pending = number
    if _waiting:
        checkpoint()


def install() -> None:
    """Notice SIGTERM and SIGINT from now on; before this they end the process as usual."""
    _signal.signal(_signal.SIGTERM, _notice)
    _signal.signal(_signal.SIGINT, _notice)


def shield() -> None:
    """Let nothing interrupt what follows (the undoing itself)."""
    global _pending, _waiting
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    _pending = _waiting = 0


def checkpoint() -> None:
    """Raise CniError 11 when a signal has come."""
    if _pending:
        raise CniError(
            TRY_AGAIN_LATER,
            f"interrupted by signal {_pending}",
            "what ADD had done was undone; DEL and GC go on where they were when repeated",
        )


class waiting:
    """Inside this context a signal raises at once, as nothing has an effect to undo."""

    __slots__ = ()

    def __enter__(self) -> None:
        global _waiting
        # In this order: a signal between the two would otherwise be noticed after the wait only.
        _waiting += 1
        if _pending:
            _waiting -= 1
            checkpoint()

    def __exit__(self, *_: object) -> None:
        global _waiting
        _waiting = max(0, _waiting - 1)
