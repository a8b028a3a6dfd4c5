# SPDX-License-Identifier: Apache-2.0
"""ADDs of the bridge plugin that fail, each at another step: the system is as it was."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import shlex
import signal
import subprocess
import time
from typing import Any

import pytest

from cni_bridge.config import Config
from cni_bridge.device import Changes, ensure_bridge
from libcni.netlink.socket import Socket
from libcni.types.errors import CniError
from tests.netns.bridge_network import (
    BRIDGE,
    CONFIG,
    LAYER2,
    SUBNET,
    Pod,
    PodFactory,
    changed,
    pod,
    reserved,
)
from tests.rig.host import Host
from tests.rig.plugins import environment

__all__ = ["pod"]

MASQUERADED = changed(CONFIG, ipMasq=True, macspoofchk=True)


def ipam(**keys: Any) -> dict[str, Any]:
    return {**CONFIG["ipam"], **keys}


INVALID: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    "hairpin and promiscuous": (
        {"hairpinMode": True, "promiscMode": True},
        7,
        ("hairpin mode and promiscuous mode",),
    ),
    "container interface down with IPAM": (
        {"disableContainerInterface": True},
        7,
        ("DisableContainerInterface",),
    ),
    "MTU too small": ({"mtu": 67}, 7, ("mtu", "67")),
    "MTU too large": ({"mtu": 65536}, 7, ("mtu", "65536")),
    "MTU negative": ({"mtu": -1}, 7, ("mtu", "-1")),
    "MTU text": ({"mtu": "1500"}, 7, ("mtu", "1500")),
    "VLAN too large": ({"vlan": 4095}, 7, ("vlan", "4095")),
    "VLAN negative": ({"vlan": -1}, 7, ("vlan", "-1")),
    "trunk without end": ({"vlanTrunk": [{"minID": 5}]}, 7, ("maxID",)),
    "trunk backwards": ({"vlanTrunk": [{"minID": 9, "maxID": 5}]}, 7, ("minID",)),
    "trunk out of range": ({"vlanTrunk": [{"id": 4095}]}, 7, ("4095",)),
    "bridge name too long": ({"bridge": "a-name-of-16-chr"}, 7, ("a-name-of-16-chr",)),
    "bridge name with a slash": ({"bridge": "a/b"}, 7, ("a/b",)),
    "unknown backend": ({"ipMasq": True, "ipMasqBackend": "pf"}, 7, ("pf",)),
    "MAC": ({"runtimeConfig": {"mac": "nonsense"}}, 7, ("nonsense",)),
    "multicast MAC": ({"args": {"cni": {"mac": "01:00:5e:00:00:01"}}}, 7, ("01:00:5e",)),
    "bool as text": ({"isGateway": "true"}, 7, ("isGateway",)),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_configuration(host: Host, pod: PodFactory, name: str) -> None:
    keys, code, culprits = INVALID[name]
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    one.call("ADD", changed(CONFIG, **keys)).failed(code, *culprits)
    host.assert_unchanged(before)
    assert inside.difference(one.netns.snapshot()) == []


#: Keys that make an ADD fail at a later and later step, code, and what the message names.
FAILING: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    "no such IPAM": ({"ipam": {"type": "no-such-plugin"}}, 0, ("no-such-plugin",)),
    "IPAM refuses": ({"ipam": {"type": "host-local", "ranges": []}}, 0, ("range",)),
    "gateway is no address of the kernel's": (
        {"ipam": ipam(ranges=[[{"subnet": "10.71.0.0/24", "gateway": "224.0.0.1"}]])},
        0,
        ("224.0.0.1",),
    ),
    "route in the container": (
        {"ipam": ipam(routes=[{"dst": "10.90.0.0/16", "gw": "192.0.2.1"}])},
        102,
        ("10.90.0.0/16", "192.0.2.1"),
    ),
    "IPv6 on an MTU below its least": ({"mtu": 1000}, 7, ("mtu 1000", "1280", "fd00:71::")),
}


def forget_link_local(host: Host) -> None:
    """Neighbours that the kernel learns by itself whenever an interface comes up."""
    if BRIDGE in host.link_names():
        host.run("ip", "-6", "neigh", "flush", "dev", BRIDGE, "to", "fe80::/64")


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("others", [False, True], ids=["first", "beside-another"])
def test_failing_step(host: Host, pod: PodFactory, name: str, others: bool) -> None:
    keys, code, culprits = FAILING[name]
    if others:
        pod().add(MASQUERADED)
        time.sleep(0.1)
        forget_link_local(host)
    before, addresses = host.snapshot(), reserved()
    one = pod()
    inside = one.netns.snapshot()
    reply = one.call("ADD", changed(MASQUERADED, **keys))
    reply.failed(code or reply.json["code"], *culprits)
    forget_link_local(host)
    host.assert_undone(before)
    assert reserved() == addresses
    assert inside.difference(one.netns.snapshot()) == []


def test_gateway_on_a_bridge_that_is_too_small(host: Host, pod: PodFactory) -> None:
    """An MTU that somebody has set stays, whatever the ports have."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "link", "set", BRIDGE, "mtu", "1000", "up")
    before = host.snapshot()
    error = pod().call("ADD", CONFIG).failed(7, f"MTU 1000 of {BRIDGE}", "1280", "fd00:71::1/64")
    assert "sysctl" not in error["msg"]
    host.assert_undone(before)


