# SPDX-License-Identifier: Apache-2.0
"""host-device on the real kernel, with veths, bridges and macvlans as devices."""

from __future__ import annotations

import copy
import functools
import os
import pathlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from libcni.netns_lock import NamespaceLock
from tests.netns import pods
from tests.rig.host import Host
from tests.rig.killed import killed_after
from tests.rig.plugins import GO_BIN_DIR, Runner, encode, environment

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "fast",
    "type": "host-device",
    "device": "dev0",
    "ipam": {
        "type": "host-local",
        "ranges": [
            [{"subnet": "10.78.0.0/24", "rangeStart": "10.78.0.100"}],
            [{"subnet": "fd00:78::/64", "rangeStart": "fd00:78::100"}],
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.90.0.0/16", "mtu": 1300, "table": 100}],
    },
}
STORE = pathlib.Path("/var/lib/cni/networks/fast")
changed = functools.partial(pods.changed, CONFIG)
reserved = functools.partial(pods.reserved, "fast")
MAC = "02:00:00:00:07:08"


class Pod(pods.Pod):
    """A container, and `dev0` of the host, whose other end is in `far`."""

    def __init__(self, run: Runner, host: Host, config: dict[str, Any]) -> None:
        super().__init__(run, host.netns(), "pod", config)
        self.host, self.far = host, host.netns("far")
        host.run("ip", "link", "add", "dev0", "type", "veth", "peer", "name", "wire")
        host.run("ip", "link", "set", "dev0", "address", MAC)
        host.run("ip", "link", "set", "wire", "netns", "far")
        self.far.run("ip", "address", "add", "10.78.0.1/24", "dev", "wire")
        self.far.run("ip", "address", "add", "fd00:78::1/64", "dev", "wire", "nodad")
        self.far.run("ip", "link", "set", "wire", "up")

    def device(self) -> dict[str, Any]:
        """dev0 as the host has it."""
        found: dict[str, Any] = self.host.ip("link", "show", "dev0")[0]
        return found

    def is_back(self) -> None:
        """dev0 is on the host as it was, unmarked and down; nothing is reserved."""
        link = self.device()
        assert link["address"] == MAC
        assert "ifalias" not in link and "altnames" not in link
        assert "UP" not in link["flags"]
        assert reserved() == set()
        assert self.netns.link_names() == {"lo"}


@pytest.fixture
def pod(host: Host, run_plugin: Runner) -> Pod:
    """A container, not yet attached."""
    return Pod(run_plugin, host, CONFIG)


def test_there_and_back(host: Host, pod: Pod) -> None:
    pod.call("STATUS").succeeded()
    pod.add()
    assert "dev0" not in host.link_names()
    pod.netns.ping("10.78.0.1")
    pod.netns.ping("fd00:78::1")
    assert pod.result["interfaces"] == [
        {"name": "eth0", "mac": MAC, "mtu": 1500, "sandbox": pod.netns.path}
    ]
    assert [ip["interface"] for ip in pod.result["ips"]] == [0, 0]
    assert pod.netns.ip("link", "show", "eth0")[0]["ifalias"] == "dev0"
    assert "mtu 1300" in pod.netns.run("ip", "route", "show", "table", "100").stdout
    pod.call("CHECK", pod.known).succeeded()
    pod.call("STATUS").failed(50, "device dev0 is not on the host")
    pod.call("STATUS", changed(device="lo")).failed(50, "lo cannot leave")
    for _ in range(2):
        pod.call("DEL", pod.known).succeeded()
        pod.is_back()


@pytest.mark.parametrize(
    "version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
)
def test_every_version(pod: Pod, version: str) -> None:
    pod.config = changed(cniVersion=version)
    pod.add()
    assert pod.result["cniVersion"] == version
    if version >= "0.4.0":
        pod.call("CHECK", pod.known).succeeded()
    pod.call("DEL", pod.known).succeeded()
    pod.is_back()


def test_by_hardware_address(pod: Pod) -> None:
    pod.config = changed(device=None, hwaddr=MAC.upper())
    pod.add()
    pod.call("CHECK", pod.known).succeeded()
    pod.call("DEL").succeeded()
    pod.is_back()


@pytest.mark.parametrize("kind", ["macvlan", "veth", "dev0"])
def test_names_that_are_taken(host: Host, pod: Pod, kind: str) -> None:
    """The device's in the container; CNI_IFNAME on the host; CNI_IFNAME is the device's."""
    ifname = "dev0" if kind == "dev0" else "eth0"
    if kind == "veth":
        host.run("ip", "link", "add", "eth0", "type", "bridge")
    elif kind == "macvlan":
        pod.netns.run("ip", "link", "add", "dev0", "type", "bridge")
    pod.add(ifname=ifname)
    assert pod.netns.ip("link", "show", ifname)[0]["address"] == MAC
    pod.call("CHECK", pod.known, ifname=ifname).succeeded()
    pod.call("DEL", ifname=ifname).succeeded()
    if kind == "macvlan":
        pod.netns.run("ip", "link", "delete", "dev0")
    pod.is_back()


