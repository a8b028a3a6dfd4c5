# SPDX-License-Identifier: Apache-2.0
"""ingressPolicy of firewall on the real kernel: where it does not hold, and which one does."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tests.netns.test_firewall import (
    BACKENDS,
    BRIDGED,
    IPTABLES,
    ISOLATED,
    WITHOUT_STDOUT,
    forwarding,
    pods,
    ruleset,
    with_tools,
)
from tests.rig.host import Host

__all__ = ["forwarding", "pods"]


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
    done = with_tools(one, tmp_path / "bin", IPTABLES, "ADD", config)
    assert done.returncode == 0 and said in done.stderr.decode()
    done = with_tools(one, tmp_path / "bin", IPTABLES, "CHECK", config)
    error = json.loads(done.stdout)
    assert error["code"] == 103 and said in error["msg"]
    done = with_tools(one, tmp_path / "bin", IPTABLES, "STATUS", config)
    assert done.returncode == 0 and "ip6tables is not installed" in done.stderr.decode()
    del config["prevResult"]["ips"][1]
    for verb in ("ADD", "CHECK", "DEL"):
        done = with_tools(one, tmp_path / "bin", IPTABLES, verb, config)
        assert done.returncode == 0 and not done.stderr, done


@BRIDGED
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_strictest_policy_of_a_bridge_holds(host: Host, pods: Any, backend: str) -> None:
    """A later ADD with a weaker one, failed or not, opens nothing; said until it is taken back."""
    one, two = pods(), pods()
    strict = one.config(backend=backend, ingressPolicy="isolated")
    weak = two.config(backend=backend, ingressPolicy="same-bridge")
    one.call("ADD", strict).result()
    # A result that cannot be written fails the ADD at its very end.
    assert two.call("ADD", weak, under=WITHOUT_STDOUT).rc != 0
    assert not two.reaches(one.addresses[0])
    one.call("CHECK", strict).succeeded()
    said = "containers on bridge br1 do not reach each other"
    reply = two.call("ADD", weak)
    reply.result()
    assert said in reply.stderr and not two.reaches(one.addresses[1])
    two.call("CHECK", weak).failed(103, said, "isolated", "strictest")
    one.call("CHECK", strict).succeeded()
    # Nor does their DEL open it.
    one.call("DEL", strict).succeeded()
    assert said in two.call("ADD", weak).stderr
    while (reply := two.call("CHECK", weak)).rc:
        assert said in reply.json["msg"]
        host.run("sh", "-c", reply.json["details"].partition("until you call: ")[2])
        reply = two.call("ADD", weak)
        reply.result()
    assert reply.stderr == "" and two.reaches(one.addresses[0])
    # A stricter one holds at once, over a weaker one.
    one.call("ADD", strict).result()
    assert not two.reaches(one.addresses[0])
    for each in (one, two):
        each.call("DEL", each.config()).succeeded()


@BRIDGED
def test_bridges_of_an_earlier_version(host: Host, pods: Any) -> None:
    """Their elements do not name the policy: it is what is in the other set."""
    one = pods()
    weak = one.config(backend="nftables", ingressPolicy="same-bridge")
    one.call("ADD", weak).result()
    for state in ("open", "isolated"):
        host.run("nft", "flush set inet adder_firewall bridges")
        host.run("nft", "add element inet adder_firewall bridges { br1 }")
        if state == "isolated":
            host.run("nft", "flush set inet adder_firewall open_inside")
        reply = one.call("ADD", weak)
        reply.result()
        assert ("do not reach each other" in reply.stderr) == (state == "isolated")
        assert f'"br1" comment "{"same-bridge" if state == "open" else state}"' in ruleset(host)
    one.call("DEL", weak).succeeded()
