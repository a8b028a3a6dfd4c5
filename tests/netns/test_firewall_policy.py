# SPDX-License-Identifier: Apache-2.0
"""ingressPolicy of firewall on the real kernel: where it does not hold, and which one does."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from libcni.attachment import Attachment
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
from tests.netns.test_firewall_again import uncounted
from tests.rig.host import Host
from tests.rig.xtables import path_with

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
    # On a host with bridges nobody knows which kind of network it is.
    one.call("STATUS", config).failed(50, "bridge-nf-call-iptables=1")
    host.run("ip", "link", "delete", "br1")
    assert "does not hold for IPv4" in one.call("STATUS", config).succeeded().stderr
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


@BRIDGED
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
def test_a_veth_of_its_own_is_kept_apart_no_longer_than_it_lives(
    host: Host, pods: Any, backend: str, policy: str
) -> None:
    """As ptp has it: DEL forgets it, by name or by identity, and GC what has gone without."""
    first, *others = [pods() for _ in range(5)]
    shared = first.config(backend=backend, ingressPolicy=policy)
    first.call("ADD", shared).result()
    before = uncounted(host).replace(first.name, "")
    configs = []
    # Ours is named after the attachment, Go's at random.
    ours = Attachment("pods", others[0].name, "eth0").host_veth_names()[0]
    for one, name in zip(others, (ours, "veth0a1b2c3d", "veth0a1b2c3e", "vethern0"), strict=True):
        host.run("ip", "link", "set", f"v1-{one.name[-1]}", "down")
        host.run("ip", "link", "set", f"v1-{one.name[-1]}", "name", name)
        config = one.config("1.1.0", backend=backend, ingressPolicy=policy)
        config["prevResult"]["interfaces"][0]["name"] = name
        one.call("ADD", config).result()
        one.call("CHECK", config).succeeded()
        assert name in ruleset(host)
        configs.append(config)
    named, gos, lost, odd = others
    bare = {key: value for key, value in configs[0].items() if key != "prevResult"}
    named.call("DEL", bare).succeeded()
    assert ours not in ruleset(host) and "veth0a1b2c3d" in ruleset(host)
    for _ in range(2):
        gos.call("DEL", configs[1]).succeeded()
        assert "veth0a1b2c3d" not in ruleset(host)
    valid = [{"containerID": first.name, "ifname": "eth0"}]
    collect = {**bare, "cni.dev/valid-attachments": valid}
    first.call("GC", collect).succeeded()
    assert "veth0a1b2c3e" in ruleset(host), "it is there yet"
    host.run("ip", "link", "delete", "veth0a1b2c3e")
    host.run("ip", "link", "delete", "vethern0")
    first.call("GC", collect).succeeded()
    text = ruleset(host)
    assert "veth0a1b2c3e" not in text and lost.name not in text
    assert "vethern0" in text, "not a name such as these have"
    first.call("CHECK", shared).succeeded()
    lines = [line for line in text.splitlines() if "br1" in line]
    assert [line for line in before.splitlines() if "br1" in line and "elements" not in line] == [
        re.sub(r"packets \d+ bytes \d+", "", line) for line in lines if "elements" not in line
    ]
    first.call("DEL", shared).succeeded()
    assert "br1" in ruleset(host)
    odd.call("DEL", configs[3]).succeeded()


def test_a_bridge_of_such_a_name_stays_apart(host: Host, pods: Any) -> None:
    """It is others', too."""
    one = pods()
    host.run("ip", "link", "set", "br1", "down")
    host.run("ip", "link", "set", "br1", "name", "veth0a1b2c3d")
    for backend in BACKENDS:
        config = one.config(backend=backend, ingressPolicy="same-bridge")
        config["prevResult"]["interfaces"][0]["name"] = "veth0a1b2c3d"
        one.call("ADD", config).result()
        one.call("DEL", config).succeeded()
        one.call("ADD", config).result()
        assert "veth0a1b2c3d" in ruleset(host)
        one.call("DEL", config).succeeded()
        text = ruleset(host)
        assert "veth0a1b2c3d" in text and one.name not in text
        host.run("nft", "flush", "ruleset")
    host.run("ip", "link", "delete", "veth0a1b2c3d")


def test_a_veth_of_its_own_with_iptables_legacy(
    host: Host, pods: Any, tmp_path: pathlib.Path
) -> None:
    """As with the other variant; DEL and GC."""
    variables = {"PATH": path_with("legacy", tmp_path)}
    shared, one = pods(), pods()
    keys = {"backend": "iptables", "ingressPolicy": "same-bridge"}
    shared.call("ADD", shared.config(**keys), variables=variables).result()

    def rules() -> list[str]:
        saved = [host.run(f"/usr/sbin/{tool}-legacy-save") for tool in ("iptables", "ip6tables")]
        return [line for text in saved for line in text.splitlines() if line.startswith("-A CNI")]

    before = rules()
    config = one.config("1.1.0", **keys)
    config["prevResult"]["interfaces"][0]["name"] = "veth0a1b2c3d"
    bare = {"cniVersion": "1.1.0", "name": "pods", "type": "firewall"}
    valid = [{"containerID": shared.name, "ifname": "eth0"}]
    for verb, document in (("DEL", config), ("GC", {**bare, "cni.dev/valid-attachments": valid})):
        one.call("ADD", config, variables=variables).result()
        assert rules() != before
        one.call(verb, document, variables=variables).succeeded()
        assert rules() == before
    for each in (shared, one):
        each.call("DEL", bare, variables=variables).succeeded()
    host.expect_leftovers("iptables-legacy keeps its shared chains")
