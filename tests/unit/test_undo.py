# SPDX-License-Identifier: Apache-2.0
"""The undo stack, and when a signal is noticed."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest

from libcni import interrupt
from libcni.attachment import Attachment
from libcni.skel import main
from libcni.skel.plugin import VERB_MODULES, Plugin
from libcni.skel.request import Request
from libcni.skel.undo import Undo
from libcni.types.errors import CniError
from libcni.types.result import Result

ROOT = pathlib.Path(__file__).resolve().parents[2]


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def test_runs_in_reverse_order_once() -> None:
    undo, done = Undo(), list[int]()
    for step in range(5):
        undo.push(done.append, step)
    undo.run()
    assert done == [4, 3, 2, 1, 0]
    undo.run()
    assert len(done) == 5


def test_commit_forgets() -> None:
    undo, done = Undo(), list[int]()
    undo.push(done.append, 1)
    undo.commit()
    undo.run()
    assert done == []


@pytest.mark.parametrize("error", [OSError(5, "gone"), CniError(102, "no\udc80"), KeyError("x")])
def test_continues_after_a_failure(
    error: Exception, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def fail() -> None:
        raise error

    undo, done = Undo(), list[int]()
    undo.push(done.append, 1)
    undo.push(fail)
    undo.push(done.append, 2)
    undo.push(fail)
    undo.run()
    assert done == [2, 1]
    stdout, stderr = capfdbinary.readouterr()
    assert stdout == b""
    assert stderr.count(b"undo: ") == 2


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2</dev/null", "2>&1 | true"])
def test_continues_when_stderr_takes_nothing(redirection: str, tmp_path: pathlib.Path) -> None:
    script = (
        "import pathlib, posix, sys, time\n"
        "from libcni.skel.undo import Undo\n"
        "undo = Undo()\n"
        "undo.push(pathlib.Path(sys.argv[1]).touch)\n"
        "undo.push(posix.rmdir, '/nonexistent')\n"
        "time.sleep(0.1)\n"
        "undo.run()\n"
    )
    marker = tmp_path / "undone"
    command = ["bash", "-c", f'"$0" -c "$1" "$2" {redirection}', sys.executable, script]
    subprocess.run([*command, str(marker)], cwd=ROOT, timeout=30, check=False)
    assert marker.exists()


def test_inverses_pushed_while_undoing_run_too() -> None:
    undo, done = Undo(), list[int]()
    undo.push(done.append, 1)
    undo.push(undo.push, done.append, 2)
    undo.run()
    assert done == [2, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noticed_at_the_next_push_only(number: int) -> None:
    interrupt.install()
    undo, done = Undo(), list[str]()
    undo.push(done.append, "before")
    send(number)
    done.append("the effect after the signal is completed")
    with pytest.raises(CniError, match=f"interrupted by signal {int(number)}") as caught:
        undo.push(done.append, "never registered")
    assert caught.value.code == 11
    undo.run()
    assert done == ["the effect after the signal is completed", "before"]


def test_nothing_interrupts_the_undoing() -> None:
    interrupt.install()
    undo, done = Undo(), list[int]()
    for step in range(3):
        undo.push(done.append, step)
        undo.push(send)
    send()
    undo.run()
    assert done == [2, 1, 0]
    undo.push(done.append, 9)


def test_the_undoing_of_a_delegate_leaves_signals_noticed() -> None:
    interrupt.install()
    undo, done = Undo(), list[int]()
    undo.push(done.append, 1)
    undo.push(send)
    undo.run_nested()
    assert done == [1]
    with pytest.raises(CniError, match="signal 15"):
        interrupt.checkpoint()


def test_a_signal_ends_a_wait_at_once() -> None:
    interrupt.install()
    signal.setitimer(signal.ITIMER_REAL, 0)
    pid = os.fork()
    if not pid:
        time.sleep(0.2)
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(0)
    began = time.monotonic()
    with pytest.raises(CniError, match="signal 15"), interrupt.waiting():
        time.sleep(30)
    assert time.monotonic() - began < 5
    os.waitpid(pid, 0)
    assert interrupt._waiting == 0


def test_a_signal_that_came_before_ends_a_wait_before_it_begins() -> None:
    interrupt.install()
    send()
    with pytest.raises(CniError, match="signal 15"), interrupt.waiting():
        pytest.fail("waited")
    assert interrupt._waiting == 0


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_a_signal_at_the_very_end_fails_what_can_be_undone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """A DEL that has done everything has succeeded."""
    undone: list[str] = []

    def verb(request: Request) -> Result | None:
        request.undo.push(undone.append, command)
        send()
        return Result() if command == "ADD" else None

    name = VERB_MODULES[command]
    package, module = types.ModuleType("cni_last"), types.ModuleType(f"cni_last.{name}")
    package.__path__ = []
    setattr(module, name, verb)
    for each in (package, module):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    attachment = Attachment("podnet", "0a1b", "eth0")
    request = Request(command, "last", {}, "1.1.0", attachment)
    status = main._perform(Plugin("last", (name,), enters_netns=False), request)
    output = capfd.readouterr().out
    if command == "ADD":
        assert status == 1 and undone == ["ADD"]
        assert json.loads(output)["code"] == 11
    else:
        assert (status, output, undone) == (0, "", [])


def test_waits_nest() -> None:
    interrupt.install()
    with interrupt.waiting():
        with interrupt.waiting():
            pass
        with pytest.raises(CniError, match="signal 15"):
            send()
    assert interrupt._waiting == 0


def test_a_signal_outside_of_a_wait_waits() -> None:
    interrupt.install()
    with interrupt.waiting():
        pass
    send()
    with pytest.raises(CniError):
        interrupt.checkpoint()
