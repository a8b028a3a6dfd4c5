# SPDX-License-Identifier: Apache-2.0
"""The recording plugin as a process: what it notes, how it answers, what overlaps."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess

import pytest
from cni_conformance.runtime.recorder import Answer, Recorder, failure

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "CNI_COMMAND": "ADD",
    "CNI_ARGS": 'A="ü";B=\n',
    "CNI_NETNS": "",
}


@pytest.fixture
def recorder(tmp_path: pathlib.Path) -> Recorder:
    made = Recorder(tmp_path / "bin", tmp_path / "it's the record")
    made.install(["first", "second"])
    return made


def start(recorder: Recorder, plugin: str, stdin: str = "{}", **env: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [recorder.plugins / plugin],
        env=ENVIRONMENT | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    return process


def test_a_call_is_noted_whole(recorder: Recorder, tmp_path: pathlib.Path) -> None:
    stdin = '{"name": "nétz", "prevResult": {"a": "\'quoted\'\\n"}}'
    process = start(recorder, "first", stdin, CNI_NETNS=str(tmp_path))
    assert process.communicate() == ("", "")
    (call,) = recorder.calls()
    assert (call.plugin, call.verb, call.name) == ("first", "ADD", "first ADD")
    assert call.pid == process.pid
    assert call.environment["CNI_ARGS"] == ENVIRONMENT["CNI_ARGS"]
    assert call.stdin == {"name": "nétz", "prevResult": {"a": "'quoted'\n"}}
    assert call.sandbox and call.end is not None
    recorder.reset()
    assert recorder.calls() == []


def test_what_is_no_json_is_kept_as_text(recorder: Recorder) -> None:
    start(recorder, "first", "no { JSON").communicate()
    (call,) = recorder.calls()
    assert call.stdin == "no { JSON"
    assert not call.sandbox


def test_answers(recorder: Recorder) -> None:
    recorder.answer("first ADD", Answer({"a": "it's $HOME `x`"}, "a\nwarning", 0))
    recorder.answer("second ADD", failure(7, "100% wrong", "1.1.0"))
    first, second = start(recorder, "first"), start(recorder, "second")
    assert first.communicate() == ('{"a": "it\'s $HOME `x`"}', "a\nwarning")
    assert '"msg": "100% wrong"' in second.communicate()[0]
    assert (first.returncode, second.returncode) == (0, 1)
    check = start(recorder, "second", CNI_COMMAND="CHECK")
    assert check.communicate() == ("", "") and check.returncode == 0
    recorder.relent()
    assert start(recorder, "second").communicate() == ("", "")


def test_overlap_shows_in_the_order_of_the_log(recorder: Recorder) -> None:
    recorder.answer("first ADD", Answer(seconds=0.5))
    slow = start(recorder, "first")
    while not recorder.calls():
        pass
    start(recorder, "second").communicate()
    slow.communicate()
    start(recorder, "second").communicate()
    one, other, later = recorder.calls()
    assert one.end and other.end and one.begin < other.begin < other.end < one.end < later.begin


def test_a_killed_call_has_no_end(recorder: Recorder) -> None:
    recorder.answer("first ADD", Answer(seconds=60))
    process = start(recorder, "first")
    while not recorder.calls():
        pass
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert recorder.calls()[0].end is None
