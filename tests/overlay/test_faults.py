# SPDX-License-Identifier: Apache-2.0
"""What happens to agents in the field: each test is named after what was reported of others."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from cni_vxlan_overlay.agent import settings
from cni_vxlan_overlay.peers import vtep_mac
from tests.overlay.agents import AGENT_CONFIG, PEERS_FILE, SUBNET_FILE, Agent, routes, until
from tests.overlay.api_server import node as node_object
from tests.overlay.cluster import Cluster, Node, underlay_address
from tests.overlay.stores import File, Kubernetes, subnets

PREFIX = "flannel.alpha.coreos.com/"


@pytest.fixture
def file(cluster: Cluster, tmp_path: pathlib.Path) -> File:
    """Nodes that are in a file."""
    return File(tmp_path / "nodes.json")


Join = Callable[..., Agent]


@pytest.fixture
def join(cluster: Cluster, tmp_path: pathlib.Path) -> Join:
    """Start an agent on the node of that number, with more options and variables."""

    def start(store: Any, number: int, *options: str, **variables: str) -> Agent:
        node = cluster.node(number)
        log = tmp_path / f"{node.name}.log"
        return Agent(node, log, [*store.options(node), *options], **variables).start()

    return start


def flannel_node(number: int, **more: str) -> dict[str, Any]:
    """A Node object with flannel's annotations, and nobody behind it."""
    public = more.pop("public", underlay_address(number))
    return node_object(
        f"node-{number}",
        *subnets(number),
        annotations={
            PREFIX + "kube-subnet-manager": "true",
            PREFIX + "backend-type": "vxlan",
            PREFIX + "backend-data": f'{{"VNI":1,"VtepMAC":"22:00:00:00:00:{number:02x}"}}',
            PREFIX + "public-ip": public,
            **more,
        },
    )


def knows(agent: Agent, *numbers: int) -> None:
    """Exactly these nodes' pods have routes."""
    expected = {subnet for number in numbers for subnet in subnets(number)}
    agent.until(lambda: routes(agent.node) == expected, f"routes to nodes {numbers}")


def ipv4_routes(agent: Agent) -> set[str]:
    """Destinations of our IPv4 routes."""
    return {route["dst"] for route in agent.node.ip("-4", "route", "show", "proto", "97")}


def fdb(agent: Agent) -> dict[str, str]:
    """MAC to underlay address, as the kernel has it."""
    lines = agent.node.run("bridge", "fdb", "show", "dev", "adder.1").splitlines()
    return {line.split()[0]: line.split()[2] for line in lines}


@contextlib.contextmanager
def monitoring(node: Node, *objects: str) -> Iterator[list[str]]:
    """What `ip monitor` shows, as the one item of the list, once the block has ended."""
    monitor = subprocess.Popen(
        node.command("ip", "monitor", *objects), stdout=subprocess.PIPE, text=True
    )
    shown: list[str] = []
    try:
        yield shown
    finally:
        monitor.terminate()
        shown.append(monitor.communicate()[0])


# -- listings and events ----------------------------------------------------------------------


def test_an_empty_listing_removes_nobody(kubernetes: Kubernetes, join: Join) -> None:
    """ "200 OK" without nodes, once, as from an API server that has just started."""
    for number in (2, 3, 4):
        kubernetes.server.add(flannel_node(number))
    one = join(kubernetes, 1).ready()
    expected = {subnets(number)[0] for number in (2, 3, 4)}
    one.until(lambda: ipv4_routes(one) == expected, "its peers")
    with monitoring(one.node, "route", "neigh") as changes:
        kubernetes.server.faults.listing = lambda nodes: []
        kubernetes.server.compact()
        kubernetes.server.send_gone()
        one.until(lambda: "lacks" in one.text(), "a word about it")
        kubernetes.server.faults.listing = None
        kubernetes.server.send_gone()
        kubernetes.server.add(flannel_node(5))
        one.until(lambda: subnets(5)[0] in ipv4_routes(one), "the next node")
    assert "Deleted" not in changes[0]
    assert ipv4_routes(one) == expected | {subnets(5)[0]}


