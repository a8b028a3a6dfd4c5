# SPDX-License-Identifier: Apache-2.0
"""This node as its store has it: kept there, and listings that lack it are not believed."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from cni_vxlan_overlay.peers import vtep_mac
from tests.overlay.agents import Agent, routes
from tests.overlay.api_server import node as node_object
from tests.overlay.cluster import Cluster, underlay_address
from tests.overlay.kernel_state import expected, settled
from tests.overlay.stores import Kubernetes, subnets

PREFIX = "flannel.alpha.coreos.com/"
PATIENCE = 60.0


Join = Callable[..., Agent]


@pytest.fixture
def join(cluster: Cluster, kubernetes: Kubernetes, tmp_path: pathlib.Path) -> Join:
    """Start an agent on the node of that number."""

    def start(number: int, *options: str, **variables: str) -> Agent:
        node = cluster.node(number)
        log = tmp_path / f"{node.name}.log"
        return Agent(node, log, [*kubernetes.options(node), *options], **variables).start()

    return start


def flannel_node(number: int, **more: str) -> dict[str, Any]:
    """A Node object with flannel's annotations for IPv4 alone, and nobody behind it."""
    mac = more.pop("mac", f"22:00:00:00:00:{number:02x}")
    return node_object(
        f"node-{number}",
        *subnets(number),
        annotations={
            PREFIX + "kube-subnet-manager": "true",
            PREFIX + "backend-type": "vxlan",
            PREFIX + "backend-data": f'{{"VNI":1,"VtepMAC":"{mac}"}}',
            PREFIX + "public-ip": underlay_address(number),
        },
    )


def published(store: Kubernetes, name: str) -> str | None:
    """The address under which a node is to be reached."""
    found: str | None = store.server.get(name)["metadata"]["annotations"].get(PREFIX + "public-ip")
    return found


def ipv4_routes(agent: Agent) -> set[str]:
    """Destinations of our IPv4 routes."""
    return {destination for destination in routes(agent.node) if ":" not in destination}


def knows(agent: Agent, *numbers: int) -> None:
    """Exactly these nodes' pods have routes of IPv4."""
    wanted = {subnets(number)[0] for number in numbers}
    agent.until(lambda: ipv4_routes(agent) == wanted, f"routes to nodes {numbers}", PATIENCE)


