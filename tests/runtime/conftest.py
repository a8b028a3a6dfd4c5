# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests with real runtimes, which are never skipped: unable to run is a failure."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.rig.containerd import Containerd
from tests.rig.host import Host, Netns
from tests.rig.podman import Podman

StartContainerd = Callable[..., Containerd]
StartPodman = Callable[..., Podman]

#: The host's addresses on the link to the world, and the world's.
HOST, HOST6 = "10.8.0.1", "fd00:8::1"
WORLD, WORLD6 = "10.8.0.2", "fd00:8::2"


@pytest.fixture(params=["ours", "go"])
def plugin_dir(
    request: pytest.FixtureRequest, bin_dir: pathlib.Path, go_bin_dir: pathlib.Path
) -> pathlib.Path:
    """Our plugins; and Go's, which shows that a failure is ours and not the rig's."""
    return bin_dir if request.param == "ours" else go_bin_dir


@pytest.fixture
def start_containerd(host: Host, plugin_dir: pathlib.Path) -> Iterator[StartContainerd]:
    """start_containerd(network configuration list) -> Containerd, ended after the test.

    bin_dir: other plugins than `plugin_dir`.
    """
    assert os.geteuid() == 0, "tests with a real runtime need root"
    started: list[Containerd] = []

    def start(network: Mapping[str, Any], bin_dir: pathlib.Path | None = None) -> Containerd:
        # Not below tmp_path: the paths of sockets may have 104 characters.
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="containerd-", dir="/run"))
        made = Containerd(scratch, bin_dir or plugin_dir, network)
        started.append(made)
        host.share(*[plugin["bridge"] for plugin in network["plugins"] if "bridge" in plugin])
        return made

    yield start
    for daemon in started:
        daemon.close()
    host.keep_files("/run/")  # the runtime's own state, for the comparison at the end


@pytest.fixture
def start_podman(host: Host, bin_dir: pathlib.Path) -> Iterator[StartPodman]:
    """start_podman(directory of plugins=ours) -> Podman, without any network but its default."""
    assert os.geteuid() == 0, "tests with a real runtime need root"
    started: list[Podman] = []

    def start(directory: pathlib.Path = bin_dir) -> Podman:
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="podman-", dir="/run"))
        started.append(Podman(scratch, directory))
        return started[-1]

    yield start
    for installation in started:
        installation.close()
    host.keep_files("/run/")


@pytest.fixture
def world(host: Host) -> Netns:
    """A machine on a link of the host's; it knows no way to any container."""
    host.keep("out0")  # the host learns who is behind it
    made = host.netns("world")
    host.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "eth0",
             "netns", "world")  # fmt: skip
    made.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "link", "set", "out0", "up")
    for address, length, flags in ((HOST, 24, []), (HOST6, 64, ["nodad"])):
        host.run("ip", "address", "add", f"{address}/{length}", "dev", "out0", *flags)
    for address, length, flags in ((WORLD, 24, []), (WORLD6, 64, ["nodad"])):
        made.run("ip", "address", "add", f"{address}/{length}", "dev", "eth0", *flags)
    return made


def install(directory: pathlib.Path, source: pathlib.Path) -> None:
    """Put links to all plugins of `source` in place, as an installation over another does."""
    for plugin in source.iterdir():
        if plugin.is_file() and not plugin.name.startswith("."):
            (directory / f".{plugin.name}").symlink_to(plugin)
            (directory / f".{plugin.name}").rename(directory / plugin.name)
