# SPDX-License-Identifier: Apache-2.0
"""The moments at which a plugin is interrupted: all of its system calls, or those that matter.

A plugin makes some hundreds of calls, and most read. So a moment is before and after each call
that may have an effect, and now and then among the rest; $ADDER_EVERY_CALL makes it every call.
"""

from __future__ import annotations

import os
import signal

from cni_conformance.trace import Stop

from tests.faults.syscalls import has_effect, names

EVERY_CALL = os.environ.get("ADDER_EVERY_CALL", "") not in ("", "0")
#: Of the calls without an effect one in so many is a moment, before the configuration was read
#: and after.
_START, _REST = 100, 25


class Interruption:
    """A visitor of `trace.follow` that sends `number` at the n-th moment, from 1.

    `call` tells afterwards which call it was.
    """

    def __init__(self, n: int, number: signal.Signals) -> None:
        self.call = ""
        self._n = n
        self._number = number
        self._moments = 0
        self._rest = 0
        self._began = False
        #: Threads whose last call had an effect.
        self._after: set[int] = set()

    def __call__(self, stop: Stop) -> signal.Signals | None:
        if not self._is_moment(stop):
            return None
        self._moments += 1
        if self._moments < self._n:
            return None
        self.call = f"call {stop.nth} ({names().get(stop.number, stop.number)})"
        return self._number

    def _is_moment(self, stop: Stop) -> bool:
        if EVERY_CALL:
            return True
        after = stop.pid in self._after
        self._after.discard(stop.pid)
        if has_effect(stop.number, stop.args):
            self._after.add(stop.pid)
            return True
        self._began = self._began or (names()[stop.number] == "read" and stop.args[0] == 0)
        self._rest += 1
        return after or self._rest % (_REST if self._began else _START) == 0
