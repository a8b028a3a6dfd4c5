# SPDX-License-Identifier: Apache-2.0
"""`cnitool validate` against what plugins refuse when they read: all of it, and nothing else."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from libcni.skel.plugin import package_of, types
from tests.unit.desk import Desk

_PEER = {"publicIP": "192.0.2.2", "subnet": "10.244.2.0/24"}
_OVERLAY = {
    "type": "vxlan-overlay",
    "network": "10.244.0.0/16",
    "subnet": "10.244.1.0/24",
    "peers": [_PEER],
}


def _overlay(**members: Any) -> dict[str, Any]:
    return {key: value for key, value in {**_OVERLAY, **members}.items() if value is not None}


def _gateway(**members: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "subnet": "10.1.2.0/24", "gateway": "10.1.3.1"}
    return {"type": "bridge", "isDefaultGateway": True, "ipam": ipam, **members}


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (_overlay(subnet="10.245.1.0/24"), "subnet 10.245.1.0/24 is not in network 10.244.0.0/16"),
        (_overlay(network=None), "subnet is configured, but not network"),
        (_overlay(subnet=None), "peers are configured, but no `subnet`"),
        (
            _overlay(peers=[{**_PEER, "subnet": "10.9.2.0/24"}]),
            "subnet 10.9.2.0/24 of peer 192.0.2.2 is not in 10.244.0.0/16",
        ),
        (
            _overlay(peers=[{**_PEER, "subnet": "10.244.1.0/24"}]),
            "subnet 10.244.1.0/24 of peer 192.0.2.2 overlaps with this node's own, 10.244.1.0/24",
        ),
        (_overlay(peers=[{"subnet": "10.244.2.0/24"}]), "peers[0] has no publicIP"),
        (_overlay(peers=[_PEER, {**_PEER, "name": "b"}]), "have one publicIP, 192.0.2.2"),
        (_overlay(delegate={"hairpinMode": "yes"}), '[1].delegate.hairpinMode: "yes" is not'),
        (
            {"type": "vxlan-overlay", "Delegate": {"hairpinMode": True, "promiscMode": True}},
            "[1].delegate: cannot set hairpin mode and promiscuous mode",
        ),
        (
            _overlay(delegate={"type": "ptp", "mtu": 1e9}),
            "[1].delegate.mtu: 1000000000 is greater",
        ),
        (_overlay(delegate={"name": "other"}), "must not have 'name' field"),
        (_overlay(ipam={"routes": [{"dst": "hey"}]}), '[1].ipam.routes[0].dst: "hey" is not'),
        (
            {"type": "vxlan-overlay", "ipam": {"type": "static", "addresses": 3}},
            "[1].ipam.addresses: 3 is not of type 'array'",
        ),
        ({"type": "tuning", "sysctl": {"kernel.shmmax": "1"}}, "kernel.shmmax"),
        ({"type": "ptp"}, "ipam.type is missing"),
        ({"type": "macvlan", "mtu": 60}, "plugins[1].mtu: invalid MTU 60"),
        ({"type": "tap", "mtu": 60}, "plugins[1].mtu: invalid MTU 60"),
        ({"type": "tuning", "mtu": 10}, "plugins[1].mtu: 10 must be"),
        ({"type": "bridge", "mtu": 10}, "plugins[1].mtu: 10 must be"),
        ({"type": "tuning", "mac": "01:00:00:00:00:00"}, "plugins[1].mac: failed to parse"),
        (
            {"type": "tuning", "sysctl": {"net.core.somaxconn": 500}},
            'expected a string, in quotes, for example "500"',
        ),
        ({"type": "host-device", "device": "lo"}, "plugins[1].device: lo, the loopback device"),
        (
            {"type": "ptp", "ipam": {"type": "static", "addresses": [{"address": "10.1.2.7/24"}]}},
            "no gateway for 10.1.2.7/24",
        ),
        (
            {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.2.0/33"}},
            "plugins[1].ipam.subnet",
        ),
        (
            {
                "type": "bridge",
                "ipam": {"type": "host-local", "subnet": "10.1.2.0/30", "exclude": ["10.1.2.2"]},
            },
            "plugins[1].ipam.subnet: 10.1.2.1-10.1.2.2 has no address that may be given out",
        ),
        (
            {
                "type": "bridge",
                "ipam": {
                    "type": "host-local",
                    "subnet": "10.1.2.0/24",
                    "ranges": [[{"subnet": "10.1.3.0/24", "rangeStart": "10.1.2.5"}]],
                },
            },
            "plugins[1].ipam.ranges[0]: invalid range set 1: RangeStart 10.1.2.5",
        ),
        (
            {
                "type": "bridge",
                "ipam": {
                    "type": "host-local",
                    "subnet": "10.1.2.0/24",
                    "rangeStart": "10.1.3.5",
                },
            },
            "plugins[1].ipam.subnet: RangeStart 10.1.3.5 not in",
        ),
        ({"type": "bandwidth", "ingressBurst": 8}, "ingressRate is not given"),
        ({"type": "sbr", "gateways": ["10.0.0.1", "10.0.0.2"]}, "are of one family"),
        ({"type": "host-device"}, 'specify either "device"'),
        (
            {
                "type": "portmap",
                "capabilities": {"portMappings": True},
                "conditionsV4": ["-s", "10.0.0.1"],
                "conditionsV6": ["ip6", "saddr", "::1"],
            },
            "conditionsV6 cannot be used with the iptables backend",
        ),
        (
            {
                "type": "bridge",
                "ipam": {"type": "static", "addresses": [{"address": "0.0.0.0/8"}]},
            },
            "ipam.addresses[0].address: 0.0.0.0/8 is no address",
        ),
        (_gateway(), "gateway 10.1.3.1 is not in 10.1.2.0/24"),
        (
            _gateway(
                ipam={
                    "type": "static",
                    "addresses": [{"address": "10.1.2.7/24", "gateway": "10.1.3.1"}],
                }
            ),
            "gateway 10.1.3.1 is not in 10.1.2.0/24",
        ),
    ],
)
def test_validate_refuses_what_the_plugin_will_refuse(
    desk: Desk, plugin: dict[str, Any], words: str
) -> None:
    plugins = [{"type": "loopback"}, plugin]
    file = desk.write("10.conflist", {"cniVersion": "1.0.0", "name": "net", "plugins": plugins})
    assert desk.run("validate") == 1
    assert desk.err.startswith(f"{file}: plugins[1]") and words in desk.err
    assert len([line for line in desk.err.splitlines() if "warning: " not in line]) == 1


_NEXT_HOP = {"routes": [{"dst": "10.1.3.1/32", "scope": 253}]}


@pytest.mark.parametrize(
    "plugin",
    [
        _overlay(),
        _overlay(peers=[_PEER, {"publicIP": "127.0.0.1", "subnet": "10.244.1.0/24"}]),
        {"type": "vxlan-overlay"},
        {"type": "vxlan-overlay", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "vxlan-overlay", "ipam": {"type": "host-local", "dataDir": "/run/x"}},
        _overlay(ipam={"type": "host-local"}, delegate={"type": "one", "mtu": "large"}),
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "host-device", "capabilities": {"deviceID": True}},
        {"type": "macvlan"},
        {"type": "tap"},
        {"type": "sbr"},
        {"type": "firewall"},
        {"type": "tuning"},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {
            "type": "bridge",
            "ipam": {"type": "host-local"},
            "isDefaultGateway": True,
            "capabilities": {"ipRanges": True},
        },
        _gateway(isDefaultGateway=False),
        _gateway(ipam={**_gateway()["ipam"], **_NEXT_HOP}),
        _gateway(ipam={"type": "host-local", "subnet": "fd00::/64", "gateway": "fe80::1"}),
        {"type": "ptp", "ipam": _gateway()["ipam"]},
    ],
)
@pytest.mark.parametrize("version", ["0.1.0", "0.4.0", "1.1.0"])
def test_validate_takes_what_the_plugin_takes(
    desk: Desk, plugin: dict[str, Any], version: str
) -> None:
    plugins = [{"type": "loopback"}, plugin]
    desk.write("10.conflist", {"cniVersion": version, "name": "net", "plugins": plugins})
    assert desk.run("validate") == 0, desk.err
    assert "warning: " not in desk.err


def test_validate_warns_of_a_peers_file_that_is_not_there(desk: Desk) -> None:
    plugin = _overlay(peersFile="/nonexistent/peers.json")
    desk.write("10.conflist", {"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]})
    assert desk.run("validate") == 0, desk.err
    assert "plugins[0].peersFile: /nonexistent/peers.json is not there" in desk.err


def test_validate_warns_of_a_misspelled_key_for_the_delegate(desk: Desk) -> None:
    plugin = _overlay(delegate={"hairpinMod": True}, ipam={"dataDirr": "/run/x", "type": "static"})
    desk.write("10.conflist", {"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]})
    assert desk.run("validate") == 0, desk.err
    for key, known in (("delegate.hairpinMod", "hairpinMode"), ("ipam.dataDirr", "dataDir")):
        assert f"plugins[0].{key} is not a known key; did you mean {known}?" in desk.err


@pytest.mark.parametrize("type_", ["bridge", "macvlan", "tap"])
def test_validate_warns_of_an_ipam_without_a_type(desk: Desk, type_: str) -> None:
    plugin = {"type": type_, "ipam": {"subnet": "10.0.0.0/24"}}
    document = {"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}
    file = desk.write("10.conflist", document)
    warning = f"{file}: warning: plugins[0].ipam has no type: no address is given\n"
    assert desk.run("validate") == 0
    assert desk.err == warning
    for plugins in ([{"type": type_, "ipam": {}}], [_overlay(ipam={"dataDir": "/run/x"})]):
        desk.write("10.conflist", {**document, "plugins": plugins})
        assert desk.run("validate") == 0
        assert desk.err == ""


@pytest.mark.parametrize("type_", ["bandwidth", "firewall", "portmap", "sbr", "tuning"])
def test_validate_refuses_a_chained_plugin_that_comes_first(desk: Desk, type_: str) -> None:
    document = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": type_}]}
    desk.write("10.conflist", document)
    assert desk.run("validate") == 1
    assert f"plugins[0]: {type_} must be called as chained plugin" in desk.err
    assert "list it after the plugin that makes the interface" in desk.err


@pytest.mark.parametrize("type_", types())
def test_every_plugin_is_asked(type_: str) -> None:
    """What it reads at ADD: `cnitool validate` finds that by this name, and nowhere else."""
    package = package_of(type_)
    if find_spec(f"{package}.config") is None and find_spec(f"{package}.find") is None:
        return  # nothing to read
    assert callable(import_module(f"{package}.advice").refuse)
