# SPDX-License-Identifier: Apache-2.0
"""host-local executed: what a runtime or another plugin gets from it."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.rig.host import Netns
from tests.rig.plugins import Runner

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


def config(directory: pathlib.Path, version: str = "1.1.0", **more: Any) -> dict[str, Any]:
    """A dual-stack network."""
    return {
        "cniVersion": version,
        "name": "net",
        "type": "bridge",
        "ipam": {
            "type": "host-local",
            "dataDir": str(directory),
            "ranges": [[{"Subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
        **more,
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_result_of_each_version_is_gos(
    run_plugin: Runner,
    netns: Callable[..., Netns],
    go_bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    version: str,
) -> None:
    container = netns()
    ours = run_plugin("host-local", "ADD", config(tmp_path / "a", version), netns=container)
    if version == "1.1.0":
        assert ours.result()["ips"] == [
            {"address": "10.1.2.2/24", "gateway": "10.1.2.1"},
            {"address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1"},
        ]
        return
    theirs = run_plugin(
        "host-local", "ADD", config(tmp_path / "b", version), netns=container, bin_dir=go_bin_dir
    )
    expected = theirs.result()
    if version == "1.0.0":
        # The reference leaves an empty one out since 1.2.
        expected.pop("dns", None)
    assert json.dumps(ours.result()) == json.dumps(expected)


def test_life_of_a_reservation(
    run_plugin: Runner, netns: Callable[..., Netns], tmp_path: pathlib.Path
) -> None:
    container = netns()
    document = config(tmp_path)
    run_plugin("host-local", "STATUS", document).succeeded()
    result = run_plugin("host-local", "ADD", document, netns=container).result()
    previous = config(tmp_path, prevResult=result)
    run_plugin("host-local", "CHECK", previous, netns=container).succeeded()
    run_plugin("host-local", "ADD", document, netns=container).failed(
        101, "duplicate allocation", "container-1", "call DEL"
    )
    run_plugin("host-local", "CHECK", previous, netns=container).succeeded()
    run_plugin("host-local", "GC", document).failed(7, "cni.dev/valid-attachments")
    time.sleep(0.05)
    valid = [{"containerID": "container-1", "ifname": "eth0"}]
    keep = {**document, "cni.dev/valid-attachments": valid}
    run_plugin("host-local", "GC", keep).succeeded()
    run_plugin("host-local", "CHECK", previous, netns=container).succeeded()
    run_plugin("host-local", "DEL", document).succeeded()
    run_plugin("host-local", "DEL", document).succeeded()
    run_plugin("host-local", "CHECK", previous, netns=container).failed(103, "10.1.2.2")
    run_plugin("host-local", "ADD", document, netns=container).result()
    time.sleep(0.05)
    nothing = {**document, "cni.dev/valid-attachments": []}
    run_plugin("host-local", "GC", nothing).succeeded()
    assert not list((tmp_path / "net").glob("10.*"))


def test_closed_stdout_releases_the_address(
    run_plugin: Runner, netns: Callable[..., Netns], tmp_path: pathlib.Path
) -> None:
    import subprocess

    from tests.rig.plugins import encode, environment

    container = netns()
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" >&-', run_plugin.bin_dir / "host-local"],
        input=encode(config(tmp_path)),
        env=environment("ADD", run_plugin.bin_dir, container, "c1", "eth0"),
        check=False,
    )
    assert done.returncode == 1
    assert not list((tmp_path / "net").glob("10.*"))


def test_needs_no_real_namespace(run_plugin: Runner) -> None:
    """The reference's own documentation tries the plugin with CNI_NETNS=/dev/null."""
    config = {
        "cniVersion": "1.1.0",
        "name": "by-hand",
        "type": "bridge",
        "ipam": {"type": "host-local", "subnet": "10.5.0.0/24"},
    }
    result = run_plugin("host-local", "ADD", config, netns="/dev/null").result()
    assert result["ips"][0]["address"] == "10.5.0.2/24"
    checked = {**config, "prevResult": result}
    run_plugin("host-local", "CHECK", checked, netns="/dev/null").succeeded()
    run_plugin("host-local", "DEL", config, netns="/dev/null").succeeded()
