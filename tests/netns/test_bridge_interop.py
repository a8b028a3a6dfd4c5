# SPDX-License-Identifier: Apache-2.0
"""Attachments that the Go plugins made are checked and removed by ours, and the reverse."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.netns.bridge_network import BRIDGE, CONFIG, Pod, PodFactory, changed, pod, reserved
from tests.rig.host import Host

__all__ = ["pod"]

#: What the Go plugins of Debian (1.1.1) know.
GO_CONFIG = changed(CONFIG, cniVersion="1.0.0", mtu=1400, hairpinMode=True)


def go_add(one: Pod, go_bin_dir: pathlib.Path, config: dict[str, Any]) -> None:
    one.add(config, bin_dir=go_bin_dir)


@pytest.mark.parametrize("masquerade", [False, True], ids=["plain", "masquerade"])
@pytest.mark.parametrize("state", ["netns", "no-netns", "netns-without-result"])
def test_go_made_ours_removes(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, masquerade: bool, state: str
) -> None:
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    go_add(one, go_bin_dir, changed(GO_CONFIG, ipMasq=masquerade))
    one.check().succeeded()
    if state == "no-netns":
        one.delete(netns="")
    elif state == "netns":
        one.delete()
    else:
        one.call("DEL", one.config).succeeded()
    host.assert_clean(before, BRIDGE)
    assert reserved() == set()
    assert inside.difference(one.netns.snapshot()) == []


@pytest.mark.parametrize("accident", ["bridge deleted", "port detached", "another bridge"])
def test_go_made_and_off_the_bridge(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, accident: str
) -> None:
    """Nothing tells it from a stranger's then but its MAC or IP addresses in prevResult."""
    one = pod()
    go_add(one, go_bin_dir, GO_CONFIG)
    if accident == "bridge deleted":
        host.run("ip", "link", "delete", BRIDGE)
    else:
        host.run("ip", "link", "set", one.veth, "nomaster")
    if accident == "another bridge":
        host.run("ip", "link", "add", "br-other", "type", "bridge")
        host.run("ip", "link", "set", one.veth, "master", "br-other")
    others = changed(one.result)
    others["interfaces"][2]["mac"] = "02:00:00:00:00:42"
    for ip in others["ips"]:
        ip["address"] = ip["address"].replace("/", "7/")
    for config in (one.config, changed(one.config, prevResult=others)):
        one.call("DEL", config).succeeded()
        assert one.netns.link_names() == {"lo", "eth0"}
    one.delete()
    assert one.netns.link_names() == {"lo"}
    assert one.veth not in host.link_names()


@pytest.mark.parametrize("masquerade", [False, True], ids=["plain", "masquerade"])
def test_check_sees_what_is_broken_of_go(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, masquerade: bool
) -> None:
    one = pod()
    go_add(one, go_bin_dir, changed(GO_CONFIG, ipMasq=masquerade))
    host.run("bridge", "link", "set", "dev", one.veth, "hairpin", "off")
    one.check().failed(103, "hairpin", one.veth)
    host.run("bridge", "link", "set", "dev", one.veth, "hairpin", "on")
    one.check().succeeded()
    if masquerade:
        host.run("nft", "flush", "ruleset")
        one.check().failed(103)


def test_another_containers_port_is_not_taken_for_gos(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path
) -> None:
    """prevResult names an interface that has gone to somebody else since."""
    one, two = pod(), pod()
    go_add(one, go_bin_dir, GO_CONFIG)
    go_add(two, go_bin_dir, GO_CONFIG)
    stolen = changed(one.result)
    stolen["interfaces"][1]["name"] = two.veth
    one.call("DEL", changed(GO_CONFIG, prevResult=stolen), netns="").succeeded()
    two.check().succeeded()
    host.ping(two.address())


def test_ours_made_go_removes(host: Host, pod: PodFactory, go_bin_dir: pathlib.Path) -> None:
    before = host.snapshot()
    one = pod()
    one.add(GO_CONFIG)
    one.check(bin_dir=go_bin_dir).succeeded()
    one.delete(bin_dir=go_bin_dir)
    # An index of our host-local's, which it mends by itself.
    host.keep_files("/var/lib/cni/networks/podnet/.owners")
    host.assert_clean(before, BRIDGE)
    assert reserved() == set()


def test_side_by_side(host: Host, pod: PodFactory, go_bin_dir: pathlib.Path) -> None:
    """Ours joins the bridge that Go made, and the reverse; both kinds reach each other."""
    one, two, three = pod(), pod(), pod()
    go_add(one, go_bin_dir, GO_CONFIG)
    two.add(GO_CONFIG)
    go_add(three, go_bin_dir, GO_CONFIG)
    for each in (one, two, three):
        each.check().succeeded()
        host.ping(each.address())
    two.netns.ping(one.address())
    three.netns.ping(two.address())


def test_go_host_local_under_our_bridge(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    before = host.snapshot()
    (tmp_path / "host-local").symlink_to(go_bin_dir / "host-local")
    one = pod()
    one.add(changed(GO_CONFIG, ipMasq=True), path=tmp_path)
    assert reserved()
    host.ping(one.address())
    one.check(path=tmp_path).succeeded()
    one.delete(path=tmp_path)
    host.assert_clean(before, BRIDGE)
    # And when the ADD fails after it.
    routes = [{"dst": "10.90.0.0/16", "gw": "192.0.2.1"}]
    broken = changed(GO_CONFIG, ipam={**GO_CONFIG["ipam"], "routes": routes})
    one.call("ADD", broken, path=tmp_path).failed(102, "192.0.2.1")
    assert reserved() == set()


def test_our_host_local_under_go_bridge(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, bin_dir: pathlib.Path
) -> None:
    before = host.snapshot()
    one = pod()
    one.add(GO_CONFIG, bin_dir=go_bin_dir, path=bin_dir)
    host.ping(one.address())
    one.delete(bin_dir=go_bin_dir, path=bin_dir)
    host.assert_clean(before, BRIDGE)
    assert reserved() == set()
