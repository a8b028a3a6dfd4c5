# SPDX-License-Identifier: Apache-2.0
"""The rig itself, shown with the Go plugins: what they leave is seen, what is gone is not."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest

from tests.rig.host import Host, Netns, is_documented, is_store
from tests.rig.plugins import Runner

CONFIG = {
    "cniVersion": "1.0.0",
    "name": "rig",
    "type": "bridge",
    "bridge": "rig0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "subnet": "10.201.0.0/24"},
}


def test_a_test_has_a_host_of_its_own(host: Host, netns: Callable[..., Netns]) -> None:
    assert host.link_names() == {"lo"}
    assert os.listdir("/var/lib/cni") == []
    assert netns().link_names() == {"lo"}


def test_snapshot_sees_every_kind_of_change(host: Host) -> None:
    before = host.snapshot()
    host.assert_unchanged(before)
    host.run("ip", "link", "add", "seen0", "type", "bridge")
    host.run("ip", "address", "add", "10.202.0.1/24", "dev", "seen0")
    host.run("ip", "rule", "add", "from", "10.202.0.9", "table", "77")
    host.run("ip", "neigh", "add", "10.202.0.7", "lladdr", "02:00:00:00:00:01", "dev", "seen0")
    host.run("nft", "add table inet seen; add chain inet seen c; add rule inet seen c accept")
    pathlib.Path("/var/lib/cni/seen").write_text("x")
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    changed = {line.split()[1] for line in before.difference(host.snapshot())}
    assert changed >= {"link:", "address:", "rule:", "neighbour:", "nft:", "file:", "sysctl:"}
    with pytest.raises(AssertionError, match="seen0"):
        host.assert_unchanged(before)
    with pytest.raises(AssertionError, match="seen"):
        host.finish()
    host.expect_leftovers("this test is about seeing them")


def test_the_end_of_a_test_deletes_and_compares(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    run_plugin("bridge", "ADD", CONFIG, netns=netns()).result()
    host.run("ip", "link", "add", "byhand0", "type", "bridge")
    host.finish()
    assert host.link_names() == {"lo", "rig0"}
    pathlib.Path("/proc/sys/net/ipv4/conf/lo/rp_filter").write_text("1")
    with pytest.raises(AssertionError, match="rp_filter"):
        host.finish()
    with pytest.raises(AssertionError, match="why"):
        host.expect_leftovers("")
    host.expect_leftovers("this test is about seeing them")


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("sysctl", "ipv4/conf/br0/send_redirects=1"),
        ("file", "/run/whatever"),
        ("file", "/var/lib/cni/networks/podnet/10.1.2.3 b'x'"),
        ("file", "/var/lib/cni/networks/podnet/.owners/0a1b b'x'"),
        ("nft", "table inet theirs theirs"),
        ("nft", "chain ip nat CNI-0a1b"),
        ("nft", 'element inet adder_ipmasq ip4.podnet/10.1.2.0/24 "10.1.2.3"'),
    ],
)
def test_what_is_not_documented_is_not_excused(section: str, line: str) -> None:
    assert not is_documented(section, line)


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("sysctl", "ipv4/ip_forward=1"),
        ("nft", "table inet adder_ipmasq adder_ipmasq"),
        ("link", "ifname=cni0"),
    ],
)
def test_an_add_that_failed_has_no_such_excuse(section: str, line: str) -> None:
    assert not is_store(section, line)


def test_go_add_and_del_leave_only_what_is_documented(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, go_bin_dir: pathlib.Path
) -> None:
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", "ADD", CONFIG, netns=container, bin_dir=go_bin_dir).result()
    container.ping("10.201.0.1")
    with pytest.raises(AssertionError, match=r"10\.201\.0\.2"):
        host.assert_clean(before, "rig0")
    run_plugin("bridge", "DEL", CONFIG, netns=container, bin_dir=go_bin_dir).succeeded()
    host.assert_clean(before, "rig0")
    assert inside.difference(container.snapshot()) == []


@pytest.mark.parametrize("maker", ["ours", "go"])
def test_a_firewall_rule_of_a_container_is_not_excused(
    host: Host,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    go_bin_dir: pathlib.Path,
    maker: str,
) -> None:
    container = netns()
    before = host.snapshot()
    bridge = run_plugin("bridge", "ADD", CONFIG, netns=container).result()
    firewall = {
        **CONFIG,
        "type": "firewall",
        "backend": "iptables",
        "ingressPolicy": "same-bridge",
        "prevResult": bridge,
    }
    bare = host.snapshot()
    bin_dir = go_bin_dir if maker == "go" else None
    run_plugin("firewall", "ADD", firewall, netns=container, bin_dir=bin_dir).result()
    added = [line.partition(": ")[::2] for line in bare.difference(host.snapshot())]
    excused = [is_documented(section.removeprefix("+ "), line) for section, line in added]
    assert [line for (_, line), fine in zip(added, excused, strict=True) if not fine] == [
        line for _, line in added if "10.201.0.2" in line or '"cni:rig:' in line
    ]
    # Two rules; ours notes their handles, so as to find them again at once.
    assert excused.count(False) == (4 if maker == "ours" else 2)
    assert excused.count(True) > 5
    run_plugin("firewall", "DEL", firewall, netns=container).succeeded()
    run_plugin("bridge", "DEL", CONFIG, netns=container).succeeded()
    host.assert_clean(before, "rig0")


def test_error_is_an_object(run_plugin: Runner, go_bin_dir: pathlib.Path) -> None:
    error = run_plugin("bridge", "ADD", CONFIG, bin_dir=go_bin_dir).failed(4, "CNI_NETNS")
    assert error["code"] == 4