def test_a_listing_that_is_short_by_one_removes_nobody(kubernetes: Kubernetes, join: Join) -> None:
    """Long after the beginning, when no other listing was about to come."""
    for number in (2, 3, 4):
        kubernetes.server.add(flannel_node(number))
    one = join(kubernetes, 1).ready()
    expected = {subnets(number)[0] for number in (2, 3, 4)}
    one.until(lambda: ipv4_routes(one) == expected, "its peers")
    one.until(lambda: kubernetes.server.count("list") > 1, "the confirmation of the first", 40)
    with monitoring(one.node, "route") as changes:
        shortened: list[int] = []

        def without_one(nodes: list[Any]) -> list[Any]:
            shortened.append(len(nodes))
            kubernetes.server.faults.listing = None
            return [each for each in nodes if each["metadata"]["name"] != "node-3"]

        kubernetes.server.faults.listing = without_one
        kubernetes.server.compact()
        kubernetes.server.send_gone()
        one.until(lambda: "lacks 1 of" in one.text(), "a word about it")
        lists = kubernetes.server.count("list")
        one.until(lambda: kubernetes.server.count("list") > lists, "another listing", 40)
        kubernetes.server.add(flannel_node(5))
        one.until(lambda: subnets(5)[0] in ipv4_routes(one), "the next node")
    assert shortened
    assert "Deleted" not in changes[0]
    assert ipv4_routes(one) == expected | {subnets(5)[0]}


def test_watches_that_are_refused_are_not_asked_for_without_a_pause(
    kubernetes: Kubernetes, join: Join
) -> None:
    """Each attempt is a whole listing: the pauses between them grow."""
    one = join(kubernetes, 1).ready()
    kubernetes.server.fail("watch", 403, 10_000)
    kubernetes.server.compact()
    kubernetes.server.send_gone()
    one.until(lambda: "403" in one.text(), "a word about it")
    before = kubernetes.server.count("list")
    time.sleep(20)
    # Of half a second, doubled each time, and up to half as short: with 0.5 s always it is 20.
    assert kubernetes.server.count("list") - before <= 8


@pytest.mark.parametrize("trouble", ["gone", "half", "nonsense", "duplicate", "reorder", "drop"])
def test_what_watches_suffer(kubernetes: Kubernetes, join: Join, trouble: str) -> None:
    """Whatever comes of events, in the end the kernel has what the server has."""
    server = kubernetes.server
    for number in (2, 3):
        server.add(flannel_node(number))
    one = join(kubernetes, 1).ready()
    one.until(lambda: len(ipv4_routes(one)) == 2, "its peers")
    match trouble:
        case "gone":
            server.compact()
            server.send_gone()
        case "half":
            server.drop_watches(b'{"type":"MODIFIED","object":{"metadata"')
        case "nonsense":
            server.send_raw(b"<html>\n")
        case "duplicate":
            server.faults.duplicate = True
        case "reorder" | "drop":
            server.hold()
    server.add(flannel_node(4))
    server.annotate("node-2", {PREFIX + "backend-data": '{"VNI":1,"VtepMAC":"22:00:00:00:00:99"}'})
    server.delete("node-3")
    if trouble == "reorder":
        server.release(lambda lines: lines[::-1])
    elif trouble == "drop":
        server.release(lambda lines: lines[1:])
        server.compact()
        server.send_gone()
    one.until(lambda: ipv4_routes(one) == {subnets(2)[0], subnets(4)[0]}, "nodes 2 and 4", 40)
    one.until(
        lambda: (
            fdb(one) == {"22:00:00:00:00:99": "192.168.50.2", "22:00:00:00:00:04": "192.168.50.4"}
        ),
        "their entries",
    )


def test_a_server_that_drips(kubernetes: Kubernetes, join: Join) -> None:
    """Slow as it is, it is waited for."""
    kubernetes.server.add(flannel_node(2))
    kubernetes.server.faults.delay = {"list": 1.0, "get": 0.5}
    one = join(kubernetes, 1).ready(60)
    one.until(lambda: len(ipv4_routes(one)) == 1, "its peer", 60)


def test_refused_for_a_while(kubernetes: Kubernetes, join: Join) -> None:
    """401, 403, 500 and 503 are not the end."""
    for code in (401, 403, 500, 503):
        kubernetes.server.fail("get", code)
    one = join(kubernetes, 1).ready(60)
    for code in (401, 403, 500, 503):
        assert f"API server says {code}" in one.text()


def test_no_pod_cidr_yet(kubernetes: Kubernetes, join: Join, cluster: Cluster) -> None:
    """Said with what to do about it; taken when it comes."""
    kubernetes.server.add(node_object("node-1"))
    one = join(kubernetes, 1)
    one.until(lambda: "--allocate-node-cidrs" in one.text(), "a word about it")
    kubernetes.server.change("node-1", {"spec": {"podCIDRs": subnets(1)}})
    one.ready(60)


# -- who has what -----------------------------------------------------------------------------


