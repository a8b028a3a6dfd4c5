# SPDX-License-Identifier: Apache-2.0
"""Opening namespaces: what is none is refused before anything acts on it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import posix
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from libcni import netns as namespaces
from libcni.netns import Namespace, enter, is_gone, open_netns, own
from libcni.types.errors import CniError
from tests.rig.host import Host, Netns

NetnsFactory = Callable[..., Netns]

pytestmark = pytest.mark.root


def refusal(path: str, code: int = 4) -> CniError:
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(CniError) as caught:
        open_netns(path)
    assert caught.value.code == code
    assert repr(path) in str(caught.value)
    assert os.listdir("/proc/self/fd") == descriptors, "a descriptor stayed open"
    return caught.value


@contextlib.contextmanager
def process_in(*prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, started through `prefix`, that does nothing until the end."""
    command = [*prefix, "sh", "-c", "echo ready; exec sleep 60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# ---- what is accepted


def test_a_mounted_namespace(netns: NetnsFactory) -> None:
    path = netns().path
    namespace = open_netns(path)
    status = os.stat(path)
    assert namespace.path == path
    assert namespace.identity == (status.st_dev, status.st_ino) != own()
    assert not os.get_inheritable(namespace.fd)
    fd = namespace.fd
    namespace.close()
    namespace.close()
    assert namespace.fd == -1
    with pytest.raises(OSError):
        os.fstat(fd)


def test_the_namespace_is_held_after_its_name_is_gone(netns: NetnsFactory) -> None:
    container = netns()
    namespace = open_netns(container.path)
    container.delete()
    assert not os.path.exists(container.path)
    assert links_inside(namespace) == {"lo"}
    namespace.close()


@pytest.mark.parametrize("relative", [False, True])
def test_a_symbolic_link(netns: NetnsFactory, tmp_path: pathlib.Path, relative: bool) -> None:
    container = netns()
    link = tmp_path / "link"
    link.symlink_to(os.path.relpath(container.path, tmp_path) if relative else container.path)
    namespace = open_netns(str(link))
    assert namespace.identity == open_netns(container.path).identity
    assert namespace.path == str(link)


def test_the_namespace_of_a_process(netns: NetnsFactory) -> None:
    container = netns()
    with process_in("nsenter", f"--net={container.path}", "--") as process:
        namespace = open_netns(f"/proc/{process.pid}/ns/net")
        assert namespace.identity == open_netns(container.path).identity


# ---- what is refused


def test_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    error = refusal(str(path))
    assert "not a network namespace" in error.msg
    assert is_gone(error), "the mount point stays behind when only the mount is removed"


def test_a_fifo_does_not_block(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a network namespace" in refusal(str(tmp_path / "fifo")).msg


@pytest.mark.parametrize("path", ["/", "/run/netns", "/dev/null", "/dev/tty", "/proc/self/ns"])
def test_other_kinds_of_files(host: Host, path: str) -> None:
    assert "not a network namespace" in refusal(path).msg


@pytest.mark.parametrize("kind", ["mnt", "pid", "uts", "ipc", "user", "cgroup"])
def test_namespaces_of_other_kinds(kind: str) -> None:
    with process_in("unshare", "--uts", "--ipc", "--mount", "--") as process:
        error = refusal(f"/proc/{process.pid}/ns/{kind}")
    assert "not a network namespace" in error.msg


def test_a_file_of_proc_that_is_no_namespace() -> None:
    """ioctl on it must be harmless."""
    refusal("/proc/self/stat")
    refusal("/proc/sys/net/ipv4/ip_forward")


@pytest.mark.parametrize("path", ["/proc/self/ns/net", "/proc/thread-self/ns/net"])
def test_our_own_namespace(host: Host, path: str) -> None:
    error = refusal(path, 8)
    assert not is_gone(error)
    assert "CNI_NETNS_OVERRIDE" in error.details
    assert open_netns(path, allow_own=True).identity == own()


def test_our_own_namespace_by_other_names(host: Host, tmp_path: pathlib.Path) -> None:
    """Mounted, through another process, through a descriptor: the identity says it."""
    mounted = tmp_path / "mounted"
    mounted.touch()
    host.run("mount", "--bind", "/proc/thread-self/ns/net", str(mounted))
    try:
        refusal(str(mounted), 8)
        with process_in() as process:
            refusal(f"/proc/{process.pid}/ns/net", 8)
        with open(mounted, "rb") as file:
            assert "should not be the same" in refusal_of_fd(file.fileno())
    finally:
        host.run("umount", str(mounted))


def refusal_of_fd(fd: int) -> str:
    with pytest.raises(CniError) as caught:
        open_netns(f"/proc/self/fd/{fd}")
    assert caught.value.code == 8
    return caught.value.msg


def test_gone_paths(netns: NetnsFactory, tmp_path: pathlib.Path) -> None:
    container = netns()
    container.delete()
    with process_in() as process:
        pass
    (tmp_path / "file").touch()
    dangling = tmp_path / "dangling"
    dangling.symlink_to(container.path)
    for path in (
        container.path,
        f"/proc/{process.pid}/ns/net",
        "/proc/1073741824/ns/net",
        f"{tmp_path}/file/below",
        str(dangling),
    ):
        error = refusal(path)
        assert "cannot open" in error.msg
        assert is_gone(error), error


def test_the_namespace_of_a_zombie() -> None:
    """Ended, not yet waited for: /proc/PID is there, its namespace is not."""
    process = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(refusal(f"/proc/{process.pid}/ns/net"))
    finally:
        process.wait()


def test_a_mount_point_whose_mount_is_gone(netns: NetnsFactory, host: Host) -> None:
    container = netns()
    host.run("umount", container.path)
    assert is_gone(refusal(container.path))


@pytest.mark.parametrize("path", ["", "x" * 5000, "a\0b", "/run/netns/" + "x" * 300, "\udc80"])
def test_hostile_paths(path: str) -> None:
    with pytest.raises(CniError) as caught:
        open_netns(path)
    assert caught.value.code == 4
    assert len(str(caught.value)) < 600, "a hostile value must not flood the logs"


def test_a_loop_of_links_is_gone(tmp_path: pathlib.Path) -> None:
    """No namespace can be there, and DEL must not fail for it for ever."""
    (tmp_path / "loop").symlink_to("loop")
    assert is_gone(refusal(str(tmp_path / "loop")))


def test_other_errors_are_not_gone() -> None:
    assert not is_gone(CniError(5, "is not a network namespace"))
    assert not is_gone(CniError(4, "something else"))


# ---- entering


def links_inside(namespace: Namespace) -> set[str]:
    """The links that a thread sees after entering."""
    found: list[set[str]] = []

    def work() -> None:
        enter(namespace)
        assert own() == namespace.identity
        # Not by /sys, which shows the namespace it was mounted in.
        lines = pathlib.Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        found.append({line.split(":")[0].strip() for line in lines})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def test_enter_moves_the_thread_and_no_other(netns: NetnsFactory) -> None:
    container = netns()
    container.run("ip", "link", "add", "inside0", "type", "bridge")
    before = own()
    namespace = open_netns(container.path)
    assert links_inside(namespace) == {"lo", "inside0"}
    assert own() == before
    namespace.close()


def test_enter_stays(netns: NetnsFactory) -> None:
    """In a process of its own, as every plugin is."""
    script = (
        "import sys\n"
        "from libcni.netns import enter, open_netns, own\n"
        "namespace = open_netns(sys.argv[1])\n"
        "before = own()\n"
        "enter(namespace)\n"
        "assert own() == namespace.identity != before\n"
        "try: open_netns(sys.argv[1])\n"
        "except Exception as error: print(error.code)\n"
    )
    command = [sys.executable, "-c", script, netns().path]
    root = pathlib.Path(namespaces.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


def test_enter_what_is_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    namespace = Namespace("/named/path", fd, (0, 0))
    with pytest.raises(CniError, match="cannot enter netns '/named/path': Invalid argument") as e:
        enter(namespace)
    assert e.value.code == 102
    namespace.close()
    with pytest.raises(CniError, match="Bad file descriptor"):
        enter(namespace)


def test_every_way_to_setns_works(netns: NetnsFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library's, through `_ctypes`, reports its errors as OSError."""
    call = namespaces._find_setns()
    with pytest.raises(OSError) as caught:
        call(-1, 0x40000000)
    assert caught.value.errno == 9
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(posix, "setns", lambda *words: calls.append(words), raising=False)
    enter(Namespace("x", 7, (0, 0)))
    assert calls == [(7, 0x40000000)]
