# SPDX-License-Identifier: Apache-2.0
"""CHECK of the bridge plugin: each thing that ADD made is missed when it is broken, by name."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import pytest

from cni_bridge import check
from cni_bridge.config import Config
from libcni.netlink.link import find_link
from libcni.netlink.socket import Socket
from libcni.types.errors import CniError
from libcni.types.result import Interface, Result
from tests.netns.bridge_network import (
    BRIDGE,
    CONFIG,
    LAYER2,
    Pod,
    PodFactory,
    changed,
    pod,
)
from tests.rig.host import Host

__all__ = ["pod"]

FULL = changed(
    CONFIG,
    ipMasq=True,
    mtu=1400,
    macspoofchk=True,
    hairpinMode=True,
    portIsolation=True,
    ipam={
        **CONFIG["ipam"],
        "routes": [
            {"dst": "10.90.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 7, "table": 100}
        ],
    },
)
BARE = changed(LAYER2, promiscMode=True)


def on_host(*words: str) -> Callable[[Host, Pod], None]:
    def act(host: Host, one: Pod) -> None:
        host.run(*(w.format(veth=one.veth, bridge=BRIDGE, address=one.address()) for w in words))

    return act


def inside(*words: str) -> Callable[[Host, Pod], None]:
    def act(host: Host, one: Pod) -> None:
        one.netns.run(*words)

    return act


def several(*acts: Callable[[Host, Pod], None]) -> Callable[[Host, Pod], None]:
    def act(host: Host, one: Pod) -> None:
        for each in acts:
            each(host, one)

    return act


def release(host: Host, one: Pod) -> None:
    pathlib.Path(f"/var/lib/cni/networks/podnet/{one.address()}").unlink()


def forwarding_off(host: Host, one: Pod) -> None:
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("0")


ROUTE = ("ip", "route", "replace", "10.90.0.0/16", "via", "10.71.0.1", "table", "100")
#: What is broken, and what the message has to name.
BREAKAGES: dict[str, tuple[Callable[[Host, Pod], None], tuple[str, ...]]] = {
    "bridge gone": (on_host("ip", "link", "delete", "{bridge}"), ("br-test", "nothing")),
    "bridge of another MAC": (
        on_host("ip", "link", "set", "{bridge}", "address", "02:00:00:00:00:09"),
        ("MAC", "br-test", "02:00:00:00:00:09"),
    ),
    "bridge down": (on_host("ip", "link", "set", "{bridge}", "down"), ("br-test", "up", "down")),
    "bridge MTU": (
        on_host("ip", "link", "set", "{bridge}", "mtu", "1399"),
        ("MTU", "br-test", "1400", "1399"),
    ),
    "bridge MTU larger": (
        on_host("ip", "link", "set", "{bridge}", "mtu", "9000"),
        ("MTU", "br-test", "1400", "9000"),
    ),
    "pair gone": (on_host("ip", "link", "delete", "{veth}"), ("eth0", "nothing")),
    "no veth": (
        several(
            inside("ip", "link", "delete", "eth0"),
            inside("ip", "link", "add", "eth0", "type", "bridge"),
        ),
        ("eth0", "a veth", "bridge"),
    ),
    "container MAC": (
        inside("ip", "link", "set", "eth0", "address", "02:00:00:00:00:08"),
        ("MAC", "eth0", "02:00:00:00:00:08"),
    ),
    "container down": (inside("ip", "link", "set", "eth0", "down"), ("eth0", "up", "down")),
    "container MTU": (inside("ip", "link", "set", "eth0", "mtu", "1399"), ("MTU", "1400", "1399")),
    "host MTU": (
        on_host("ip", "link", "set", "{veth}", "mtu", "1398"),
        ("MTU", "veth", "1400", "1398"),
    ),
    "host MAC": (
        on_host("ip", "link", "set", "{veth}", "address", "02:00:00:00:00:07"),
        ("MAC", "veth", "02:00:00:00:00:07"),
    ),
    "host down": (on_host("ip", "link", "set", "{veth}", "down"), ("veth", "down")),
    "host alias": (on_host("ip", "link", "set", "{veth}", "alias", "x"), ("alias", "cni:podnet")),
    "not on the bridge": (
        on_host("ip", "link", "set", "{veth}", "nomaster"),
        ("master", "veth", "br-test", "none"),
    ),
    "on another bridge": (
        several(
            on_host("ip", "link", "add", "br-other", "type", "bridge"),
            on_host("ip", "link", "set", "{veth}", "master", "br-other"),
        ),
        ("master", "br-test", "br-other"),
    ),
    "hairpin": (on_host("bridge", "link", "set", "dev", "{veth}", "hairpin", "off"), ("hairpin",)),
    "isolation": (
        on_host("bridge", "link", "set", "dev", "{veth}", "isolated", "off"),
        ("isolation",),
    ),
    "address": (
        inside("ip", "address", "delete", "10.71.0.2/24", "dev", "eth0"),
        ("addresses of eth0", "10.71.0.2/24"),
    ),
    "IPv6 address": (
        inside("ip", "address", "delete", "fd00:71::2/64", "dev", "eth0"),
        ("addresses of eth0", "fd00:71::2/64"),
    ),
    "prefix length": (
        several(
            inside("ip", "address", "delete", "10.71.0.2/24", "dev", "eth0"),
            inside("ip", "address", "add", "10.71.0.2/25", "dev", "eth0"),
        ),
        ("10.71.0.2/24", "10.71.0.2/25"),
    ),
    "route to the subnet": (
        inside("ip", "route", "delete", "10.71.0.0/24", "proto", "kernel"),
        ("10.71.0.0/24",),
    ),
    "default route": (inside("ip", "route", "delete", "default"), ("0.0.0.0/0", "10.71.0.1")),
    "IPv6 default route": (
        inside("ip", "-6", "route", "delete", "default"),
        ("::/0", "fd00:71::1"),
    ),
    "default route elsewhere": (
        inside("ip", "route", "replace", "default", "via", "10.71.0.9"),
        ("0.0.0.0/0", "10.71.0.1"),
    ),
    "route in a table": (inside("ip", "route", "flush", "table", "100"), ("10.90.0.0/16", "100")),
    "route priority": (
        several(
            inside("ip", "route", "flush", "table", "100"),
            inside(*ROUTE, "metric", "8", "mtu", "1300", "advmss", "1200"),
        ),
        ("priority", "7", "8"),
    ),
    "route MTU": (
        inside(*ROUTE, "metric", "7", "mtu", "1299", "advmss", "1200"),
        ("mtu", "1300", "1299"),
    ),
    "route MSS": (
        inside(*ROUTE, "metric", "7", "mtu", "1300", "advmss", "1199"),
        ("advmss", "1200", "1199"),
    ),
    "gateway address": (
        on_host("ip", "address", "delete", "10.71.0.1/24", "dev", "{bridge}"),
        ("addresses of br-test", "10.71.0.1/24"),
    ),
    "forwarding": (forwarding_off, ("ip_forward",)),
    "masquerade": (on_host("nft", "flush", "ruleset"), ("adder_ipmasq", "missing")),
    "spoof check": (
        on_host("nft", "delete", "table", "bridge", "adder_spoofcheck"),
        ("macspoofchk", "adder_spoofcheck"),
    ),
    "reservation": (release, ("10.71.0.2",)),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_break_one_thing(host: Host, pod: PodFactory, name: str) -> None:
    act, culprits = BREAKAGES[name]
    one = pod()
    one.add(FULL)
    one.check().succeeded()
    act(host, one)
    error = one.check().failed(103, *culprits)
    assert "expected" in error["msg"] or name in ("masquerade", "spoof check", "reservation")
    # Broken or not, DEL cleans up.
    one.delete()


def test_promiscuous_mode(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(BARE)
    one.check().succeeded()
    host.run("ip", "link", "set", BRIDGE, "promisc", "off")
    one.check().failed(103, "promiscuous", BRIDGE)


def test_vlan_filtering_of_an_existing_bridge_is_not_demanded(host: Host) -> None:
    """ADD leaves it as it finds it. Not every kernel can filter, so this is but the one step."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "link", "set", BRIDGE, "up")
    link = check._check_bridge(Socket(), Config(changed(LAYER2, vlan=100)), Result())
    assert link.name == BRIDGE and not link.vlan_filtering