def test_a_macvlan_and_no_addresses(host: Host, pod: Pod) -> None:
    host.run("ip", "link", "add", "mv0", "link", "dev0", "type", "macvlan")
    pod.config = changed(device="mv0", ipam=None)
    pod.add()
    assert "ips" not in pod.result
    pod.call("CHECK", pod.known).succeeded()
    pod.call("DEL").succeeded()
    assert "mv0" in host.link_names()


def test_by_another_of_its_names(host: Host, pod: Pod) -> None:
    name = "rack-7-unit-12-port-3"
    host.run("ip", "link", "property", "add", "dev", "dev0", "altname", name)
    pod.config = changed(device=name)
    pod.call("STATUS").succeeded()
    pod.add()
    pod.call("CHECK", pod.known).succeeded()
    pod.call("CHECK", {**pod.known, "device": "rack-7"}).failed(103, "alias of", "rack-7")
    pod.call("DEL").succeeded()
    host.run("ip", "link", "property", "del", "dev", "dev0", "altname", name)
    pod.is_back()


def test_a_bridge_stays_where_it_is(host: Host, pod: Pod) -> None:
    host.run("ip", "link", "add", "br9", "type", "bridge")
    before = host.snapshot()
    pod.call("ADD", changed(device="br9")).failed(102, "move device br9", "Invalid argument")
    host.assert_undone(before)


def test_the_name_was_taken_meanwhile(host: Host, pod: Pod) -> None:
    pod.add()
    host.run("ip", "link", "add", "dev0", "type", "bridge")
    error = pod.call("DEL").failed(101, "dev0 is on the host again as cni", "taken")
    now = error["msg"].partition(" as ")[2].partition(":")[0]
    assert host.ip("link", "show", now)[0]["address"] == MAC
    assert f"ip link set {now} name" in error["details"]
    assert "also" not in error["details"]
    assert pod.netns.link_names() == {"lo"}
    host.run("ip", "link", "delete", "dev0")
    pod.call("DEL").succeeded()
    pod.is_back()


def marks(device: dict[str, Any]) -> list[str]:
    """The alternative names by which plugins know it."""
    return [name for name in device.get("altnames", []) if name.startswith("cni-")]


def test_a_device_that_another_takes_meanwhile(host: Host, pod: Pod) -> None:
    """Between looking for it and moving it: that one's device bears no mark of ours."""
    with ThreadPoolExecutor() as pool:
        with NamespaceLock():
            add = pool.submit(pod.call, "ADD", changed(ipam=None))
            time.sleep(1)
            assert not add.done()
            pod.device()
            other = host.netns()
            host.run("ip", "link", "set", "dev0", "netns", other.name)
        add.result().failed(7, "device dev0 is not on the host")
    taken = other.ip("link", "show", "dev0")[0]
    assert not marks(taken) and "ifalias" not in taken
    other.run("ip", "link", "delete", "dev0")


def test_two_at_once(host: Host, pod: Pod) -> None:
    """One of them has it, and the other has not touched it."""
    pod.config = changed(ipam=None)
    other = pods.Pod(pod.run, host.netns(), "other", pod.config)
    for _ in range(8):
        with ThreadPoolExecutor() as pool:
            replies = list(pool.map(lambda each: each.call("ADD"), (pod, other)))
        assert sorted(reply.rc for reply in replies) == [0, 1]
        winner, loser = (pod, other) if replies[0].rc == 0 else (other, pod)
        replies[1 - (winner is other)].failed(7, "device dev0 is not on the host")
        assert len(marks(winner.link())) == 2  # the mark, and the record of its name
        loser.call("DEL").succeeded()
        assert "eth0" in winner.netns.link_names()
        winner.call("DEL").succeeded()
        pod.is_back()


def test_marks_of_others_go_when_it_is_back(host: Host, pod: Pod) -> None:
    """As an ADD leaves it that was killed, and whose DEL never came."""
    stale = f"cni-{'0' * 16}-{'1' * 32}"
    for name in (stale, f"{stale}-dev7"):
        host.run("ip", "link", "property", "add", "dev", "dev0", "altname", name)
    pod.add()
    pod.call("DEL").succeeded()
    pod.is_back()


