# SPDX-License-Identifier: Apache-2.0
"""What cnitool advises after an ADD that our plugins have failed and undone, on a kernel."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.rig.host import Host, Netns


@pytest.fixture
def cnitool(
    host: Host, bin_dir: pathlib.Path, tmp_path: pathlib.Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """cnitool(plugin, *words): run it with a network `x` of the one plugin."""
    host.share("left0")

    def run(
        plugin: dict[str, Any], *words: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        document = {"cniVersion": "1.0.0", "name": "x", "plugins": [plugin]}
        (tmp_path / "10.conflist").write_text(json.dumps(document))
        environment = {"CNI_PATH": str(bin_dir), "NETCONFPATH": str(tmp_path), **variables}
        return subprocess.run(
            [bin_dir / "cnitool", "--cache-dir", tmp_path / "cache", *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def bridge(ipam: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "bridge", "bridge": "left0", "ipam": ipam, **members}


def host_local(tmp_path: pathlib.Path, **members: Any) -> dict[str, Any]:
    data = str(tmp_path / "reservations")
    return {"type": "host-local", "subnet": "10.77.0.0/24", "dataDir": data, **members}


@pytest.mark.parametrize(
    ("ipam", "members", "words"),
    [
        ({"gateway": "10.78.0.1"}, {"isDefaultGateway": True}, "10.78.0.1"),
        ({"resolvConf": "/nonexistent/resolv.conf"}, {}, "/nonexistent/resolv.conf"),
        ({"rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}, {}, "no IP addresses available"),
    ],
)
def test_nothing_is_left_of_an_add_that_failed(
    cnitool: Callable[..., subprocess.CompletedProcess[str]],
    netns: Callable[[str], Netns],
    tmp_path: pathlib.Path,
    ipam: dict[str, Any],
    members: dict[str, Any],
    words: str,
) -> None:
    plugin = bridge(host_local(tmp_path, **ipam), **members)
    red, blue = netns("red").path, netns("blue").path
    cnitool(plugin, "add", "x", red)  # which takes the only address
    failed = cnitool(plugin, "add", "x", blue)
    assert failed.returncode == 1 and words in failed.stderr
    assert "cnitool del" not in failed.stderr, failed.stderr
    assert cnitool(plugin, "del", "x", red).returncode == 0


def test_nothing_is_left_of_an_add_without_addresses(
    cnitool: Callable[..., subprocess.CompletedProcess[str]], netns: Callable[[str], Netns]
) -> None:
    failed = cnitool(bridge({"type": "static"}), "add", "x", netns("blue").path)
    assert failed.returncode == 1
    assert "cnitool del" not in failed.stderr, failed.stderr


@pytest.mark.parametrize("type_", ["host-local", "static"])
def test_an_address_that_another_has_is_freed_by_that_ones_del(
    cnitool: Callable[..., subprocess.CompletedProcess[str]],
    netns: Callable[[str], Netns],
    bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    type_: str,
) -> None:
    red, blue = netns("red").path, netns("blue").path
    address = {"address": "10.77.0.50/24"}
    ipam = {
        "host-local": host_local(tmp_path),
        "static": {"type": "static", "exclusive": True, "addresses": [address]},
    }[type_]
    asked = {"CNI_ARGS": "IgnoreUnknown=1;IP=10.77.0.50"} if type_ == "host-local" else {}
    assert cnitool(bridge(ipam), "add", "x", red, **asked).returncode == 0
    failed = cnitool(bridge(ipam), "add", "x", blue, **asked)
    assert failed.returncode == 1
    hints = [line for line in failed.stderr.splitlines() if line.startswith("Hint: ")]
    assert hints == [
        f"Hint: {red} has it; this detaches that, if nothing uses it: "
        f"{bin_dir}/cnitool del x {red} --cache-dir {tmp_path}/cache"
    ]
    assert cnitool(bridge(ipam), "del", "x", red, **asked).returncode == 0