def test_taken_name_with_a_small_mtu(host: Host, pod: PodFactory) -> None:
    """IPAM is asked first then; that must not cost what is attached its address."""
    one = pod()
    small = changed(CONFIG, mtu=1000, ipam=ipam(ranges=[[{"subnet": "10.71.0.0/24"}]]))
    one.add(small)
    held, before = reserved(), host.snapshot()
    one.call("ADD", small).failed(101, "already exists in")
    assert reserved() == held
    host.assert_unchanged(before)
    one.check().succeeded()


def test_bridge_that_was_down(host: Host, pod: PodFactory) -> None:
    """An existing bridge is as it was before, its sysctl too."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    for state in ("up", "down"):  # the kernel leaves multicast groups when it goes down
        host.run("ip", "link", "set", BRIDGE, state)
    accept_ra = pathlib.Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/accept_ra")
    accept_ra.write_text("2")
    before = host.snapshot()
    broken = changed(LAYER2, promiscMode=True, ipam={"type": "no-such-plugin"})
    one = pod()
    reply = one.call("ADD", broken)
    assert reply.rc == 1
    assert accept_ra.read_text() == "2\n"
    host.assert_unchanged(before)


@pytest.mark.parametrize("other", ["ours", "by hand", "none"])
def test_forwarding_that_others_rely_on(
    host: Host, pod: PodFactory, tmp_path: pathlib.Path, other: str
) -> None:
    """Another network's ADD finds it switched on by one that fails afterwards."""
    host.expect_leftovers("what the others made stays, in the test as on a host")
    forward = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
    forward.write_text("0")
    before = host.snapshot()
    one, two = pod(), pod()
    (tmp_path / "two.json").write_text(
        json.dumps(
            {
                **LAYER2,
                "name": "other",
                "bridge": "br-other",
                "isGateway": True,
                "ipam": {"type": "host-local", "subnet": "10.72.0.0/24"},
            }
        )
    )
    env = environment("ADD", two._runner.bin_dir, two.netns, two.container_id, "eth0")
    acts = {
        "ours": " ".join(
            ["env", *(shlex.quote(f"{k}={v}") for k, v in env.items())]
            + [f"{two._runner.bin_dir}/bridge <{tmp_path}/two.json >{tmp_path}/two.result"]
        ),
        "by hand": "ip link add br-hand type bridge && ip link set br-hand up && "
        "ip link add h0 type veth peer h1 && ip link set h0 master br-hand",
        "none": ":",
    }
    tool = tmp_path / "iptables-restore"
    tool.write_text(
        f"#!/bin/sh\ncat >/dev/null\ncat {forward} >{tmp_path}/seen\n{acts[other]}\nexit 1\n"
    )
    tool.chmod(0o755)
    broken = changed(
        CONFIG,
        ipMasq=True,
        ipMasqBackend="iptables",
        ipam={"type": "host-local", "subnet": SUBNET},
    )
    reply = one.call("ADD", broken, variables={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert reply.rc == 1, reply
    assert (tmp_path / "seen").read_text() == "1\n"
    assert BRIDGE not in host.link_names()
    if other == "none":
        host.keep_files("/var/lib/cni/networks")  # host-local's lock and its like
        host.assert_unchanged(before)
    else:
        assert forward.read_text() == "1\n"
    if other == "ours":
        assert json.loads((tmp_path / "two.result").read_text())["ips"]


def test_revert_tries_everything(host: Host) -> None:
    """A sysctl that cannot be set back does not keep the bridge; the error is not lost."""
    sock = Socket()
    changes = Changes(sock, BRIDGE)
    ensure_bridge(sock, Config(LAYER2), None, changes)
    changes.forwarding.append("ipv4/no_such_sysctl")
    with pytest.raises(CniError, match="no_such_sysctl"):
        changes.revert()
    assert BRIDGE not in host.link_names()
    changes.forwarding.clear()
    changes.revert()


def test_bridge_name_is_of_something_else(host: Host, pod: PodFactory) -> None:
    host.run("ip", "link", "add", BRIDGE, "type", "veth", "peer", "other")
    before = host.snapshot()
    pod().call("ADD", MASQUERADED).failed(101, BRIDGE, "not a bridge", "veth")
    host.assert_undone(before)
    pod().call("ADD", changed(CONFIG, bridge="lo")).failed(101, "lo", "not a bridge")


@pytest.mark.parametrize("kind", ["veth", "bridge"])
def test_interface_exists_already(host: Host, pod: PodFactory, kind: str) -> None:
    one = pod()
    one.netns.run("ip", "link", "add", "eth0", "type", kind)
    before, inside = host.snapshot(), one.netns.snapshot()
    one.call("ADD", MASQUERADED).failed(101, "eth0", "already exists", one.netns.path)
    host.assert_undone(before)
    assert inside.difference(one.netns.snapshot()) == []


def test_repeated_add_changes_nothing(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(MASQUERADED)
    before, inside = host.snapshot(), one.netns.snapshot()
    one.call("ADD", MASQUERADED).failed(101, "eth0", "already exists")
    host.assert_unchanged(before)
    assert inside.difference(one.netns.snapshot()) == []
    one.check().succeeded()


def test_stdout_closed(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    reader, writer = os.pipe()
    os.close(reader)
    env = environment("ADD", one._runner.bin_dir, one.netns, one.container_id, "eth0")
    done = subprocess.run(
        [one._runner.bin_dir / "bridge"],
        input=json.dumps(MASQUERADED).encode(),
        stdout=writer,
        env=env,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    host.assert_undone(before)
    assert reserved() == set()
    assert inside.difference(one.netns.snapshot()) == []


@pytest.mark.parametrize("delay", [n / 1000 for n in range(10, 70, 4)])
def test_interrupted(host: Host, pod: PodFactory, delay: float) -> None:
    """SIGTERM at any moment: the attachment is complete, or there is none."""
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    env = environment("ADD", one._runner.bin_dir, one.netns, one.container_id, "eth0")
    process = subprocess.Popen(
        [one._runner.bin_dir / "bridge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(MASQUERADED).encode())
    process.stdin.close()
    process.stdin = None
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    if process.returncode == 0:
        assert json.loads(output)["ips"]
        one.call("DEL", MASQUERADED).succeeded()
        host.assert_clean(before, BRIDGE)
    else:
        assert process.returncode in (1, -signal.SIGTERM)
        if process.returncode == 1:
            assert json.loads(output)["code"] == 11
        host.assert_undone(before)
        assert reserved() == set()
    assert inside.difference(one.netns.snapshot()) == []


def test_read_only_sysctls(host: Host, pod: PodFactory, bin_dir: pathlib.Path) -> None:
    """What cannot be set is named; what is right already, or does not matter, is no error."""
    one = pod()
    script = 'mount -o bind,ro /proc/sys /proc/sys && exec "$0"'
    env = environment("ADD", bin_dir, one.netns, one.container_id, "eth0")

    def call(config: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, bin_dir / "bridge"],
            input=json.dumps(config).encode(),
            stdout=subprocess.PIPE,
            env=env,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    before = host.snapshot()
    config = changed(CONFIG, ipam={"type": "host-local", "subnet": "10.71.0.0/24"})
    answer = call(config)
    assert answer["code"] == 102 and "ip_forward" in answer["msg"], answer
    host.assert_undone(before)
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    assert call(config)["ips"]
    one.call("DEL", config).succeeded()
    host.share(BRIDGE)


def test_bridge_is_full(host: Host, pod: PodFactory) -> None:
    one = pod()
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.expect_leftovers("a thousand ports, made by hand")
    batch = pathlib.Path("/run/ports")
    names = [f"f{n}" for n in range(1023)]
    batch.write_text("".join(f"link add {n} master {BRIDGE} type veth peer {n}p\n" for n in names))
    subprocess.run(["ip", "-batch", str(batch)], check=True, capture_output=True)
    inside = one.netns.snapshot()
    one.call("ADD", LAYER2).failed(100, BRIDGE, "1023")
    assert inside.difference(one.netns.snapshot()) == []
    batch.unlink()


def _first_add(one: Pod) -> tuple[int, Any]:
    reply = one.call("ADD", MASQUERADED)
    return reply.rc, reply.json


def test_first_adds_race(host: Host, pod: PodFactory) -> None:
    """50 ADDs at once on a host without the bridge."""
    before = host.snapshot()
    pods = [pod() for _ in range(50)]
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(_first_add, pods))
    assert [answer for rc, answer in answers if rc] == []
    addresses = {ip["address"] for _, answer in answers for ip in answer["ips"]}
    assert len(addresses) == 100
    assert len({answer["interfaces"][0]["mac"] for _, answer in answers}) == 1
    for one, (_, answer) in zip(pods, answers, strict=True):
        one.config, one.result = MASQUERADED, answer
    for one in pods[::7]:
        one.check().succeeded()
        pods[1].netns.ping(one.address())
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda one: one.call("DEL", MASQUERADED), pods))
    assert [reply.json for reply in replies if reply.rc] == []
    host.assert_clean(before, BRIDGE)


def test_failing_and_succeeding_first_adds_race(host: Host, pod: PodFactory) -> None:
    """A failing ADD takes its own bridge away; one that was about to use it makes another."""
    before = host.snapshot()
    broken = changed(CONFIG, ipam=ipam(routes=[{"dst": "10.90.0.0/16", "gw": "192.0.2.1"}]))
    for _ in range(5):
        pods = [pod() for _ in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            replies = list(
                pool.map(
                    lambda pair: pair[1].call("ADD", broken if pair[0] % 2 else CONFIG),
                    enumerate(pods),
                )
            )
        for number, (one, reply) in enumerate(zip(pods, replies, strict=True)):
            if number % 2:
                reply.failed(102, "192.0.2.1")
            else:
                one.config, one.result = CONFIG, reply.result()
                one.check().succeeded()
        for one in pods[::2]:
            one.delete()
        assert reserved() == set()
        host.assert_clean(before, BRIDGE)
        if BRIDGE in host.link_names():
            host.run("ip", "link", "delete", BRIDGE)
