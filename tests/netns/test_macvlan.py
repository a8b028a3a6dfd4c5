# SPDX-License-Identifier: Apache-2.0
"""macvlan on the real kernel: traffic, every verb, what CHECK notices, what a failure leaves.

The network is a second namespace, `lan`, at the other end of the master.
"""

from __future__ import annotations

import copy
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns import pods
from tests.netns.pods import Pod, pod_factory
from tests.rig.host import Host, Netns
from tests.rig.killed import killed_after
from tests.rig.plugins import GO_BIN_DIR, Runner, encode, environment

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "type": "macvlan",
    "master": "up0",
    "mtu": 1400,
    "bcqueuelen": 1500,
    "ipam": {
        "type": "host-local",
        "ranges": [
            [{"subnet": "10.74.0.0/24", "rangeStart": "10.74.0.100"}],
            [{"subnet": "fd00:74::/64", "rangeStart": "fd00:74::100"}],
        ],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "::/0"},
            {"dst": "10.90.0.0/16", "mtu": 1300, "priority": 7, "table": 100},
        ],
    },
}
STORE = pathlib.Path("/var/lib/cni/networks/lan")
changed = functools.partial(pods.changed, CONFIG)
reserved = functools.partial(pods.reserved, "lan")
GATEWAYS = ("10.74.0.1", "fd00:74::1")


@pytest.fixture
def lan(host: Host) -> Netns:
    """What is on the other end of the master."""
    outside = host.netns("lan")
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "wire")
    host.run("ip", "link", "set", "wire", "netns", "lan")
    host.run("ip", "link", "set", "up0", "up")
    outside.run("ip", "address", "add", f"{GATEWAYS[0]}/24", "dev", "wire")
    outside.run("ip", "address", "add", f"{GATEWAYS[1]}/64", "dev", "wire", "nodad")
    outside.run("ip", "link", "set", "wire", "up")
    return outside


@pytest.fixture
def pod(host: Host, lan: Netns, run_plugin: Runner) -> Callable[..., Pod]:
    """Factory of pods, not yet attached."""
    return pod_factory(host, run_plugin, CONFIG)


def test_containers_reach_the_network_and_each_other(host: Host, pod: Callable[..., Pod]) -> None:
    one, two = pod().add(), pod().add()
    for position in (0, 1):
        one.netns.ping(GATEWAYS[position])
        one.netns.ping(two.addresses()[position])
    for each in (one, two):
        each.call("CHECK", each.known).succeeded()
        each.call("STATUS").succeeded()
        each.call("DEL", each.known).succeeded()
        assert "eth0" not in each.netns.link_names()


def test_the_result_and_what_there_is(pod: Callable[..., Pod]) -> None:
    one = pod().add()
    link = one.link()
    assert one.result["interfaces"] == [
        {"name": "eth0", "mac": link["address"], "mtu": 1400, "sandbox": one.netns.path}
    ]
    assert [ip["interface"] for ip in one.result["ips"]] == [0, 0]
    assert one.result["routes"] == CONFIG["ipam"]["routes"]
    assert link["linkinfo"]["info_kind"] == "macvlan"
    assert link["linkinfo"]["info_data"]["mode"] == "bridge"
    assert link["linkinfo"]["info_data"]["bcqueuelen"] == 1500
    assert link["ifalias"] == "cni:lan:pod-0:eth0"
    assert one.netns.addresses("eth0") == {ip["address"] for ip in one.result["ips"]}
    assert "mtu 1300" in one.netns.run("ip", "route", "show", "table", "100").stdout
    one.call("DEL", one.known).succeeded()


@pytest.mark.parametrize(
    "version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
)
def test_every_version(pod: Callable[..., Pod], version: str) -> None:
    one = pod(changed(cniVersion=version)).add()
    assert one.result["cniVersion"] == version
    if version >= "0.4.0":
        one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()


@pytest.mark.parametrize("mode", ["", "bridge", "private", "vepa", "passthru"])
def test_every_mode(pod: Callable[..., Pod], mode: str) -> None:
    one = pod(changed(mode=mode)).add()
    assert one.link()["linkinfo"]["info_data"]["mode"] == (mode or "bridge")
    one.netns.ping(GATEWAYS[0])
    one.call("CHECK", one.known).succeeded()
    one.call("CHECK", {**one.known, "mode": "vepa" if mode != "vepa" else "private"}).failed(
        103, "mode of container interface eth0"
    )
    one.call("DEL", one.known).succeeded()


