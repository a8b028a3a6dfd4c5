# SPDX-License-Identifier: Apache-2.0
"""ingressPolicy of firewall on the real kernel: where it does not hold, and which one does."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from tests.netns.test_firewall import BACKENDS, BRIDGED, ISOLATED, forwarding, pods
from tests.rig.host import Host

__all__ = ["forwarding", "pods"]


def call_without_ip6tables(
    pod: Any, tools: pathlib.Path, verb: str, config: dict[str, Any]
) -> subprocess.CompletedProcess[bytes]:
    """Run the plugin where of all tools there are only iptables-restore and iptables-save."""
    tools.mkdir(exist_ok=True)
    for tool in ("iptables-restore", "iptables-save"):
        shutil.copy("/usr/sbin/xtables-nft-multi", tools / tool)
    environment = {
        "CNI_CONTAINERID": pod.name, "CNI_NETNS": pod.netns.path, "CNI_IFNAME": "eth0",
        "CNI_PATH": str(pod.run.bin_dir), "PATH": f"{tools}:/usr/bin:/bin", "CNI_COMMAND": verb,
    }  # fmt: skip
    script = 'mount -t tmpfs tmpfs /usr/sbin && exec "$0" "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(pod.run.bin_dir / "firewall")],
        input=json.dumps(config).encode(),
        env=environment,
        capture_output=True,
        check=False,
    )


@BRIDGED
@pytest.mark.parametrize("backend", BACKENDS)
def test_isolated_where_netfilter_does_not_see_bridges(
    host: Host, pods: Any, backend: str
) -> None:
    """Said by ADD, CHECK and STATUS, unless the bridge is excepted from the sysctl."""
    one, near = pods(), pods()
    config = one.config("1.1.0", backend=backend, ingressPolicy="isolated")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
    reply = one.call("ADD", config)
    reply.result()
    assert one.reaches(near.addresses[0]) and not one.reaches(near.addresses[1])
    said = "ingressPolicy isolated does not hold for IPv4 on br1"
    assert said in reply.stderr and "IPv6" not in reply.stderr
    one.call("CHECK", config).failed(103, said, "bridge-nf-call-iptables=1")
    one.call("STATUS", config).failed(50, "isolated", "bridge-nf-call-iptables=1")
    open_one = {**config, "ingressPolicy": "same-bridge"}
    assert one.call("STATUS", open_one).succeeded().stderr == ""
    host.run("ip", "link", "set", "br1", "type", "bridge", "nf_call_iptables", "1")
    assert not one.reaches(near.addresses[0])
    for verb in ("STATUS", "CHECK"):
        assert one.call(verb, config).succeeded().stderr == ""
    host.run("ip", "link", "set", "br1", "type", "bridge", "nf_call_iptables", "0")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=0")
    assert "IPv6" in one.call("STATUS", config).succeeded().stderr
    one.call("CHECK", config).failed(103, "IPv6")
    del config["prevResult"]["ips"][1]
    one.call("CHECK", config).succeeded()
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=1")
    one.call("DEL", config).succeeded()


@BRIDGED
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_bridge_needs_no_bridge_netfilter(host: Host, pods: Any, backend: str) -> None:
    """The host's end of a container's own veth, as ptp makes it, has no other ports."""
    one = pods()
    config = one.config("1.1.0", backend=backend, ingressPolicy="isolated")
    config["prevResult"]["interfaces"][0]["name"] = "v1-2"
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
    assert one.call("ADD", config).stderr == ""
    one.call("CHECK", config).succeeded()
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    one.call("DEL", config).succeeded()


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
def test_policy_without_ip6tables(
    host: Host, pods: Any, tmp_path: pathlib.Path, policy: str
) -> None:
    """IPv6 is not kept apart: said, where the container has an address of it."""
    one = pods()
    config = one.config("1.1.0", backend="iptables", ingressPolicy=policy)
    said = f"ingressPolicy {policy} does not hold for IPv6 on br1: ip6tables is not installed"
    done = call_without_ip6tables(one, tmp_path / "bin", "ADD", config)
    assert done.returncode == 0 and said in done.stderr.decode()
    done = call_without_ip6tables(one, tmp_path / "bin", "CHECK", config)
    error = json.loads(done.stdout)
    assert error["code"] == 103 and said in error["msg"]
    done = call_without_ip6tables(one, tmp_path / "bin", "STATUS", config)
    assert done.returncode == 0 and "ip6tables is not installed" in done.stderr.decode()
    del config["prevResult"]["ips"][1]
    for verb in ("ADD", "CHECK", "DEL"):
        done = call_without_ip6tables(one, tmp_path / "bin", verb, config)
        assert done.returncode == 0 and not done.stderr, done
