# SPDX-License-Identifier: Apache-2.0
"""Machines that are not as an agent would like them: it does what it can, and says the rest."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from cni_vxlan_overlay.agent import health as health_module
from cni_vxlan_overlay.agent.health import Health
from tests.overlay.agents import PEERS_FILE, SUBNET_FILE, Agent
from tests.overlay.cluster import Cluster, Node, underlay_address
from tests.overlay.kernel_state import expected, settled
from tests.overlay.stores import File

PEERS = {number: underlay_address(number) for number in (1, 2)}
PATIENCE = 60.0


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """The first node."""
    return cluster.node(1)


@pytest.fixture
def start(cluster: Cluster, node: Node, tmp_path: pathlib.Path) -> Callable[..., Agent]:
    """Start an agent on the first node, whose peer is in a file."""

    def started(*options: str) -> Agent:
        store = File(tmp_path / "nodes.json")
        store.options(node)
        store.claim(cluster.node(2), 2)
        return Agent(node, tmp_path / "log", [*store.options(node), *options]).start()

    return started


def test_a_proc_sys_that_is_read_only(node: Node, start: Callable[..., Agent]) -> None:
    """As in most containers: what is 0 and cannot be set is said, and all else is done."""
    node.run("sysctl", "-w", "net.ipv4.ip_forward=0")
    node.run("mount", "--bind", "/proc/sys", "/proc/sys")
    node.run("mount", "-o", "remount,bind,ro", "/proc/sys")
    one = start().ready()
    settled(one, expected(1, PEERS[1], PEERS), "its peer", PATIENCE)
    assert "net.ipv4/ip_forward is 0 and cannot be set: pods will not be reached" in one.text()
    assert "Traceback" not in one.text()


def test_forwarding_is_switched_on(node: Node, start: Callable[..., Agent]) -> None:
    node.run("sysctl", "-w", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    start().ready()
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        assert node.run("sysctl", "-n", name).strip() == "1"


def test_a_state_directory_that_is_read_only(node: Node, start: Callable[..., Agent]) -> None:
    """The overlay works, only no restart without the store does."""
    node.run("mount", "-o", "remount,ro", "/var/lib/vxlan-overlay")
    one = start().ready()
    settled(one, expected(1, PEERS[1], PEERS), "its peer", PATIENCE)
    assert "a second agent will not be noticed" in one.text()
    assert one.text().count(f"cannot write {PEERS_FILE}: Read-only file system") == 1


def test_a_run_directory_that_is_full(node: Node, start: Callable[..., Agent]) -> None:
    """The subnet file is written when there is room; until then the reason is said, once."""
    node.run("mkdir", "-p", "/run/flannel")
    node.run("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/run/flannel")
    node.run("dd", "if=/dev/zero", "of=/run/flannel/filler", "bs=4k", "count=1")
    one = start()
    words = f"cannot write {SUBNET_FILE}: No space left on device"
    one.until(lambda: words in one.text(), "a word about it")
    settled(one, expected(1, PEERS[1], PEERS), "its peer", PATIENCE)
    assert not node.run("sh", "-c", "ls -A /run/flannel").split()[1:], "half a file is left"
    node.run("rm", "/run/flannel/filler")
    one.ready(PATIENCE)
    assert one.text().count("cannot write") == 1


def test_a_wider_route_of_others(node: Node, start: Callable[..., Agent]) -> None:
    """It takes the next hops of IPv6 elsewhere, which the kernel does not allow: named."""
    node.run("ip", "-6", "route", "add", "fd00:10:244::/48", "via", "2001:db8:50::fe")
    one = start()
    words = "refused, as another route leads to fd00:10:244:2:: and not through adder6.1"
    one.until(lambda: words in one.text(), "a word about it")
    node.run("ip", "-6", "route", "delete", "fd00:10:244::/48")
    settled(one.ready(PATIENCE), expected(1, PEERS[1], PEERS), "its peer", PATIENCE)


def test_an_underlay_that_comes_and_goes(node: Node, start: Callable[..., Agent]) -> None:
    """A cable is pulled ten times; no device is made anew for it, and all is there at the end."""
    one = start().ready()
    settled(one, expected(1, PEERS[1], PEERS), "its peer", PATIENCE)
    index = node.ip("link", "show", "adder.1")[0]["ifindex"]
    for _ in range(10):
        node.disconnect()
        node.connect()
    settled(one, expected(1, PEERS[1], PEERS), "its peer", PATIENCE)
    assert node.ip("link", "show", "adder.1")[0]["ifindex"] == index


def test_a_kernel_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has given no sign of life for too long is to be started again."""
    health = Health()
    health.beat()
    assert health.healthz() == (200, "ok")
    monkeypatch.setattr(health_module, "PATIENCE", -1.0)
    status, words = health.healthz()
    assert status == 503
    assert words.startswith("no reconciliation for ")