def test_private_containers_do_not_reach_each_other(pod: Callable[..., Pod]) -> None:
    one, two = pod(changed(mode="private")).add(), pod(changed(mode="private")).add()
    words = ("ping", "-n", "-c1", "-W1", two.addresses()[0])
    assert one.netns.run(*words, check=False).returncode != 0
    one.netns.ping(GATEWAYS[0])
    for each in (one, two):
        each.call("DEL", each.known).succeeded()


def test_whose_word_counts_for_the_mac(pod: Callable[..., Pod]) -> None:
    mac = "0a:58:0a:00:00:0{}".format
    args = f"IgnoreUnknown=1;MAC={mac(2)}"
    for config, options, expected in (
        (changed(mac=mac(1)), {}, mac(1)),
        (changed(mac=mac(1)), {"args": args}, mac(2)),
        (changed(mac=mac(1), runtimeConfig={"mac": mac(3)}), {"args": args}, mac(3)),
    ):
        one = pod(config).add(**options)
        assert one.link()["address"] == expected == one.result["interfaces"][0]["mac"]
        one.call("DEL", one.known).succeeded()
    pod(changed(mac="01:00:5e:00:00:01")).call("ADD").failed(7, "01:00:5e")
    pod(changed(mac=mac(1), mode="passthru")).call("ADD").failed(7, "passthru")


@pytest.mark.parametrize("version6", [False, True])
def test_the_master_is_that_of_the_default_route(
    host: Host, pod: Callable[..., Pod], version6: bool
) -> None:
    one = pod(changed(master=None))
    one.call("STATUS").failed(50, "default route")
    one.call("ADD").failed(7, "default route")
    family = "-6" if version6 else "-4"
    host.run("ip", family, "route", "add", "default", "dev", "up0")
    one.call("STATUS").succeeded()
    one.add()
    one.netns.ping(GATEWAYS[0])
    host.run("ip", family, "route", "delete", "default")
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.config).succeeded()
    assert "eth0" not in one.netns.link_names()


def test_a_master_in_the_container(pod: Callable[..., Pod]) -> None:
    one = pod(changed(master="inner", linkInContainer=True, mtu=None))
    one.call("STATUS").succeeded()
    one.call("ADD").failed(7, "'inner' is no interface in the container")
    one.netns.run("ip", "link", "add", "inner", "type", "bridge")
    one.netns.run("ip", "link", "set", "inner", "mtu", "1300", "up")
    one.add()
    assert one.result["interfaces"][0]["mtu"] == 1300
    assert one.link()["link"] == "inner"
    one.call("CHECK", one.known).succeeded()
    one.call("CHECK", {**one.known, "linkInContainer": False, "master": "up0"}).failed(103)
    one.call("DEL").succeeded()
    assert "eth0" not in one.netns.link_names()


def test_without_addresses(pod: Callable[..., Pod]) -> None:
    one = pod(changed(ipam=None)).add()
    assert "ips" not in one.result
    assert one.link()["operstate"] == "UP"
    one.call("CHECK", one.known).succeeded()
    one.call("STATUS").succeeded()
    one.call("DEL", one.known).succeeded()


def test_dns(pod: Callable[..., Pod]) -> None:
    one = pod(changed(dns={"nameservers": ["10.1.1.1"]})).add()
    assert one.result["dns"] == {"nameservers": ["10.1.1.1"]}
    one.call("DEL").succeeded()


def test_a_master_by_another_of_its_names(host: Host, pod: Callable[..., Pod]) -> None:
    """Alternative names, which may be longer than a name."""
    host.run("ip", "link", "property", "add", "dev", "up0", "altname", "uplink-to-the-first-rack")
    one = pod(changed(master="uplink-to-the-first-rack")).add()
    one.netns.ping(GATEWAYS[0])
    one.call("CHECK", one.known).succeeded()
    one.call("STATUS").succeeded()
    one.call("DEL").succeeded()
    for name in ("uplink-to-the-second-rack", "x" * 200):
        pod(changed(master=name)).call("ADD").failed(7, f"'{name}' is no interface on the host")


