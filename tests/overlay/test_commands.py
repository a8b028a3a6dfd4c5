# SPDX-License-Identifier: Apache-2.0
"""`vxlan-overlayd status` and `check`: what an operator sees, and what it says of each trouble."""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.overlay.agents import PEERS_FILE, Agent, routes
from tests.overlay.cluster import Cluster
from tests.overlay.stores import File, subnets


def _knows(agent: Agent, number: int) -> bool:
    return routes(agent.node) == set(subnets(number))


class Pair:
    """Two nodes with an agent each, which know each other."""

    def __init__(self, cluster: Cluster, directory: pathlib.Path, **backend: Any) -> None:
        self.cluster = cluster
        self.store = File(directory / "nodes.json", **backend)
        self.one, self.two = (self._join(number, directory) for number in (1, 2))
        for agent, other in ((self.one, 2), (self.two, 1)):
            agent.ready()
            agent.until(partial(_knows, agent, other), "its peer")

    def _join(self, number: int, directory: pathlib.Path) -> Agent:
        node = self.cluster.node(number)
        agent = Agent(node, directory / f"{node.name}.log", self.store.options(node))
        return agent.start()

    def status(self) -> tuple[int, dict[str, Any]]:
        """Exit status and JSON of `status` on the first node."""
        done = self.one.command("status", "--output", "json")
        assert not done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    def check(self, *options: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit status, and what `check` on the first node says of each address of the other."""
        done = self.one.command("check", "--output", "json", "--timeout", "0.5", *options)
        assert not done.stderr, done.stderr
        document = json.loads(done.stdout)
        assert document["ok"] == (done.returncode == 0)
        return done.returncode, document["peers"]

    def reason(self, words: str) -> None:
        """`check` fails, and for both addresses with these words; {}: the underlay's address."""
        status, peers = self.check()
        assert status == 1
        assert len(peers) == 2
        for peer, public in zip(peers, ("192.168.50.2", "2001:db8:50::2"), strict=True):
            assert peer["name"] == "node-2" and not peer["ok"] and peer["rttMilliseconds"] is None
            assert words.format(public) in peer["reason"], peer


@pytest.fixture
def pair(cluster: Cluster, tmp_path: pathlib.Path) -> Iterator[Pair]:
    """Two nodes, all well."""
    yield Pair(cluster, tmp_path)


def test_status_of_a_node_that_is_well(pair: Pair) -> None:
    """Table and JSON, with what the kernel has; the keys are a contract."""
    status, document = pair.status()
    assert status == 0, document
    assert document.keys() == {"ok", "agent", "store", "node", "devices", "peers"}
    assert document["ok"] is True
    assert document["agent"]["running"] is True
    assert document["store"] == {"kind": "file", "up": True, "problem": ""}
    assert document["node"]["name"] == "node-1"
    assert document["node"]["subnets"] == subnets(1)
    names = [device["name"] for device in document["devices"]]
    assert names == ["adder.1", "adder6.1"]
    for device in document["devices"]:
        link = pair.one.node.ip("-d", "link", "show", device["name"])[0]
        assert device == {
            "name": link["ifname"],
            "vni": link["linkinfo"]["info_data"]["id"],
            "port": link["linkinfo"]["info_data"]["port"],
            "mtu": link["mtu"],
            "mac": link["address"],
            "up": True,
            "problem": "",
        }
    (peer,) = document["peers"]
    assert peer.pop("ageSeconds") < 600
    assert [endpoint["publicIP"] for endpoint in peer["endpoints"]] == [
        "192.168.50.2", "2001:db8:50::2",
    ]  # fmt: skip
    del peer["endpoints"]
    assert peer == {
        "name": "node-2",
        "subnets": subnets(2),
        "route": True,
        "neighbour": True,
        "fdb": True,
        "problem": "",
    }
    done = pair.one.command("status")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "agent running; the file store answers"
    assert lines[1].startswith("device adder.1: VNI 1, UDP port 8472, MTU 1430, 0a:")
    (head,) = (line for line in lines if line.startswith("NODE"))
    columns = ["NODE", "POD", "CIDR", "VTEP", "MAC", "UNDERLAY", "ROUTE", "NEIGH", "FDB", "AGE"]
    assert head.split() == [*columns, "PROBLEM"]
    assert any(line.startswith("node-1 ") and "(this node)" in line for line in lines)
    assert any(line.startswith("node-2 ") and line.count(" ok ") == 3 for line in lines)


def test_status_looks_at_the_kernel(pair: Pair) -> None:
    """What is missing is seen with the agent stopped, which repairs it otherwise."""
    pair.one.stop()
    node = pair.one.node
    status, document = pair.status()
    assert status == 1 and document["agent"]["running"] is False
    (peer,) = document["peers"]
    assert (peer["route"], peer["neighbour"], peer["fdb"]) == (True, True, True)
    node.run("ip", "route", "delete", "10.244.2.0/24")
    (peer,) = pair.status()[1]["peers"]
    assert (peer["route"], peer["neighbour"], peer["fdb"]) == (False, True, True)
    node.run("ip", "neighbour", "replace", "10.244.2.0", "lladdr", "02:00:00:00:00:01", "dev",
             "adder.1", "nud", "permanent")  # fmt: skip
    (peer,) = pair.status()[1]["peers"]
    assert (peer["route"], peer["neighbour"], peer["fdb"]) == (False, False, True)
    node.run("ip", "link", "set", "adder6.1", "mtu", "1280")
    devices = {device["name"]: device["problem"] for device in pair.status()[1]["devices"]}
    assert devices == {"adder.1": "", "adder6.1": "has MTU 1280 instead of 1430"}
    node.run("ip", "link", "delete", "adder.1")
    done = pair.one.command("status")
    assert done.returncode == 1
    assert "agent NOT RUNNING" in done.stdout and "IS MISSING" in done.stdout


def test_check_of_what_is_well(pair: Pair) -> None:
    """Both families, at the full MTU, which is what the packets on the wire show."""
    status, peers = pair.check()
    assert status == 0, peers
    assert [peer["address"] for peer in peers] == ["10.244.2.0", "fd00:10:244:2::"]
    for peer in peers:
        assert peer["ok"] and peer["reason"] == "" and peer["rttMilliseconds"] > 0
    before = _bytes(pair.two)
    assert pair.check("--peer", "node-2")[0] == 0
    # Two full packets came in; the other ends' headers are not counted by the device.
    assert _bytes(pair.two) - before >= 2 * 1430
    done = pair.one.command("check")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["NODE", "ADDRESS", "RESULT"]
    assert [line[:3] for line in lines[1:]] == [
        ["node-2", "10.244.2.0", "ok,"],
        ["node-2", "fd00:10:244:2::", "ok,"],
    ]
    done = pair.one.command("check", "--peer", "node-7")
    assert done.returncode == 3
    assert "there is no peer 'node-7'; there are: node-2" in done.stderr


def _bytes(agent: Agent) -> int:
    return sum(
        int(agent.node.ip("-s", "link", "show", name)[0]["stats64"]["rx"]["bytes"])
        for name in ("adder.1", "adder6.1")
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("ip {family} route flush proto 97", "its route is missing here"),
        ("ip link set {device} down", "device {device} is down"),
        ("ip link delete {device}", "device {device} is missing"),
    ],
)
def test_check_names_what_is_wrong_here(pair: Pair, damage: str, words: str) -> None:
    """On this node, with the agent stopped; one family after the other."""
    pair.one.stop()
    for number, (family, device) in enumerate((("-4", "adder.1"), ("-6", "adder6.1"))):
        pair.one.node.run(*damage.format(family=family, device=device).split())
        status, peers = pair.check()
        assert status == 1
        assert [peer["ok"] for peer in peers] == [False, number == 0]
        assert words.format(device=device) in peers[number]["reason"]
        assert "the agent does not run" in peers[number]["reason"]


