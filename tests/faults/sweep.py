# SPDX-License-Identifier: Apache-2.0
"""A runtime that interrupts one plugin of a list, cleans up as runtimes do, and compares.

What was before has another container attached to the same network, which nothing may touch.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import signal
import time
from typing import Any

from cni_conformance import trace

from tests.faults.lists import NetworkList
from tests.faults.moments import Interruption
from tests.rig.host import Host, Netns
from tests.rig.plugins import Reply, Runner, encode, environment, reply
from tests.rig.snapshot import Snapshot

#: Moments between two comparisons: what is left behind stays until then.
_STRIDE = 10
#: Seconds for what the kernel does by itself, such as freeing a namespace.
_PATIENCE = 5.0


class Container:
    """A container of the list's network. `results` are what its plugins answered to ADD."""

    def __init__(self, netns: Netns, number: int, base: dict[str, Any] | None) -> None:
        self.netns, self.number, self.base = netns, number, base
        self.name = f"container-{number}"
        self.results: list[dict[str, Any]] = []


class Runtime:
    """Calls the plugins of a list on a host, one of them interrupted."""

    def __init__(self, host: Host, bin_dir: pathlib.Path, network: NetworkList) -> None:
        self.host, self.network = host, network
        self._run = Runner(bin_dir)
        self._numbers = itertools.count(1)
        host.share(*network.shared)

    def container(self) -> Container:
        """A new one, with what the list stands on."""
        number = next(self._numbers)
        netns = self.host.netns(f"k{number}")
        return Container(netns, number, self.network.base(self.host, netns, number))

    def call(
        self,
        verb: str,
        position: int,
        container: Container,
        at: Interruption | None = None,
        netns: bool = True,
        **keys: Any,
    ) -> tuple[Reply, bool]:
        """Run one plugin; its answer, and whether it was interrupted."""
        document = self.network.document(position, container.number, **keys)
        path = container.netns.path if netns else ""
        identity = (path, container.name, "eth0") if verb != "GC" else ("", "", "")
        if at is None:
            options = dict(zip(("netns", "container_id", "ifname"), identity, strict=True))
            return self._run(document["type"], verb, document, **options), False  # type: ignore[arg-type]
        ended = trace.follow(
            [str(self._run.bin_dir / document["type"])],
            environment(verb, self._run.bin_dir, *identity),
            encode(document),
            at,
        )
        if ended.status < 0:
            return Reply(ended.status, None, ended.stderr.decode()), ended.interrupted
        return reply(ended.status, ended.stdout, ended.stderr), ended.interrupted

    def add(
        self, container: Container, position: int = -1, at: Interruption | None = None
    ) -> tuple[Reply, bool]:
        """ADD of the list, up to the plugin that is interrupted; the last answer."""
        container.results.clear()
        previous = container.base
        answer, interrupted = Reply(0, None, ""), False
        for each in range(len(self.network.plugins)):
            keys: dict[str, Any] = {} if previous is None else {"prevResult": previous}
            answer, interrupted = self.call(
                "ADD", each, container, at if each == position else None, **keys
            )
            if each == position and (answer.rc or interrupted):
                break
            previous = answer.result()
            container.results.append(previous)
        return answer, interrupted

    def delete(
        self,
        container: Container,
        position: int = -1,
        at: Interruption | None = None,
        netns: bool = True,
    ) -> tuple[Reply, bool]:
        """DEL of the list from its end, up to the plugin that is interrupted."""
        known = container.results[-1:]
        answer, interrupted = Reply(0, None, ""), False
        for each in reversed(range(len(self.network.plugins))):
            keys: dict[str, Any] = {"prevResult": known[0]} if known else {}
            answer, interrupted = self.call(
                "DEL", each, container, at if each == position else None, netns, **keys
            )
            if each == position and (answer.rc or interrupted):
                return answer, interrupted
            answer.succeeded()
        container.results.clear()
        return answer, interrupted

    def gc(
        self, valid: Container, position: int = -1, at: Interruption | None = None
    ) -> tuple[Reply, bool]:
        """GC of every plugin, up to the one that is interrupted."""
        keys: dict[str, Any] = {
            "cni.dev/valid-attachments": [{"containerID": valid.name, "ifname": "eth0"}],
        }
        answer, interrupted = Reply(0, None, ""), False
        for each in range(len(self.network.plugins)):
            answer, interrupted = self.call(
                "GC", each, valid, at if each == position else None, netns=False, **keys
            )
            if each == position and (answer.rc or interrupted):
                return answer, interrupted
            answer.succeeded()
        return answer, interrupted


