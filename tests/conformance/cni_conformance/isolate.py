# SPDX-License-Identifier: Apache-2.0
"""Work on a host of its own: a forked process that ends with everything it made.

A child moves into new namespaces (network, mounts, processes) and answers with one JSON document
on a pipe. It is the first process of its PID namespace, so whatever a plugin left running ends
with it; mounts and links go with their namespaces.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pathlib
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cni_conformance import namespaces

T = TypeVar("T")
V = TypeVar("V")


@dataclasses.dataclass
class Job:
    """A running child. descriptor: the end of its pipe; deadline: of time.monotonic()."""

    pid: int
    descriptor: int
    deadline: float
    begin: float
    received: bytearray = dataclasses.field(default_factory=bytearray)

    def kill(self) -> None:
        """End it and all that it started. Idempotent."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def finish(self) -> Any:
        """Reap it after its pipe has ended; its answer, or None if it gave none."""
        os.close(self.descriptor)
        os.waitpid(self.pid, 0)
        try:
            return json.loads(bytes(self.received))
        except ValueError:
            return None


def start(work: Callable[[], Any], visible: Sequence[pathlib.Path], seconds: float = 60.0) -> Job:
    """Begin `work` on a host of its own; what it returns (JSON) comes through the pipe.

    An exception in it comes as {"traceback": text}. Raises OSError without root.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    now = time.monotonic()
    # Pages of what is there already stay shared with the children.
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        gc.disable()
        os.close(reader)
        _outer(work, visible, writer)
    os.close(writer)
    return Job(pid, reader, now + seconds, now)


def _outer(work: Callable[[], Any], visible: Sequence[pathlib.Path], writer: int) -> None:
    """In the child: make a PID namespace, whose first process does the work. Never returns."""
    status = 1
    try:
        namespaces.die_with_parent(signal.SIGKILL)
        os.setsid()
        namespaces.unshare(namespaces.CLONE_NEWPID)
        first = os.fork()
        if first == 0:
            _inner(work, visible, writer)
        os.close(writer)
        _, waited = os.waitpid(first, 0)
        status = os.waitstatus_to_exitcode(waited)
    except BaseException:
        _write(writer, {"traceback": traceback.format_exc()})
    finally:
        os._exit(status & 0xFF)


def _inner(work: Callable[[], Any], visible: Sequence[pathlib.Path], writer: int) -> None:
    try:
        namespaces.die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        namespaces.enter_private_host(visible)
        answer = work()
    except BaseException:
        answer = {"traceback": traceback.format_exc()}
    _write(writer, answer)
    os._exit(0)


def _write(descriptor: int, answer: Any) -> None:
    data = json.dumps(answer).encode()
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        pass  # the reader has given up; it says so itself


def run(work: Callable[[], Any], visible: Sequence[pathlib.Path], seconds: float = 60.0) -> Any:
    """The answer of `work`; None if it did not answer in time or was killed."""
    job = start(work, visible, seconds)
    collect([job], lambda job: None)
    return job.finish()


def run_all(
    tasks: Sequence[T],
    jobs: int,
    begin: Callable[[T], Job],
    judge: Callable[[T, Any, bool, float], V],
    progress: Callable[[V], None],
) -> list[V]:
    """The verdicts on all tasks, in their order; `jobs` run at a time.

    begin: starts a task. judge: makes a verdict of a task, its answer (None if it gave none),
    whether it was too late, and its seconds. progress: called with each verdict as it comes.
    When interrupted, what runs is ended.
    """
    verdicts: dict[int, V] = {}
    waiting = iter(range(len(tasks)))
    running: list[Job] = []
    numbers: dict[int, int] = {}

    def next_one() -> None:
        number = next(waiting, None)
        if number is not None:
            job = begin(tasks[number])
            numbers[job.pid] = number
            running.append(job)

    def ended(job: Job) -> None:
        number = numbers[job.pid]
        late = job.deadline == float("inf")
        answer = job.finish()
        verdicts[number] = judge(tasks[number], answer, late, time.monotonic() - job.begin)
        progress(verdicts[number])
        next_one()

    for _ in range(jobs):
        next_one()
    try:
        collect(running, ended)
    except BaseException:
        for job in running:
            if numbers[job.pid] not in verdicts:
                job.kill()
        raise
    return [verdicts[number] for number in range(len(tasks))]


def collect(jobs: list[Job], ended: Callable[[Job], None]) -> None:
    """Read from all jobs until each pipe has ended, killing those past their deadline.

    `ended` is called for each job as it ends, and may append to `jobs`.
    """
    alive = list(jobs)
    while alive:
        wait = max(0.0, min(job.deadline for job in alive) - time.monotonic())
        ready, _, _ = select.select([job.descriptor for job in alive], [], [], wait)
        for job in list(alive):
            if job.descriptor in ready:
                chunk = os.read(job.descriptor, 1 << 16)
                job.received += chunk
                if chunk:
                    continue
                known = len(jobs)
                alive.remove(job)
                ended(job)
                alive += jobs[known:]
            elif time.monotonic() > job.deadline:
                job.kill()
                job.deadline = float("inf")