def test_check_of_a_forwarding_entry(pair: Pair) -> None:
    """One that is wrong sends packets nowhere."""
    pair.one.stop()
    node = pair.one.node
    for device in ("adder.1", "adder6.1"):
        for line in node.run("bridge", "fdb", "show", "dev", device).splitlines():
            node.run("bridge", "fdb", "delete", line.split()[0], "dev", device)
    pair.reason("its forwarding entry is missing here")


def test_check_of_a_node_that_is_cut_off(pair: Pair) -> None:
    pair.two.node.disconnect()
    pair.reason("no answer from its underlay address {}:")


def test_check_of_a_closed_port(pair: Pair) -> None:
    """A firewall on the other node; its underlay answers."""
    pair.two.node.run("nft", "add table inet test; "
                      "add chain inet test in { type filter hook input priority 0; }; "
                      "add rule inet test in udp dport 8472 drop")  # fmt: skip
    pair.reason("{} answers, but nothing comes through the tunnel: no reply on UDP/8472")


def test_check_of_our_own_firewall(pair: Pair) -> None:
    """The kernel says at once that it does not send."""
    pair.one.node.run("nft", "add table inet test; "
                      "add chain inet test out { type filter hook output priority 0; }; "
                      "add rule inet test out oifname adder* reject")  # fmt: skip
    status, peers = pair.check()
    assert status == 1
    for peer in peers:
        assert "firewall of this node" in peer["reason"] or "tunnel" in peer["reason"], peer


