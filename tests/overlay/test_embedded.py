# SPDX-License-Identifier: Apache-2.0
"""Two machines and two JSON files make an overlay: vxlan-overlay without an agent."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from tests.overlay.cluster import Cluster, Node, Pod, underlay_address

PAGE = pathlib.Path(__file__).resolve().parents[2] / "plugins/vxlan-overlay/README.md"


def entry(number: int, **keys: Any) -> dict[str, Any]:
    """A node as in `peers`; None removes a key."""
    document = {
        "publicIP": underlay_address(number),
        "subnet": f"10.244.{number}.0/24",
        "ipv6Subnet": f"fd00:10:244:{number}::/64",
        **keys,
    }
    return {key: value for key, value in document.items() if value is not None}


def config(number: int, peers: Sequence[int | dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """The configuration of one node, with the others as peers (number, or as in the
    configuration); None removes a key."""
    document: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "name": "overlay",
        "type": "vxlan-overlay",
        "vni": 7,
        "underlay": "eth0",
        "network": "10.244.0.0/16",
        "subnet": f"10.244.{number}.0/24",
        "ipv6Network": "fd00:10:244::/48",
        "ipv6Subnet": f"fd00:10:244:{number}::/64",
        "peers": [entry(peer) if isinstance(peer, int) else peer for peer in peers],
        **keys,
    }
    return {key: value for key, value in document.items() if value is not None}


def all_reach_all(pods: list[Pod]) -> None:
    """Every pod pings every other, all addresses."""
    for one in pods:
        for other in pods:
            if one is not other:
                one.reaches(other)


def healthy(pods: Iterable[Pod]) -> None:
    """CHECK and STATUS agree that all is well."""
    for pod in pods:
        pod.node.call("vxlan-overlay", "CHECK", pod.node.with_result(pod), pod).succeeded()
        pod.node.call("vxlan-overlay", "STATUS", pod.config).succeeded()


def device(node: Node, name: str = "adder.7") -> dict[str, Any]:
    """What `ip -d link` shows of a device."""
    found: dict[str, Any] = node.ip("-d", "link", "show", "dev", name)[0]
    return found


def destinations(node: Node) -> set[str]:
    """Destinations of the overlay's routes."""
    shown = node.ip("-4", "route", "show", "proto", "97")
    shown += node.ip("-6", "route", "show", "proto", "97")
    return {route["dst"] for route in shown}


def sent_through(node: Node, name: str = "adder.7") -> int:
    """Packets that have left through an interface."""
    packets: int = node.ip("-s", "link", "show", "dev", name)[0]["stats64"]["tx"]["packets"]
    return packets


def test_two_nodes_reach_each_other(cluster: Cluster) -> None:
    """IPv4 and IPv6 over an IPv4 underlay, from the first packet, and CHECK agrees."""
    one, two = cluster.node(1), cluster.node(2)
    a = one.attach("a", config(1, [2]))
    b = two.attach("b", config(2, [1]))
    a.reaches(b)
    b.reaches(a)
    healthy([a, b])
    for pod in (a, b):
        pod.node.detach(pod)


def test_three_nodes_with_one_list(cluster: Cluster) -> None:
    """Everybody has the same list; everybody's own entry in it is skipped."""
    nodes = [cluster.node(number) for number in (1, 2, 3)]
    pods = [node.attach("pod", config(node.number, [1, 2, 3])) for node in nodes]
    all_reach_all(pods)
    healthy(pods)
    for node in nodes:
        others = {1, 2, 3} - {node.number}
        assert {d for d in destinations(node) if "." in d} == {f"10.244.{n}.0/24" for n in others}
        assert len(node.run("bridge", "fdb", "show", "dev", "adder.7").splitlines()) == 2


def test_the_hosts_reach_pods_of_other_nodes(cluster: Cluster) -> None:
    """A kubelet probes from its own node, an API server calls a webhook on another one."""
    one, two = cluster.node(1), cluster.node(2)
    here = one.attach("pod", config(1, [2]))
    there = two.attach("pod", config(2, [1]))
    for address in (*here.addresses(), *there.addresses()):
        one.run("ping", "-n", "-c1", "-W3", address)


@pytest.mark.parametrize("families", ["IPv4", "IPv6"])
def test_one_family_of_pods(cluster: Cluster, families: str) -> None:
    """Only IPv4 or only IPv6 pods, over IPv4; the list may have both families for others."""
    gone: dict[str, Any] = (
        {"ipv6Network": None, "ipv6Subnet": None}
        if families == "IPv4"
        else {"network": None, "subnet": None}
    )
    pods = [
        cluster.node(number).attach("pod", config(number, [3 - number], **gone))
        for number in (1, 2)
    ]
    assert [len(pod.addresses()) for pod in pods] == [1, 1]
    all_reach_all(pods)
    healthy(pods)
    assert len(destinations(cluster.node(1))) == 1


