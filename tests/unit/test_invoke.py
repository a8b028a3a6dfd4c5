# SPDX-License-Identifier: Apache-2.0
"""Finding, starting and reading plugins."""

from __future__ import annotations

import json
import os
import pathlib
import posix
import signal
import stat
import threading
import time

import pytest

from libcni import interrupt
from libcni.invoke import spawn as spawn_module
from libcni.invoke.exec import exec_plugin, result_document
from libcni.invoke.find import find_in_path
from libcni.invoke.spawn import environment, spawn
from libcni.types.errors import CniError

SH = "/bin/sh"


def script(path: pathlib.Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# ---- find


def test_find_takes_the_first_regular_file(tmp_path: pathlib.Path) -> None:
    one, two, three = (tmp_path / name for name in "abc")
    (one / "bridge").mkdir(parents=True)
    for directory in (two, three):
        directory.mkdir()
        (directory / "bridge").write_text("")
    path = ["", str(tmp_path / "absent"), str(one), f"{two}/", str(three)]
    assert find_in_path("bridge", path) == f"{two}/bridge"


def test_find_follows_symbolic_links(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "bridge").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert find_in_path("bridge", [str(tmp_path)]) == f"{tmp_path}/bridge"
    with pytest.raises(CniError, match="failed to find"):
        find_in_path("dangling", [str(tmp_path)])


def test_find_reports_in_the_words_of_the_reference() -> None:
    with pytest.raises(CniError) as caught:
        find_in_path("nope", ["/opt/cni/bin", "/x"])
    assert caught.value.msg == 'failed to find plugin "nope" in path [/opt/cni/bin /x]'
    with pytest.raises(CniError, match="no paths provided"):
        find_in_path("nope", [""])
    with pytest.raises(CniError, match="no plugin name provided"):
        find_in_path("", ["/x"])


@pytest.mark.parametrize("name", ["../sh", "a/b", "/bin/sh", "a\\b", "a\0b", "..", ".", "../"])
def test_find_never_leaves_its_directories(name: str) -> None:
    with pytest.raises(CniError) as caught:
        find_in_path(name, ["/bin", "/usr/bin"])
    assert caught.value.code == 7


# ---- spawn


def test_spawn_passes_input_and_takes_output() -> None:
    data = os.urandom(700_000)
    outcome = spawn(SH, ["-c", "cat; echo said >&2; exit 7"], {}, data)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (7, data, b"said\n")


def test_spawn_copes_with_a_program_that_does_not_read() -> None:
    assert spawn(SH, ["-c", "exit 0"], {}, b"x" * 1_000_000).status == 0


def test_spawn_reports_a_signal() -> None:
    outcome = spawn(SH, ["-c", "kill -9 $$"])
    assert outcome.status == -9
    assert outcome.describe() == "signal: 9"


def test_spawn_with_standard_streams_closed(tmp_path: pathlib.Path) -> None:
    """A daemon may have closed them; the pipes then get their numbers."""
    answer = tmp_path / "answer"
    pid = os.fork()
    if not pid:
        try:
            for fd in (0, 1, 2):
                os.close(fd)
            outcome = spawn(SH, ["-c", "cat; echo e >&2"], {}, b"in")
            answer.write_bytes(outcome.stdout + outcome.stderr)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert answer.read_bytes() == b"ine\n"


def test_spawn_ends_the_whole_group_at_the_time_out(tmp_path: pathlib.Path) -> None:
    pids = tmp_path / "pids"
    before = time.monotonic()
    with pytest.raises(CniError, match=r"did not finish within 0.3 s.*thinking") as caught:
        spawn(SH, ["-c", f"sleep 60 & echo $! >{pids}; echo thinking >&2; wait"], timeout=0.3)
    assert caught.value.code == 104
    assert time.monotonic() - before < 5
    assert _is_gone(int(pids.read_text()))


def test_spawn_kills_what_ignores_being_asked(tmp_path: pathlib.Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CniError, match="did not finish"):
        spawn(SH, ["-c", f"trap '' TERM; echo $$ >{pids}; while :; do sleep 1; done"], timeout=0.3)
    assert _is_gone(int(pids.read_text()))


def _is_gone(pid: int) -> bool:
    for _ in range(200):
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_spawn_does_not_wait_for_a_detached_child() -> None:
    before = time.monotonic()
    outcome = spawn(SH, ["-c", "sleep 20 & echo done"], timeout=15)
    assert outcome.stdout == b"done\n"
    assert time.monotonic() - before < 5


def test_spawn_leaves_no_descriptor_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    spawn(SH, ["-c", "true"], {}, b"x")
    with pytest.raises(CniError):
        spawn("/nonexistent")
    with pytest.raises(CniError):
        spawn(SH, ["-c", "sleep 9"], timeout=0.05)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_spawn_inherits_no_descriptor_of_ours(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "held").open("w"):
        outcome = spawn("/bin/ls", ["-l", "/proc/self/fd"])
    assert b"held" not in outcome.stdout
    assert outcome.stdout.count(b"pipe:") >= 3


def test_spawn_bounds_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn_module, "STDOUT_LIMIT", 100_000)
    with pytest.raises(CniError, match="more than 100000 bytes"):
        spawn(SH, ["-c", "yes"])
    monkeypatch.setattr(spawn_module, "STDERR_LIMIT", 10)
    assert spawn(SH, ["-c", "echo 0123456789012345 >&2"]).stderr == b"0123456789"


