# SPDX-License-Identifier: Apache-2.0
"""The first ADD on an empty host, interrupted, and what is left of it after DEL.

What it makes for all containers may stay, but no more of that than a complete ADD and DEL leave;
and after another container has come and gone, it is exactly that.
"""

from __future__ import annotations

import pathlib
import re
import signal
import time
from collections.abc import Callable

from tests.faults.lists import NetworkList
from tests.faults.moments import Interruption
from tests.faults.sweep import Runtime, assert_ended, is_incidental
from tests.rig.host import Host
from tests.rig.snapshot import Snapshot

Lines = frozenset[str]

#: Seconds for what the kernel does by itself, such as freeing a namespace.
_PATIENCE = 5.0
#: Hardware addresses are random.
_MAC = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b")


class FirstAdd:
    """The first ADD of one plugin of a list, interrupted at moments, each on a new host."""

    def __init__(
        self, bin_dir: pathlib.Path, network: NetworkList, position: int, number: signal.Signals
    ) -> None:
        self._bin_dir, self._network = bin_dir, network
        self._position, self._number = position, number

    def run(self, stride: int) -> int:
        """Interrupt at every `stride`-th moment; how many were tried.

        AssertionError names the call.
        """
        complete = self._on_new_host(None)[0]
        assert complete, "this list keeps nothing"
        tried = 0
        while True:
            at = Interruption(1 + tried * stride, self._number)
            if not self._on_new_host(at, complete)[1]:
                return tried
            tried += 1

    def _on_new_host(
        self, at: Interruption | None, complete: Lines = frozenset()
    ) -> tuple[Lines, bool]:
        """What is left in the end, and whether ADD was interrupted."""
        host = Host()
        try:
            runtime = Runtime(host, self._bin_dir, self._network)
            first, second = runtime.container(), runtime.container()
            before = host.snapshot()
            answer, interrupted = runtime.add(first, self._position, at)
            when = f"{self._number.name} at {at.call or 'no call'}" if at else "complete"
            if at is not None:
                assert_ended(answer, interrupted, self._number, when)
            runtime.delete(first)
            if at is not None:
                names = {_name(line) for line in complete}
                _settle(
                    lambda: [li for li in _gained(before, host) if _name(li) not in names], when
                )
            runtime.add(second)[0].result()
            runtime.delete(second)
            if at is not None:
                _settle(lambda: sorted(_gained(before, host) ^ complete), f"{when}, and another")
            return _gained(before, host), interrupted
        finally:
            host.close()


def _gained(before: Snapshot, host: Host) -> Lines:
    changes = before.difference(host.snapshot(), is_incidental)
    return frozenset(_MAC.sub("(MAC)", change) for change in changes)


def _name(line: str) -> str:
    """What a line is about: of what may be half made yet, without how it is."""
    sign, section, rest = line.split(" ", 2)
    if section in ("link:", "file:"):
        return f"{section} {rest.split()[0]}"
    return (
        f"{section} {rest.split('=')[0]}" if section == "sysctl:" else f"{sign} {section} {rest}"
    )


def _settle(difference: Callable[[], list[str]], when: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while found := difference():
        assert time.monotonic() < deadline, f"{when}: left:\n" + "\n".join(found)
        time.sleep(0.02)