@pytest.mark.parametrize("pods_are", ["dual", "IPv6"])
def test_an_underlay_of_ipv6_alone(cluster: Cluster, pods_are: str) -> None:
    """IPv4 and IPv6 pods over an underlay without IPv4; 70 bytes are left out of the MTU."""
    gone: dict[str, Any] = {} if pods_are == "dual" else {"network": None, "subnet": None}
    pods = []
    for number in (1, 2):
        node = cluster.node(number)
        node.run("ip", "-4", "address", "flush", "dev", "eth0")
        peer = 3 - number
        peers = [entry(peer, publicIP=underlay_address(peer, ipv6=True))]
        pods.append(node.attach("pod", config(number, peers, **gone)))
    all_reach_all(pods)
    healthy(pods)
    for pod in pods:
        assert device(pod.node, "adder6.7")["mtu"] == 1430
        assert "adder.7" not in pod.node.run("ip", "link")
        assert json.loads(pod.run("ip", "-j", "link", "show", "eth0"))[0]["mtu"] == 1430


def test_both_families_of_underlay(cluster: Cluster) -> None:
    """With two public addresses each family of pods travels over its own device, as flannel's."""
    pods = []
    for number in (1, 2, 3):
        peers = [entry(n, publicIPv6=underlay_address(n, ipv6=True)) for n in (1, 2, 3)]
        pods.append(cluster.node(number).attach("pod", config(number, peers)))
    all_reach_all(pods)
    healthy(pods)
    one = cluster.node(1)
    assert all(r["dev"] == "adder.7" for r in one.ip("-4", "route", "show", "proto", "97"))
    assert all(r["dev"] == "adder6.7" for r in one.ip("-6", "route", "show", "proto", "97"))
    assert device(one, "adder.7")["mtu"] == device(one, "adder6.7")["mtu"] == 1430


def test_the_page_as_it_is_printed(cluster: Cluster) -> None:
    """The README's first configuration, and "the other" as it says in words."""
    block = re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    document = json.loads(block.group(1))
    (plugin,) = document["plugins"]
    here = {"cniVersion": document["cniVersion"], "name": document["name"], **plugin}
    there = {
        **here,
        "subnet": "10.244.2.0/24",
        "peers": [{"publicIP": "192.168.50.1", "subnet": "10.244.1.0/24"}],
    }
    a, b = cluster.node(1).attach("a", here), cluster.node(2).attach("b", there)
    assert a.addresses() == ["10.244.1.2"]
    all_reach_all([a, b])
    healthy([a, b])


def test_adding_again_changes_nothing(cluster: Cluster) -> None:
    """Same device, same entries; not one of them is taken away for a moment."""
    one, two = cluster.node(1), cluster.node(2)
    first = one.attach("first", config(1, [2]))
    there = two.attach("pod", config(2, [1]))
    before = device(one)
    events = one.pod("watch").node.start("sh", "-c", "exec ip monitor link neigh route > /run/log")
    one.run("sh", "-c", "until [ -s /run/log ]; do ip link set lo mtu $((65000 + $$ % 500)); done")
    second = one.attach("second", config(1, [2]))
    one.run("ip", "link", "set", "lo", "mtu", "64000")
    one.run("sh", "-c", "until grep -q 'lo:.*mtu 64000' /run/log; do sleep 0.05; done")
    events.kill()
    ours = [line for line in one.read("/run/log").splitlines() if "adder.7" in line]
    assert ours == []
    assert device(one) == before
    all_reach_all([first, there])
    second.reaches(there)


def test_peers_come_and_go_with_the_list(cluster: Cluster) -> None:
    """The next ADD makes the kernel's state that of the list; what others made is not touched."""
    one = cluster.node(1)
    one.attach("a", config(1, [2, 3]))
    one.run("ip", "route", "add", "10.99.0.0/16", "via", underlay_address(254))
    mac = "02:00:00:00:00:42"
    one.run("ip", "neighbour", "add", "10.77.0.1", "lladdr", mac, "dev", "eth0")
    assert destinations(one) == {
        *("10.244.2.0/24", "10.244.3.0/24"),
        *("fd00:10:244:2::/64", "fd00:10:244:3::/64"),
    }
    one.attach("b", config(1, [3, 4]))
    assert destinations(one) == {
        *("10.244.3.0/24", "10.244.4.0/24"),
        *("fd00:10:244:3::/64", "fd00:10:244:4::/64"),
    }
    assert len(one.run("bridge", "fdb", "show", "dev", "adder.7").splitlines()) == 2
    neighbours = {n["dst"] for n in one.ip("neigh", "show", "dev", "adder.7", "nud", "permanent")}
    assert neighbours == {"10.244.3.0", "10.244.4.0", "fd00:10:244:3::", "fd00:10:244:4::"}
    pod = one.attach("c", config(1, []))
    assert destinations(one) == set()
    assert one.run("bridge", "fdb", "show", "dev", "adder.7") == ""
    healthy([pod])
    assert "10.99.0.0/16" in one.run("ip", "route")
    assert mac in one.run("ip", "neighbour", "show", "dev", "eth0")