@pytest.mark.parametrize(
    ("content", "mode", "cause"),
    [(None, 0, "No such file"), ("#!/bin/sh\n", 0o644, "Permission denied"),
     ("not a program", 0o755, "Exec format error")],
)  # fmt: skip
def test_spawn_names_what_cannot_be_executed(
    tmp_path: pathlib.Path, content: str | None, mode: int, cause: str
) -> None:
    program = tmp_path / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    with pytest.raises(CniError, match=f"cannot execute {program}: {cause}"):
        spawn(str(program))


def test_spawn_refuses_a_null_byte() -> None:
    with pytest.raises(CniError, match="null"):
        spawn(SH, ["-c", "true"], {"CNI_ARGS": "a\0b"})


def test_spawn_waits_while_the_file_is_being_written(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(pathlib.Path("/bin/true").read_bytes())
    program.chmod(0o755)
    writer = os.open(program, os.O_WRONLY)
    threading.Timer(0.3, os.close, [writer]).start()
    assert spawn(str(program)).status == 0


def test_spawn_gives_up_on_a_file_that_stays_busy(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn_module, "_BUSY_PAUSES", (0.01, 0.01))
    program = tmp_path / "program"
    program.write_bytes(pathlib.Path("/bin/true").read_bytes())
    program.chmod(0o755)
    writer = os.open(program, os.O_WRONLY)
    try:
        with pytest.raises(CniError, match="Text file busy"):
            spawn(str(program))
    finally:
        os.close(writer)


def test_a_signal_ends_the_wait_and_the_child(tmp_path: pathlib.Path) -> None:
    pids = tmp_path / "pids"
    interrupt.install()
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with pytest.raises(CniError) as caught:
        spawn(SH, ["-c", f"echo $$ >{pids}; exec sleep 60"])
    assert caught.value.code == 11
    assert _is_gone(int(pids.read_text()))


def test_a_signal_as_stdin_is_closed_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all moments the one after a descriptor was closed and before that was noted."""
    real = posix.close
    struck: list[int] = []

    def close_and_strike(fd: int) -> None:
        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        real(fd)
        if is_pipe and interrupt._waiting and not struck:
            struck.append(fd)
            os.kill(os.getpid(), signal.SIGTERM)

    interrupt.install()
    monkeypatch.setattr(posix, "close", close_and_strike)
    with pytest.raises(CniError, match="interrupted by signal"):
        spawn(SH, ["-c", "exec sleep 60"])
    assert struck


def test_children_do_not_inherit_ignored_signals() -> None:
    old = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        outcome = spawn(SH, ["-c", "grep SigIgn /proc/self/status"])
    finally:
        signal.signal(signal.SIGPIPE, old)
    assert not int(outcome.stdout.split()[1], 16) & (1 << (signal.SIGPIPE - 1))


def test_children_do_not_inherit_blocked_signals() -> None:
    """Or nothing but SIGKILL would end one whose time is up, with nothing undone."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        # Not by a shell, which may unblock them.
        outcome = spawn("/usr/bin/grep", ["SigBlk", "/proc/self/status"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    assert int(outcome.stdout.split()[1], 16) == 0


def test_ignored_children_still_report_their_failure() -> None:
    """A caller that ignores SIGCHLD hands that down; a failure must not become success."""
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert spawn(SH, ["-c", "exit 3"]).status == 3
    finally:
        signal.signal(signal.SIGCHLD, old)


# ---- environment


def test_environment_loses_what_the_launcher_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PYI_ARCHIVE_FILE", "x")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/bundle")
    monkeypatch.setenv("KEPT", "1")
    clean = environment({"CNI_COMMAND": "ADD"})
    assert b"_PYI_ARCHIVE_FILE" not in clean and b"LD_LIBRARY_PATH" not in clean
    assert clean[b"KEPT"] == b"1" and clean[b"CNI_COMMAND"] == b"ADD"


def test_environment_restores_the_library_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/bundle:/mine")
    monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/mine")
    clean = environment()
    assert clean[b"LD_LIBRARY_PATH"] == b"/mine"
    assert b"LD_LIBRARY_PATH_ORIG" not in clean


def test_environment_keeps_the_operators_library_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH_ORIG", raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    assert environment()[b"LD_LIBRARY_PATH"] == b"/mine"


def test_each_variable_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNI_COMMAND", "DEL")
    outcome = spawn("/usr/bin/env", [], {"CNI_COMMAND": "ADD"})
    lines = [line for line in outcome.stdout.splitlines() if line.startswith(b"CNI_COMMAND")]
    assert lines == [b"CNI_COMMAND=ADD"]


# ---- exec


def test_exec_returns_stdout_and_forwards_stderr(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin = script(tmp_path / "p", 'echo log >&2; printf "%s " "$CNI_COMMAND"; cat')
    assert exec_plugin(plugin, {"CNI_COMMAND": "ADD"}, b"{}") == b"ADD {}"
    assert capfd.readouterr().err == "log\n"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("""echo '{"code":11,"msg":"busy","details":"d"}'; exit 1""", 11, "busy; d"),
        ("""echo '{"Code":7,"MSG":"x"}'; exit 3""", 7, "x"),
        ("""echo '{"msg":"only"}'; exit 1""", 0, "only"),
        ("exit 5", 104, "netplugin failed with no error message: exit status 5"),
        ("kill -9 $$", 104, "netplugin failed with no error message: signal: 9"),
        ("echo broken >&2; exit 1", 104, "netplugin failed: 'broken': exit status 1"),
        ("echo oops; exit 1", 104, r"error parsing its diagnostic message 'oops\\n'"),
        ("echo '{}'; exit 1", 104, "error parsing its diagnostic message"),
        ("echo '[1]'; exit 1", 104, "error parsing its diagnostic message"),
        ("""echo '{"code":"7","msg":"x"}'; exit 1""", 104, "not an error object"),
        ("""printf '\\377'; exit 1""", 104, "not UTF-8"),
        ("yes abcdefg | head -c 5000; exit 1", 104, r"… \(5000 bytes\)"),
    ],
)
def test_exec_maps_failures(tmp_path: pathlib.Path, text: str, code: int, message: str) -> None:
    with pytest.raises(CniError, match=message) as caught:
        exec_plugin(script(tmp_path / "p", text), {}, b"")
    assert caught.value.code == code
    assert len(str(caught.value)) < 600


def test_result_document() -> None:
    assert result_document("/p", b"null") == {}
    assert result_document("/p", json.dumps({"a": 1}).encode()) == {"a": 1}
    for output in (b"", b"garbage" * 100, b"[1]"):
        with pytest.raises(CniError, match="result of /p") as caught:
            result_document("/p", output)
        assert caught.value.code == 6
        assert len(caught.value.msg) < 300
