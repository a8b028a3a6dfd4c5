# SPDX-License-Identifier: Apache-2.0
"""Files: complete or not at all, locks that are waited for with a bound."""

from __future__ import annotations

import errno
import os
import pathlib
import posix
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from libcni import fs, interrupt
from libcni.types.errors import CniError

#: Takes the lock argv[1], says so, and holds it until stdin ends.
HOLDER = (
    "import fcntl, sys\n"
    "file = open(sys.argv[1], 'a')\n"
    "fcntl.flock(file, fcntl.LOCK_EX)\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def hold(path: pathlib.Path) -> subprocess.Popen[bytes]:
    """Another process that holds the lock; it lets go when its stdin is closed."""
    command = [sys.executable, "-I", "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def let_go(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=10)


# ---- whole files


def test_the_clock_of_files_tells_before_from_after(tmp_path: pathlib.Path) -> None:
    """What is there before a tick of it is older, what is made after is not: not once."""
    for number in range(50):
        before, after = tmp_path / f"before{number}", tmp_path / f"after{number}"
        before.touch()
        begun = fs.file_clock()
        while (since := fs.file_clock()) == begun:
            pass
        after.touch()
        assert before.stat().st_mtime < since <= after.stat().st_mtime
        assert before.stat().st_ctime < since <= after.stat().st_ctime


def test_write_atomic_makes_and_replaces(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    fs.write_atomic(str(path), b"one")
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    fs.write_atomic(str(path), b"t" * 300_000, 0o640)
    assert fs.read_file(str(path)) == b"t" * 300_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_of_a_new_file_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its system calls: the file is absent or whole, and there is no other."""
    whole = set()
    for step, name in enumerate(("write", "fsync", "link", "close")):
        path = tmp_path / str(step) / "file"
        path.parent.mkdir()
        child = os.fork()
        if child == 0:
            monkeypatch.setattr(posix, name, lambda *_, **__: os.kill(os.getpid(), 9))
            fs.write_atomic(str(path), b"content")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        left = list(path.parent.iterdir())
        assert left in ([], [path])
        whole.add(path.exists() and path.read_bytes())
    assert whole == {False, b"content"}


def test_without_files_without_a_name_it_is_written_beside(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS and old overlayfs have no O_TMPFILE."""
    real = posix.open

    def refuse(path: Any, flags: int, *more: Any, **keys: Any) -> int:
        if flags & posix.O_TMPFILE == posix.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "refused")
        return real(path, flags, *more, **keys)

    monkeypatch.setattr(posix, "open", refuse)
    fs.write_atomic(str(tmp_path / "file"), b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_readers_see_the_old_file_or_the_new_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    fs.write_atomic(str(path), b"old")
    with path.open("rb") as reader:
        fs.write_atomic(str(path), b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("naming", ["link", "rename"])
def test_the_data_is_synced_before_it_gets_its_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, naming: str
) -> None:
    """Whether the name is a new one (link) or there is an old file (rename)."""
    if naming == "rename":
        (tmp_path / "file").touch()
    order: list[str] = []
    for name in ("write", "fsync", "rename", "link"):
        real = getattr(posix, name)

        def recorded(*arguments: Any, name: str = name, real: Any = real, **keywords: Any) -> Any:
            result = real(*arguments, **keywords)
            order.append(name)
            return result

        monkeypatch.setattr(posix, name, recorded)
    fs.write_atomic(str(tmp_path / "file"), b"data")
    assert order == ["write", "fsync", naming]
    assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize("step", ["write", "fsync", "rename", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(posix, step, failing(number))
        with pytest.raises(OSError) as caught:
            fs.write_atomic(str(path), b"new")
    assert caught.value.errno == number
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path], "a temporary file stayed"
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_disk_that_fills_half_way(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel writes what fits, and only the next write fails."""
    real, room = posix.write, [5]

    def write(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "full")
        taken = real(fd, data[: room[0]])
        room[0] -= taken
        return taken

    with monkeypatch.context() as patched:
        patched.setattr(posix, "write", write)
        with pytest.raises(OSError, match="full"):
            fs.write_atomic(str(tmp_path / "file"), b"more than five")
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_device() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError) as caught:
            fs.write_all(fd, b"x")
    finally:
        os.close(fd)
    assert caught.value.errno == errno.ENOSPC
    error = fs.io_error(caught.value, "write", "/dev/full")
    assert (error.code, error.msg) == (5, "cannot write /dev/full: No space left on device")


def test_a_planted_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    """Whoever may write to the directory must not lead us to write somewhere else."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "file").touch()
    (tmp_path / f"file.{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(OSError):
        fs.write_atomic(str(tmp_path / "file"), b"data")
    assert victim.read_bytes() == b"precious"


def test_write_all_does_not_stop_at_a_short_write() -> None:
    source, target = os.pipe()
    os.set_blocking(source, False)
    data = os.urandom(300_000)
    pid = os.fork()
    if not pid:
        os.close(source)
        fs.write_all(target, data)
        os._exit(0)
    os.close(target)
    os.set_blocking(source, True)
    assert fs.read_fd(source) == data
    os.close(source)
    assert os.waitpid(pid, 0)[1] == 0


def test_read_fd_stops_at_its_limit(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)
    with path.open("rb", buffering=0) as file:
        assert len(fs.read_fd(file.fileno(), 70_000)) == 70_000
        assert len(fs.read_fd(file.fileno())) == 130_000


def test_remove_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert fs.remove_file(str(path)) is True
    assert fs.remove_file(str(path)) is False
    with pytest.raises(OSError):
        fs.remove_file(str(tmp_path))


# ---- directories


def test_ensure_directory_makes_parents_and_is_idempotent(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a/b/c"
    for text in (str(path), f"{path}/", f"{tmp_path}//a/b//c//d"):
        fs.ensure_directory(text)
        fs.ensure_directory(text)
        assert os.path.isdir(text)


@pytest.mark.parametrize("below", ["", "/sub", "/sub/sub"])
def test_ensure_directory_says_when_a_file_is_in_the_way(
    tmp_path: pathlib.Path, below: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        fs.ensure_directory(f"{tmp_path}/file{below}")
    assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)


def test_ensure_directory_follows_links(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    fs.ensure_directory(f"{tmp_path}/link")
    fs.ensure_directory(f"{tmp_path}/link/made")
    assert (tmp_path / "made").is_dir()


def test_ensure_directory_of_nothing() -> None:
    with pytest.raises(OSError):
        fs.ensure_directory("")


# ---- locks


def test_lock_excludes_and_names_its_path(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock"
    holder = hold(path)
    try:
        began = time.monotonic()
        with pytest.raises(CniError) as caught, fs.Lock(str(path), timeout=0.3):
            pytest.fail("the lock was taken twice")
        assert 0.25 < time.monotonic() - began < 3
    finally:
        let_go(holder)
    assert caught.value.code == 11
    assert str(path) in caught.value.msg
    assert "0.3 s" in caught.value.details
    with fs.Lock(str(path), timeout=0):
        pass


def test_lock_excludes_within_a_process_too(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lock")
    with fs.Lock(path), pytest.raises(CniError, match="held"), fs.Lock(path, timeout=0.05):
        pytest.fail("the lock was taken twice")
    with fs.Lock(path, timeout=0.05):
        pass


def test_lock_is_taken_as_soon_as_it_is_free(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock"
    holder = hold(path)
    assert holder.stdin is not None
    pid = os.fork()
    if not pid:
        time.sleep(0.3)
        os.kill(holder.pid, signal.SIGKILL)
        os._exit(0)
    began = time.monotonic()
    with fs.Lock(str(path), timeout=10):
        waited = time.monotonic() - began
    os.waitpid(pid, 0)
    holder.communicate(timeout=10)
    assert 0.2 < waited < 3


def test_lock_is_released_by_failure_and_leaves_no_descriptor(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lock")
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ZeroDivisionError), fs.Lock(path):
        raise ZeroDivisionError
    with fs.Lock(path, timeout=0), pytest.raises(CniError), fs.Lock(path, timeout=0):
        pass
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert os.path.exists(path), "removing it would part its holders"


def test_lock_is_not_inherited_by_what_is_started(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lock")
    with fs.Lock(path):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with fs.Lock(path, timeout=0):
            pass
    finally:
        child.kill()
        child.wait()


def test_lock_that_cannot_be_opened(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "absent/lock")
    with pytest.raises(CniError) as caught, fs.Lock(path):
        pass
    assert caught.value.code == 5
    assert caught.value.msg == f"cannot open lock {path}: No such file or directory"


def test_waiting_for_a_lock_ends_with_a_signal(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    holder = hold(path)
    try:
        monkeypatch.setattr(interrupt, "_pending", signal.SIGTERM)
        with pytest.raises(CniError, match="interrupted by signal 15"), fs.Lock(str(path)):
            pass
    finally:
        let_go(holder)