def test_a_peer_moves(cluster: Cluster) -> None:
    """Another public address, then another subnet: what was before is gone, packets pass."""
    one, two = cluster.node(1), cluster.node(2)
    here = one.attach("a", config(1, [2]))
    two.set_address("192.168.50.77")
    there = two.attach("b", config(2, [1]))
    moved = config(1, [entry(2, publicIP="192.168.50.77")])
    again = one.attach("c", moved)
    all_reach_all([here, there])
    assert "192.168.50.2 " not in one.run("bridge", "fdb", "show", "dev", "adder.7")
    healthy([again])
    other = {"subnet": "10.244.9.0/24", "ipv6Subnet": "fd00:10:244:9::/64"}
    pod = one.attach("d", config(1, [entry(2, publicIP="192.168.50.77", **other)]))
    assert destinations(one) == {"10.244.9.0/24", "fd00:10:244:9::/64"}
    healthy([pod])


def test_a_peer_moves_to_the_other_family(cluster: Cluster) -> None:
    """The device of the family that nobody uses any more goes; so do its routes."""
    pods = []
    for number in (1, 2):
        node, peer = cluster.node(number), 3 - number
        node.attach("before", config(number, [peer]))
        peers = [entry(peer, publicIP=underlay_address(peer, ipv6=True))]
        pods.append(node.attach("after", config(number, peers)))
        assert "adder.7" not in node.run("ip", "link")
    all_reach_all(pods)
    healthy(pods)


def test_another_vni(cluster: Cluster) -> None:
    """The network's device of the earlier VNI goes: its routes would be in the way."""
    pods = []
    for number in (1, 2):
        node = cluster.node(number)
        node.attach("before", config(number, [3 - number]))
        pods.append(node.attach("after", config(number, [3 - number], vni=8)))
        assert "adder.7" not in node.run("ip", "link")
    all_reach_all(pods)
    healthy(pods)


@pytest.mark.parametrize("shape", ["list", "peers", "nodes"])
def test_peers_of_a_file(cluster: Cluster, shape: str) -> None:
    """Read at each ADD, in addition to `peers`; what both say counts once."""
    path = "/etc/cni/peers.json"
    one, two = cluster.node(1), cluster.node(2)
    entries = [entry(1), entry(2), entry(3)]
    one.write(path, json.dumps(entries if shape == "list" else {shape: entries}))
    a = one.attach("a", config(1, [3, 4], peersFile=path))
    b = two.attach("b", config(2, [1]))
    all_reach_all([a, b])
    assert {d for d in destinations(one) if "." in d} == {f"10.244.{n}.0/24" for n in (2, 3, 4)}
    one.write(path, json.dumps([]))
    one.attach("c", config(1, [2], peersFile=path))
    assert {d for d in destinations(one) if "." in d} == {"10.244.2.0/24"}


def test_direct_routing(cluster: Cluster) -> None:
    """A peer on the link is reached by a plain route, without VXLAN; then it is again."""
    one, two = cluster.node(1), cluster.node(2)
    pods = [
        node.attach("pod", config(node.number, [1, 2], directRouting=True)) for node in (one, two)
    ]
    (route,) = one.ip("-4", "route", "show", "proto", "97")
    assert (route["dst"], route["gateway"]) == ("10.244.2.0/24", "192.168.50.2")
    assert (route["dev"], "onlink" in route["flags"]) == ("eth0", False)
    (there,) = [address for address in pods[1].addresses() if "." in address]
    before = sent_through(one)
    pods[0].ping(there)
    assert sent_through(one) == before
    # IPv6 pods have no IPv6 underlay here: VXLAN carries them all the same.
    (there6,) = [address for address in pods[1].addresses() if ":" in address]
    pods[0].ping(there6)
    assert sent_through(one) > before
    healthy(pods)
    later = [node.attach("later", config(node.number, [1, 2])) for node in (one, two)]
    (route,) = one.ip("-4", "route", "show", "proto", "97")
    assert route["dev"] == "adder.7"
    all_reach_all(later)
    healthy(later)


def test_direct_routing_leaves_out_who_is_behind_a_router(cluster: Cluster) -> None:
    """A peer that is not on the link keeps VXLAN."""
    one = cluster.node(1)
    far = entry(9, publicIP="203.0.113.9")
    one.run("ip", "route", "add", "203.0.113.0/24", "via", underlay_address(254))
    pod = one.attach("pod", config(1, [entry(2), far], directRouting=True))
    routes = {r["dst"]: r["dev"] for r in one.ip("-4", "route", "show", "proto", "97")}
    assert routes == {"10.244.2.0/24": "eth0", "10.244.9.0/24": "adder.7"}
    healthy([pod])


