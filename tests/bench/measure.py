# SPDX-License-Identifier: Apache-2.0
"""One execution measured: wall time, CPU and peak memory, with little in between.

posix_spawn and wait4 around pipes, like a runtime does it: the time ends when the process has
ended *and* its stdout is closed, so a child that kept the pipe would count. Creating namespaces,
encoding configurations and checking answers happen outside the measured time.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from tests.rig.image import BUSYBOX

#: linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
#: Seconds in which a detached child ends.
_ORPHANS_END = 1.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """wall: seconds; cpu: seconds of user and system time, of the children it left behind too."""

    wall: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Call:
    """One plugin execution to make: the file, its environment and its stdin."""

    program: pathlib.Path
    environment: Mapping[str, str]
    stdin: bytes


class Running:
    """A started call."""

    def __init__(self, call: Call) -> None:
        program = str(call.program)
        self.call = call
        source, feed = os.pipe()
        self.output, sink = os.pipe()
        # Less than a pipe holds, so this cannot block.
        assert len(call.stdin) < 60_000
        os.write(feed, call.stdin)
        os.close(feed)
        actions = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, sink, 1)]
        self.started = time.perf_counter()
        self.pid = os.posix_spawn(program, [program], dict(call.environment), file_actions=actions)
        os.close(source)
        os.close(sink)

    def wait(self) -> tuple[Sample, bytes]:
        """Wait for the end; what was measured, and stdout. Raises RuntimeError on failure."""
        parts = []
        while part := os.read(self.output, 65536):
            parts.append(part)
        _, status, usage = os.wait4(self.pid, 0)
        wall = time.perf_counter() - self.started
        os.close(self.output)
        output = b"".join(parts)
        cpu = usage.ru_utime + usage.ru_stime
        if status:
            verb = self.call.environment.get("CNI_COMMAND")
            raise RuntimeError(
                f"{self.call.program} {verb}: exit {os.waitstatus_to_exitcode(status)}: "
                f"{output.decode(errors='replace')}"
            )
        return Sample(wall, cpu), output


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def _orphans() -> float:
    """Wait for what the calls have left running; its CPU time in seconds.

    A DEL of ours leaves the wait for the kernel's grace period to a child. Outside the wall time,
    so that it does not disturb what is measured next. Children that do not end in a while are
    somebody else's (a daemon that is being measured).
    """
    seconds = 0.0
    until = time.monotonic() + _ORPHANS_END
    while time.monotonic() < until:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            seconds += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.001)
    return seconds


def once(call: Call) -> tuple[Sample, Any]:
    """Run one call; its sample and the decoded answer (None if it had none)."""
    sample, output = Running(call).wait()
    sample = Sample(sample.wall, sample.cpu + _orphans())
    return sample, json.loads(output) if output.strip() else None


def at_once(calls: Sequence[Call]) -> tuple[Sample, list[Any]]:
    """Start all calls together: wall time until the last has ended, CPU of them all."""
    started = time.perf_counter()
    running = [Running(call) for call in calls]
    ended = [one.wait() for one in running]
    wall = time.perf_counter() - started
    answers = [json.loads(output) if output.strip() else None for _, output in ended]
    return Sample(wall, sum(sample.cpu for sample, _ in ended) + _orphans()), answers


#: Calls of which each is made when the one before has ended, and gets its decoded answer (None
#: if it had none); what it returns is the answer of the whole.
Steps = Generator[Call, Any, Any]


def in_turn(steps: Steps) -> tuple[Sample, Any]:
    """Run calls that build on each other: the sum of their samples, and the last word.

    What lies between them, a runtime's reading and writing of JSON, is not in the wall time.
    """
    wall = cpu = 0.0
    answer = None
    while True:
        try:
            call = steps.send(answer)
        except StopIteration as end:
            return Sample(wall, cpu), end.value
        sample, answer = once(call)
        wall += sample.wall
        cpu += sample.cpu


def all_in_turn(many: Sequence[Steps]) -> tuple[Sample, list[Any]]:
    """`in_turn` of many at the same moment: wall time until the last has ended, CPU of them all.

    All the first calls are started together, and each next one as soon as its predecessor ends.
    """
    poll = select.poll()
    running: dict[int, tuple[int, Running]] = {}
    answers: list[Any] = [None] * len(many)
    cpu = 0.0

    def advance(number: int, answer: Any) -> None:
        try:
            call = many[number].send(answer)
        except StopIteration as end:
            answers[number] = end.value
            return
        started = Running(call)
        running[started.output] = number, started
        poll.register(started.output, select.POLLIN)

    begun = time.perf_counter()
    for number in range(len(many)):
        advance(number, None)
    while running:
        for output, _ in poll.poll():
            poll.unregister(output)
            number, ended = running.pop(output)
            sample, text = ended.wait()
            cpu += sample.cpu
            advance(number, json.loads(text) if text.strip() else None)
    wall = time.perf_counter() - begun
    return Sample(wall, cpu + _orphans()), answers


def peak_memory(call: Call) -> int:
    """Peak resident memory of one execution in kB (the largest of the process and its children).

    The kernel counts the memory of whoever executes the program, up to that moment, as the
    program's own, so a small program has to start it and not this one: busybox, 1 MB.
    """
    return _peak(call)[0]


def peak_in_turn(steps: Steps) -> tuple[int, Any]:
    """The largest `peak_memory` of calls that build on each other, and the last word."""
    largest, answer = 0, None
    while True:
        try:
            call = steps.send(answer)
        except StopIteration as end:
            return largest, end.value
        peak, answer = _peak(call)
        largest = max(largest, peak)


def _peak(call: Call) -> tuple[int, Any]:
    words = [str(BUSYBOX), "time", "-f", "peak=%M", str(call.program)]
    done = subprocess.run(
        words, input=call.stdin, env=dict(call.environment), capture_output=True, check=False
    )
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("peak=")]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout!r} {done.stderr!r}")
    answer = json.loads(done.stdout) if done.stdout.strip() else None
    return int(lines[-1][5:]) // _busybox_unit(), answer


def _busybox_unit() -> int:
    """1, or the page size in kB for the busybox versions that take the kernel's kB for pages."""
    global _unit
    if not _unit:
        program = "import sys; x = bytearray(1 << 26)"
        words = [str(BUSYBOX), "time", "-f", "%M", sys.executable, "-ISc", program]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        _unit = os.sysconf("SC_PAGESIZE") // 1024 if int(done.stderr) > 3 * (1 << 16) else 1
    return _unit


_unit = 0


def median(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return statistics.median(values) if values else 0.0


def percentile90(values: Sequence[float]) -> float:
    """The 90th percentile, nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 9 // 10) - 1)] if ordered else 0.0
