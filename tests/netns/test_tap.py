# SPDX-License-Identifier: Apache-2.0
"""tap on the real kernel: frames through the device, every verb, what CHECK notices, failures."""

from __future__ import annotations

import fcntl
import functools
import os
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns import pods
from tests.netns.pods import Pod, pod_factory
from tests.rig import isolation
from tests.rig.host import Host, Netns
from tests.rig.killed import killed_after
from tests.rig.plugins import Runner, encode, environment

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "machine",
    "type": "tap",
    "mtu": 1400,
    "multiQueue": True,
    "owner": 107,
    "group": 0,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.79.0.0/24"}], [{"subnet": "fd00:79::/64"}]],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "10.90.0.0/16", "mtu": 1300, "priority": 7, "table": 100},
        ],
    },
}
changed = functools.partial(pods.changed, CONFIG)
reserved = functools.partial(pods.reserved, "machine")


@pytest.fixture
def pod(host: Host, run_plugin: Runner) -> Callable[..., Pod]:
    """Factory of pods, not yet attached."""
    return pod_factory(host, run_plugin, CONFIG)


IFREQ, TUNSETIFF, TUNSETPERSIST = "16sH22x", 0x400454CA, 0x400454CB


def opened(netns: Netns, queues: int = 1) -> list[int]:
    """The device as a program of the container opens it."""

    def work() -> list[int]:
        fds = []
        for _ in range(queues):
            fds.append(os.open("/dev/net/tun", os.O_RDWR))
            fcntl.ioctl(fds[-1], TUNSETIFF, struct.pack(IFREQ, b"eth0", 0x5102))
        return fds

    return isolation.within(netns.path, work)


def test_a_program_gets_what_the_container_sends(pod: Callable[..., Pod]) -> None:
    one = pod().add()
    fds = opened(one.netns, 2)
    try:
        one.netns.run("ping", "-n", "-c1", "-W1", "10.79.0.77", check=False)
        frames = []
        for fd in fds:
            os.set_blocking(fd, False)
            while True:
                try:
                    frames.append(os.read(fd, 2000))
                except BlockingIOError:
                    break
        # 10 bytes of VNET_HDR, then Ethernet: a question for the address by ARP.
        assert any(f[22:24] == b"\x08\x06" and f[48:52] == bytes((10, 79, 0, 77)) for f in frames)
        one.call("CHECK", one.known).succeeded()
    finally:
        for fd in fds:
            os.close(fd)
    one.call("DEL", one.known).succeeded()
    assert one.netns.link_names() == {"lo"}


def test_the_result_and_what_there_is(pod: Callable[..., Pod]) -> None:
    one = pod().add()
    link = one.link()
    assert one.result["interfaces"] == [
        {"name": "eth0", "mac": link["address"], "mtu": 1400, "sandbox": one.netns.path}
    ]
    assert one.result["routes"] == CONFIG["ipam"]["routes"]
    data = link["linkinfo"]["info_data"]
    assert link["linkinfo"]["info_kind"] == "tun" and data["type"] == "tap"
    assert data["multi_queue"] and data["persist"] and data["vnet_hdr"] and not data["pi"]
    assert (data["user"], data["group"]) == (107, "root") or (data["user"], data["group"]) == (
        "107",
        "root",
    )
    assert link["ifalias"] == "cni:machine:pod-0:eth0"
    assert one.netns.addresses("eth0") == {ip["address"] for ip in one.result["ips"]}
    one.call("CHECK", one.known).succeeded()
    one.call("STATUS").succeeded()
    one.call("DEL", one.known).succeeded()


def test_a_port_of_a_bridge_in_the_container(pod: Callable[..., Pod]) -> None:
    one = pod(changed(bridge="br0", ipam=None, multiQueue=False, owner=None, group=None))
    one.call("ADD").failed(7, "'br0' is no bridge")
    one.netns.run("ip", "link", "add", "br0", "type", "bridge")
    one.add()
    link = one.link()
    assert link["master"] == "br0" and "user" not in link["linkinfo"]["info_data"]
    one.call("CHECK", one.known).succeeded()
    one.netns.run("ip", "link", "set", "eth0", "nomaster")
    one.call("CHECK", one.known).failed(103, "bridge of container interface eth0", "br0")
    one.call("DEL").succeeded()
    assert one.netns.link_names() == {"lo", "br0"}


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


BREAKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "address": (("ip", "address", "flush", "dev", "eth0", "scope", "global"), "addresses"),
    "down": (("ip", "link", "set", "eth0", "down"), "up, found down"),
    "mtu": (("ip", "link", "set", "eth0", "mtu", "1399"), "MTU of container"),
    "mac": (("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01"), "MAC address"),
    "alias": (("ip", "link", "set", "eth0", "alias", "x"), "alias of"),
    "default": (("ip", "route", "delete", "default"), "0.0.0.0/0"),
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
        one.netns.run("ip", "link", "set", "eth0", "alias", "cni:machine:pod-0:eth0")
    one.call("DEL", one.known).succeeded()
    assert "eth0" not in one.netns.link_names()


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (("mode", "tap", "multi_queue", "user", "1", "group", "0"), "owner of"),
        (("mode", "tap", "multi_queue", "user", "107", "group", "1"), "group of"),
        (("mode", "tap", "user", "107", "group", "0"), "multiQueue of"),
        (("mode", "tun", "multi_queue", "user", "107", "group", "0"), "found a tun"),
    ],
)
def test_check_notices_another_device(
    pod: Callable[..., Pod], words: tuple[str, ...], culprit: str
) -> None:
    one = pod().add()
    one.netns.run("ip", "link", "delete", "eth0")
    one.netns.run("ip", "tuntap", "add", "name", "eth0", *words)
    one.call("CHECK", one.known).failed(103, culprit)
    one.call("DEL").succeeded()
    # It bears no mark of ours and is not what prevResult has.
    assert "eth0" in one.netns.link_names()