def test_a_node_object_that_is_made_again(kubernetes: Kubernetes, join: Join) -> None:
    """`kubectl delete node`, and its kubelet registers anew, without what the agent wrote."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    kubernetes.server.delete("node-2")
    knows(one)
    two.until(lambda: "no longer has this node" in two.text(), "a word about it", PATIENCE)
    kubernetes.server.add(node_object("node-2", *subnets(2)))
    knows(one, 2)
    knows(two, 1)

    def condition() -> str:
        conditions = kubernetes.server.get("node-2")["status"]["conditions"]
        return next(str(c["status"]) for c in conditions if c["type"] == "NetworkUnavailable")

    two.until(lambda: condition() == "False", "the condition", PATIENCE)


def test_annotations_that_others_change(kubernetes: Kubernetes, join: Join) -> None:
    """Removed or changed by hand: written again, and said."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    server = kubernetes.server
    server.annotate("node-2", {PREFIX + "public-ip": "192.168.50.99"})
    two.until(lambda: published(kubernetes, "node-2") == "192.168.50.2", "its address", PATIENCE)
    server.annotate("node-2", {PREFIX + "backend-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:00"}'})
    macs = {vtep_mac(1, underlay_address(2))}

    def seen() -> set[str]:
        lines = one.node.run("bridge", "fdb", "show", "dev", "adder.1").splitlines()
        return {line.split()[0] for line in lines}

    one.until(lambda: seen() == macs, "the MAC", PATIENCE)
    assert "publishing it again" in two.text()


def test_two_agents_under_one_name(
    kubernetes: Kubernetes, join: Join, cluster: Cluster, tmp_path: pathlib.Path
) -> None:
    """NODE_NAME was copied: both say so, and neither writes without end."""
    one = join(1).ready()
    node = cluster.node(2)
    kubernetes.options(node)
    two = Agent(node, tmp_path / "two", one.options, NODE_NAME="node-1").start()
    for agent in (one, two):
        agent.until(lambda: "publishing it again" in agent.text(), "a word", PATIENCE)  # noqa: B023
    before = len([seen for seen in kubernetes.server.requests if seen.verb == "patch"])
    time.sleep(6)  # in which agents without patience would write thousands of times
    after = len([seen for seen in kubernetes.server.requests if seen.verb == "patch"])
    assert after - before < 12


def test_an_empty_listing_after_a_start(kubernetes: Kubernetes, join: Join) -> None:
    """Of a cluster of two, whose only other node is known from before."""
    kubernetes.server.add(flannel_node(2))
    one = join(1).ready()
    knows(one, 2)
    one.kill()
    left = [1, 1]

    def empty(nodes: list[Any]) -> list[Any]:
        return [] if left and left.pop() else nodes

    kubernetes.server.faults.listing = empty
    log = (one.log.parent / "monitor").open("wb")
    one.node.start("ip", "monitor", "route", log=log)
    one.start()
    one.until(lambda: "a listing lacks 1 of 1 nodes" in one.text(), "a word", PATIENCE)
    kubernetes.server.send_gone()
    kubernetes.server.add(flannel_node(3))
    knows(one, 2, 3)
    log.close()
    assert "Deleted" not in (one.log.parent / "monitor").read_text()


def test_a_node_that_left_in_a_busy_cluster(kubernetes: Kubernetes, join: Join) -> None:
    """A doubtful listing is confirmed in the end, however many events there are meanwhile."""
    for number in (2, 3, 4):
        kubernetes.server.add(flannel_node(number))
    one = join(1).ready()
    knows(one, 2, 3, 4)
    one.kill()
    for number in (2, 3, 4):
        kubernetes.server.delete(f"node-{number}")
    one.start()
    one.until(lambda: "a listing lacks" in one.text(), "a word", PATIENCE)
    kubernetes.server.add(flannel_node(5))
    count = 0

    def gone() -> bool:
        nonlocal count
        count += 1
        mac = f"22:00:00:01:{count // 256:02x}:{count % 256:02x}"
        data = f'{{"VNI":1,"VtepMAC":"{mac}"}}'
        kubernetes.server.annotate("node-5", {PREFIX + "backend-data": data})
        return ipv4_routes(one) == {subnets(5)[0]}

    one.until(gone, "only node 5", PATIENCE)


def test_machines_that_were_cloned(kubernetes: Kubernetes, join: Join) -> None:
    """flanneld's MACs come from the machine-id: two with one are a conflict, not a race."""
    kubernetes.server.add(flannel_node(2, mac="22:00:00:00:00:77"), created="2020-01-01T00:00:00Z")
    kubernetes.server.add(flannel_node(3, mac="22:00:00:00:00:77"), created="2021-01-01T00:00:00Z")
    one = join(1).ready()
    one.until(lambda: "VTEP MAC 22:00:00:00:00:77 is that of node-2" in one.text(), "a word")
    knows(one, 2)
    kubernetes.server.annotate(
        "node-3", {PREFIX + "backend-data": '{"VNI":1,"VtepMAC":"22:00:00:00:00:78"}'}
    )
    knows(one, 2, 3)


def test_from_direct_routes_to_the_tunnel_and_back(
    kubernetes: Kubernetes, join: Join, cluster: Cluster, tmp_path: pathlib.Path
) -> None:
    """`DirectRouting` is switched, and the agents are started again: nothing of before is left."""
    one, two = join(1).ready(), join(2).ready()
    peers = {number: underlay_address(number) for number in (1, 2)}
    for direct in (True, False):
        kubernetes.backend["DirectRouting"] = direct
        for agent in (one, two):
            kubernetes.options(agent.node)
            agent.kill()
            agent.start()
        for number, agent in ((1, one), (2, two)):
            wanted = expected(number, peers[number], peers, direct)
            settled(agent, wanted, f"direct: {direct}", PATIENCE)
