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
from tests.rig.host import Host

StartContainerd = Callable[[Mapping[str, Any]], Containerd]


@pytest.fixture(params=["ours", "go"])
def plugin_dir(
    request: pytest.FixtureRequest, bin_dir: pathlib.Path, go_bin_dir: pathlib.Path
) -> pathlib.Path:
    """Our plugins; and Go's, which shows that a failure is ours and not the rig's."""
    return bin_dir if request.param == "ours" else go_bin_dir


@pytest.fixture
def start_containerd(host: Host, plugin_dir: pathlib.Path) -> Iterator[StartContainerd]:
    """start_containerd(network configuration list) -> Containerd, ended after the test."""
    assert os.geteuid() == 0, "tests with a real runtime need root"
    started: list[Containerd] = []

    def start(network: Mapping[str, Any]) -> Containerd:
        # Not below tmp_path: the paths of sockets may have 104 characters.
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="containerd-", dir="/run"))
        made = Containerd(scratch, plugin_dir, network)
        started.append(made)
        host.share(*[plugin["bridge"] for plugin in network["plugins"] if "bridge" in plugin])
        return made

    yield start
    for daemon in started:
        daemon.close()
    host.keep_files("/run/")  # the runtime's own state, for the comparison at the end
