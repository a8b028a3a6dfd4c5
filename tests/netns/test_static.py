# SPDX-License-Identifier: Apache-2.0
"""static under bridge, ours and Go's, on the real kernel."""

from __future__ import annotations

import pathlib
import time
from typing import Any

from tests.rig.host import Host
from tests.rig.plugins import GO_BIN_DIR, Runner

CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "lab",
    "type": "bridge",
    "bridge": "lab0",
    "isGateway": True,
    "ipam": {
        "type": "static",
        "addresses": [
            {"address": "10.1.2.3/24", "gateway": "10.1.2.1"},
            {"address": "fd00:1::3/64", "gateway": "fd00:1::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}


def test_a_container_with_the_addresses_of_the_configuration(
    host: Host, run_plugin: Runner
) -> None:
    host.share("lab0")
    container = host.netns()
    result = run_plugin("bridge", "ADD", CONFIG, netns=container).result()
    assert [ip["address"] for ip in result["ips"]] == ["10.1.2.3/24", "fd00:1::3/64"]
    for address in ("10.1.2.1", "fd00:1::1"):
        container.ping(address)
    checked = {**CONFIG, "prevResult": result}
    run_plugin("bridge", "CHECK", checked, netns=container).succeeded()
    moved = {**checked, "ipam": {"type": "static", "addresses": [{"address": "10.1.2.4/24"}]}}
    run_plugin("bridge", "CHECK", moved, netns=container).failed(103, "10.1.2.4/24")
    run_plugin("bridge", "DEL", checked, netns=container).succeeded()


def test_podman_asks_for_an_address(host: Host, run_plugin: Runner) -> None:
    """IP= without a prefix length, beside what it always sends."""
    host.share("lab0")
    container = host.netns()
    config = {**CONFIG, "cniVersion": "0.4.0"}
    config["ipam"] = {"type": "static", "addresses": [{"address": "10.1.2.1/24"}]}
    args = "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.2.77"
    result = run_plugin("bridge", "ADD", config, netns=container, args=args).result()
    assert [ip["address"] for ip in result["ips"]] == ["10.1.2.1/24", "10.1.2.77/24"]
    run_plugin("bridge", "DEL", config, netns=container, args=args).succeeded()


def test_an_exclusive_address(host: Host, run_plugin: Runner) -> None:
    """Whatever becomes of the namespace and of prevResult, DEL lets the next have it; GC too."""
    host.share("lab0")
    config = {**CONFIG, "cniVersion": "1.1.0", "ipam": {**CONFIG["ipam"], "exclusive": True}}
    first, second = host.netns(), host.netns()
    one: dict[str, Any] = {"netns": first, "container_id": "one"}
    two: dict[str, Any] = {"netns": second, "container_id": "two"}
    run_plugin("bridge", "ADD", config, **one).result()
    run_plugin("bridge", "ADD", config, **two).failed(101, "10.1.2.3", "container one")
    assert second.link_names() == {"lo"}
    run_plugin("bridge", "DEL", config, **two).succeeded()
    run_plugin("bridge", "STATUS", config).failed(50, "10.1.2.3", "container one")
    run_plugin("bridge", "DEL", config, **{**one, "netns": ""}).succeeded()
    run_plugin("bridge", "ADD", config, **two).result()
    second.ping("10.1.2.1")
    # What is younger than a tick of the clock that stamps files is left for the next GC.
    time.sleep(0.05)
    run_plugin("bridge", "GC", {**config, "cni.dev/valid-attachments": []}).succeeded()
    result = run_plugin("bridge", "ADD", config, **one).result()
    run_plugin("bridge", "CHECK", {**config, "prevResult": result}, **one).succeeded()
    run_plugin("bridge", "DEL", config, **one).succeeded()


def test_an_exclusive_address_that_nobody_could_note(
    host: Host, run_plugin: Runner, tmp_path: pathlib.Path
) -> None:
    """STATUS says so before ADD does."""
    ipam = {**CONFIG["ipam"], "exclusive": True, "dataDir": str(tmp_path / "data")}
    config = {**CONFIG, "cniVersion": "1.1.0", "type": "static", "ipam": ipam}
    run_plugin("static", "STATUS", config).succeeded()
    host.run("mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path))
    try:
        error = run_plugin("static", "STATUS", config).failed(50, str(tmp_path), "Read-only")
        assert "ipam.dataDir" in error["msg"]
        run_plugin("static", "ADD", config, netns=host.netns()).failed(5, "Read-only")
    finally:
        host.run("umount", str(tmp_path))


def test_under_go_s_bridge(host: Host, run_plugin: Runner) -> None:
    host.share("lab0")
    container = host.netns()
    path = f"{run_plugin.bin_dir}:{GO_BIN_DIR}"
    go = {"bin_dir": GO_BIN_DIR, "path": path}
    result = run_plugin("bridge", "ADD", CONFIG, netns=container, **go).result()  # type: ignore[arg-type]
    assert [ip["address"] for ip in result["ips"]] == ["10.1.2.3/24", "fd00:1::3/64"]
    run_plugin("bridge", "DEL", CONFIG, netns=container, **go).succeeded()  # type: ignore[arg-type]
