# SPDX-License-Identifier: Apache-2.0
"""`vxlan-overlayd cleanup` where the agent's own files are gone."""

from __future__ import annotations

import pathlib

import pytest

from tests.overlay.agents import PEERS_FILE, SUBNET_FILE, Agent, routes
from tests.overlay.cluster import Cluster
from tests.overlay.stores import File, subnets


@pytest.fixture
def one(cluster: Cluster, tmp_path: pathlib.Path) -> Agent:
    """A node with direct routes to another, whose agent has ended, and without state file."""
    store = File(tmp_path / "nodes.json", DirectRouting=True)
    agents = []
    for number in (1, 2):
        node = cluster.node(number)
        agents.append(Agent(node, tmp_path / f"{node.name}.log", store.options(node)).start())
    first, second = agents
    second.ready()
    first.ready().until(lambda: routes(first.node) == set(subnets(2)), "direct routes")
    assert first.node.ip("route", "show", "10.244.2.0/24")[0]["dev"] == "eth0"
    first.stop()
    first.node.run("rm", PEERS_FILE)
    return first


def of_others(agent: Agent) -> None:
    """An overlay without an agent, which has a direct route too; and a route of nobody's."""
    node = agent.node
    node.run("ip", "link", "add", "adder.7", "type", "vxlan", "id", "7", "dstport", "9999",
             "dev", "eth0")  # fmt: skip
    node.run("ip", "link", "set", "adder.7", "alias", "vxlan-overlay:other")
    node.run("ip", "route", "add", "10.99.1.0/24", "via", "192.168.50.2", "proto", "97")


def test_direct_routes_without_a_state_file(one: Agent) -> None:
    """They bear our protocol number; what does not, stays."""
    one.node.run("rm", SUBNET_FILE)
    one.node.run("ip", "route", "add", "10.244.77.0/24", "via", "192.168.50.2")
    done = one.command("cleanup", *one.options)
    assert done.returncode == 0, done.stderr
    assert "2 direct routes" in done.stderr
    assert routes(one.node) == set()
    assert len(one.node.ip("route", "show", "10.244.77.0/24")) == 1


def test_direct_routes_of_an_overlay_without_an_agent(one: Agent) -> None:
    """They have the same number: the subnet file says which networks were the agent's."""
    of_others(one)
    done = one.command("cleanup", *one.options)
    assert done.returncode == 0, done.stderr
    assert routes(one.node) == {"10.99.1.0/24"}
    assert "adder.7" in one.node.run("ip", "-br", "link")


def test_nothing_says_whose_the_direct_routes_are(one: Agent) -> None:
    """They stay, and it is said of each."""
    one.node.run("rm", SUBNET_FILE)
    of_others(one)
    done = one.command("cleanup", *one.options)
    assert done.returncode == 0
    assert "no file says which networks were the agent's" in done.stderr
    assert "10.244.2.0/24, 10.99.1.0/24" in done.stderr
    assert "may be those of the network other" in done.stderr
    assert routes(one.node) == {"10.99.1.0/24", *subnets(2)}
    one.node.run("ip", "route", "flush", "proto", "97")
    one.node.run("ip", "-6", "route", "flush", "proto", "97")
    assert "no file says" not in one.command("cleanup", *one.options).stderr