def test_two_nodes_with_one_address(kubernetes: Kubernetes, join: Join) -> None:
    """The older is used, whoever is heard of first; nothing flaps."""
    server = kubernetes.server
    server.add(flannel_node(3, public="192.168.50.9"), created="2020-01-01T00:00:00Z")
    server.add(flannel_node(2, public="192.168.50.9"), created="2021-01-01T00:00:00Z")
    one = join(kubernetes, 1).ready()
    one.until(lambda: "node-2 is not used" in one.text(), "a word about it")
    assert ipv4_routes(one) == {subnets(3)[0]}
    for _ in range(3):
        server.annotate("node-2", {"touched": str(time.time())})
        server.annotate("node-3", {"touched": str(time.time())})
    server.add(flannel_node(4))
    one.until(lambda: ipv4_routes(one) == {subnets(3)[0], subnets(4)[0]}, "the fourth")
    assert one.text().count("node-2 is not used") == 1
    server.delete("node-3")
    one.until(lambda: ipv4_routes(one) == {subnets(2)[0], subnets(4)[0]}, "the younger")
    assert "no longer in conflict" in one.text()


def test_our_address_published_by_another(kubernetes: Kubernetes, join: Join) -> None:
    """Never used as a peer: it would send what is for it to ourselves."""
    kubernetes.server.add(flannel_node(2, public=underlay_address(1)))
    one = join(kubernetes, 1).ready()
    one.until(lambda: "192.168.50.1 is that of node-1" in one.text(), "a word about it")
    assert ipv4_routes(one) == set()


def test_a_subnet_that_changed(kubernetes: Kubernetes, join: Join) -> None:
    """A node that was deleted and made again with other pods: the old ones' route goes."""
    kubernetes.server.add(flannel_node(2))
    one = join(kubernetes, 1).ready()
    one.until(lambda: ipv4_routes(one) == {subnets(2)[0]}, "its peer")
    one.kill()
    kubernetes.server.delete("node-2")
    again = flannel_node(2)
    again["spec"] = {"podCIDR": subnets(9)[0], "podCIDRs": subnets(9)}
    kubernetes.server.add(again)
    one.start()
    one.until(lambda: ipv4_routes(one) == {subnets(9)[0]}, "its other subnet")
    neighbours = [n["dst"] for n in one.node.ip("neigh", "show", "dev", "adder.1")]
    assert neighbours == ["10.244.9.0", "fd00:10:244:9::"]


def test_nothing_foreign_is_touched(file: File, join: Join) -> None:
    """Routes of others to the same pods, by other protocols and devices, stay; so do tables."""
    one, two = join(file, 1).ready(), join(file, 2).ready()
    knows(one, 2)
    node = one.node
    node.run("ip", "route", "add", "10.244.77.0/24", "via", "192.168.50.254")
    node.run("ip", "route", "add", "10.244.2.0/25", "via", "192.168.50.254", "proto", "97",
             "table", "100")  # fmt: skip
    node.run("ip", "neigh", "add", "192.168.50.99", "lladdr", "02:00:00:00:00:01", "dev", "eth0",
             "nud", "permanent")  # fmt: skip
    node.run("nft", "add table ip foreign")
    before = [node.ip("route", "show", "table", table) for table in ("100", "254")]
    one.kill()
    one.start().until(lambda: one.text().count("this node has") == 2, "its second life")
    two.kill()
    file.leave(two.node)
    knows(one)
    after = [node.ip("route", "show", "table", table) for table in ("100", "254")]
    assert after[0] == before[0]
    assert [r for r in before[1] if r.get("protocol") != "97"] == after[1]
    assert node.ip("neigh", "show", "192.168.50.99")[0]["lladdr"] == "02:00:00:00:00:01"
    assert "table ip foreign" in node.run("nft", "list", "tables")


def test_a_route_of_others_is_in_the_way(file: File, join: Join, cluster: Cluster) -> None:
    """It is not replaced; the message says which."""
    node = cluster.node(1)
    node.run("ip", "route", "add", "10.244.2.0/24", "via", "192.168.50.254")
    one = join(file, 1).ready()
    two = join(file, 2)
    one.until(lambda: "a route to 10.244.2.0/24 is there already" in one.text(), "a word about it")
    assert node.ip("route", "show", "10.244.2.0/24")[0]["gateway"] == "192.168.50.254"
    node.run("ip", "route", "delete", "10.244.2.0/24")
    one.until(lambda: "10.244.2.0/24" in routes(node), "our own", 30)
    assert two.process is not None and two.process.poll() is None


# -- devices ---------------------------------------------------------------------------------


