# SPDX-License-Identifier: Apache-2.0
"""What CNI_NETNS may lead to instead of the container."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest

from tests.faults.configs import BRIDGE, network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner

KINDS = {
    "file": 4,
    "directory": 4,
    "fifo": 4,
    "socket": 4,
    "device": 4,
    "gone": 4,
    "dangling link": 4,
    "link to a file": 4,
    "file in a file": 4,
    "another kind of namespace": 4,
    "link loop": 4,
    "our own": 8,
    "link to our own": 8,
    "our own, bound": 8,
}
#: Of these DEL may complain, if it touches nothing; of the others it must not.
NOT_GONE = {"our own", "link to our own", "our own, bound"}


def make(kind: str, at: pathlib.Path, host: Host) -> str:
    """Something at `at` that is not the container's namespace; its path."""
    if kind in ("file", "link to a file", "file in a file"):
        at.write_text("")
    if kind == "file in a file":
        return f"{at}/x"
    if kind == "directory":
        at.mkdir()
    elif kind == "fifo":
        os.mkfifo(at)
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(at))
    elif kind == "device":
        return "/dev/zero"
    elif kind == "dangling link":
        at.symlink_to(at.with_name("nothing"))
    elif kind == "link loop":
        at.symlink_to(at)
    elif kind == "another kind of namespace":
        return f"/proc/{os.getpid()}/ns/mnt"
    elif kind == "our own":
        return f"/proc/{os.getpid()}/ns/net"
    elif kind == "our own, bound":
        at.write_text("")
        host.run("mount", "--bind", f"/proc/{os.getpid()}/ns/net", str(at))
    elif kind in ("link to a file", "link to our own"):
        link = at.with_name("link")
        link.symlink_to(at if kind == "link to a file" else f"/proc/{os.getpid()}/ns/net")
        return str(link)
    return str(at)


@pytest.mark.parametrize("plugin", ["bridge", "loopback"])
@pytest.mark.parametrize(("kind", "code"), KINDS.items(), ids=KINDS.keys())
def test_add_and_check_refuse(
    host: Host, run_plugin: Runner, tmp_path: pathlib.Path, plugin: str, kind: str, code: int
) -> None:
    path = make(kind, tmp_path / "ns", host)
    try:
        before = host.snapshot()
        config = network(type=plugin)
        run_plugin(plugin, "ADD", config, netns=path, timeout=20).failed(code, "CNI_NETNS", path)
        host.assert_unchanged(before)
        run_plugin(plugin, "CHECK", config, netns=path, timeout=20).failed(code, "CNI_NETNS", path)
        host.assert_unchanged(before)
    finally:
        if kind == "our own, bound":
            host.run("umount", path)


@pytest.mark.parametrize("plugin", ["bridge", "loopback"])
@pytest.mark.parametrize("kind", KINDS)
def test_delete_touches_nothing_else_and_passes(
    host: Host, run_plugin: Runner, tmp_path: pathlib.Path, plugin: str, kind: str
) -> None:
    # A host interface of the container's name: it must survive in any case.
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0peer")
    path = make(kind, tmp_path / "ns", host)
    try:
        before = host.snapshot()
        answer = run_plugin(plugin, "DEL", network(type=plugin), netns=path, timeout=20)
        if kind in NOT_GONE and answer.rc:
            answer.failed(8, "CNI_NETNS")
        else:
            answer.succeeded()
        host.assert_undone(before)
    finally:
        if kind == "our own, bound":
            host.run("umount", path)


@pytest.mark.parametrize("kind", ["empty", "unset", "gone", "file", "our own"])
def test_delete_releases_everything_without_the_namespace(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, tmp_path: pathlib.Path, kind: str
) -> None:
    container = netns()
    before = host.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).result()
    if kind in ("empty", "unset"):
        value = "" if kind == "empty" else None
        run_plugin("bridge", "DEL", network(), CNI_NETNS=value).succeeded()
    elif kind == "our own":
        path = make(kind, tmp_path / "ns", host)
        run_plugin("bridge", "DEL", network(), netns=path)
        run_plugin("bridge", "DEL", network(), netns=container).succeeded()
    else:
        container.delete()
        path = make(kind, tmp_path / "ns", host)
        run_plugin("bridge", "DEL", network(), netns=path).succeeded()
    host.assert_clean(before, BRIDGE)


def test_link_to_the_namespace_is_followed(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, tmp_path: pathlib.Path
) -> None:
    container = netns()
    link = tmp_path / "link"
    link.symlink_to(container.path)
    before = host.snapshot()
    run_plugin("bridge", "ADD", network(), netns=str(link)).result()
    assert "eth0" in container.link_names()
    run_plugin("bridge", "DEL", network(), netns=str(link)).succeeded()
    assert "eth0" not in container.link_names()
    host.assert_clean(before, BRIDGE)


def test_own_namespace_where_it_is_meant(host: Host, run_plugin: Runner) -> None:
    path = f"/proc/{os.getpid()}/ns/net"
    config = network(type="loopback")
    run_plugin("loopback", "ADD", config, netns=path, CNI_NETNS_OVERRIDE="1").result()
    host.expect_leftovers("the end of the attachment sets the host's own lo down")
