# SPDX-License-Identifier: Apache-2.0
"""Configurations that decode and still cannot be meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.configs import network, with_ipam
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner


def pool(*subnets: str, **more: Any) -> list[dict[str, Any]]:
    return [{"subnet": subnet, **more} for subnet in subnets]


#: name: (configuration, what the message has to name)
INVALID: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no name": (network(name=None), ["name"]),
    "empty name": (network(name=""), ["name"]),
    "name leads out": (network(name="../../etc"), ["name", "../../etc"]),
    "name with a slash": (network(name="a/b"), ["name", "a/b"]),
    "name with a newline": (network(name="a\n"), ["name"]),
    "name with foreign digits": (network(name="\u0661\u0662"), ["name"]),
    "10 kB name": (network(name="n" * 10_000), ["name"]),
    "name is a number": (network(name=7), ["name", "7"]),
    "bridge is a number": (network(bridge=7), ["bridge", "7"]),
    "bridge is a path": (network(bridge="../x"), ["bridge", "../x"]),
    "bridge is too long": (network(bridge="sixteen-letters!"), ["bridge"]),
    "isGateway is text": (network(isGateway="yes"), ["isGateway", "yes"]),
    "ipMasq is a number": (network(ipMasq=1), ["ipMasq", "1"]),
    "ipMasqBackend unknown": (network(ipMasqBackend="ebtables"), ["ipMasqBackend", "ebtables"]),
    "mtu is text": (network(mtu="1500"), ["mtu", "1500"]),
    "mtu is a fraction": (network(mtu=1500.5), ["mtu", "1500.5"]),
    "mtu is negative": (network(mtu=-1), ["mtu", "-1"]),
    "mtu is too small": (network(mtu=40), ["mtu", "40"]),
    "mtu is too large": (network(mtu=70_000), ["mtu", "70000"]),
    "vlan is too large": (network(vlan=4095), ["4095"]),
    "vlan is negative": (network(vlan=-5), ["-5"]),
    "vlan is text": (network(vlan="5"), ["vlan"]),
    "trunk id is zero": (network(vlanTrunk=[{"id": 0}]), ["Trunk", "0"]),
    "trunk backwards": (network(vlanTrunk=[{"minID": 9, "maxID": 5}]), ["minID"]),
    "trunk half": (network(vlanTrunk=[{"minID": 9}]), ["maxID"]),
    "trunk is an object": (network(vlanTrunk={"id": 5}), ["vlanTrunk"]),
    "hairpin and promiscuous": (
        network(hairpinMode=True, promiscMode=True),
        ["hairpin", "promiscuous"],
    ),
    "addresses for a link that stays down": (
        network(disableContainerInterface=True),
        ["IPAM", "DisableContainerInterface"],
    ),
    "mac is none": (network(runtimeConfig={"mac": "x:y"}), ["mac", "x:y"]),
    "mac is multicast": (network(runtimeConfig={"mac": "01:00:5e:00:00:01"}), ["01:00:5e"]),
    "dns is a list": (network(dns=[]), ["dns"]),
    "ipam is text": (network(ipam="host-local"), ["ipam", "host-local"]),
    "ipam type leads out": (network(ipam={"type": "../../bin/sh"}), ["../../bin/sh"]),
    "ipam type with a slash": (network(ipam={"type": "sub/host-local"}), ["sub/host-local"]),
    "ipam type unknown": (network(ipam={"type": "no-such-ipam"}), ["no-such-ipam"]),
    "ipam type is a number": (network(ipam={"type": 5}), ["type", "5"]),
    "no ranges": (with_ipam(), ["range"]),
    "an empty range set": (with_ipam(ranges=[[]]), ["ranges"]),
    "host bits in a subnet": (with_ipam(subnet="10.203.0.7/24"), ["10.203.0.7/24"]),
    "no subnet": (with_ipam(subnet="10.203.0.0"), ["10.203.0.0"]),
    "subnet is no address": (with_ipam(subnet="ten/8"), ["ten/8"]),
    "subnet of one address": (with_ipam(subnet="10.203.0.0/32"), ["10.203.0.0/32"]),
    "subnet of two addresses": (with_ipam(subnet="10.203.0.0/31"), ["10.203.0.0/31"]),
    "leading zeros": (with_ipam(subnet="10.203.000.0/24"), ["10.203.000.0/24"]),
    "overlap within a set": (
        with_ipam(ranges=[pool("10.203.0.0/24", "10.203.0.128/25")]),
        ["10.203.0."],
    ),
    "overlap between sets": (
        with_ipam(ranges=[pool("10.203.0.0/24"), pool("10.203.0.0/16")]),
        ["10.203.0."],
    ),
    "families mixed": (with_ipam(ranges=[pool("10.203.0.0/24", "fd00:203::/64")]), ["fd00:203::"]),
    "range starts outside": (
        with_ipam(ranges=[pool("10.203.0.0/24", rangeStart="10.204.0.5")]),
        ["10.204.0.5"],
    ),
    "range ends outside": (
        with_ipam(ranges=[pool("10.203.0.0/24", rangeEnd="10.204.0.5")]),
        ["10.204.0.5"],
    ),
    "range backwards": (
        with_ipam(ranges=[pool("10.203.0.0/24", rangeStart="10.203.0.9", rangeEnd="10.203.0.5")]),
        ["10.203.0.9"],
    ),
    "gateway is none": (with_ipam(ranges=[pool("10.203.0.0/24", gateway="gw")]), ["gw"]),
    "route without destination": (
        with_ipam(subnet="10.203.0.0/24", routes=[{"gw": "10.203.0.1"}]),
        ["dst"],
    ),
    "route to nowhere": (
        with_ipam(subnet="10.203.0.0/24", routes=[{"dst": "nowhere"}]),
        ["nowhere"],
    ),
    "requested address outside": (
        network(args={"cni": {"ips": ["192.0.2.9"]}}),
        ["192.0.2.9"],
    ),
    "requested address is the gateway": (
        network(args={"cni": {"ips": ["10.203.0.1"]}}),
        ["10.203.0.1"],
    ),
}


@pytest.mark.parametrize(("config", "culprits"), INVALID.values(), ids=INVALID.keys())
def test_invalid_configuration_is_refused(
    host: Host,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    config: dict[str, Any],
    culprits: list[str],
) -> None:
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    error = run_plugin("bridge", "ADD", config, netns=container).failed(7, *culprits)
    assert len(str(error)) < 3000, "the message repeats the value at length"
    host.assert_undone(before)
    assert inside.difference(container.snapshot()) == []


@pytest.mark.parametrize(
    "version", ["9.9.9", "1.0", "1.0.0.0", "1.1.1", "1.0.0\n", "v1.0.0", "1.0.0-rc1", "latest"]
)
@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
def test_unknown_version_is_refused(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, plugin: str, version: str
) -> None:
    container = netns()
    before = host.snapshot()
    error = run_plugin(plugin, "ADD", network(cniVersion=version), netns=container).failed(1)
    assert version.strip() in error["details"] and "1.0.0" in error["details"]
    host.assert_unchanged(before)


def test_version_of_another_type(run_plugin: Runner, netns: Callable[..., Netns]) -> None:
    answer = run_plugin("bridge", "ADD", network(cniVersion=1.0), netns=netns())
    assert answer.json["code"] in (1, 6, 7), answer.json
    assert "cniVersion" in f"{answer.json}"


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")]
)
def test_verb_that_the_version_does_not_have(
    run_plugin: Runner, netns: Callable[..., Netns], command: str, version: str
) -> None:
    config = network(cniVersion=version)
    run_plugin("bridge", command, config, netns=netns()).failed(1, command)


def test_delete_ignores_what_became_of_the_configuration(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    before = host.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).result()
    broken = network(mtu="large", isGateway=7, dns=[], hairpinMode=True, promiscMode=True)
    broken["ipam"]["ranges"] = [[{"subnet": "not-a-subnet"}]]
    run_plugin("bridge", "DEL", broken, netns=container).succeeded()
    host.assert_clean(before, "faults0")