def test_the_mac_is_given_at_creation(file: File, join: Join) -> None:
    """It follows from VNI and address, is never changed afterwards, and is what peers have."""
    one, two = join(file, 1).ready(), join(file, 2).ready()
    knows(one, 2)
    mac = vtep_mac(1, "192.168.50.2")
    assert two.node.ip("link", "show", "adder.1")[0]["address"] == mac
    assert fdb(one) == {mac: "192.168.50.2"}
    # What udev looks at: NET_ADDR_SET, which MACAddressPolicy=persistent leaves alone.
    kind = two.node.run(
        "unshare", "--mount", "sh", "-c",
        "mount -t sysfs none /mnt && cat /mnt/class/net/adder.1/addr_assign_type",
    )  # fmt: skip
    assert kind.strip() == "3"
    data = two.node.ip("-d", "link", "show", "adder.1")[0]["linkinfo"]["info_data"]
    assert data["learning"] is False
    assert not data.get("l2miss") and not data.get("l3miss")


@pytest.mark.parametrize(
    ("words", "recreated"),
    [
        (["id", "1", "dstport", "4789", "local", "192.168.50.1", "dev", "eth0"], True),
        (["id", "1", "dstport", "8472", "dev", "eth0"], True),
        (["id", "2", "dstport", "8472", "local", "192.168.50.1", "dev", "eth0"], True),
    ],
)
def test_an_old_device_of_ours(
    file: File, join: Join, cluster: Cluster, words: list[str], recreated: bool
) -> None:
    """With other parameters: made anew, since it bears our mark."""
    node = cluster.node(1)
    node.run("ip", "link", "add", "adder.1", "type", "vxlan", *words)
    node.run("ip", "link", "set", "adder.1", "alias", "vxlan-overlay:(agent)")
    one, two = join(file, 1).ready(), join(file, 2).ready()
    assert ("made anew" in one.text()) == recreated
    knows(one, 2)
    data = node.ip("-d", "link", "show", "adder.1")[0]["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data["local"]) == (1, 8472, "192.168.50.1")
    assert two.process is not None and two.process.poll() is None


def test_a_device_of_others(file: File, join: Join, cluster: Cluster) -> None:
    """Of our name, or with our VNI and port: left alone, named, and waited for."""
    node = cluster.node(1)
    node.run("ip", "link", "add", "adder.1", "type", "bridge")
    one = join(file, 1)
    one.until(lambda: "device adder.1 is not ours" in one.text(), "a word about it")
    assert node.ip("-d", "link", "show", "adder.1")[0]["linkinfo"]["info_kind"] == "bridge"
    one.kill()
    for name in ("adder.1", "adder6.1"):
        with contextlib.suppress(AssertionError):
            node.run("ip", "link", "delete", name)
    node.run("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472",
             "local", "192.168.50.1", "dev", "eth0")  # fmt: skip
    node.run("ip", "link", "set", "flannel.1", "up")
    one.start()
    one.until(lambda: "device flannel.1 has VNI 1 on UDP port 8472" in one.text(), "a word", 60)
    assert "stop flanneld here" in one.text()
    node.run("ip", "link", "delete", "flannel.1")
    one.ready(90)


def test_checksum_offload(cluster: Cluster, join: Join, tmp_path: pathlib.Path) -> None:
    """`TxChecksumOffload` is set on the device; "auto" leaves a kernel that needs nothing be."""
    states = {}
    for number, value in ((1, "off"), (2, "on"), (3, "auto")):
        store = File(tmp_path / f"nodes-{value}.json", TxChecksumOffload=value)
        agent = join(store, number).ready()
        text = agent.node.run("ethtool", "-k", "adder.1")
        found = re.search(r"tx-checksum-ip-generic: (\w+)", text)
        assert found is not None
        states[value] = found[1]
    assert states == {"off": "off", "on": "on", "auto": "on"}


def test_packets_of_exactly_the_mtu_pass(file: File, join: Join) -> None:
    """One byte more is refused here, with the MTU, rather than lost on the way."""
    one, two = join(file, 1).ready(), join(file, 2).ready()
    knows(one, 2)
    knows(two, 1)
    here, there = (agent.node.attach("pod", AGENT_CONFIG) for agent in (one, two))
    address = there.addresses()[0]
    here.reaches(there)
    ping = ["ping", "-n", "-c1", "-W2", "-M", "do", "-s"]
    here.run(*ping, str(1430 - 28), address)
    with pytest.raises(AssertionError, match="message too long, mtu=1430"):
        here.run(*ping, str(1431 - 28), address)
    for pod in (here, there):
        pod.node.detach(pod)


def make_underlay_anew(agent: Agent) -> None:
    """Its interface, and the device with it, is gone; then there is another without address."""
    number = agent.node.number
    subprocess.run(["ip", "link", "delete", f"node{number}"], check=True)
    gone = "the end of the device"
    agent.until(lambda: "adder.1" not in agent.node.run("ip", "-br", "link"), gone)
    subprocess.run(
        ["ip", "link", "add", f"node{number}", "type", "veth", "peer", "name", "eth0", "netns",
         str(agent.node.pid)], check=True,
    )  # fmt: skip
    agent.node.connect()
    agent.node.run("ip", "link", "set", "eth0", "up")


def test_the_underlay_goes_and_comes_back(file: File, join: Join, cluster: Cluster) -> None:
    """With it the kernel deletes the device; all of it is there again afterwards."""
    one, two = join(file, 1).ready(), join(file, 2).ready()
    knows(one, 2)
    knows(two, 1)
    make_underlay_anew(one)
    one.node.set_address(underlay_address(1))
    one.until(lambda: routes(one.node) == set(subnets(2)), "its peer", 60)
    assert one.command("check", "--timeout", "3").returncode == 0


@pytest.mark.parametrize("options", [[], ["--iface=eth0"]], ids=["found", "named"])
def test_an_underlay_made_anew_that_gets_its_address_later(
    kubernetes: Kubernetes, join: Join, options: list[str]
) -> None:
    """As with DHCP, and long after the beginning, when no other listing was about to come."""
    kubernetes.server.add(flannel_node(2))
    one = join(kubernetes, 1, *options).ready()
    knows(one, 2)
    one.until(lambda: kubernetes.server.count("list") > 1, "the confirmation of the first", 40)
    make_underlay_anew(one)
    time.sleep(4)
    lists = kubernetes.server.count("list")
    one.node.set_address(underlay_address(1))
    one.until(lambda: subnets(2)[0] in ipv4_routes(one), "its peer", 15)
    assert kubernetes.server.count("list") <= lists + 1, "it was its own publication, no accident"


# -- which underlay ------------------------------------------------------------------------------


def second_network(node: Node, name: str, address: str) -> None:
    """Another interface, as of a NAT that all machines have."""
    node.run("ip", "link", "add", name, "type", "bridge")
    node.run("ip", "address", "add", address, "dev", name)
    node.run("ip", "link", "set", name, "up")


@pytest.mark.parametrize(
    ("options", "internal", "expected"),
    [
        (["--iface=eth0"], "10.0.2.15", "192.168.50.1"),
        (["--iface=192.168.50.1"], "", "192.168.50.1"),
        (["--iface=nowhere", "--iface=nat0"], "", "10.0.2.15"),
        (["--iface-regex=^192\\.168\\."], "", "192.168.50.1"),
        (["--iface-regex=^eth"], "", "192.168.50.1"),
        (["--iface-can-reach=192.168.50.2"], "", "192.168.50.1"),
        ([], "192.168.50.1", "192.168.50.1"),
        # Though the way to the API server is another.
        ([], "10.0.2.15", "10.0.2.15"),
        ([], "10.9.9.9", "192.168.50.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value or "none",
)
def test_choosing_the_underlay(
    kubernetes: Kubernetes,
    cluster: Cluster,
    tmp_path: pathlib.Path,
    options: list[str],
    internal: str,
    expected: str,
) -> None:
    """What is asked for, the InternalIP, the way to the API server; not everybody's NAT."""
    node = cluster.node(1)
    second_network(node, "nat0", "10.0.2.15/24")
    node.run("ip", "route", "add", "default", "via", "10.0.2.2")
    kubernetes.server.add(
        node_object(node.name, *subnets(1), internal_ips=(internal,) if internal else ())
    )
    given = [option for option in kubernetes.options(node) if not option.startswith("--iface")]
    agent = Agent(node, tmp_path / "log", given + options).start().ready()
    (endpoint, *_) = agent.peers()["self"]["endpoints"]
    assert endpoint["publicIP"] == expected


def test_the_default_route_moves(file: File, cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """To an interface that had its address all along."""
    node = cluster.node(1)
    node.run("ip", "route", "add", "default", "via", "192.168.50.254")
    options = [option for option in file.options(node) if not option.startswith("--iface")]
    agent = Agent(node, tmp_path / "log", options).start().ready()
    second_network(node, "wan0", "10.0.3.15/24")
    agent.until(lambda: "reading all" not in agent.text(), "quiet")
    node.run("ip", "route", "replace", "default", "via", "10.0.3.2")
    agent.until(lambda: "the underlay is now" in agent.text(), "a word about it", 5)


def test_no_underlay(kubernetes: Kubernetes, cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """All that was tried is named; a cable that is plugged in later is enough."""
    node = cluster.node(1)
    options = [o for o in kubernetes.options(node) if not o.startswith("--iface")]
    agent = Agent(node, tmp_path / "log", [*options, "--iface=eth7"]).start()
    agent.until(lambda: "there is no interface 'eth7'" in agent.text(), "a word about it")
    second_network(node, "eth7", "192.168.60.1/24")
    agent.ready(60)


# -- traffic ------------------------------------------------------------------------------------


def table(agent: Agent) -> str:
    """The agent's own nftables table."""
    return agent.node.run("nft", "list", "table", "inet", "adder_overlay")


def test_masquerade(file: File, join: Join, cluster: Cluster) -> None:
    """The world sees the node; pods of other nodes see the pod. Both families."""
    one, two = join(file, 1).ready(), join(file, 2).ready()
    knows(one, 2)
    knows(two, 1)
    here, there = (
        agent.node.attach("pod", {**AGENT_CONFIG, "delegate": {"isDefaultGateway": True}})
        for agent in (one, two)
    )
    here.reaches(there)
    seen = {}
    for number, (source, target) in enumerate(
        ((0, there.addresses()[0]), (1, there.addresses()[1]),
         (0, underlay_address(254)), (1, underlay_address(254, True)))
    ):  # fmt: skip
        family = socket.AF_INET6 if source else socket.AF_INET
        prefix = there.command() if number < 2 else []
        listener = subprocess.Popen(
            [*prefix, "python3", "-c", _LISTENER, str(int(family)), target],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert listener.stdout is not None
        port = listener.stdout.readline().strip()
        here.run("python3", "-c", _CALLER, str(int(family)), target, port)
        seen[number] = listener.stdout.readline().strip()
        listener.wait()
        listener.stdout.close()
    assert [seen[0], seen[1]] == here.addresses()
    assert [seen[2], seen[3]] == [underlay_address(1), underlay_address(1, True)]
    for pod in (here, there):
        pod.node.detach(pod)


_LISTENER = """
import socket, sys
sock = socket.socket(int(sys.argv[1])); sock.bind((sys.argv[2], 0)); sock.listen()
sock.settimeout(20)
print(sock.getsockname()[1], flush=True); print(sock.accept()[1][0], flush=True)
"""
_CALLER = """
import socket, sys
sock = socket.socket(int(sys.argv[1])); sock.settimeout(20)
sock.connect((sys.argv[2], int(sys.argv[3])))
"""


def _lives(agent: Agent, count: int) -> bool:
    """True when the agent has brought the node up so many times."""
    return agent.text().count("this node has") >= count


def test_rules_are_there_throughout_a_restart(file: File, join: Join) -> None:
    """They change in one transaction or not at all: nobody ever sees none."""
    one = join(file, 1).ready()
    before = table(one)
    for word in ("masquerade fully-random", "10.244.0.0/16", "fd00:10:244::/48", "hook forward"):
        assert word in before
    watcher = one.node.start(
        "sh", "-c",
        "while :; do nft list table inet adder_overlay | grep -c 'masquerade fully'; done",
        log=(log := (one.log.parent / "rules").open("wb")),
    )  # fmt: skip
    for count in (2, 3):
        one.kill()
        one.start()
        one.until(partial(_lives, one, count), "another life")
    watcher.kill()
    watcher.wait()
    one.node.processes.remove(watcher)
    log.close()
    counts = set((one.log.parent / "rules").read_text().split())
    assert counts == {"4"}
    assert table(one) == before


def test_rules_that_others_flush(file: File, join: Join) -> None:
    """firewalld restarts, somebody flushes: back within seconds, counted, and said."""
    one = join(file, 1, "--healthz-port=8081").ready()
    before = table(one)
    one.node.run("nft", "flush", "ruleset")
    one.until(lambda: "adder_overlay" in one.node.run("nft", "list", "ruleset"), "the rules")
    assert table(one) == before
    one.node.run("nft", "flush", "chain", "inet", "adder_overlay", "postrouting")
    one.until(lambda: table(one) == before, "the rules")
    assert 'drift_repaired_total{object="rules"} 2.0' in get(one, "/metrics")[1]
    assert one.text().count("traffic rules were changed by others") == 2


def test_a_policy_that_drops(file: File, join: Join, cluster: Cluster) -> None:
    """Our accept is not the last word: said, with the chain."""
    cluster.node(1).run("iptables", "-P", "FORWARD", "DROP")
    one = join(file, 1).ready()
    one.until(lambda: "chain ip filter FORWARD drops" in one.text(), "a word about it")


def test_no_rules_where_none_are_wanted(cluster: Cluster, file: File, join: Join) -> None:
    one = join(file, 1, "--ip-masq=false", "--iptables-forward-rules=false").ready()
    assert "adder_overlay" not in one.node.run("nft", "list", "ruleset")
    assert "FLANNEL_IPMASQ=false" in (one.subnet_file() or "")


# -- what it says of itself -----------------------------------------------------------------------


def get(agent: Agent, path: str) -> tuple[int, str]:
    """HTTP status and body, asked on the node."""
    done = agent.node.run(
        "python3", "-c",
        "import http.client, sys\n"
        "c = http.client.HTTPConnection('127.0.0.1', 8081, timeout=10)\n"
        "c.request('GET', sys.argv[1]); r = c.getresponse()\n"
        "sys.stdout.write(f'{r.status} ' + r.read().decode())",
        path,
    )  # fmt: skip
    status, _, body = done.partition(" ")
    return int(status), body


def test_health_and_metrics(kubernetes: Kubernetes, join: Join) -> None:
    """Ready when it is; alive and ready though the store is away, which is said."""
    kubernetes.server.add(node_object("node-1"))
    one = join(kubernetes, 1, "--healthz-port=8081")
    one.until(lambda: "pod CIDR" in one.text(), "a word about it")
    assert get(one, "/healthz")[0] == 200
    assert get(one, "/readyz")[0] == 503
    kubernetes.server.change("node-1", {"spec": {"podCIDRs": subnets(1)}})
    kubernetes.server.add(flannel_node(2))
    one.ready(60)
    one.until(lambda: get(one, "/readyz") == (200, "ok\n"), "/readyz")
    one.until(lambda: "vxlan_overlay_peers 1.0" in get(one, "/metrics")[1], "the metric")
    one.node.run("ip", "route", "delete", "10.244.2.0/24")
    one.until(lambda: len(ipv4_routes(one)) == 1, "the route")
    status, metrics = get(one, "/metrics")
    assert status == 200
    for line in (
        "vxlan_overlay_store_up 1.0",
        "vxlan_overlay_conflicting_nodes 0.0",
        'vxlan_overlay_drift_repaired_total{object="route"} 1.0',
        'vxlan_overlay_ipam_addresses{state="free",subnet="10.244.1.0/24"} 253.0',
        "vxlan_overlay_reconcile_duration_seconds_count",
        'vxlan_overlay_build_info{python="',
        "vxlan_overlay_last_sync_timestamp_seconds 1.",
    ):
        assert line in metrics, line
    kubernetes.down()
    one.until(lambda: "vxlan_overlay_store_up 0.0" in get(one, "/metrics")[1], "the metric", 60)
    for path in ("/healthz", "/readyz"):
        status, words = get(one, path)
        assert status == 200 and "away" in words
    assert get(one, "/nothing")[0] == 404


def test_a_port_that_is_taken(file: File, join: Join, cluster: Cluster) -> None:
    """Its option and address in one line, and an exit status."""
    node = cluster.node(1)
    node.start("python3", "-m", "http.server", "8081")
    until(lambda: "8081" in node.run("ss", "-ltn"), "the other program")
    one = join(file, 1, "--healthz-port=8081")
    assert one.process is not None and one.process.wait(30) == 1
    assert "--healthz-port 8081: Address already in use" in one.text()
    assert "Traceback" not in one.text()


def test_logs_in_json(file: File, join: Join) -> None:
    """One object a line, whatever happens."""
    one = join(file, 1, "--log-format=json").ready()
    one.stop()
    lines = [json.loads(line) for line in one.text().splitlines()]
    assert lines
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()


def test_systemd_is_told(file: File, cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """READY once the data path is up, signs of life, STOPPING."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(20)
        node = cluster.node(1)
        agent = Agent(node, tmp_path / "log", file.options(node), NOTIFY_SOCKET=str(path)).start()
        assert sock.recv(4096).startswith(b"READY=1\nSTATUS=this node has 10.244.1.0/24")
        assert agent.subnet_file() is not None
        assert sock.recv(4096) == b"WATCHDOG=1"
        assert agent.stop() == 0
        assert sock.recv(4096) == b"STOPPING=1"


def test_sigterm_leaves_the_data_path(file: File, join: Join) -> None:
    one, two = join(file, 1).ready(), join(file, 2).ready()
    knows(one, 2)
    knows(two, 1)
    here, there = (agent.node.attach("pod", AGENT_CONFIG) for agent in (one, two))
    before = (table(one), fdb(one), routes(one.node), one.subnet_file())
    assert one.stop() == 0
    assert two.stop() == 0
    here.reaches(there)
    assert (table(one), fdb(one), routes(one.node), one.subnet_file()) == before
    for pod in (here, there):
        pod.node.detach(pod)


def test_stopped_at_any_moment_of_its_start(file: File, join: Join) -> None:
    """It ends, and says nothing strange; the next start is whole."""
    for pause in (0.05, 0.3, 0.5, 0.7, 0.9):
        one = join(file, 1)
        assert one.process is not None
        time.sleep(pause)
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(20) in (0, -signal.SIGTERM)
        one.node.processes.remove(one.process)
        assert "Traceback" not in one.text()
    two = join(file, 2).ready()
    one.start().ready()
    knows(one, 2)
    assert two.process is not None and two.process.poll() is None


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", '{"self": {}}', "\x00" * 100])
def test_a_state_file_that_is_broken(
    file: File, join: Join, cluster: Cluster, content: str
) -> None:
    """As if there were none, and said; then written whole."""
    cluster.node(1).write(PEERS_FILE, content)
    one = join(file, 1).ready()
    assert "cannot use /var/lib/vxlan-overlay/peers.json" in one.text()
    assert one.peers()["self"]["name"] == "node-1"


def test_a_full_disk(file: File, join: Join, cluster: Cluster) -> None:
    """The overlay works; what cannot be written is said. It is written when there is room."""
    node = cluster.node(1)
    node.run("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/var/lib/vxlan-overlay")
    node.run("dd", "if=/dev/zero", "of=/var/lib/vxlan-overlay/filler", "bs=4k", "count=1")
    one = join(file, 1).ready()
    two = join(file, 2).ready()
    knows(one, 2)
    assert f"cannot write {PEERS_FILE}: No space left on device" in one.text()
    node.run("rm", "/var/lib/vxlan-overlay/filler")
    file.claim(cluster.node(3), 3)
    one.until(lambda: _has(node, PEERS_FILE), "the file")
    assert two.process is not None and two.process.poll() is None


def _has(node: Node, path: str) -> bool:
    with contextlib.suppress(AssertionError):
        return bool(node.read(path))
    return False


def test_a_subnet_file_that_cannot_be_written(file: File, join: Join, cluster: Cluster) -> None:
    """The node is not ready, and says which file."""
    node = cluster.node(1)
    node.run("mkdir", "-p", "/run/flannel")
    node.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/run/flannel")
    one = join(file, 1, "--healthz-port=8081")
    one.until(lambda: f"cannot write {SUBNET_FILE}: Read-only file system" in one.text(), "a word")
    assert get(one, "/readyz") == (503, f"cannot write {SUBNET_FILE}\n")
    assert one.text().count("cannot write") < 20
    node.run("mount", "-o", "remount,rw", "/run/flannel")
    one.ready(60)


# -- flanneld's command line --------------------------------------------------------------------


def test_flanneld_s_options() -> None:
    """All of them are understood; those that mean nothing here are passed over."""
    found = settings.parse(
        [
            *("--kube-subnet-mgr", "--ip-masq", "--iface=eth0", "--iface-regex=^192"),
            *("--kubeconfig-file=/x", "--kube-api-url=http://x", "--public-ip=192.0.2.1"),
            *("--healthz-ip=::", "--healthz-port=8081", "--subnet-file=/run/x", "-v=3"),
            *("--iptables-resync=5", "--iptables-forward-rules=false", "--net-config-path=/y"),
            *("--etcd-endpoints=http://a:1,http://b:2", "--etcd-prefix=/z"),
            *("--subnet-lease-renew-margin=30", "--set-node-network-unavailable=false"),
            *("--ip-blackhole-route", "--vmodule=x=1", "--logtostderr"),
        ],
        {"NODE_NAME": "node-1"},
    )
    assert found.kind == "kubernetes"
    assert found.iface == ("eth0",)
    assert found.etcd_endpoints == ("http://a:1", "http://b:2")
    assert found.iptables_forward_rules is False
    environment = {
        "FLANNELD_ETCD_ENDPOINTS": "http://c:3",
        "FLANNELD_IP_MASQ": "true",
        "FLANNELD_IFACE": "eth1,eth2",
    }
    found = settings.parse([], environment)
    assert (found.kind, found.ip_masq) == ("etcd", True)
    assert found.etcd_endpoints == ("http://c:3",)
    assert found.iface == ("eth1", "eth2")
    assert settings.parse(["--iface=eth0"], environment).iface == ("eth0",)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--healthz-port=x"], "--healthz-port"),
        (["--healthz-port=70000"], "0 to 65535"),
        (["--public-ip=x"], "--public-ip"),
        (["--iface-regex=("], "--iface-regex"),
        (["--log-level=loud"], "--log-level"),
        (["--ip-masq=maybe"], "'maybe' is neither true nor false"),
        (["--subnet-lease-renew-margin=0"], "1 to 1439"),
        (["--kube-subnet-mgr"], "NODE_NAME"),
        (["--nonsense"], "--nonsense"),
        (["sideways"], "sideways"),
    ],
)
def test_options_that_cannot_be(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        settings.parse(words, {})
    assert refusal.value.code == 2
    assert complaint in capsys.readouterr().err
