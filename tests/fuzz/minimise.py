# SPDX-License-Identifier: Apache-2.0
"""Which inputs are worth keeping: the smallest ones that together reach all that any reaches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.target import ROOT

#: Code that counts.
_OURS = (f"{ROOT}/libcni/", f"{ROOT}/plugins/")
#: A step from one line of a function to another.
Step = tuple[CodeType, int, int]


def steps(run: Callable[[bytes], None], data: bytes) -> set[Step]:
    """The steps between lines of our modules that an input leads to."""
    found: set[Step] = set()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS):
            return None
        last = 0

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                found.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run(data)
    finally:
        sys.settrace(before)
    return found


def smallest(run: Callable[[bytes], None], inputs: Iterable[bytes]) -> list[bytes]:
    """The inputs, smallest first, each of which takes a step that no smaller one took."""
    taken: set[Step] = set()
    kept = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = steps(run, data) - taken
        if new:
            taken |= new
            kept.append(data)
    return kept