def test_masters_that_cannot_have_it(host: Host, pod: Callable[..., Pod]) -> None:
    """The kernel says EBUSY and EINVAL; the user is told what that means."""
    one = pod(changed(master="lo", mtu=None))
    one.call("ADD").failed(7, "lo is no Ethernet interface")
    one.call("STATUS").failed(50, "lo is no Ethernet interface")
    host.run("ip", "link", "add", "br9", "type", "bridge")
    host.run("ip", "link", "set", "up0", "master", "br9")
    pod().call("ADD").failed(102, "on up0", "a port of a bridge")
    host.run("ip", "link", "set", "up0", "nomaster")
    first = pod().add()
    pod(changed(mode="passthru")).call("ADD").failed(102, "no other macvlan can be on up0")
    first.call("DEL").succeeded()
    first.config = changed(mode="passthru")
    first.add()
    pod().call("ADD").failed(102, "in mode passthru on up0")
    first.call("DEL").succeeded()


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_a_master_that_is_down_as_yet(host: Host, pod: Callable[..., Pod], mode: str) -> None:
    """As early at boot: it works as soon as the master is up. STATUS says that it does not yet."""
    one = pod(changed(mode=mode))
    host.run("ip", "link", "set", "up0", "down")
    one.call("STATUS").failed(51, "master up0 is down", "ip link set up0 up")
    # Worse than that is what comes first.
    nowhere = {"type": "host-local", "subnet": "10.73.0.0/24", "dataDir": "/dev/null/nowhere"}
    pod(changed(mode=mode, ipam=nowhere)).call("STATUS").failed(50, "ipam.dataDir")
    one.add()
    one.call("CHECK", one.known).succeeded()
    host.run("ip", "link", "set", "up0", "up")
    for address in GATEWAYS:
        one.netns.ping(address)
    one.call("CHECK", one.known).succeeded()
    one.call("STATUS").succeeded()
    one.call("DEL", one.known).succeeded()


def test_a_name_that_the_host_has_too(host: Host, pod: Callable[..., Pod]) -> None:
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    one = pod().add()
    one.call("DEL").succeeded()
    assert "eth0" in host.link_names()


BREAKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "address": (("ip", "address", "flush", "dev", "eth0", "scope", "global"), "addresses"),
    "down": (("ip", "link", "set", "eth0", "down"), "up, found down"),
    "mtu": (("ip", "link", "set", "eth0", "mtu", "1399"), "MTU of container"),
    "mac": (("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01"), "MAC address"),
    "mode": (("ip", "link", "set", "eth0", "type", "macvlan", "mode", "vepa"), "mode of"),
    "queue": (("ip", "link", "set", "eth0", "type", "macvlan", "bcqueuelen", "9"), "bcqueuelen"),
    "alias": (("ip", "link", "set", "eth0", "alias", "x"), "alias of"),
    "default": (("ip", "route", "delete", "default"), "0.0.0.0/0"),
    "subnet": (("ip", "-6", "route", "delete", "fd00:74::/64"), "fd00:74::/64"),
    "table": (("ip", "route", "flush", "table", "100"), "table 100"),
    "gone": (("ip", "link", "delete", "eth0"), "found nothing"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_notices(pod: Callable[..., Pod], name: str) -> None:
    words, culprit = BREAKAGES[name]
    one = pod().add()
    one.call("CHECK", one.known).succeeded()
    one.netns.run(*words)
    one.call("CHECK", one.known).failed(103, culprit)
    if name == "alias":
        one.netns.run("ip", "link", "set", "eth0", "alias", "cni:lan:pod-0:eth0")
    one.call("DEL", one.known).succeeded()
    assert "eth0" not in one.netns.link_names()


def test_check_notices_more(host: Host, pod: Callable[..., Pod]) -> None:
    """What is not inside: the namespace, the master, the reservation; another kind of device."""
    one = pod().add()
    elsewhere = copy.deepcopy(one.known)
    elsewhere["prevResult"]["interfaces"][0]["sandbox"] = "/run/netns/other"
    one.call("CHECK", elsewhere).failed(103, "/run/netns/other")
    host.run("ip", "link", "add", "up1", "type", "bridge")
    one.call("CHECK", {**one.known, "master": "up1"}).failed(103, "master of eth0", "up0")
    one.call("CHECK", {**one.known, "master": "up9"}).failed(103, "master of eth0", "up9")
    path = STORE / one.addresses()[0]
    path.rename(STORE / "x")
    one.call("CHECK", one.known).failed(103, one.addresses()[0])
    (STORE / "x").rename(path)
    one.call("CHECK", one.known).succeeded()
    one.call("CHECK", one.config).failed(7, "prevResult")
    one.call("DEL").succeeded()
    one.netns.run("ip", "link", "add", "eth0", "type", "bridge")
    one.call("CHECK", one.known).failed(103)


def test_check_minds_only_its_own(pod: Callable[..., Pod]) -> None:
    one = pod().add()
    one.netns.run("ip", "address", "add", "10.9.9.9/24", "dev", "eth0")
    one.netns.run("ip", "route", "add", "10.8.0.0/16", "via", "10.9.9.1")
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()


@pytest.mark.parametrize(
    "missing", ["nothing", "prevResult", "namespace", "path", "master", "all"]
)
def test_delete_with_what_is_left(host: Host, pod: Callable[..., Pod], missing: str) -> None:
    before = host.snapshot()
    one = pod().add()
    config = one.config if missing in ("prevResult", "all", "master") else one.known
    if missing in ("namespace", "all"):
        one.netns.delete()
    if missing == "master":
        config = {**config, "master": "up9"}
    for _ in range(2):
        options = {"netns": ""} if missing in ("path", "all") else {}
        one.call("DEL", config, **options).succeeded()
    assert reserved() == set()
    if missing in ("nothing", "prevResult", "master"):
        assert "eth0" not in one.netns.link_names()
    one.netns.delete()
    # The kernel takes a namespace apart some time after its name is gone.
    deadline = time.monotonic() + 10
    while one.result["interfaces"][0]["mac"] in host.run("bridge", "fdb", "show", "dev", "up0"):
        assert time.monotonic() < deadline, "the macvlan outlived its namespace"
        time.sleep(0.01)
    host.assert_clean(before)


def test_delete_without_the_master_itself(host: Host, pod: Callable[..., Pod]) -> None:
    one = pod().add()
    host.run("ip", "link", "delete", "up0")
    one.call("DEL").succeeded()
    assert reserved() == set()


def test_an_add_that_fails_leaves_nothing(host: Host, pod: Callable[..., Pod]) -> None:
    """Before, in and after IPAM."""
    before = host.snapshot()
    taken = pod()
    taken.netns.run("ip", "link", "add", "eth0", "type", "bridge")
    inside = taken.netns.snapshot()
    taken.call("ADD").failed(101, "interface eth0 already exists")
    assert not inside.difference(taken.netns.snapshot())
    one = pod()
    inside = one.netns.snapshot()
    full = {"type": "host-local", "subnet": "10.72.1.0/30", "exclude": ["10.72.1.2"]}
    routed = {**CONFIG["ipam"], "routes": [{"dst": "10.0.0.0/8", "gw": "192.0.2.9"}]}
    for config, code, culprit in (
        (changed(ipam=full), 7, "10.72.1.2 has no address"),
        (changed(ipam={"type": "static"}), 104, "missing IP config"),
        (changed(ipam={"type": "nonesuch"}), 7, "nonesuch"),
        (changed(ipam=routed), 102, "10.0.0.0/8"),
        (changed(master="up9"), 7, "'up9'"),
        (changed(mtu=1501), 7, "1501"),
        (changed(mtu=10), 7, "MTU 10"),
        (changed(mtu=1000), 7, "mtu 1000 is too small for IPv6 address fd00:74::"),
        (changed(mode="source"), 7, "mode"),
    ):
        one.call("ADD", config).failed(code, culprit)
        assert not inside.difference(one.netns.snapshot())
        one.call("DEL", config if config["ipam"].get("type") != "nonesuch" else None).succeeded()
    host.run("ip", "link", "set", "up0", "mtu", "1000")
    one.call("ADD", changed(mtu=None)).failed(7, "MTU 1000 of master up0", "1280", "fd00:74::")
    host.run("ip", "link", "set", "up0", "mtu", "1500")
    one.call("DEL").succeeded()
    for namespace in host._namespaces:
        if namespace.name != "lan":
            namespace.delete()
    assert reserved() == set()
    host.assert_clean(before)


def test_ipv4_with_less_than_ipv6_takes(host: Host, pod: Callable[..., Pod]) -> None:
    one = pod(changed(mtu=1000, ipam={"type": "host-local", "subnet": "10.74.0.0/24"})).add()
    assert one.result["interfaces"][0]["mtu"] == 1000
    one.call("CHECK", one.known).succeeded()


def test_killed_at_any_moment(host: Host, pod: Callable[..., Pod]) -> None:
    """SIGKILL during ADD, then DEL: nothing stays. The host never sees the device."""
    before = host.snapshot()
    for number in range(24):
        one = pod()
        killed_after(
            (0.0007 if number < 12 else 0.008) * number,
            one.run.bin_dir / "macvlan",
            environment("ADD", one.run.bin_dir, one.netns, one.name, "eth0"),
            encode(CONFIG),
        )
        assert host.link_names() == {"lo", "up0"}
        one.call("DEL").succeeded()
        assert one.netns.link_names() == {"lo"}
        one.netns.delete()
    assert reserved() == set()
    host.assert_clean(before)


def test_gc(pod: Callable[..., Pod]) -> None:
    keep, lose = pod().add(), pod().add()
    keep.call("GC").failed(7, "valid-attachments")
    lose.netns.delete()
    # What is younger than a tick of the clock that stamps files is left for the next GC.
    time.sleep(0.05)
    valid = [{"containerID": keep.name, "ifname": "eth0"}]
    keep.call("GC", {**CONFIG, "cni.dev/valid-attachments": valid}).succeeded()
    assert reserved() == set(keep.addresses())
    keep.call("CHECK", keep.known).succeeded()
    keep.call("DEL", keep.known).succeeded()
    lose.call("DEL", netns="").succeeded()


@pytest.mark.parametrize("known", [True, False])
def test_what_go_made_is_checked_and_deleted(
    host: Host, pod: Callable[..., Pod], known: bool
) -> None:
    before = host.snapshot()
    config = changed(cniVersion="1.0.0", mtu=None, bcqueuelen=None)
    config["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    one = pod(config)
    one.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known if known else config).succeeded()
    assert one.netns.link_names() == {"lo"}
    assert reserved() == set()
    one.netns.delete()
    host.assert_clean(before)


def test_what_go_made_goes_after_tuning(host: Host, pod: Callable[..., Pod]) -> None:
    """Whose DEL comes first, and gives it a MAC address that prevResult has not got."""
    config = changed(cniVersion="1.0.0", mtu=None, bcqueuelen=None)
    config["ipam"]["routes"] = []
    one = pod(config)
    one.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    result = pods.tuned_by_go(host, one, "0a:58:0a:f4:01:02")
    one.call("DEL", {**config, "prevResult": result}).succeeded()
    assert one.netns.link_names() == {"lo"}
    assert reserved() == set()


def test_go_checks_and_deletes_what_ours_made(host: Host, pod: Callable[..., Pod]) -> None:
    host.expect_leftovers("Go's host-local does not know our index of owners")
    config = changed(cniVersion="1.0.0", bcqueuelen=None)
    config["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    one = pod(config).add()
    one.call("CHECK", one.known, bin_dir=GO_BIN_DIR, path=GO_BIN_DIR).succeeded()
    one.call("DEL", one.known, bin_dir=GO_BIN_DIR, path=GO_BIN_DIR).succeeded()
    assert one.netns.link_names() == {"lo"}
    assert reserved() == set()


def test_an_interface_of_others_is_left_alone(pod: Callable[..., Pod]) -> None:
    """DEL after an ADD that was refused because of it."""
    one = pod().add()
    other = Pod(one.run, one.netns, "stranger", changed(name="another"))
    other.call("ADD").failed(101, "eth0")
    other.call("DEL").succeeded()
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()
    one.netns.run("ip", "link", "add", "eth0", "type", "bridge")
    one.call("DEL").succeeded()
    assert "eth0" in one.netns.link_names()
