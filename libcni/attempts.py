# SPDX-License-Identifier: Apache-2.0
"""Steps of a DEL or GC, none of which keeps the others from being tried."""

from __future__ import annotations

from libcni.types.errors import IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Attempts:
    """Steps that are all to be tried. `report` raises the first failure, if there was one."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: list[CniError] = []

    def attempt(self, step: Callable[..., Any], *args: Any) -> Any:
        """What the step returns, or None when it fails."""
        try:
            return step(*args)
        except CniError as error:
            self._failures.append(error)
        except OSError as error:
            # No descriptor or memory left, say; the steps after it may well succeed.
            import posix

            cause = posix.strerror(error.errno or 0)
            where = f" {error.filename!r}" if error.filename else ""
            self._failures.append(CniError(IO_FAILURE, f"{step.__name__}{where}: {cause}"))
        return None

    def report(self) -> None:
        """Raise the first failure; the others are in its details."""
        if self._failures:
            first, *others = self._failures
            if others:
                also = "; ".join(f"also: {other.msg}" for other in others)
                first.details = f"{first.details}; {also}" if first.details else also
            raise first
