# SPDX-License-Identifier: Apache-2.0
"""The control groups of one runtime, by which everything it ever started is found again."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable

_ROOT = pathlib.Path("/sys/fs/cgroup")


class ControlGroup:
    """A group of this name in whatever hierarchies there are; runtimes make more below it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def places(self) -> list[pathlib.Path]:
        """The directories to put a process in: one suffices to find its children again."""
        if (_ROOT / "cgroup.controllers").exists():
            return [_ROOT / self.name]
        return [_ROOT / "pids" / self.name]

    def processes(self) -> set[int]:
        """The processes in it and below."""
        found: set[int] = set()
        for place in self.places():
            for path in place.rglob("cgroup.procs"):
                found.update(int(line) for line in path.read_text().split())
        return found

    def kill(self, reap: Callable[[], object] = lambda: None) -> None:
        """End them all; `reap` waits for the caller's own child. Idempotent.

        Raises AssertionError if some are left after 10 seconds.
        """
        deadline = time.monotonic() + 10
        while processes := self.processes():
            assert time.monotonic() < deadline, f"cannot be killed: {processes}"
            for pid in processes:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)
            reap()

    def remove(self) -> None:
        """Give the groups back to the kernel. Idempotent; a group still in use stays."""
        for hierarchy in (_ROOT, *_ROOT.iterdir()):
            for directory, _, _ in os.walk(hierarchy / self.name, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    continue
