# SPDX-License-Identifier: Apache-2.0
"""Acting without a capability, as a process that nobody gave it to."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import TypeVar

from tests.rig import isolation

T = TypeVar("T")

#: linux/capability.h
CAP_NET_ADMIN = 12
#: Starts a program that does not have it.
WITHOUT_NET_ADMIN = ("setpriv", "--inh-caps", "-net_admin", "--bounding-set", "-net_admin")
_VERSION_3 = 0x20080522
#: Effective, permitted and inheritable, of 32 capabilities each, twice.
_SETS = struct.Struct("=6I")

_libc = ctypes.CDLL(None, use_errno=True)


def without(capability: int, function: Callable[[], T]) -> T:
    """Call `function` in a thread that cannot use the capability; its result, or its error.

    Capabilities are a thread's, so that the caller keeps its own. A program that it executes
    gets them back where root executes it: see WITHOUT_NET_ADMIN for that.
    """

    def work() -> T:
        _drop(capability)
        return function()

    return isolation.in_thread(work)


def _drop(capability: int) -> None:
    """Take a capability of the first 32 from this thread's effective ones. Raises OSError."""
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = ctypes.create_string_buffer(_SETS.size)
    isolation.check(_libc.capget(header, data), "capget")
    effective, *others = _SETS.unpack(data.raw)
    left = _SETS.pack(effective & ~(1 << capability), *others)
    isolation.check(_libc.capset(header, left), "capset")
