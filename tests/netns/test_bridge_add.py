# SPDX-License-Identifier: Apache-2.0
"""ADD of the bridge plugin: what each key of the configuration makes in the kernel."""

from __future__ import annotations

import itertools
import pathlib
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.bridge_network import (
    BRIDGE,
    CONFIG,
    LAYER2,
    PodFactory,
    changed,
    pod,
    port,
    reserved,
    vlans,
)
from tests.rig.host import Host

__all__ = ["pod"]


def ipam(*subnets: str, **keys: Any) -> dict[str, Any]:
    return {"type": "host-local", "ranges": [[{"subnet": s}] for s in subnets], **keys}


def make_bridge(host: Host) -> None:
    """A bridge with a port that keeps its carrier, and so its routes, as they are."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "up1")
    # Or the bridge learns up1 at any time, when that reports its multicast groups.
    host.run("sysctl", "-qw", "net.ipv6.conf.up1.disable_ipv6=1")
    host.run("ip", "link", "set", "up1", "up")
    host.run("ip", "link", "set", "up0", "up", "master", BRIDGE)
    host.run("ip", "link", "set", BRIDGE, "up")
    time.sleep(0.1)


@pytest.fixture
def vlan_filter(host: Host) -> None:
    """Skips the test where the kernel was built without bridge VLAN filtering."""
    try:
        host.run("ip", "link", "add", "vf0", "type", "bridge", "vlan_filtering", "1")
    except RuntimeError:
        pytest.skip("this kernel has no CONFIG_BRIDGE_VLAN_FILTERING")
    host.run("ip", "link", "delete", "vf0")


def test_two_pods_reach_each_other_and_the_host(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one, two = pod(), pod()
    inside = one.netns.snapshot()
    one.add(CONFIG)
    two.add(CONFIG)
    assert [ip["address"] for ip in one.result["ips"]] == ["10.71.0.2/24", "fd00:71::2/64"]
    for position in (0, 1):
        one.netns.ping(two.address(position))
        host.ping(one.address(position))
        one.netns.ping(one.result["ips"][position]["gateway"])
    one.delete()
    two.delete()
    host.assert_clean(before, BRIDGE)
    assert inside.difference(one.netns.snapshot()) == []


def test_port_changes_its_state_once(host: Host, pod: PodFactory) -> None:
    """At each change the kernel walks all ports of the bridge."""
    pod().add(CONFIG)
    one = pod()
    made = _states_during(lambda: one.add(CONFIG))
    assert [state for state, _ in itertools.groupby(made)] == ["disabled", "forwarding"]
    assert _states_during(one.delete) == ["disabled"]


def _states_during(change: Callable[[], Any]) -> list[str]:
    """The states of ports that the kernel tells of."""
    monitor = subprocess.Popen(["bridge", "monitor", "link"], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.3)
        change()
        time.sleep(0.3)
    finally:
        monitor.terminate()
        said, _ = monitor.communicate()
    return re.findall(r" veth\S+ .* state (\w+)", said)


def test_result_names_what_was_made(host: Host, pod: PodFactory) -> None:
    one = pod()
    result = one.add(changed(CONFIG, mtu=1400))
    bridge, veth, inner = result["interfaces"]
    assert bridge == {
        "name": BRIDGE,
        "mac": port(host, BRIDGE)["address"],
        "mtu": 1400,
    }
    assert veth == {"name": veth["name"], "mac": port(host, veth["name"])["address"], "mtu": 1400}
    eth0 = one.netns.ip("link", "show", "dev", "eth0")[0]
    assert inner == {
        "name": "eth0",
        "mac": eth0["address"],
        "mtu": 1400,
        "sandbox": one.netns.path,
    }
    assert eth0["mtu"] == 1400 and eth0["operstate"] == "UP"
    assert all(ip["interface"] == 2 for ip in result["ips"])
    assert port(host, veth["name"])["ifalias"] == "cni:podnet:pod-0:eth0"
    assert port(host, veth["name"])["master"] == BRIDGE
    assert {r["dst"]: r["gw"] for r in result["routes"]} == {
        "0.0.0.0/0": "10.71.0.1",
        "::/0": "fd00:71::1",
    }


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_older_versions(host: Host, pod: PodFactory, version: str) -> None:
    one = pod()
    one.add(changed(CONFIG, cniVersion=version))
    assert one.result["cniVersion"] == version
    one.netns.ping("10.71.0.1")
    one.delete()


def test_addresses_are_usable_at_once(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(CONFIG)
    [link] = one.netns.ip("address", "show", "dev", "eth0")
    ours = [address for address in link["addr_info"] if address["scope"] == "global"]
    assert {address["family"] for address in ours} == {"inet", "inet6"}
    assert not any(address.get("tentative") for address in ours)
    # The kernel's own link-local address is tentative until its worker gets to it.
    assert one.netns.run("cat", "/proc/sys/net/ipv6/conf/eth0/accept_dad").stdout.strip() == "0"


def test_enabledad_waits_for_detection(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(changed(CONFIG, enabledad=True))
    link = one.netns.ip("address", "show", "dev", "eth0")[0]
    assert not any(a.get("tentative") or a.get("nodad") for a in link["addr_info"])
    path = "/proc/sys/net/ipv6/conf/eth0/"
    read = one.netns.run("cat", path + "accept_dad", path + "enhanced_dad").stdout.split()
    assert read == ["1", "1"]


def test_gateway_without_default_route(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(changed(CONFIG, isDefaultGateway=None, isGateway=True))
    assert "routes" not in one.result
    assert one.netns.ip("route", "show", "default") == []
    host.ping(one.address())


def test_no_gateway_leaves_the_bridge_without_address(host: Host, pod: PodFactory) -> None:
    forwarding = pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text()
    one, two = pod(), pod()
    one.add(changed(CONFIG, isDefaultGateway=None))
    two.add(changed(CONFIG, isDefaultGateway=None))
    addresses = host.ip("address", "show", "dev", BRIDGE)[0]["addr_info"]
    assert [a for a in addresses if a["scope"] != "link"] == []
    assert pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding
    one.netns.ping(two.address())


def test_default_route_of_ipam_is_not_doubled(host: Host, pod: PodFactory) -> None:
    one = pod()
    config = changed(CONFIG, ipam=ipam("10.71.0.0/24", routes=[{"dst": "0.0.0.0/0"}]))
    assert one.add(config)["routes"] == [{"dst": "0.0.0.0/0"}]
    assert [r["gateway"] for r in one.netns.ip("route", "show", "default")] == ["10.71.0.1"]


def test_routes_with_all_fields(host: Host, pod: PodFactory) -> None:
    one = pod()
    routes = [
        {"dst": "10.90.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 77, "table": 500},
        {"dst": "10.91.0.0/16", "gw": "10.71.0.9", "priority": 5},
        {"dst": "10.92.0.0/16", "scope": 253},
        {"dst": "fd00:92::/64", "mtu": 1290, "priority": 9, "table": 100},
    ]
    one.add(changed(CONFIG, ipam=ipam("10.71.0.0/24", "fd00:71::/64", routes=routes)))
    inside = one.netns
    (first,) = inside.ip("route", "show", "table", "500")
    assert first["dst"] == "10.90.0.0/16" and first["gateway"] == "10.71.0.1"
    assert first["metric"] == 77
    assert {k: v for m in first["metrics"] for k, v in m.items()} == {"mtu": 1300, "advmss": 1200}
    main = {r["dst"]: r for r in inside.ip("route", "show")}
    assert main["10.91.0.0/16"]["gateway"] == "10.71.0.9" and main["10.91.0.0/16"]["metric"] == 5
    assert main["10.92.0.0/16"]["scope"] == "link" and "gateway" not in main["10.92.0.0/16"]
    (sixth,) = inside.ip("-6", "route", "show", "table", "100")
    assert sixth["gateway"] == "fd00:71::1" and sixth["metric"] == 9
    one.check().succeeded()


def test_three_ranges_on_one_bridge(host: Host, pod: PodFactory) -> None:
    one, two = pod(), pod()
    config = changed(CONFIG, ipam=ipam("10.71.0.0/24", "10.72.0.0/24", "fd00:71::/64"))
    one.add(config)
    two.add(config)
    for position in range(3):
        one.netns.ping(two.address(position))
        host.ping(one.address(position))
    one.check().succeeded()


def test_two_ipv6_subnets_on_one_bridge(host: Host, pod: PodFactory) -> None:
    one, two = pod(), pod()
    one.add(changed(CONFIG, ipam=ipam("fd00:71::/64")))
    two.add(changed(CONFIG, name="other", ipam=ipam("fd00:72::/64")))
    host.ping(one.address())
    host.ping(two.address())


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        ("10.71.0.0/24", "10.72.0.0/24", True),
        ("10.71.0.0/24", "10.71.0.0/25", True),
        ("10.71.0.0/24", "fd00:71::/64", False),
        ("fd00:71::/64", "fd00:71::/56", True),
        ("fd00:71::/64", "fd00:72::/64", False),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_force_address(
    host: Host, pod: PodFactory, first: str, second: str, conflict: bool, force: bool
) -> None:
    make_bridge(host)
    old = first.replace("0/", "1/") if "." in first else first.replace("::/", "::1/")
    host.run("ip", "address", "add", old, "dev", BRIDGE, "nodad")
    before = host.snapshot()
    one = pod()
    config = changed(CONFIG, ipam=ipam(second), forceAddress=force)
    if conflict and not force:
        one.call("ADD", config).failed(101, BRIDGE, "different from", old)
        host.assert_undone(before)
        return
    one.add(config)
    addresses = {
        f"{a['local']}/{a['prefixlen']}"
        for a in host.ip("address", "show", "dev", BRIDGE)[0]["addr_info"]
    }
    assert (old in addresses) is (not conflict or second == first)


def test_forced_address_comes_back_when_add_fails(host: Host, pod: PodFactory) -> None:
    make_bridge(host)
    host.run("ip", "address", "add", "10.99.0.1/24", "dev", BRIDGE)
    before = host.snapshot()
    one = pod()
    # A route that the kernel refuses, in the container, is what fails last.
    routes = [{"dst": "10.90.0.0/16", "gw": "192.0.2.1"}]
    config = changed(CONFIG, ipam=ipam("10.71.0.0/24", routes=routes), forceAddress=True)
    one.call("ADD", config).failed(102, "10.90.0.0/16", "192.0.2.1")
    host.assert_clean(before)


def test_hairpin_isolation_promiscuous(host: Host, pod: PodFactory) -> None:
    one, two, three = pod(), pod(), pod()
    one.add(changed(CONFIG, hairpinMode=True))
    two.add(changed(CONFIG, portIsolation=True))
    data = port(host, one.veth)["linkinfo"]["info_slave_data"]
    assert data["hairpin"] is True and data["isolated"] is False
    data = port(host, two.veth)["linkinfo"]["info_slave_data"]
    assert data["hairpin"] is False and data["isolated"] is True
    assert "PROMISC" not in port(host, BRIDGE)["flags"]
    three.add(changed(CONFIG, promiscMode=True, portIsolation=True))
    assert "PROMISC" in port(host, BRIDGE)["flags"]
    one.netns.ping(two.address())
    with pytest.raises(AssertionError):
        two.netns.ping(three.address(), timeout=1)
    for each in (one, two, three):
        each.check().succeeded()


def test_bridge_mac_is_stable(host: Host, pod: PodFactory) -> None:
    pods = [pod() for _ in range(4)]
    macs = set()
    for each in pods:
        each.add(CONFIG)
        macs.add(port(host, BRIDGE)["address"])
    for each in pods:
        each.delete()
        macs.add(port(host, BRIDGE)["address"])
    assert len(macs) == 1
    assert pods[0].result["interfaces"][2]["mac"] not in macs


def test_existing_bridge_is_used_as_it_is(host: Host, pod: PodFactory) -> None:
    host.run("ip", "link", "add", BRIDGE, "address", "02:00:00:00:00:77", "type", "bridge")
    one = pod()
    one.add(CONFIG)
    assert one.result["interfaces"][0]["mac"] == "02:00:00:00:00:77"
    host.ping(one.address())


MAC = "0a:58:00:00:00:0{}".format


@pytest.mark.parametrize(
    ("runtime", "cni", "environment", "expected"),
    [
        (MAC(1), MAC(2), MAC(3), MAC(1)),
        ("", MAC(2), MAC(3), MAC(2)),
        ("", "", MAC(3), MAC(3)),
        ("0A-58-00-00-00-01", "", "", MAC(1)),
    ],
)
def test_mac_sources(
    host: Host, pod: PodFactory, runtime: str, cni: str, environment: str, expected: str
) -> None:
    one = pod()
    config = changed(CONFIG, runtimeConfig={"mac": runtime}, args={"cni": {"mac": cni}})
    args = f"IgnoreUnknown=1;K8S_POD_NAME=x;MAC={environment}" if environment else ""
    one.add(config, args=args)
    assert one.result["interfaces"][2]["mac"] == expected
    assert one.netns.ip("link", "show", "dev", "eth0")[0]["address"] == expected


@pytest.mark.parametrize("mac", ["0a:58:00", "zz:58:00:00:00:01", "01:00:5e:00:00:01"])
def test_malformed_mac(host: Host, pod: PodFactory, mac: str) -> None:
    before = host.snapshot()
    pod().call("ADD", CONFIG, args=f"MAC={mac}").failed(4, mac, "CNI_ARGS")
    host.assert_unchanged(before)


def test_layer_2(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one, two = pod(), pod()
    for number, each in enumerate((one, two), 1):
        result = each.add(LAYER2)
        assert "ips" not in result and len(result["interfaces"]) == 3
        each.netns.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "eth0")
        each.check().succeeded()
    one.netns.ping("192.0.2.2")
    one.delete()
    two.delete()
    host.assert_clean(before, BRIDGE)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_layer_2_cannot_be_told_in_old_versions(host: Host, pod: PodFactory, version: str) -> None:
    before = host.snapshot()
    one = pod()
    one.call("ADD", changed(LAYER2, cniVersion=version)).failed(999, "no valid IP addresses")
    host.assert_undone(before)


def test_container_interface_stays_down(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(changed(LAYER2, disableContainerInterface=True))
    assert "UP" not in one.netns.ip("link", "show", "dev", "eth0")[0]["flags"]
    one.check().succeeded()


def test_dns_replaces_that_of_ipam(host: Host, pod: PodFactory, tmp_path: pathlib.Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 192.0.2.53\nsearch example.org\n")
    config = changed(CONFIG, ipam=ipam("10.71.0.0/24", resolvConf=str(resolv)))
    one, two, three = pod(), pod(), pod()
    assert one.add(config)["dns"] == {"nameservers": ["192.0.2.53"], "search": ["example.org"]}
    two.add(changed(config, dns={"nameservers": ["192.0.2.54"]}))
    assert two.result["dns"] == {"nameservers": ["192.0.2.54"]}
    assert "dns" not in three.add(changed(config, dns={"search": []}))


def test_access_vlan(host: Host, pod: PodFactory, vlan_filter: None) -> None:
    one, two, three = pod(), pod(), pod()
    config = changed(CONFIG, isDefaultGateway=None, vlan=100)
    one.add(config)
    two.add(config)
    three.add(changed(config, vlan=200))
    assert vlans(host, one.veth) == {100: {"PVID", "Egress Untagged"}}
    assert port(host, BRIDGE)["linkinfo"]["info_data"]["vlan_filtering"] == 1
    one.netns.ping(two.address())
    with pytest.raises(AssertionError):
        one.netns.ping(three.address(), timeout=1)
    one.check().succeeded()


def test_trunk(host: Host, pod: PodFactory, vlan_filter: None) -> None:
    one, two, three = pod(), pod(), pod()
    trunk = [{"id": 101}, {"minID": 200, "maxID": 203}, {"id": 101}]
    one.add(changed(LAYER2, vlanTrunk=trunk))
    native = {"PVID", "Egress Untagged"}
    tagged: dict[int, set[str]] = {101: set(), **{n: set() for n in range(200, 204)}}
    assert vlans(host, one.veth) == {1: native, **tagged}
    two.add(changed(LAYER2, vlanTrunk=trunk, vlan=50))
    assert vlans(host, two.veth) == {50: native, **tagged}
    three.add(changed(LAYER2, vlan=50, preserveDefaultVlan=True))
    assert vlans(host, three.veth) == {1: {"Egress Untagged"}, 50: native}
    for each in (one, two, three):
        each.check().succeeded()


def test_every_vlan_in_a_trunk(host: Host, pod: PodFactory, vlan_filter: None) -> None:
    one = pod()
    one.add(changed(LAYER2, vlanTrunk=[{"minID": 1, "maxID": 4094}]))
    assert set(vlans(host, one.veth)) == set(range(1, 4095))
    one.check().succeeded()


def test_gateway_of_a_vlan(host: Host, pod: PodFactory, vlan_filter: None) -> None:
    before = host.snapshot()
    one, two = pod(), pod()
    config = changed(CONFIG, vlan=100)
    one.add(config)
    gateway = one.result["interfaces"][3]
    assert gateway["name"] == f"{BRIDGE}.100"
    link = port(host, gateway["name"])
    assert link["linkinfo"]["info_kind"] == "veth" and link["address"] == gateway["mac"]
    addresses = host.ip("address", "show", "dev", BRIDGE)[0]["addr_info"]
    assert [a for a in addresses if a["scope"] != "link"] == []
    two.add(config)
    assert two.result["interfaces"][3] == gateway
    host.ping(one.address())
    two.netns.ping("10.71.0.1")
    one.netns.ping("fd00:71::1")
    one.check().succeeded()
    one.delete()
    two.delete()
    # Like the bridge, the gateway stays, with both its ends.
    host.assert_clean(before, BRIDGE, f"{BRIDGE}.100", link["link"])


def test_vlan_gateway_name_too_long(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    config = changed(CONFIG, bridge="a-long-bridge", vlan=100)
    pod().call("ADD", config).failed(7, "a-long-bridge.100")
    host.assert_undone(before)


def test_stale_neighbour_is_forgotten(host: Host, pod: PodFactory) -> None:
    one, two = pod(), pod()
    one.add(CONFIG)
    for address in ("10.71.0.3", "fd00:71::3"):
        host.run("ip", "neigh", "add", address, "lladdr", "02:00:00:00:00:66", "dev", BRIDGE)
    two.add(CONFIG)
    assert two.address() == "10.71.0.3"
    host.ping(two.address(0), timeout=1)
    host.ping(two.address(1), timeout=1)


def test_other_pods_learn_the_new_owner(host: Host, pod: PodFactory) -> None:
    one, two = pod(), pod()
    one.add(CONFIG)
    stale = "10.71.0.3"
    one.netns.run(
        "ip", "neigh", "add", stale, "lladdr", "02:00:00:00:00:66", "dev", "eth0", "nud", "stale"
    )
    two.add(CONFIG)
    assert two.address() == stale
    one.netns.ping(stale, timeout=1)


def test_ipv6_is_switched_on_where_it_is_off(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.netns.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    one.netns.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    one.add(CONFIG)
    one.netns.ping("fd00:71::1")
    assert one.netns.run("cat", "/proc/sys/net/ipv6/conf/lo/disable_ipv6").stdout == "0\n"


def test_router_advertisements_are_not_accepted(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(CONFIG)
    path = pathlib.Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/accept_ra")
    assert path.read_text() == "0\n"
    # What a port receives goes to the bridge; it takes no part in IPv6 itself.
    assert host.run("ip", "-6", "address", "show", "dev", one.veth) == ""


def test_masquerade_hides_the_pod(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(changed(CONFIG, ipMasq=True))
    outside = pod().netns
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "out0", "netns", outside.name)
    host.run("ip", "address", "add", "198.51.100.1/24", "dev", "up0")
    host.run("ip", "link", "set", "up0", "up")
    outside.run("ip", "address", "add", "198.51.100.2/24", "dev", "out0")
    outside.run("ip", "link", "set", "out0", "up")
    # Without masquerade the answer would find no way back.
    one.netns.ping("198.51.100.2")
    one.check().succeeded()
    one.delete()
    assert "10.71.0.2" not in host.run("nft", "list", "ruleset")


def test_addresses_are_released_one_attachment_at_a_time(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(CONFIG)
    second = one.call("ADD", CONFIG, ifname="eth1").result()
    assert reserved() == {"10.71.0.2", "10.71.0.3", "fd00:71::2", "fd00:71::3"}
    one.call("DEL", changed(CONFIG, prevResult=second), ifname="eth1").succeeded()
    assert reserved() == {"10.71.0.2", "fd00:71::2"}
    one.check().succeeded()
    assert one.netns.link_names() == {"lo", "eth0"}


def test_spoofed_frames_are_dropped(host: Host, pod: PodFactory) -> None:
    one, two = pod(), pod()
    one.add(changed(CONFIG, macspoofchk=True))
    two.add(CONFIG)
    for each in (one, two):
        host.ping(each.address())
        each.netns.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    host.ping(two.address())
    with pytest.raises(AssertionError):
        one.netns.ping("10.71.0.1", timeout=1)
    one.netns.run("ip", "link", "set", "eth0", "address", one.result["interfaces"][2]["mac"])
    host.ping(one.address())
