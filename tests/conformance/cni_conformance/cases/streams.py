# SPDX-License-Identifier: Apache-2.0
"""Streams that are closed, full or silent."""

from __future__ import annotations

import os
import subprocess
import time

from cni_conformance.bench import TIMEOUT, Bench
from cni_conformance.case import Finding, case
from cni_conformance.links import PERISHABLE
from cni_conformance.outcome import Outcome

_SECTION = "SPEC 1.1.0, section 2, Overview: a plugin reads stdin and writes stdout"

#: Between two pieces, in seconds: long enough for a plugin to have read the first.
_PAUSE = 0.3


def _with_broken_stdout(bench: Bench, command: str) -> int:
    """ADD with a stdout that nobody reads any more; its exit status."""
    pod = bench.attachments[-1]
    call = bench.invocation(command, pod)
    reader, writer = os.pipe()
    os.close(reader)
    process = call.start(stdout=writer)
    os.close(writer)
    try:
        process.communicate(call.stdin, TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Finding(f"{command} to end", "it hangs when nobody reads its stdout") from None
    return process.returncode


@case(
    "stdout-closed",
    "ADD whose result nobody reads does not succeed",
    section=_SECTION,
    level="recommended",
    newest_only=True,
)
def stdout_closed(bench: Bench) -> None:
    """The runtime has no result; it must not believe that it has one."""
    bench.attachment()
    if _with_broken_stdout(bench, "ADD") == 0:
        raise Finding("another exit status than 0", "0")


@case(
    "stdout-closed-del",
    "After an ADD whose result nobody read, DEL leaves nothing",
    section=_SECTION,
    newest_only=True,
)
def stdout_closed_del(bench: Bench) -> None:
    """Without a prevResult, of course."""
    bench.warm_up()
    pod = bench.attachment()
    before = bench.state()
    _with_broken_stdout(bench, "ADD")
    pod.delete().expect_silence()
    bench.expect_unchanged(before, "the host as before ADD", PERISHABLE)
    if bench.profile.kind == "interface":
        pod.expect_inside_unchanged()


@case(
    "stdin-read-to-the-end",
    "A configuration larger than a pipe holds is read to its end",
    section="SPEC 1.1.0, section 1, args",
    newest_only=True,
)
def stdin_read_to_the_end(bench: Bench) -> None:
    """300 KB in `args`, which the plugin has to ignore."""
    pod = bench.attachment()
    pod.config["args"] = {"example.org/filler": "x" * 300_000}
    pod.add().expect_result(bench.version)


@case(
    "stdin-in-pieces",
    "A configuration that comes in pieces is waited for",
    section=_SECTION,
    newest_only=True,
)
def stdin_in_pieces(bench: Bench) -> None:
    """A runtime writes as it likes; the end of stdin is the end."""
    pod = bench.attachment()
    call = bench.invocation("ADD", pod)
    process = call.start()
    assert process.stdin is not None
    try:
        for begin in range(0, len(call.stdin), len(call.stdin) // 2):
            process.stdin.write(call.stdin[begin : begin + len(call.stdin) // 2])
            process.stdin.flush()
            time.sleep(_PAUSE)
    except BrokenPipeError:
        pass
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    Outcome("ADD", process.returncode, stdout, stderr).expect_success()


@case(
    "stderr-closed",
    "A plugin works without a stderr",
    section=_SECTION,
    level="recommended",
    newest_only=True,
)
def stderr_closed(bench: Bench) -> None:
    """A runtime may have none to give."""
    pod = bench.attachment()
    call = bench.invocation("ADD", pod)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        outcome = bench.run(call, stderr=writer)
    finally:
        os.close(writer)
    outcome.expect_result(bench.version)