@pytest.mark.parametrize("alias", ["foo", ""])
@pytest.mark.parametrize("by", ["device", "hwaddr"])
def test_somebody_changed_the_alias(pod: Pod, alias: str, by: str) -> None:
    """The device has its own name again all the same."""
    if by == "hwaddr":
        pod.config = changed(device=None, hwaddr=MAC)
    pod.add()
    pod.netns.run("ip", "link", "set", "eth0", "alias", alias)
    pod.call("DEL").succeeded()
    pod.is_back()


@pytest.mark.parametrize(
    ("by", "alias", "name"),
    [
        ("device", "foo", "foo"),  # as with Go
        ("device", "no/name", "dev0"),
        ("device", "", "dev0"),
        ("hwaddr", "foo", "foo"),
        ("hwaddr", "", "eth0"),
    ],
)
def test_somebody_changed_the_alias_of_what_go_moved(
    pod: Pod, by: str, alias: str, name: str
) -> None:
    pod.config = changed(cniVersion="1.0.0", ipam=None)
    if by == "hwaddr":
        pod.config |= {"device": "", "hwaddr": MAC}
    pod.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    pod.netns.run("ip", "link", "set", "eth0", "alias", alias)
    said = pod.call("DEL", pod.known).succeeded().stderr
    assert ("keeps that name" in said) == (name == "eth0")
    if name != "dev0":
        pod.host.run("ip", "link", "set", name, "name", "dev0")
    pod.is_back()


@pytest.mark.parametrize("by", ["device", "hwaddr"])
def test_a_device_without_a_record_of_its_name(pod: Pod, by: str) -> None:
    """As versions before had it: then the configuration or the alias says it, or nobody does."""
    if by == "hwaddr":
        pod.config = changed(device=None, hwaddr=MAC)
    for alias, name in (("dev0", "dev0"), ("", "dev0" if by == "device" else "eth0")):
        pod.add()
        record = max(marks(pod.link()), key=len)
        pod.netns.run("ip", "link", "property", "del", "dev", "eth0", "altname", record)
        pod.netns.run("ip", "link", "set", "eth0", "alias", alias)
        said = pod.call("DEL").succeeded().stderr
        assert ("eth0" in said and "keeps that name" in said) == (name == "eth0")
        if name != "dev0":
            pod.host.run("ip", "link", "set", name, "name", "dev0")
        pod.is_back()


@pytest.mark.parametrize("exists", [True, False])
def test_the_configuration_was_edited_after_go_moved_it(
    host: Host, pod: Pod, exists: bool
) -> None:
    """What Go wrote down counts."""
    pod.config = changed(cniVersion="1.0.0", ipam=None)
    pod.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    known = {**pod.known, "device": "dev1"}
    if exists:
        host.run("ip", "link", "add", "dev1", "type", "bridge")
    pod.call("DEL", known).succeeded()
    pod.is_back()
    if exists:
        host.run("ip", "link", "delete", "dev1")


BREAKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "address": (("ip", "address", "flush", "dev", "eth0", "scope", "global"), "addresses"),
    "down": (("ip", "link", "set", "eth0", "down"), "up, found down"),
    "mtu": (("ip", "link", "set", "eth0", "mtu", "1399"), "MTU of container"),
    "mac": (("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01"), "MAC address"),
    "alias": (("ip", "link", "set", "eth0", "alias", "x"), "alias of"),
    "default": (("ip", "route", "delete", "default"), "0.0.0.0/0"),
    "subnet": (("ip", "-6", "route", "delete", "fd00:78::/64"), "fd00:78::/64"),
    "table": (("ip", "route", "flush", "table", "100"), "table 100"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_notices(pod: Pod, name: str) -> None:
    words, culprit = BREAKAGES[name]
    pod.add()
    pod.call("CHECK", pod.known).succeeded()
    pod.netns.run(*words)
    pod.call("CHECK", pod.known).failed(103, culprit)
    pod.netns.run("ip", "link", "set", "eth0", "alias", "dev0")
    pod.netns.run("ip", "link", "set", "eth0", "address", MAC)
    pod.call("DEL", pod.known).succeeded()
    pod.is_back()


def test_check_notices_more(pod: Pod) -> None:
    pod.add()
    pod.call("CHECK").failed(7, "prevResult")
    elsewhere = copy.deepcopy(pod.known)
    elsewhere["prevResult"]["interfaces"][0]["sandbox"] = "/run/netns/other"
    pod.call("CHECK", elsewhere).failed(103, "/run/netns/other")
    path = STORE / pod.result["ips"][0]["address"].partition("/")[0]
    path.rename(STORE / "x")
    pod.call("CHECK", pod.known).failed(103, path.name)
    (STORE / "x").rename(path)
    pod.netns.run("ip", "link", "set", "eth0", "name", "gone")
    pod.call("CHECK", pod.known).failed(103, "nothing")
    pod.call("DEL").succeeded()
    pod.is_back()


def test_delete_without_a_namespace(host: Host, pod: Pod) -> None:
    """A veth vanishes with it; the addresses are released whatever CNI_NETNS says."""
    pod.add()
    pod.call("DEL", netns="").succeeded()
    assert reserved() == set()
    pod.call("DEL").succeeded()
    pod.is_back()
    pod.add()
    pod.netns.delete()
    pod.call("DEL").succeeded()
    assert reserved() == set()


def returned(host: Host, pod: Pod) -> None:
    """As the kernel leaves hardware when a namespace ends: on the host, under another name."""
    pod.netns.run("ip", "link", "set", "eth0", "name", "dev7")
    pod.netns.run("ip", "link", "set", "dev7", "netns", str(os.getpid()))
    assert "dev7" in host.link_names()


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_device_that_came_back_by_itself(host: Host, pod: Pod, verb: str) -> None:
    pod.add()
    returned(host, pod)
    if verb == "GC":
        valid = [{"containerID": "pod", "ifname": "eth0"}]
        pod.call("GC").failed(7, "valid-attachments")
        pod.call("GC", {**CONFIG, "cni.dev/valid-attachments": valid}).succeeded()
        other = changed(name="another", **{"cni.dev/valid-attachments": []}, ipam=None)
        pod.call("GC", other).succeeded()
        assert "dev7" in host.link_names()
        # What is younger than a tick of the clock that stamps files is left for the next GC.
        time.sleep(0.05)
        pod.call("GC", {**CONFIG, "cni.dev/valid-attachments": []}).succeeded()
    else:
        pod.call("DEL", netns="").succeeded()
    pod.is_back()


def test_a_device_that_came_back_by_itself_and_is_taken_again(host: Host, pod: Pod) -> None:
    """Before the DEL of who had it: it has its own name again when both have gone."""
    pod.config = changed(device=None, hwaddr=MAC)
    pod.add()
    returned(host, pod)
    host.run("ip", "link", "set", "dev7", "up")
    host.run("ip", "address", "add", "fd00:79::1/64", "dev", "dev7", "nodad")
    before = host.ip("address", "show", "dev7")[0]
    full = ("sh", "-c", 'exec "$0" "$@" >/dev/full')
    pod.netns = host.netns()
    assert pod.call("ADD", container_id="second", netns=pod.netns, under=full).rc == 1
    after = host.ip("address", "show", "dev7")[0]
    for now in (before, after):
        now["altnames"].sort()
        now["addr_info"] = sorted(address["local"] for address in now["addr_info"])
        del now["ifindex"]
    assert after == before
    host.run("ip", "address", "flush", "dev", "dev7")
    second: dict[str, Any] = {"container_id": "second", "netns": pod.netns}
    pod.call("ADD", **second).result()
    pod.call("DEL", netns="").succeeded()
    assert "eth0" in pod.netns.link_names()
    pod.call("DEL", **second).succeeded()
    pod.is_back()


def test_an_add_that_fails_leaves_everything(host: Host, pod: Pod) -> None:
    host.run("ip", "link", "set", "dev0", "alias", "mine")
    host.run("ip", "link", "add", "br9", "type", "bridge")
    host.run("ip", "link", "set", "dev0", "up", "master", "br9")
    host.run("ip", "address", "add", "10.99.0.1/24", "dev", "dev0")
    host.run("ip", "address", "add", "fd00:99::1/64", "dev", "dev0", "nodad")
    before, inside = host.snapshot(), pod.netns.snapshot()
    full = {"type": "host-local", "subnet": "10.72.1.0/30", "exclude": ["10.72.1.2"]}
    routed = {**CONFIG["ipam"], "routes": [{"dst": "10.0.0.0/8", "gw": "192.0.2.9"}]}
    for config, code, culprit in (
        (changed(ipam=full), 7, "10.72.1.2 has no address"),
        (changed(ipam={"type": "static"}), 104, "ipam.addresses names none"),
        (changed(ipam=routed), 102, "10.0.0.0/8"),
        (changed(device="dev9"), 7, "device dev9 is not on the host"),
        (changed(device="lo"), 7, "lo cannot leave"),
        (changed(device=None), 7, "specify either"),
        (changed(device=None, hwaddr="02:00:00:00:00:99"), 7, "02:00:00:00:00:99"),
        (changed(device=None, pciBusID="0000:99:00.0"), 7, "0000:99:00.0"),
    ):
        pod.call("ADD", config).failed(code, culprit)
        assert not inside.difference(pod.netns.snapshot())
        host.assert_undone(before)
    pod.netns.run("ip", "link", "add", "eth0", "type", "bridge")
    pod.call("ADD").failed(101, "interface eth0 already exists")
    pod.call("DEL").succeeded()
    assert "eth0" in pod.netns.link_names()
    host.assert_undone(before)


def test_ipv6_on_a_device_that_is_too_small(host: Host, pod: Pod) -> None:
    host.run("ip", "link", "set", "dev0", "mtu", "1000")
    before = host.snapshot()
    pod.call("ADD").failed(7, "MTU 1000 of dev0 is too small for IPv6 address fd00:78::", "1280")
    host.assert_undone(before)
    only = {"type": "host-local", "subnet": "10.78.0.0/24"}
    pod.call("ADD", changed(ipam=only)).result()
    pod.call("DEL", changed(ipam=only)).succeeded()


def test_killed_at_any_moment(pod: Pod) -> None:
    """SIGKILL during ADD, then DEL: the device is back."""
    for number in range(24):
        killed_after(
            (0.0007 if number < 12 else 0.008) * number,
            pod.run.bin_dir / "host-device",
            environment("ADD", pod.run.bin_dir, pod.netns, "pod", "eth0"),
            encode(CONFIG),
        )
        pod.call("DEL").succeeded()
        pod.is_back()


def test_a_device_of_others_is_left_alone(host: Host, pod: Pod) -> None:
    pod.add()
    pod.call("DEL", changed(name="another"), container_id="stranger").succeeded()
    pod.call("CHECK", pod.known).succeeded()
    pod.call("DEL").succeeded()
    pod.is_back()


@pytest.mark.parametrize("known", [True, False])
def test_what_go_moved_comes_back(host: Host, pod: Pod, known: bool) -> None:
    pod.config = changed(cniVersion="1.0.0")
    pod.config["ipam"] = {**CONFIG["ipam"], "routes": [{"dst": "0.0.0.0/0"}]}
    pod.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    pod.call("CHECK", pod.known).succeeded()
    pod.call("DEL", pod.known if known else pod.config).succeeded()
    pod.is_back()


@pytest.mark.parametrize("known_by", ["address", "device"])
def test_what_go_moved_comes_back_after_tuning(host: Host, pod: Pod, known_by: str) -> None:
    """Whose DEL comes first, and gives it a MAC address that prevResult has not got."""
    pod.config = changed(cniVersion="1.0.0")
    pod.config["ipam"] = {"type": "host-local", "subnet": "10.78.0.0/24"}
    if known_by == "device":
        del pod.config["ipam"]
    else:
        pod.config |= {"device": "", "hwaddr": MAC}
    pod.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    tuned = pods.tuned_by_go(host, pod, "0a:58:0a:f4:01:02")
    if known_by == "address":
        # It is not the device that it was, by its MAC address.
        pod.config["hwaddr"] = "02:00:00:00:07:09"
    pod.call("DEL", {**pod.config, "prevResult": tuned}).succeeded()
    pod.is_back()


def test_an_interface_that_prev_result_does_not_know_stays(pod: Pod) -> None:
    """Neither by its MAC address nor by an address that it has."""
    pod.netns.run("ip", "link", "add", "eth0", "type", "bridge")
    pod.netns.run("ip", "link", "set", "eth0", "alias", "theirs")
    pod.netns.run("ip", "address", "add", "10.78.0.2/25", "dev", "eth0")
    entry = {"name": "eth0", "mac": MAC, "sandbox": pod.netns.path}
    known = {
        "cniVersion": "1.1.0",
        "interfaces": [entry],
        "ips": [{"address": "10.78.0.2/24", "interface": 0}],
    }
    pod.call("DEL", {**pod.config, "prevResult": known}).succeeded()
    assert "eth0" in pod.netns.link_names()


def test_go_brings_back_what_ours_moved(host: Host, pod: Pod) -> None:
    host.expect_leftovers("Go's host-local does not know our index of owners")
    pod.config = changed(cniVersion="1.0.0")
    pod.config["ipam"] = {**CONFIG["ipam"], "routes": [{"dst": "0.0.0.0/0"}]}
    pod.add()
    pod.call("CHECK", pod.known, bin_dir=GO_BIN_DIR, path=GO_BIN_DIR).succeeded()
    pod.call("DEL", pod.known, bin_dir=GO_BIN_DIR, path=GO_BIN_DIR).succeeded()
    assert pod.device()["address"] == MAC and reserved() == set()
