# SPDX-License-Identifier: Apache-2.0
"""Receive packet steering while an ADD announces itself on a crowded bridge."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
from collections.abc import Iterator

import pytest

from libcni.interface.elsewhere import Elsewhere
from libcni.netlink.link import Link, find_link
from libcni.netlink.socket import Socket
from tests.netns.bridge_network import BRIDGE, CONFIG, PodFactory, pod
from tests.rig import isolation
from tests.rig.host import Host

__all__ = ["pod"]

_CROWD = 130


@pytest.fixture(autouse=True)
def devices(host: Host) -> Iterator[None]:
    """/sys shows the test's devices, as a host's shows its own."""
    isolation.command("mount", "-t", "sysfs", "sysfs", "/sys")
    yield
    isolation.command("umount", "-l", "/sys")


def crowd(host: Host, count: int = _CROWD) -> None:
    """A bridge with so many ports, p0 the first."""
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.expect_leftovers("ports, made by hand")
    lines = [f"link add p{n} master {BRIDGE} type veth peer q{n}\n" for n in range(count)]
    subprocess.run(
        ["ip", "-batch", "-"], input="".join(lines), text=True, check=True, capture_output=True
    )


def found(name: str) -> Link:
    link = find_link(Socket(), name)
    assert link is not None
    return link


def setting(name: str) -> pathlib.Path:
    return pathlib.Path(f"/sys/class/net/{name}/queues/rx-0/rps_cpus")


def cpus(name: str) -> set[int]:
    """Those that deliver what a device receives."""
    mask = int(setting(name).read_text().replace(",", ""), 16)
    return {number for number in range(mask.bit_length()) if mask >> number & 1}


@pytest.fixture
def two_cpus() -> Iterator[None]:
    """Skips the test on a machine with one; and keeps this process on one of two or more."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("needs two CPUs")
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("free", ["last", "first"])
def test_another_cpu_delivers_meanwhile(host: Host, two_cpus: None, free: str) -> None:
    crowd(host)
    port = found("p0" if free == "first" else f"p{_CROWD - 1}")
    assert (port.port_number <= 128) == (free == "first")
    with Elsewhere(port, BRIDGE):
        chosen = cpus(port.name)
        assert len(chosen) == 1 and chosen <= os.sched_getaffinity(0)
    assert cpus(port.name) == set()


def test_few_ports(host: Host, two_cpus: None) -> None:
    crowd(host, 128)
    port = found("p0")
    with Elsewhere(port, BRIDGE):
        assert cpus(port.name) == set()


def test_only_cpus_that_this_process_may_use(host: Host) -> None:
    crowd(host)
    port = found("p0")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {random.choice(sorted(allowed))})
    try:
        with Elsewhere(port, BRIDGE):
            assert cpus(port.name) == set()
    finally:
        os.sched_setaffinity(0, allowed)


def test_what_an_administrator_set_stays(host: Host, two_cpus: None) -> None:
    crowd(host)
    port = found("p0")
    setting(port.name).write_text("1")
    with Elsewhere(port, BRIDGE):
        assert cpus(port.name) == {0}
    assert cpus(port.name) == {0}


def test_a_namesake_in_the_namespace_that_sys_shows(host: Host, two_cpus: None) -> None:
    crowd(host)
    port = found("p0")
    port.mac = "02:00:00:00:00:99"
    with Elsewhere(port, BRIDGE):
        assert cpus("p0") == set()


@pytest.mark.parametrize("without", ["sysfs", "bridge", "port"])
def test_nothing_to_steer_with(host: Host, two_cpus: None, without: str) -> None:
    crowd(host)
    port = found("p0")
    bridge = BRIDGE
    if without == "sysfs":
        isolation.command("mount", "-t", "tmpfs", "tmpfs", "/sys")
    elif without == "bridge":
        bridge = "br-other"
    else:
        host.run("ip", "link", "delete", "p0")
    with Elsewhere(port, bridge):
        pass
    if without == "sysfs":
        isolation.command("umount", "/sys")
    if without != "port":
        assert cpus("p0") == set()


def test_port_that_goes_meanwhile(host: Host, two_cpus: None) -> None:
    crowd(host)
    port = found("p0")
    with Elsewhere(port, BRIDGE):
        assert cpus("p0")
        host.run("ip", "link", "delete", "p0")
    assert not setting("p0").exists()


def test_others_learn_the_new_owner_in_a_crowd(host: Host, pod: PodFactory) -> None:
    crowd(host)
    one, two = pod(), pod()
    one.add(CONFIG)
    words = ["ip", "neigh", "add", "lladdr", "02:00:00:00:00:66", "dev", "eth0", "nud", "stale"]
    for stale in ("10.71.0.3", "fd00:71::3"):
        one.netns.run(*words[:3], stale, *words[3:])
    two.add(CONFIG)
    for number, stale in enumerate(("10.71.0.3", "fd00:71::3")):
        assert two.address(number) == stale
        one.netns.ping(stale, timeout=1)
    for container in (one, two):
        assert cpus(container.veth) == set()
