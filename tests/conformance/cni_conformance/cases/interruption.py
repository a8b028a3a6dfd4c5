# SPDX-License-Identifier: Apache-2.0
"""Runtimes give up, machines run out of memory: a plugin ended at any of its system calls."""

from __future__ import annotations

import itertools
import os
import signal
import time

from cni_conformance import trace
from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding, case
from cni_conformance.leftovers import Trial
from cni_conformance.outcome import Outcome

#: Interrupt at every so many calls; 1, the default, is what the case asks for.
STRIDE = max(1, int(os.environ.get("CNI_CONFORMANCE_STRIDE") or 1))
#: Interruptions between two looks at the host: what is left behind stays until then.
_BATCH = 12
_SECTION = "SPEC 1.1.0, section 2, DEL; section 3, Deriving runtime execution"


@case(
    "killed-add",
    "After an ADD that was killed at any of its system calls, DEL leaves nothing",
    section=_SECTION,
    newest_only=True,
    seconds=3600,
)
def killed_add(bench: Bench) -> None:
    """ADD is run once for each of its system calls, those of its children included, and ended
    there by SIGKILL (the plugin alone, as a runtime does not know its children). The runtime's
    DEL, without a result of that ADD, has to remove whatever there is by then.
    """
    _sweep(bench, signal.SIGKILL)


@case(
    "terminated-add",
    "After an ADD that was terminated at any of its system calls, DEL leaves nothing",
    section=_SECTION,
    newest_only=True,
    seconds=3600,
)
def terminated_add(bench: Bench) -> None:
    """As `killed-add`, but by SIGTERM, of which a plugin may take notice: it ends by the signal,
    with an error, or with the complete success of an ADD for which the signal came too late.
    """
    _sweep(bench, signal.SIGTERM)


def _sweep(bench: Bench, number: signal.Signals) -> None:
    bench.warm_up()
    trial = Trial(bench)
    since: list[int] = []
    for n in itertools.count(1, STRIDE):
        interrupted = _interrupt(bench, trial.pod, number, n)
        since.append(n)
        if len(since) < _BATCH and interrupted:
            trial.renew()
            continue
        if not trial.is_clean():
            trial.pod.discard()
            _find(bench, number, since)
        since.clear()
        if not interrupted:
            return
        trial.renew()


def _find(bench: Bench, number: signal.Signals, calls: list[int]) -> None:
    """Which of these interruptions leaves something: each again, on what is there by now."""
    for n in calls:
        trial = Trial(bench)
        _interrupt(bench, trial.pod, number, n)
        trial.expect_clean(f"after ADD, {number.name} at its system call {n}, and DEL")
        trial.pod.discard()
    raise Finding(
        "after ADD, interrupted, and DEL nothing left",
        f"something was left after {number.name} at one of the system calls "
        f"{calls[0]} to {calls[-1]}, though not when each was tried again",
    )


def _interrupt(bench: Bench, pod: Attachment, number: signal.Signals, n: int) -> bool:
    """ADD, the signal at its n-th system call, and DEL; False if there is no such call."""
    call = bench.invocation("ADD", pod)
    begin = time.monotonic()
    try:
        ended = trace.interrupt_at([call.program], call.environment, call.stdin, n, number)
    except trace.TraceError as error:
        raise Finding(
            f"ADD to end, with {number.name} at its system call {n}", str(error)
        ) from None
    outcome = Outcome("ADD", ended.status, ended.stdout, ended.stderr, time.monotonic() - begin)
    del bench.calls[:-8]
    bench.calls.append((call, outcome))
    if ended.status == 0:
        outcome.expect_result(bench.version)
    elif ended.status > 0 and not ended.interrupted:
        raise Finding("ADD to succeed when nothing interrupts it", outcome.came())
    elif ended.status > 0 and outcome.stdout.strip():
        outcome.expect_error()
    pod.delete().expect_silence()
    return ended.interrupted
