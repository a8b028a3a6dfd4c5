# SPDX-License-Identifier: Apache-2.0
"""Nodes with an agent each: joining, leaving, repairing, and doing no harm."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.overlay.agents import AGENT_CONFIG, PEERS_FILE, Agent, routes
from tests.overlay.cluster import Cluster, Node, Pod
from tests.overlay.stores import Etcd, File, Kubernetes, StoreRig, subnets

Join = Callable[[int], Agent]


@pytest.fixture(params=["kubernetes", "etcd", "file"])
def store(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: pathlib.Path
) -> Iterator[StoreRig]:
    """Each store in turn."""
    kinds: dict[str, Callable[[], StoreRig]] = {
        "kubernetes": Kubernetes,
        "etcd": lambda: Etcd(tmp_path / "etcd"),
        "file": lambda: File(tmp_path / "nodes.json"),
    }
    made = kinds[request.param]()
    yield made
    made.close()


@pytest.fixture
def join(cluster: Cluster, store: StoreRig, tmp_path: pathlib.Path) -> Join:
    """Start an agent on the node of that number."""

    def start(number: int) -> Agent:
        node = cluster.node(number)
        agent = Agent(node, tmp_path / f"{node.name}.log", store.options(node))
        return agent.start()

    return start


def destinations(*numbers: int) -> set[str]:
    """The pod CIDRs of nodes."""
    return {subnet for number in numbers for subnet in subnets(number)}


def networks(*numbers: int) -> set[str]:
    """The first addresses of them, which are the VTEPs' too."""
    return {subnet.partition("/")[0] for subnet in destinations(*numbers)}


def knows(agent: Agent, *numbers: int) -> None:
    """Wait until an agent has exactly these nodes as peers in its kernel."""
    agent.until(lambda: routes(agent.node) == destinations(*numbers), f"routes to nodes {numbers}")


def attach(node: Node, name: str = "pod") -> Pod:
    """A pod on the node."""
    return node.attach(name, AGENT_CONFIG)


def test_every_pod_reaches_every_pod(join: Join) -> None:
    """Three nodes join one after the other; pods of all of them reach each other."""
    agents = [join(number).ready() for number in (1, 2, 3)]
    for number, agent in enumerate(agents, 1):
        knows(agent, *({1, 2, 3} - {number}))
    pods = [attach(agent.node) for agent in agents]
    for one in pods:
        for other in pods:
            if one is not other:
                one.reaches(other)
    pods[0].sends_to(pods[1])
    pods[2].sends_to(pods[0])
    for pod in pods:
        node = pod.node
        node.call("vxlan-overlay", "CHECK", node.with_result(pod), pod).succeeded()
        node.call("vxlan-overlay", "STATUS", AGENT_CONFIG).succeeded()
        node.detach(pod)


@pytest.mark.parametrize(
    "damage",
    [
        ["ip", "route", "delete", "10.244.2.0/24"],
        ["ip", "-6", "route", "delete", "fd00:10:244:2::/64"],
        ["ip", "neighbour", "delete", "10.244.2.0", "dev", "adder.1"],
        ["ip", "neighbour", "replace", "10.244.2.0", "lladdr", "02:00:00:00:00:09", "dev",
         "adder.1", "nud", "permanent"],
        ["sh", "-c", "bridge fdb show dev adder.1 | while read mac _; do "
         "bridge fdb delete $mac dev adder.1; done"],
        ["ip", "link", "delete", "adder.1"],
        ["ip", "link", "set", "adder.1", "down"],
        ["ip", "link", "set", "adder6.1", "down"],
        ["ip", "link", "set", "adder.1", "mtu", "1300"],
        ["ip", "link", "set", "adder.1", "address", "02:00:00:00:00:08"],
        ["ip", "address", "flush", "dev", "adder.1"],
        ["ip", "route", "flush", "table", "main", "proto", "97"],
    ],
    ids=lambda words: "-".join(words[:5]).replace("/", "_"),
)  # fmt: skip
def test_what_is_removed_comes_back(join: Join, damage: list[str]) -> None:
    """Whatever somebody does to what is ours: CHECK agrees again, and packets pass."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    knows(two, 1)
    here, there = attach(one.node), attach(two.node)
    here.reaches(there)
    one.node.run(*damage)
    config = one.node.with_result(here)
    one.until(lambda: one.node.call("vxlan-overlay", "CHECK", config, here).rc == 0, "CHECK", 5)
    here.reaches(there)
    for pod in (here, there):
        pod.node.detach(pod)


def test_a_node_that_leaves_is_forgotten(join: Join, store: StoreRig) -> None:
    """Also when it leaves while an agent is down; the others' entries stay untouched."""
    agents = {number: join(number).ready() for number in (1, 2, 3, 4)}
    knows(agents[1], 2, 3, 4)
    agents[3].stop()
    store.leave(agents[3].node)
    knows(agents[1], 2, 4)
    agents[1].kill()
    agents[4].stop()
    store.leave(agents[4].node)
    knows(agents[2], 1)
    assert routes(agents[1].node) == destinations(2, 4)
    agents[1].start()
    knows(agents[1], 2)


