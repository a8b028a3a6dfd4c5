# SPDX-License-Identifier: Apache-2.0
"""Attachments by the thousand: each one's fate, and what became of all of them."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.bench.hosts import Namespace
from tests.churn.chain import Container, Ended
from tests.churn.histogram import Histogram

#: What happens to an attachment, and how often in a hundred.
FATES = {"lives": 66, "ADD is killed": 16, "DEL is killed": 12, "namespace vanishes": 6}
#: Seconds that a container lives at most.
_LIFE = 0.2
#: Until something has been measured: seconds in which a kill may come.
_GUESS = 0.02
#: CniError: a lock was not to be had in time.
_TRY_AGAIN = 11


class Fleet:
    """All attachments of a run; threads work on them side by side."""

    def __init__(
        self,
        bin_dir: pathlib.Path,
        network: list[dict[str, Any]],
        seed: int,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._bin_dir, self._network, self._seed, self._tick = bin_dir, network, seed, tick
        self._lock = threading.Lock()
        #: By "bridge ADD" and the like: of calls that were not killed.
        self.durations: dict[str, Histogram] = collections.defaultdict(Histogram)
        self.fates: collections.Counter[str] = collections.Counter()
        #: Of calls that SIGKILL met running.
        self.kills: collections.Counter[str] = collections.Counter()
        #: What should not have happened.
        self.faults: list[str] = []
        self._owners: dict[str, str] = {}
        self._numbers = 0
        self._timeouts = 0

    def run(self, attachments: int, at_once: int) -> None:
        """Make and remove so many, so many at once."""
        first = self._numbers
        self._numbers += attachments
        with ThreadPoolExecutor(at_once, "churn") as pool:
            for _ in pool.map(self._one, range(first, first + attachments)):
                self._tick()

    def lock_timeouts(self) -> int:
        """How many calls gave up waiting for a lock."""
        return self._timeouts

    def _one(self, number: int) -> None:
        draw = random.Random(f"{self._seed} {number}")
        fate = draw.choices(list(FATES), list(FATES.values()))[0]
        namespace = Namespace()
        container = Container(self._bin_dir, self._network, number, namespace.path)
        try:
            with self._lock:
                self.fates[fate] += 1
            with self._holding(container):
                self._attach(container, fate, draw)
                time.sleep(draw.uniform(0, _LIFE) if container.result is not None else 0)
            if fate == "namespace vanishes":
                namespace.remove()
                container.netns = ""
            if fate == "DEL is killed":
                self._detach(container, draw)
            self._detach(container, None)
        except Exception as error:
            self._fault(f"{container.id[:8]}: {error!r}")
        finally:
            if container.netns:
                namespace.remove()

    def _attach(self, container: Container, fate: str, draw: random.Random) -> None:
        """ADD of each plugin, one of them perhaps killed, which ends it."""
        victim = draw.randrange(len(self._network)) if fate == "ADD is killed" else -1
        result = None
        for position in range(len(self._network)):
            ended = self._call(container, position, "ADD", draw if position == victim else None)
            if ended.killed or ended.status:
                container.result = None  # as a runtime that has no result
                return
            result = container.result = ended.answer
        self._claim(container, result)

    def _detach(self, container: Container, draw: random.Random | None) -> None:
        """DEL of each plugin, last first; with `draw` one is killed, which ends it."""
        victim = draw.randrange(len(self._network)) if draw else -1
        for position in reversed(range(len(self._network))):
            ended = self._call(container, position, "DEL", draw if position == victim else None)
            if ended.killed:
                return

    def _call(
        self, container: Container, position: int, verb: str, draw: random.Random | None
    ) -> Ended:
        key = f"{self._network[position]['type']} {verb}"
        after = None
        if draw is not None:
            with self._lock:
                usual = self.durations[key].percentile(0.5) / 1e3 or _GUESS
            after = draw.uniform(0, 1.2 * usual)
        ended = container.call(position, verb, after)
        with self._lock:
            if ended.killed:
                self.kills[key] += 1
            else:
                self.durations[key].add(ended.seconds)
        if ended.status and not ended.killed:
            gave_up = isinstance(ended.answer, dict) and ended.answer["code"] == _TRY_AGAIN
            self._timeouts += gave_up
            self._fault(f"{container.id[:8]}: {ended}")
        return ended

    def _claim(self, container: Container, result: Any) -> None:
        """Nobody else may have the addresses of a container that lives."""
        with self._lock:
            for ip in result["ips"]:
                owner = self._owners.setdefault(ip["address"], container.id)
                if owner != container.id:
                    self.faults.append(f"{ip['address']}: {owner[:8]} and {container.id[:8]}")

    @contextlib.contextmanager
    def _holding(self, container: Container) -> Iterator[None]:
        """Inside, the addresses that it has claimed are its own; any DEL may free them."""
        try:
            yield
        finally:
            with self._lock:
                for address in [a for a, o in self._owners.items() if o == container.id]:
                    del self._owners[address]

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)