def test_the_mtu_of_a_bridge_follows_its_ports(host: Host, pod: PodFactory) -> None:
    """Unless it is set, the kernel makes it the smallest; that is nobody's mistake."""
    one, two = pod(), pod()
    one.add(FULL)
    two.add(changed(FULL, mtu=1300))
    assert host.ip("link", "show", "dev", BRIDGE)[0]["mtu"] == 1300
    one.check().succeeded()
    two.check().succeeded()
    two.delete()
    assert host.ip("link", "show", "dev", BRIDGE)[0]["mtu"] == 1400
    one.check().succeeded()


def test_the_mtu_of_a_bridge_that_was_there(host: Host, pod: PodFactory) -> None:
    """ADD leaves it as somebody has set it."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "link", "set", BRIDGE, "mtu", "1490")
    one = pod()
    one.add(FULL)
    assert one.result["interfaces"][0]["mtu"] == 1490
    one.check().succeeded()


GATEWAY_BREAKAGES = {
    "gone": (("delete", "{gateway}"), ("gateway br-test.100 of VLAN 100", "nothing")),
    "down": (("set", "{gateway}", "down"), ("br-test.100", "up", "down")),
    "MAC": (("set", "{gateway}", "address", "02:00:00:00:00:09"), ("MAC", "02:00:00:00:00:09")),
    "port elsewhere": (("set", "{port}", "nomaster"), ("other end", "a port of br-test")),
    "port down": (("set", "{port}", "down"), ("port gwport", "up", "down")),
}


@pytest.mark.parametrize("name", GATEWAY_BREAKAGES)
def test_break_the_gateway_of_a_vlan(host: Host, name: str) -> None:
    """Not every kernel can filter VLANs, so that the gateway is made by hand."""
    words, culprits = GATEWAY_BREAKAGES[name]
    gateway = f"{BRIDGE}.100"
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "link", "add", "gwport", "type", "veth", "peer", gateway)
    host.run("ip", "link", "set", "gwport", "master", BRIDGE, "up")
    host.run("ip", "link", "set", gateway, "address", "02:00:00:00:00:08", "up")
    sock = Socket()
    config = Config(changed(CONFIG, vlan=100))
    result = Result(interfaces=[Interface(gateway, "02:00:00:00:00:08")])
    bridge = find_link(sock, BRIDGE)
    assert bridge is not None
    assert check._check_vlan_gateway(sock, config, result, bridge).name == gateway
    host.run("ip", "link", *[word.format(gateway=gateway, port="gwport") for word in words])
    with pytest.raises(CniError) as caught:
        check._check_vlan_gateway(sock, config, result, bridge)
    assert caught.value.code == 103
    assert all(culprit in caught.value.msg for culprit in culprits), caught.value.msg
    for device in ("gwport", BRIDGE):
        subprocess.run(["ip", "link", "delete", device], check=False, capture_output=True)


def test_another_sandbox(host: Host, pod: PodFactory) -> None:
    one, two = pod(), pod()
    one.add(CONFIG)
    one.check(netns=two.netns).failed(103, one.netns.path, two.netns.path)


def test_prev_result_is_required(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(CONFIG)
    one.call("CHECK", CONFIG).failed(7, "prevResult")


def test_what_others_add_does_not_matter(host: Host, pod: PodFactory) -> None:
    one, two = pod(), pod()
    one.add(FULL)
    two.add(FULL)
    one.netns.run("ip", "address", "add", "192.0.2.5/24", "dev", "eth0")
    one.netns.run("ip", "route", "add", "203.0.113.0/24", "via", "10.71.0.1")
    one.netns.run("ip", "link", "add", "other0", "type", "bridge")
    host.run("ip", "address", "add", "192.0.2.1/24", "dev", BRIDGE)
    host.run("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c drop")
    host.run("ip", "link", "set", BRIDGE, "promisc", "on")
    one.check().succeeded()
    two.delete()
    one.check().succeeded()


def test_nothing_changes(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(FULL)
    before, inner = host.snapshot(), one.netns.snapshot()
    one.check().succeeded()
    host.assert_unchanged(before)
    assert inner.difference(one.netns.snapshot()) == []


def test_after_del_it_fails(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(CONFIG)
    one.delete()
    assert one.check().rc == 1