def test_who_remembers_nothing_removes_nobody(
    join: Join, store: StoreRig, tmp_path: pathlib.Path
) -> None:
    """Killed, its file lost: what is in the kernel stays until two listings lack it."""
    agents = {number: join(number).ready() for number in (1, 2, 3, 4)}
    one = agents[1]
    knows(one, 2, 3, 4)
    one.kill()
    agents[4].stop()
    store.leave(agents[4].node)
    one.node.run("rm", PEERS_FILE)
    changes = tmp_path / "changes"
    with changes.open("ab") as log:
        monitor = one.node.start("ip", "-o", "monitor", "route", "neigh", log=log)
    one.start()
    one.until(lambda: one.text().count("this node has") == 2, "a whole data path")
    assert routes(one.node) == destinations(2, 3, 4)
    knows(one, 2, 3)
    gone = [line.split()[1] for line in changes.read_text().splitlines() if "Deleted" in line]
    there = {words.partition("/")[0] for words in gone}
    assert there >= networks(4)
    assert not there & networks(2, 3), "for a moment at least"
    assert "removed by others" not in one.text()
    monitor.kill()


def test_a_node_with_another_address_is_followed(join: Join, store: StoreRig) -> None:
    """The underlay's address changes: peers move their entries, pods reach each other again."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    knows(two, 1)
    here, there = attach(one.node), attach(two.node)
    here.reaches(there)
    two.node.set_address("192.168.50.77")
    store.moved(two.node)
    one.until(
        lambda: "192.168.50.77" in one.node.run("bridge", "fdb", "show", "dev", "adder.1"),
        "the new address",
    )
    assert "192.168.50.2 " not in one.node.run("bridge", "fdb", "show", "dev", "adder.1")
    here.reaches(there)
    there.reaches(here)
    for pod in (here, there):
        pod.node.detach(pod)


def test_a_store_that_is_away_does_no_harm(join: Join, store: StoreRig) -> None:
    """Not to what runs, not to an agent that is started meanwhile; and it is found again."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    knows(two, 1)
    here, there = attach(one.node), attach(two.node)
    store.down()
    one.until(lambda: "away" in one.text(), "a word about it")
    here.reaches(there)
    one.kill()
    one.node.run("ip", "link", "delete", "adder.1")
    one.node.run("rm", "/run/flannel/subnet.env")
    one.start().ready()
    knows(one, 2)
    here.reaches(there)
    store.up()
    join(3).ready(40)
    one.until(lambda: routes(one.node) == destinations(2, 3), "the third node", 60)
    for pod in (here, there):
        pod.node.detach(pod)