def test_check_notices_a_device_about_to_vanish(pod: Callable[..., Pod]) -> None:
    """A program may take the persistence away: the device goes when it closes it."""
    one = pod().add()
    fds = opened(one.netns)
    try:
        fcntl.ioctl(fds[0], TUNSETPERSIST, 0)
        one.call("CHECK", one.known).failed(103, "outlives the program")
    finally:
        os.close(fds[0])
    assert one.netns.link_names() == {"lo"}
    one.call("DEL", one.known).succeeded()


@pytest.mark.parametrize("missing", ["nothing", "prevResult", "namespace", "path", "all"])
def test_delete_with_what_is_left(host: Host, pod: Callable[..., Pod], missing: str) -> None:
    before = host.snapshot()
    one = pod().add()
    config = one.config if missing in ("prevResult", "all") else one.known
    if missing in ("namespace", "all"):
        one.netns.delete()
    for _ in range(2):
        options = {"netns": ""} if missing in ("path", "all") else {}
        one.call("DEL", config, **options).succeeded()
    assert reserved() == set()
    if missing in ("nothing", "prevResult"):
        assert one.netns.link_names() == {"lo"}
    one.netns.delete()
    host.assert_clean(before)


def test_what_has_no_alias_is_known_by_prev_result(pod: Callable[..., Pod]) -> None:
    """As Go's plugin leaves it."""
    one = pod().add()
    one.netns.run("ip", "link", "set", "eth0", "alias", "")
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()
    assert one.netns.link_names() == {"lo"}


def test_an_alias_of_somebody_s_proves_nothing(pod: Callable[..., Pod]) -> None:
    """prevResult does, by the MAC address."""
    one = pod().add()
    one.netns.run("ip", "link", "set", "eth0", "alias", "theirs")
    one.call("DEL").succeeded()
    assert one.netns.link_names() == {"lo", "eth0"}
    one.call("DEL", one.known).succeeded()
    assert one.netns.link_names() == {"lo"}


def test_an_add_that_fails_leaves_nothing(host: Host, pod: Callable[..., Pod]) -> None:
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    full = {"type": "host-local", "subnet": "10.72.1.0/30", "exclude": ["10.72.1.2"]}
    routed = {**CONFIG["ipam"], "routes": [{"dst": "10.0.0.0/8", "gw": "192.0.2.9"}]}
    for config, code, culprit in (
        (changed(ipam=full), 7, "10.72.1.2 has no address"),
        (changed(ipam={"type": "static"}), 104, "static gave no address"),
        (changed(ipam=routed), 102, "10.0.0.0/8"),
        (changed(bridge="lo"), 7, "'lo' is no bridge"),
        (changed(mtu=10), 7, "MTU 10"),
        (changed(mtu=1200), 7, "fd00:79::"),
        (changed(mtu=1000), 7, "mtu 1000 is too small for IPv6 address fd00:79::"),
        (changed(mac="01:00:5e:00:00:01"), 7, "01:00:5e"),
        (changed(selinuxContext="a:b:c:d"), 102, "selinuxContext"),
    ):
        one.call("ADD", config).failed(code, culprit)
        assert not inside.difference(one.netns.snapshot())
    one.call("STATUS", changed(selinuxContext="a:b:c:d")).failed(50, "SELinux")
    one.netns.run("ip", "link", "add", "eth0", "type", "bridge")
    one.call("ADD").failed(101, "interface eth0 already exists")
    one.netns.delete()
    assert reserved() == set()
    host.assert_undone(before)


def test_ipv4_with_less_than_ipv6_takes(pod: Callable[..., Pod]) -> None:
    one = pod(changed(mtu=1000, ipam={"type": "host-local", "subnet": "10.79.0.0/24"})).add()
    assert one.result["interfaces"][0]["mtu"] == 1000
    one.call("CHECK", one.known).succeeded()


@pytest.mark.parametrize(
    "version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
)
def test_every_version(pod: Callable[..., Pod], version: str) -> None:
    one = pod(changed(cniVersion=version)).add()
    assert one.result["cniVersion"] == version
    if version >= "0.4.0":
        one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()


def test_killed_at_any_moment(host: Host, pod: Callable[..., Pod]) -> None:
    """SIGKILL during ADD, then DEL: nothing stays. The host never sees the device."""
    before = host.snapshot()
    for number in range(24):
        one = pod()
        killed_after(
            (0.0007 if number < 12 else 0.008) * number,
            one.run.bin_dir / "tap",
            environment("ADD", one.run.bin_dir, one.netns, one.name, "eth0"),
            encode(CONFIG),
        )
        assert host.link_names() == {"lo"}
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