def is_incidental(section: str, line: str) -> bool:
    """What host-local gave last is meant to be remembered; the kernel learns by itself."""
    if section == "file":
        return "/last_reserved_ip." in line
    if section == "fdb":
        return "permanent" not in line and "static" not in line
    return section == "neighbour" and " fe80:" in line


class State:
    """Host and container as they were. `assert_same` waits for what the kernel does by itself."""

    def __init__(self, host: Host, keeps: str, *inside: Netns) -> None:
        self._host, self._inside, self._keeps = host, inside, re.compile(keeps)
        self._before = self._take()

    def _take(self) -> list[Snapshot]:
        return [self._host.snapshot(), *(netns.snapshot() for netns in self._inside)]

    def _is_expected(self, section: str, line: str) -> bool:
        return is_incidental(section, line) or self._keeps.fullmatch(line) is not None

    def assert_same(self, when: str) -> None:
        """Raise AssertionError with what is left behind, or was lost."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            changes = [
                change
                for before, now in zip(self._before, self._take(), strict=True)
                for change in before.difference(now, self._is_expected)
            ]
            if not changes:
                return
            assert time.monotonic() < deadline, f"{when}: not as before:\n" + "\n".join(changes)
            time.sleep(0.02)


def assert_ended(answer: Reply, interrupted: bool, number: signal.Signals, when: str) -> None:
    """An interrupted plugin ended by the signal, with the specification's error, or complete."""
    if not interrupted or number == signal.SIGKILL:
        # A detached child may outlive its plugin, whose end the signal then comes too late for.
        assert answer.rc in (0, -signal.SIGKILL), f"{when}: {answer}"
    elif answer.rc == 1:
        answer.failed(11, "signal") if answer.json is not None else None
        assert answer.json is not None or "KeyboardInterrupt" in answer.stderr, f"{when}: {answer}"
    else:
        assert answer.rc in (0, -number), f"{when}: {answer}"


class Sweep:
    """One verb of one plugin of a list, interrupted at each moment in turn."""

    def __init__(self, runtime: Runtime, position: int, verb: str, number: signal.Signals) -> None:
        self.runtime, self.position, self.verb, self.number = runtime, position, verb, number
        self.moments = 0

    def run(self) -> int:
        """Interrupt at every moment; how many there were. AssertionError names the call."""
        runtime = self.runtime
        resident, container = runtime.container(), runtime.container()
        runtime.add(resident)
        if runtime.network.alone:
            runtime.delete(resident)
        state = State(runtime.host, runtime.network.keeps, container.netns, resident.netns)
        since: list[str] = []
        for n in itertools.count(1):
            at = Interruption(n, self.number)
            netns = not (runtime.network.on_host and n % 2)
            interrupted = self._once(resident, container, at, netns)
            since.append(at.call or "no call")
            if n % _STRIDE == 0 or not interrupted:
                state.assert_same(f"{self._when(at)} or one of those before, {since}")
                since.clear()
            if not interrupted:
                break
            self.moments = n
        runtime.delete(resident)
        return self.moments

    def _when(self, at: Interruption) -> str:
        type = self.runtime.network.plugins[self.position]["type"]
        return f"{self.verb} of {type}, {self.number.name} at {at.call or 'no call'}"

    def _once(
        self, resident: Container, container: Container, at: Interruption, netns: bool
    ) -> bool:
        runtime = self.runtime
        if self.verb == "ADD":
            answer, interrupted = runtime.add(container, self.position, at)
            assert_ended(answer, interrupted, self.number, self._when(at))
            runtime.delete(container, netns=netns)
            return interrupted
        runtime.add(container)
        if self.verb == "DEL":
            answer, interrupted = runtime.delete(container, self.position, at, netns)
            assert_ended(answer, interrupted, self.number, self._when(at))
            runtime.delete(container, netns=netns)
            return interrupted
        answer, interrupted = runtime.gc(resident, self.position, at)
        assert_ended(answer, interrupted, self.number, self._when(at))
        # host-local spares what changed less than a tick of the file system's clock ago.
        time.sleep(0.02)
        runtime.gc(resident)
        if not runtime.network.on_host:
            # What is inside goes with the container; so that the next one can be the same.
            runtime.delete(container)
        return interrupted