def fragments(node: Node) -> int:
    """IP packets that this node had to cut into pieces, both families."""
    found = 0
    lines = node.read("/proc/net/snmp").splitlines()
    names, values = [line.split() for line in lines if line.startswith("Ip:")]
    found += int(values[names.index("FragCreates")])
    for line in node.read("/proc/net/snmp6").splitlines():
        if line.startswith("Ip6FragCreates"):
            found += int(line.split()[1])
    return found


@pytest.mark.parametrize(
    ("ipv6_underlay", "mtu", "expected"), [(False, 0, 1450), (True, 0, 1430), (False, 1400, 1400)]
)
def test_mtu(cluster: Cluster, ipv6_underlay: bool, mtu: int, expected: int) -> None:
    """A packet of exactly the MTU passes in one piece; one byte more does not pass at all."""
    wide, fit = [], []
    for number in (1, 2):
        node = cluster.node(number)
        peers = [entry(3 - number, publicIP=underlay_address(3 - number, ipv6_underlay))]
        document = config(number, peers, mtu=mtu)
        # A pod that believes in 1500 bytes, so that it is the node that has to refuse.
        wide.append(node.attach("wide", {**document, "delegate": {"mtu": 1500}}))
        fit.append(node.attach("fit", document))
        assert device(node, "adder6.7" if ipv6_underlay else "adder.7")["mtu"] == expected
        link = json.loads(fit[-1].run("ip", "-j", "link", "show", "eth0"))[0]
        assert link["mtu"] == expected
    one = cluster.node(1)
    before = fragments(one)
    fit[0].reaches(fit[1])
    for address, headers in zip(fit[1].addresses(), (28, 48), strict=True):
        words = ["ping", "-n", "-c1", "-W3", "-M", "do", "-s"]
        fit[0].run(*words, str(expected - headers), address)
        with pytest.raises(AssertionError, match=rf"mtu[ =:]+{expected}"):
            wide[0].run(*words, str(expected - headers + 1), address)
    assert fragments(one) == before


def test_underlay_with_large_frames(cluster: Cluster) -> None:
    """The MTU follows that of the underlay at the next ADD."""
    one = cluster.node(1)
    one.attach("a", config(1, [2]))
    index = device(one)["ifindex"]
    one.run("ip", "link", "set", "eth0", "mtu", "1400")
    pod = one.attach("b", config(1, [2]))
    assert (device(one)["mtu"], device(one)["ifindex"]) == (1350, index)
    assert json.loads(pod.run("ip", "-j", "link", "show", "eth0"))[0]["mtu"] == 1350


def test_masquerade_outside_only(cluster: Cluster) -> None:
    """Whoever is outside sees the node; pods see each other's own address."""
    one, two = cluster.node(1), cluster.node(2)
    delegate = {"isDefaultGateway": True}
    a = one.attach("a", config(1, [2], delegate=delegate))
    b = two.attach("b", config(2, [1], delegate=delegate))
    all_reach_all([a, b])
    for number, listener, address in (
        (1, b.command(), b.addresses()[0]),
        (2, two.command(), underlay_address(2)),
        (3, b.command(), b.addresses()[1]),
        (4, two.command(), underlay_address(2, ipv6=True)),
    ):
        port = 5000 + number
        inside = number in (1, 3)
        expected = a.addresses()[number // 3] if inside else underlay_address(1, number > 2)
        assert peer_seen(a, listener, address, port) == expected
    healthy([a, b])


def peer_seen(pod: Pod, listener: list[str], address: str, port: int) -> str:
    """The address that a listener sees when `pod` connects to it."""
    program = (
        "import socket, sys\n"
        "family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET\n"
        "with socket.create_server((sys.argv[1], int(sys.argv[2])), family=family) as server:\n"
        "    print('ready', flush=True)\n"
        "    server.settimeout(10)\n"
        "    connection, peer = server.accept()\n"
        "    print(peer[0], flush=True)\n"
        "    connection.close()\n"
    )
    process = subprocess.Popen(
        [*listener, sys.executable, "-c", program, address, str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        pod.run(
            sys.executable,
            "-c",
            "import socket, sys\n"
            "socket.create_connection((sys.argv[1], int(sys.argv[2])), 8).recv(1)",
            address,
            str(port),
        )
        return process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_delegate_without_masquerade(cluster: Cluster) -> None:
    """`ipMasq` false in `delegate`: what leaves keeps the pod's address, no rule is made."""
    one = cluster.node(1)
    pod = one.attach("a", config(1, [2], delegate={"ipMasq": False}))
    assert one.run("nft", "list", "ruleset") == ""
    healthy([pod])
