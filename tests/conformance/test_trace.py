# SPDX-License-Identifier: Apache-2.0
"""The stepper: what it counts, whom it ends and when."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import pytest
from cni_conformance import trace

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def script(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def running(pids: set[int]) -> list[int]:
    """Those that run; whoever inherited a dead child may take its time to notice."""
    found = []
    for pid in pids:
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] not in "ZX":
            found.append(pid)
    return found


def test_a_run_of_its_own_accord_is_left_alone() -> None:
    ended = trace.follow(
        script("cat; echo said >&2; exit 3"), ENVIRONMENT, b"asked", lambda stop: None
    )
    assert (ended.status, ended.stdout, ended.stderr) == (3, b"asked", b"said\n")
    assert not ended.interrupted
    assert ended.calls == trace.calls(script("cat; echo said >&2; exit 3"), ENVIRONMENT, b"asked")


def test_children_and_threads_count() -> None:
    alone = trace.calls(script(":"), ENVIRONMENT, b"")
    assert trace.calls(script("/bin/true; :"), ENVIRONMENT, b"") > alone + 10
    threads = "import threading; [threading.Thread(target=print).start() for _ in range(3)]"
    ended = trace.follow([sys.executable, "-IS", "-c", threads], {}, b"", lambda stop: None)
    assert (ended.status, ended.stdout) == (0, b"\n\n\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_each_call_is_a_moment_of_its_own(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    """The files that a program makes one after the other: each number of them is met."""
    argv = script(f"cd {tmp_path}; : >1; : >2; : >3")
    met = set()
    for n in range(1, trace.calls(argv, ENVIRONMENT, b"") + 2):
        for file in tmp_path.iterdir():
            file.unlink()
        ended = trace.interrupt_at(argv, ENVIRONMENT, b"", n, number)
        made = sorted(file.name for file in tmp_path.iterdir())
        assert made == ["1", "2", "3"][: len(made)]
        # During its last call, which is to exit, SIGTERM comes too late.
        assert ended.status == (-number if ended.interrupted else 0) or len(made) == 3
        if ended.interrupted:
            assert ended.calls == n
            met.add(len(made))
    assert met == {0, 1, 2, 3}


def test_sigkill_keeps_the_call_from_being_made(tmp_path: pathlib.Path) -> None:
    """The stop before which the file is absent is not the stop before which it is there."""
    argv = script(f": >{tmp_path}/file")
    before = []
    trace.follow(argv, ENVIRONMENT, b"", lambda stop: before.append((tmp_path / "file").exists()))
    first = before.index(True)
    (tmp_path / "file").unlink()
    trace.interrupt_at(argv, ENVIRONMENT, b"", first, signal.SIGKILL)
    assert not (tmp_path / "file").exists()
    trace.interrupt_at(argv, ENVIRONMENT, b"", first + 1, signal.SIGKILL)
    assert (tmp_path / "file").exists()


def test_a_child_outlives_the_plugin_and_is_waited_for(tmp_path: pathlib.Path) -> None:
    argv = script(f"/bin/sh -c 'sleep 0.1; : >{tmp_path}/done' & wait")
    plugin = []

    def visit(stop: trace.Stop) -> signal.Signals | None:
        plugin.append(stop.pid)
        return signal.SIGKILL if stop.pid != plugin[0] else None

    assert trace.follow(argv, ENVIRONMENT, b"", visit).status == -signal.SIGKILL
    assert (tmp_path / "done").exists()


def test_results_are_told_where_asked_for() -> None:
    stops: list[trace.Stop] = []
    trace.follow(script("exit 0"), ENVIRONMENT, b"", stops.append, exits=True)
    ended = {stop.nth for stop in stops if stop.result is not None}
    begun = {stop.nth for stop in stops if stop.result is None}
    assert ended == begun - {max(begun)}, "all but exit_group end"


def test_what_does_not_end_is_ended() -> None:
    argv = script("sleep 1000 & sleep 1000")
    pids: set[int] = set()
    with pytest.raises(trace.TraceError, match=r"did not end in 0.5 s"):
        trace.follow(argv, ENVIRONMENT, b"", lambda stop: pids.add(stop.pid), timeout=0.5)
    assert len(pids) >= 2
    assert not running(pids)


def test_an_error_of_the_visitor_ends_everything() -> None:
    pids: set[int] = set()

    def visit(stop: trace.Stop) -> None:
        pids.add(stop.pid)
        if len(pids) == 2:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        trace.follow(script("sleep 1000; :"), ENVIRONMENT, b"", visit)
    assert not running(pids)


def test_what_cannot_be_executed_is_said() -> None:
    with pytest.raises(trace.TraceError, match=r"cannot execute /nonexistent: .*No such file"):
        trace.calls(["/nonexistent"], ENVIRONMENT, b"")


def test_arguments_and_environment_are_the_program_s_alone() -> None:
    argv = ["/usr/bin/python3", "-IS", "-c", "import os, sys; print(sys.argv, os.environb)", "a b"]
    env = {"CNI_ARGS": "a=b;c='d' $x\n", "EMPTY": ""}
    expected = subprocess.run(argv, env=env, capture_output=True, check=True).stdout
    assert trace.follow(argv, env, b"", lambda stop: None).stdout == expected
    assert b"PWD" not in expected


def test_other_children_of_the_caller_are_not_its_business() -> None:
    child = subprocess.Popen(["sleep", "0.05"])
    trace.calls(script("sleep 0.2"), ENVIRONMENT, b"")
    assert child.wait() == 0
