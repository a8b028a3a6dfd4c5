# SPDX-License-Identifier: Apache-2.0
"""GC and STATUS of the bridge plugin."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns.bridge_network import BRIDGE, CONFIG, Pod, PodFactory, changed, pod, reserved
from tests.rig.host import Host

__all__ = ["pod"]

MASQUERADED = changed(CONFIG, ipMasq=True, macspoofchk=True)


def collect(caller: Pod, *valid: Pod, config: dict[str, Any] = MASQUERADED) -> None:
    """GC that leaves the attachments of `valid`."""
    keep = [{"containerID": one.container_id, "ifname": "eth0"} for one in valid]
    document = changed(config, **{"cni.dev/valid-attachments": keep})
    caller.call("GC", document, netns="", ifname="").succeeded()


def test_only_the_valid_stay(host: Host, pod: PodFactory) -> None:
    one, two, three = pod(), pod(), pod()
    for each in (one, two, three):
        each.add(MASQUERADED)
    foreign = changed(
        MASQUERADED, name="other", ipam={"type": "host-local", "subnet": "10.71.0.128/25"}
    )
    foreign = changed(foreign, isDefaultGateway=None)
    four = pod()
    four.add(foreign)
    collect(one, one, two)
    for each in (one, two, four):
        each.check().succeeded()
    assert three.veth not in host.link_names()
    assert three.address() not in reserved()
    rules = host.run("nft", "list", "ruleset")
    assert "pod-2" not in rules and "pod-0" in rules and "pod-3" in rules
    three.delete()
    collect(one)
    assert reserved() == set()
    assert one.veth not in host.link_names()
    four.check().succeeded()


def test_gc_after_a_reboot_of_the_containers(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one = pod()
    one.add(MASQUERADED)
    one.netns.delete()
    collect(one)
    collect(one)
    host.assert_clean(before, BRIDGE)


@pytest.mark.parametrize("accident", ["detached", "bridge deleted", "bridge made anew"])
def test_ports_off_the_bridge(host: Host, pod: PodFactory, accident: str) -> None:
    before = host.snapshot()
    one, two, other = pod(), pod(), pod()
    for each in (one, two):
        each.add(MASQUERADED)
    other.add(changed(CONFIG, name="other", bridge="br-other"))
    if accident == "detached":
        for each in (one, two, other):
            host.run("ip", "link", "set", each.veth, "nomaster")
    else:
        host.run("ip", "link", "delete", BRIDGE)
    if accident == "bridge made anew":
        host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    collect(one, two)
    assert {one.veth, two.veth, other.veth} & host.link_names() == {two.veth, other.veth}
    assert one.netns.link_names() == {"lo"}
    collect(one)
    other.delete()
    host.assert_clean(before, BRIDGE, "br-other")


def test_missing_list_is_refused(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(MASQUERADED)
    before = host.snapshot()
    one.call("GC", MASQUERADED, netns="", ifname="").failed(7, "cni.dev/valid-attachments")
    host.assert_unchanged(before)


def test_everything_is_tried_when_a_step_fails(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(MASQUERADED)
    broken = changed(MASQUERADED, ipam={"type": "no-such-plugin"})
    broken["cni.dev/valid-attachments"] = []
    reply = one.call("GC", broken, netns="", ifname="")
    assert reply.rc == 1 and "no-such-plugin" in reply.json["msg"]
    assert one.veth not in host.link_names()
    assert one.address() not in host.run("nft", "list", "ruleset")


def status(one: Pod, config: dict[str, Any]) -> Any:
    return one.call("STATUS", config, netns="", ifname="")


def test_status_is_good(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one = pod()
    status(one, MASQUERADED).succeeded()
    host.assert_undone(before)
    one.add(MASQUERADED)
    status(one, MASQUERADED).succeeded()


def test_status_names_a_non_bridge(host: Host, pod: PodFactory) -> None:
    host.run("ip", "link", "add", BRIDGE, "type", "veth", "peer", "other")
    status(pod(), CONFIG).failed(50, BRIDGE, "not a bridge")


@pytest.mark.parametrize(
    ("ipam", "found", "gateway"),
    [
        ({"subnet": "10.71.0.0/24"}, "10.9.9.9/24", "10.71.0.1/24"),
        ({"subnet": "10.71.0.0/24", "gateway": "10.71.0.9"}, "10.71.0.1/24", "10.71.0.9/24"),
        ({"ranges": [[{"subnet": "fd71::/64"}]]}, "fd71::5/64", "fd71::1/64"),
    ],
)
def test_status_names_an_address_in_the_way(
    host: Host, pod: PodFactory, ipam: dict[str, Any], found: str, gateway: str
) -> None:
    """As ADD does, which STATUS says beforehand."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "address", "add", found, "dev", BRIDGE, "nodad")
    config = changed(CONFIG, isGateway=True, ipam={"type": "host-local", **ipam})
    one = pod()
    reply = status(one, config)
    reply.failed(50, BRIDGE, gateway)
    assert found in reply.json["details"]
    one.call("ADD", config).failed(101, BRIDGE, gateway)
    status(one, changed(config, forceAddress=True)).succeeded()
    status(one, changed(config, capabilities={"ipRanges": True})).succeeded()
    host.run("ip", "link", "delete", BRIDGE)


def test_status_knows_the_gateways_of_all_ranges(host: Host, pod: PodFactory) -> None:
    ranges = [[{"subnet": "10.71.0.0/24"}, {"subnet": "10.72.0.0/24"}], [{"subnet": "fd71::/64"}]]
    config = changed(CONFIG, isGateway=True, ipam={"type": "host-local", "ranges": ranges})
    one = pod()
    one.add(config)
    status(one, config).succeeded()


def test_status_names_an_exhausted_range(host: Host, pod: PodFactory) -> None:
    small = changed(CONFIG, ipam={"type": "host-local", "subnet": "10.71.0.0/30"})
    one = pod()
    one.add(small)
    status(one, small).failed(50, "10.71.0")


@pytest.mark.parametrize("keys", [{"hairpinMode": True, "promiscMode": True}, {"mtu": 12}])
def test_status_refuses_a_configuration_that_add_would(
    host: Host, pod: PodFactory, keys: dict[str, Any]
) -> None:
    status(pod(), changed(CONFIG, **keys)).failed(7)