def test_a_node_reboots(join: Join, cluster: Cluster) -> None:
    """Its device, routes and /run are gone, its state file is not; peers need not change."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    before = one.node.run("bridge", "fdb", "show", "dev", "adder.1")
    two.kill()
    for device in ("adder.1", "adder6.1"):
        two.node.run("ip", "link", "delete", device)
    two.node.run("rm", "-r", "/run/flannel")
    two.start().ready()
    knows(two, 1)
    here, there = attach(one.node), attach(two.node)
    here.reaches(there)
    assert one.node.run("bridge", "fdb", "show", "dev", "adder.1") == before
    for pod in (here, there):
        pod.node.detach(pod)


def _lives(agent: Agent, count: int) -> bool:
    """True when the agent has brought the node up so many times."""
    return agent.text().count("this node has") >= count


def test_nothing_is_lost_while_the_agent_is_killed(join: Join, store: StoreRig) -> None:
    """100 pings a second between two pods, over kills, restarts and an outage of the store."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    knows(two, 1)
    here, there = attach(one.node), attach(two.node)
    here.reaches(there)
    with subprocess.Popen(
        here.command("ping", "-n", "-i", "0.01", "-c", "1500", there.addresses()[0]),
        stdout=subprocess.PIPE,
        text=True,
    ) as pings:
        for agent in (one, two):
            agent.kill()
            agent.start()
            agent.until(partial(_lives, agent, 2), "its next life")
        store.down()
        one.stop()
        one.start()
        one.until(partial(_lives, one, 3), "its life without a store")
        store.up()
        told = pings.communicate(timeout=60)[0]
    assert "1500 packets transmitted, 1500 received" in told, told
    for pod in (here, there):
        pod.node.detach(pod)


def test_the_underlays_mtu_is_followed(join: Join) -> None:
    """Device and subnet file have 50 less, or 70 where there is an IPv6 device."""
    one = join(1).ready()
    assert "FLANNEL_MTU=1430" in (one.subnet_file() or "")
    one.node.run("ip", "link", "set", "eth0", "mtu", "1400")
    one.until(lambda: "FLANNEL_MTU=1330" in (one.subnet_file() or ""), "the subnet file")
    assert one.node.ip("link", "show", "adder.1")[0]["mtu"] == 1330


def test_two_nodes_with_one_subnet(join: Join, store: StoreRig, cluster: Cluster) -> None:
    """The older keeps it, the others say so, and nothing flaps."""
    if isinstance(store, Etcd):
        pytest.skip("etcd has one key for a subnet, and so one node")
    assert isinstance(store, Kubernetes | File)
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    node = cluster.node(3)
    store.claim(node, 2)
    three = join(3).ready()
    one.until(lambda: "overlaps" in one.text(), "a word about it")
    assert routes(one.node) == destinations(2)
    assert "node-3 is not used" in one.text()

    def problem(name: str) -> str | None:
        return {p["name"]: str(p["problem"]) for p in one.peers()["peers"]}.get(name)

    one.until(lambda: "node-2" in (problem("node-3") or ""), "the problem in the peers file")
    assert problem("node-2") == ""
    assert "older than this node" in three.text()
    assert "older than this node" not in two.text()


def test_cleanup_removes_everything(join: Join, store: StoreRig) -> None:
    """Devices, routes, rules, files; and nothing of anybody else's."""
    one, two = join(1).ready(), join(2).ready()
    knows(one, 2)
    one.node.run("ip", "link", "add", "other0", "type", "vxlan", "id", "9", "dstport", "9999",
                 "dev", "eth0")  # fmt: skip
    one.node.run("ip", "route", "add", "10.99.0.0/24", "via", "192.168.50.254")
    one.stop()
    done = one.command("cleanup", *one.options)
    assert done.returncode == 0, done.stderr
    assert one.subnet_file() is None
    names = {link["ifname"] for link in one.node.ip("link", "show")}
    assert names == {"lo", "eth0", "other0"}
    assert routes(one.node) == set()
    assert [r["dst"] for r in one.node.ip("route", "show", "10.99.0.0/24")] == ["10.99.0.0/24"]
    assert "adder_overlay" not in one.node.run("nft", "list", "ruleset")
    if isinstance(store, File):
        store.leave(one.node)  # as its log says
    knows(two)
    assert one.command("cleanup", *one.options).returncode == 0
