# SPDX-License-Identifier: Apache-2.0
"""What keeps an agent from making its devices, and what happens when it goes."""

from __future__ import annotations

import asyncio
import pathlib
import re
import signal
import sys
import time

import pytest

from cni_vxlan_overlay.agent.health import Health
from cni_vxlan_overlay.agent.kernel import Kernel
from cni_vxlan_overlay.fabric import Ground
from cni_vxlan_overlay.vtep import AGENT, Vtep
from tests.overlay.agents import Agent
from tests.overlay.cluster import Cluster
from tests.overlay.stores import File
from tests.overlay.test_faults import get
from tests.overlay.test_repair import reconciling, vtep
from tests.rig.host import Host

_HOLDER = """
import socket, sys, time
handle = socket.socket(int(sys.argv[1]), socket.SOCK_DGRAM)
handle.bind(("", 8472))
time.sleep(600)
"""


@pytest.fixture
def agent(cluster: Cluster, tmp_path: pathlib.Path) -> Agent:
    """A node's agent, not started yet."""
    node = cluster.node(1)
    store = File(tmp_path / "nodes.json")
    return Agent(node, tmp_path / "log", [*store.options(node), "--healthz-port=8081"])


def failed_passes(agent: Agent) -> float:
    """How often all of it was tried, and failed."""
    metrics = get(agent, "/metrics")[1]
    found = re.search(r'^vxlan_overlay_reconcile_total\{result="failed"\} (.*)$', metrics, re.M)
    assert found is not None, metrics
    return float(found[1])


def test_a_device_in_the_way_goes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is an event: nobody waits for the next attempt, which is up to a minute away."""
    monkeypatch.setattr("cni_vxlan_overlay.agent.reconciler._RETRY", 60.0)
    host.share("adder.1")
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    host.run("ip", "address", "add", "192.168.50.1/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472",
             "local", "192.168.50.1", "nolearning")  # fmt: skip

    async def work() -> None:
        async with reconciling(Kernel()) as reconciler:
            reconciler.want([vtep()], Ground({False: "adder.1"}), [])
            await asyncio.sleep(2)
            assert "device flannel.1 has VNI 1 on UDP port 8472" in reconciler.failures[0]
            host.run("ip", "link", "delete", "flannel.1")
            await asyncio.wait_for(reconciler.synced.wait(), 5)

    asyncio.run(work())


@pytest.mark.parametrize("family", [2, 10], ids=["IPv4", "IPv6"])
def test_a_program_has_the_port(agent: Agent, family: int) -> None:
    """It is said, and tried again now and then: no device comes and goes meanwhile."""
    holder = agent.node.start(sys.executable, "-c", _HOLDER, str(family))
    agent.node.run("sh", "-c", "until ss -lun | grep -q :8472; do sleep 0.1; done")
    agent.start()
    agent.until(lambda: "another program has UDP port 8472" in agent.text(), "a word")
    time.sleep(4)
    before = failed_passes(agent)
    assert before < 8
    monitored = agent.node.run("sh", "-c", "timeout 3 ip monitor link || true")
    assert "adder" not in monitored
    assert failed_passes(agent) - before <= 2
    holder.kill()
    agent.ready(30)


def test_what_was_tried_is_said(host: Host) -> None:
    """The kernel's own words name nothing."""
    over_nothing = Vtep(AGENT, 1, 8472, "192.168.50.1", 999, 1430, [])

    async def work() -> list[str]:
        async with reconciling(Kernel()) as reconciler:
            reconciler.want([over_nothing], Ground({False: "adder.1"}), [])
            await asyncio.sleep(1)
            return list(reconciler.failures)

    (failure,) = asyncio.run(work())
    words = "cannot make device adder.1 over interface 999 with the address 192.168.50.1: "
    assert failure.startswith(words)
    assert len(failure) > len(words)


def test_a_pass_that_fails_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ready, with the reason, until one succeeds; but alive."""
    clock = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    health = Health()
    health.ready = True
    health.beat()
    health.passed()
    health.passed("no device")
    clock += 29
    health.passed("no device")
    assert health.readyz() == (200, "ok")
    clock += 2
    health.passed("no address")
    assert health.readyz() == (503, "for 31 s: no address")
    assert health.healthz() == (200, "ok")
    health.passed()
    assert health.readyz() == (200, "ok")
    health.passed("no device")
    assert health.readyz() == (200, "ok")


def test_what_cannot_be_mended_is_seen_from_outside(agent: Agent) -> None:
    """A device that somebody else has made under the name of ours, for half a minute."""
    agent.start().ready()
    agent.until(lambda: get(agent, "/readyz") == (200, "ok\n"), "/readyz")
    # Held meanwhile: else it may have made its own again before the other one is there.
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    agent.node.run("ip", "link", "delete", "adder.1")
    agent.node.run("ip", "link", "add", "adder.1", "type", "bridge")
    agent.process.send_signal(signal.SIGCONT)
    agent.until(lambda: "device adder.1 is not ours" in agent.text(), "a word about it")
    assert get(agent, "/readyz")[0] == 200
    agent.until(lambda: get(agent, "/readyz")[0] == 503, "/readyz", 45)
    assert "device adder.1 is not ours" in get(agent, "/readyz")[1]
    assert get(agent, "/healthz")[0] == 200
    agent.node.run("ip", "link", "delete", "adder.1")
    agent.until(lambda: get(agent, "/readyz") == (200, "ok\n"), "/readyz", 10)