def test_check_of_a_smaller_mtu_on_the_way(pair: Pair, cluster: Cluster) -> None:
    """Large packets vanish between the nodes: what comes through is found, to the byte."""
    subprocess.run(
        ["nft", "add table bridge test; "
         "add chain bridge test way { type filter hook forward priority 0; }; "
         "add rule bridge test way meta length > 1400 drop"],
        check=True,
    )  # fmt: skip
    status, peers = pair.check("--timeout", "0.3")
    assert status == 1
    reasons = {peer["address"]: peer["reason"] for peer in peers}
    assert "packets of 1350 bytes come through" in reasons["10.244.2.0"], reasons
    assert "packets of 1330 bytes come through" in reasons["fd00:10:244:2::"], reasons
    for reason in reasons.values():
        assert f"set MTU in {pair.store.path} to 1400" in reason
    subprocess.run(["nft", "delete", "table", "bridge", "test"], check=True)


def test_a_node_of_which_nothing_is_known(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """No agent yet, a file that is none, a peer in conflict, no peers."""
    node = cluster.node(1)
    agent = Agent(node, tmp_path / "log", [])
    for command in ("status", "check"):
        done = agent.command(command)
        assert done.returncode == 3
        assert f"{PEERS_FILE} is not there" in done.stderr
        assert "is vxlan-overlayd running" in done.stderr
        node.write(PEERS_FILE, '{"self": 1}')
        done = agent.command(command)
        assert done.returncode == 3 and "Traceback" not in done.stderr
        node.run("rm", PEERS_FILE)
        assert agent.command(command, "--output", "yaml").returncode == 2
        assert agent.command(command, "--help").returncode == 0
    store = File(tmp_path / "nodes.json")
    alone = Agent(node, tmp_path / "log", store.options(node)).start().ready()
    assert alone.command("status").returncode == 0
    done = alone.command("check")
    assert done.returncode == 0
    assert "no other nodes yet" in done.stdout


def test_a_conflict_is_shown(pair: Pair, cluster: Cluster) -> None:
    store = pair.store
    store.claim(cluster.node(3), 2)
    pair.one.until(lambda: "overlaps" in pair.one.text(), "a word about it")
    deadline = time.monotonic() + 10
    while not any(peer["problem"] for peer in pair.status()[1]["peers"]):
        assert time.monotonic() < deadline
    status, document = pair.status()
    assert status == 1
    problems = {peer["name"]: peer["problem"] for peer in document["peers"]}
    assert problems["node-2"] == ""
    assert "overlaps with that of node-2" in problems["node-3"]
    assert "not used" in {p["name"]: p["reason"] for p in pair.check()[1]}["node-3"]


def test_one_agent_on_a_node(pair: Pair, tmp_path: pathlib.Path) -> None:
    """A second one says which one runs, and leaves; cleanup does not work under a running one."""
    second = Agent(pair.one.node, tmp_path / "second.log", pair.one.options).start()
    assert second.process is not None
    assert second.process.wait(30) == 1
    assert "another vxlan-overlayd runs on this node, with PID" in second.text()
    done = pair.one.command("cleanup", *pair.one.options)
    assert done.returncode == 1 and "stop it first" in done.stderr
    assert pair.status()[0] == 0


def test_what_the_agent_says_of_a_day(pair: Pair) -> None:
    """Its peers, its end, what it begins with, and what was put back: each in words that fit."""
    one = pair.one
    assert "info: nodes new: node-2\n" in one.text()
    one.stop()
    assert "info: stopping on SIGTERM" in one.text()
    one.start()
    one.until(lambda: "beginning with 1 peer known from before\n" in one.text(), "what it knew")
    one.until(lambda: pair.status()[1]["ok"], "all is well")
    one.node.run("ip", "route", "delete", subnets(2)[0])
    repaired = "warning: 1 route entry was removed by others: put back\n"
    one.until(lambda: repaired in one.text(), "the repair")
    pair.store.leave(pair.two.node)
    one.until(lambda: "info: nodes gone: node-2\n" in one.text(), "its departure")
    assert "nodes gone: node-1" not in one.text() and "nodes new: node-1" not in one.text()


def test_commands_after_the_agents_options(pair: Pair) -> None:
    """As the agent was started, and one word more, whatever the last option is."""
    one = pair.one
    options = [option for option in one.options if option != "--ip-masq"]
    assert len(options) < len(one.options)
    for command in ("status", "check"):
        done = one.command(*options, "--ip-masq", command)
        assert done.returncode == 0, done.stderr
    one.stop()
    done = one.command(*options, "--ip-masq", "cleanup")
    assert done.returncode == 0, done.stderr
    assert "removed: adder.1" in done.stderr
    assert one.command("status").returncode == 3
