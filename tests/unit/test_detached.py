# SPDX-License-Identifier: Apache-2.0
"""The child that sits out a wait: nothing of the plugin's but what it is to hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import pytest

from libcni import detached
from libcni.netlink.socket import NETLINK_NETFILTER, Socket
from libcni.nftables import closing


def read_to_the_end(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 4096):
        parts.append(part)
    return b"".join(parts)


def in_a_process(work: Callable[[], object]) -> int:
    """Run `work` in a child of the test's; its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_session_of_its_own_in_the_root_directory() -> None:
    """So no signal to the caller's group or terminal reaches it, and it holds no mount."""
    reader, writer = os.pipe()

    def work() -> None:
        mine = os.getpid()
        os.write(writer, f"{mine} {os.getsid(0)} {os.getpgid(0)} {os.getcwd()}".encode())

    assert in_a_process(lambda: detached.detach(work, [writer])) == 0
    os.close(writer)
    process, session, group, directory = read_to_the_end(reader).decode().split()
    os.close(reader)
    assert process == session == group
    assert int(session) != os.getsid(0)
    assert directory == "/"


def test_it_has_the_descriptors_that_it_is_to_keep_and_no_other() -> None:
    reader, writer = os.pipe()
    kept, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)

    def work() -> None:
        os.write(writer, " ".join(os.listdir("/proc/self/fd")).encode())

    assert in_a_process(lambda: detached.detach(work, [kept, -1, writer])) == 0
    for fd in (writer, kept, other):
        os.close(fd)
    # The listing's own is the lowest that is free.
    assert set(map(int, read_to_the_end(reader).split())) == {0, kept, writer}
    os.close(reader)


def test_what_is_slow_to_close_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is open in the child when the plugin has closed its own."""

    def plugin() -> None:
        reader, writer = os.pipe()
        sock = Socket(NETLINK_NETFILTER)
        held = sock.fileno()
        os.dup2(writer, held)  # so that the child can tell whether it has it
        os.close(writer)

        def detach(work: Callable[[], object], keep: Iterable[int]) -> None:
            detached.detach(lambda: (os.write(held, b"held"), work()), keep)

        monkeypatch.setattr(closing, "detach", detach)
        closing.leave(sock)
        assert sock.fileno() < 0
        assert os.read(reader, 4) == b"held"

    assert in_a_process(plugin) == 0
