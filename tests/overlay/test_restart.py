# SPDX-License-Identifier: Apache-2.0
"""An agent that is started while its store is away: what an earlier run knew has to do."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import pytest

from tests.overlay.agents import PEERS_FILE, Agent, routes
from tests.overlay.api_server import node as node_object
from tests.overlay.cluster import Cluster, Node, underlay_address
from tests.overlay.stores import Kubernetes, subnets

PREFIX = "flannel.alpha.coreos.com/"
PUBLIC = "203.0.113.7"


Join = Callable[..., Agent]


@pytest.fixture
def join(cluster: Cluster, kubernetes: Kubernetes, tmp_path: pathlib.Path) -> Join:
    """Start an agent on the node of that number, with these options besides the store's."""

    def start(number: int, *options: str) -> Agent:
        node = cluster.node(number)
        given = [word for word in kubernetes.options(node) if not word.startswith("--iface")]
        return Agent(node, tmp_path / f"{node.name}.log", [*given, *options]).start()

    return start


def default_route(node: Node) -> None:
    """Another interface, which has the default route."""
    node.run("ip", "link", "add", "nat0", "type", "bridge")
    node.run("ip", "address", "add", "10.0.2.15/24", "dev", "nat0")
    node.run("ip", "link", "set", "nat0", "up")
    node.run("ip", "route", "add", "default", "via", "10.0.2.2")


def ipv4_underlay(node: Node) -> None:
    """Take the IPv6 address off the underlay."""
    node.run("ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")


def lose(agent: Agent, kubernetes: Kubernetes) -> None:
    """The node reboots while the store is away: only its state file is left."""
    known = routes(agent.node)
    agent.until(lambda: len(agent.peers()["peers"]) == len(known) / 2, "the state file")
    kubernetes.down()
    agent.kill()
    for link in agent.node.ip("link", "show", "type", "vxlan"):
        agent.node.run("ip", "link", "delete", link["ifname"])
    agent.node.run("rm", "/run/flannel/subnet.env")
    agent.log.write_text("")


def local(node: Node) -> str:
    """The address that the device sends from."""
    address: str = node.ip("-d", "link", "show", "adder.1")[0]["linkinfo"]["info_data"]["local"]
    return address


def test_the_underlay_that_is_the_internal_ip(
    kubernetes: Kubernetes, join: Join, cluster: Cluster
) -> None:
    """Only the store knows that address: it has been written down."""
    default_route(cluster.node(1))
    for number in (1, 2):
        address = underlay_address(number)
        kubernetes.server.add(
            node_object(f"node-{number}", *subnets(number), internal_ips=(address,))
        )
    one, two = join(1).ready(), join(2).ready()
    one.until(lambda: routes(one.node) == set(subnets(2)), "its peer")
    lose(one, kubernetes)
    one.start().ready()
    one.until(lambda: routes(one.node) == set(subnets(2)), "its peer")
    assert local(one.node) == underlay_address(1)
    assert two.process is not None


@pytest.mark.parametrize("annotation", ["public-ip-overwrite", "node-public-ip"])
def test_a_public_address_that_the_store_chose(
    kubernetes: Kubernetes, join: Join, cluster: Cluster, annotation: str
) -> None:
    """It is on no interface; the node is known by the underlay's own address."""
    ipv4_underlay(cluster.node(1))
    kubernetes.server.add(
        node_object("node-1", *subnets(1), annotations={PREFIX + annotation: PUBLIC})
    )
    one = join(1, "--iface=eth0").ready()
    assert one.peers()["self"]["endpoints"][0]["publicIP"] == PUBLIC
    lose(one, kubernetes)
    one.start().ready()
    assert "another address" not in one.text()


def test_a_copy_of_the_machine(kubernetes: Kubernetes, join: Join, cluster: Cluster) -> None:
    """The public address that was written down is no sign that this is the same machine."""
    ipv4_underlay(cluster.node(1))
    kubernetes.server.add(
        node_object("node-1", *subnets(1), annotations={PREFIX + "node-public-ip": PUBLIC})
    )
    one = join(1, "--iface=eth0").ready()
    lose(one, kubernetes)
    one.node.set_address(underlay_address(9), ipv6=False)
    one.start()
    one.until(lambda: "another address before" in one.text(), "a word about it")
    kubernetes.up()
    one.ready(60)


def test_a_state_file_of_an_earlier_version(kubernetes: Kubernetes, join: Join) -> None:
    """It lacks what the store knows of this node; the rest of it serves."""
    one = join(1, "--iface=eth0").ready()
    lose(one, kubernetes)
    document = one.peers()
    del document["hints"]
    one.node.write(PEERS_FILE, json.dumps(document))
    one.start().ready()
    assert "cannot use" not in one.text()


def test_the_underlay_comes_later(kubernetes: Kubernetes, join: Join) -> None:
    """As with DHCP; what is in the way is said once."""
    one, two = join(1, "--iface=eth0").ready(), join(2, "--iface=eth0").ready()
    one.until(lambda: routes(one.node) == set(subnets(2)), "its peer")
    lose(one, kubernetes)
    one.node.run("ip", "address", "flush", "dev", "eth0")
    one.start()
    one.until(lambda: "known from before" in one.text(), "a word about it")
    one.node.run("sleep", "3")
    assert one.text().count("cannot begin with what is known from before") == 1
    one.node.set_address(underlay_address(1))
    one.ready(5)
    one.until(lambda: routes(one.node) == set(subnets(2)), "its peer")
    assert two.process is not None
