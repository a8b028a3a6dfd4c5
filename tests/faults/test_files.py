# SPDX-License-Identifier: Apache-2.0
"""File systems that are full or read-only, and locks that others hold."""

from __future__ import annotations

import fcntl
import os
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.configs import BRIDGE, NETWORK, network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner

DATA = pathlib.Path("/var/lib/cni/networks")


@pytest.fixture
def small(host: Host) -> Iterator[pathlib.Path]:
    """A file system of 16 blocks for host-local's state, with the network's directory in it."""
    DATA.mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(DATA))
    (DATA / NETWORK).mkdir()
    yield DATA
    host.run("umount", "-l", str(DATA))


def fill(directory: pathlib.Path) -> None:
    """Use up the last byte."""
    with (directory / "filler").open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(b"x" * 1024)
            except OSError:
                return


def test_full_file_system(
    host: Host, small: pathlib.Path, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    # Files of the first use exist, so that what fails is the reservation.
    run_plugin("bridge", "ADD", network(), netns=container, container_id="first").result()
    run_plugin("bridge", "DEL", network(), netns=container, container_id="first").succeeded()
    fill(small)
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).failed(5, str(DATA / NETWORK))
    host.assert_undone(before)
    assert inside.difference(container.snapshot()) == []
    (small / "filler").unlink()
    run_plugin("bridge", "ADD", network(), netns=container).result()


def test_full_file_system_at_first_use(
    host: Host, small: pathlib.Path, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    fill(small)
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).failed(5, str(DATA / NETWORK))
    host.assert_undone(before)
    assert inside.difference(container.snapshot()) == []


def test_delete_on_a_full_file_system(
    host: Host, small: pathlib.Path, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    run_plugin("bridge", "ADD", network(), netns=container).result()
    fill(small)
    run_plugin("bridge", "DEL", network(), netns=container).succeeded()
    assert container.link_names() == {"lo"}
    assert list((small / NETWORK).glob("10.*")) == []


def test_read_only_file_system(
    host: Host, small: pathlib.Path, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    host.run("mount", "-o", "remount,ro", str(small))
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).failed(5, str(DATA / NETWORK))
    host.assert_undone(before)
    assert inside.difference(container.snapshot()) == []


def test_delete_on_a_read_only_file_system_removes_what_it_can(
    host: Host, small: pathlib.Path, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    before = host.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).result()
    host.run("mount", "-o", "remount,ro", str(small))
    run_plugin("bridge", "DEL", network(), netns=container).failed(5, str(DATA / NETWORK))
    assert container.link_names() == {"lo"}
    host.run("mount", "-o", "remount,rw", str(small))
    run_plugin("bridge", "DEL", network(), netns=container).succeeded()
    host.assert_clean(before, BRIDGE)


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_lock_is_held(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, command: str
) -> None:
    container = netns()
    run_plugin("bridge", "ADD", network(), netns=container, container_id="first").result()
    second = netns()
    lock = DATA / NETWORK / "lock"
    fd = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        before = host.snapshot()
        began = time.monotonic()
        answer = run_plugin(
            "bridge",
            command,
            network(),
            netns=second if command == "ADD" else container,
            container_id="second" if command == "ADD" else "first",
        )
        answer.failed(11, str(lock))
        assert time.monotonic() - began < 30
        if command == "ADD":
            host.assert_undone(before)
            assert second.link_names() == {"lo"}
    finally:
        os.close(fd)
    run_plugin("bridge", "DEL", network(), netns=container, container_id="first").succeeded()
    assert list((DATA / NETWORK).glob("10.*")) == []


def test_lock_is_released_in_time(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    run_plugin("bridge", "ADD", network(), netns=netns(), container_id="first").result()
    fd = os.open(DATA / NETWORK / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    child = os.fork()
    if child == 0:
        time.sleep(0.5)
        os._exit(0)
    os.close(fd)
    run_plugin("bridge", "ADD", network(), netns=netns(), container_id="second").result()
    os.waitpid(child, 0)
