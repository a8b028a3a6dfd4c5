# SPDX-License-Identifier: Apache-2.0
"""`status` and `check` in trouble of more kinds, and what they print where."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from functools import partial

import pytest

from cni_vxlan_overlay.agent import check_command, status_command
from cni_vxlan_overlay.agent.memory import parse_node
from cni_vxlan_overlay.agent.node_state import (
    Device,
    Entries,
    NodeState,
    PeerState,
    SubnetState,
)
from cni_vxlan_overlay.fabric import Fabric, Ground, fabric_of
from libcni.inet import Prefix
from tests.overlay.agents import PEERS_FILE, Agent, program, routes, until
from tests.overlay.cluster import Cluster
from tests.overlay.stores import File, subnets
from tests.overlay.test_commands import Pair


@pytest.fixture
def pair(cluster: Cluster, tmp_path: pathlib.Path) -> Iterator[Pair]:
    """Two nodes, all well."""
    yield Pair(cluster, tmp_path)


def _reasons(pair: Pair, *options: str) -> dict[str, str]:
    """What `check` says of each address; "" for those that answer."""
    return {peer["address"]: peer["reason"] for peer in pair.check(*options)[1]}


# -- what is printed ------------------------------------------------------------------------


def test_names_and_addresses_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in them is markup: not ":cd:" in a MAC or an address, nor brackets in a name."""
    node = parse_node(
        {
            "uid": "1",
            "name": "node[b]1[/b]",
            "endpoints": [{"publicIP": "2001:db8:abc::ab:1", "vtepMAC": "0a:cd:ab:12:cd:ab"}],
            "subnets": ["fd00:100:a:b::/64"],
        }
    )
    device = Device("adder6.1", 1, 8472, 1430, "0a:cd:ab:12:cd:ab", True, "")
    entry = SubnetState(node.peer.subnets[0], "adder6.1", True, True, True)
    peer = PeerState(node, time.time(), (entry,), "what [x] is this")
    state = NodeState(node, True, "file", True, 0, 1430, 8472, (device,), (peer,))
    status_command.show(state)
    check_command.show([check_command.Answer("node[b]1[/b]", "fd00:100:a:b::", None, "a [x] b")])
    printed = capsys.readouterr().out
    assert printed.count("0a:cd:ab:12:cd:ab") == 3
    assert printed.count("2001:db8:abc::ab:1") == 2
    assert printed.count("node[b]1[/b] ") == 3
    assert printed.count("fd00:100:a:b::") == 3
    assert "what [x] is this" in printed and "a [x] b" in printed
    assert printed.isascii() and "\x1b" not in printed


def test_entries_by_subnet() -> None:
    """Each subnet has its own; a direct route has no others, an unreachable subnet has none."""
    documents = [
        {
            "uid": str(number),
            "name": f"node-{number}",
            "endpoints": [{"publicIP": address, "vtepMAC": f"0a:00:00:00:00:0{number}"}],
            "subnets": [f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"],
        }
        for number, address in ((2, "192.168.50.2"), (3, "192.168.9.3"))
    ]
    direct, tunnelled = map(parse_node, documents)
    ground = Ground({False: "adder.1"}, True, [Prefix.parse("192.168.50.1/24").network()])
    wanted = fabric_of([direct.peer, tunnelled.peer], ground)
    there = Fabric(
        wanted.forwarding,
        [entry for entry in wanted.neighbours if ":" not in entry[1]],
        [entry for entry in wanted.routes if entry[0] != "10.244.3.0/24"],
    )
    entries = Entries(wanted, there)

    def signs(subnet: Prefix) -> tuple[str, bool | None, bool | None, bool | None]:
        found = entries.of(subnet)
        assert found.subnet == subnet
        return found.device, found.route, found.neighbour, found.forwarding

    ipv4, ipv6 = direct.peer.subnets
    assert signs(ipv4) == ("", True, None, None)
    assert signs(ipv6) == ("adder.1", True, False, True)  # in a tunnel of the other family
    ipv4, ipv6 = tunnelled.peer.subnets
    assert signs(ipv4) == ("adder.1", False, True, True)
    assert signs(ipv6) == ("adder.1", True, False, True)
    assert signs(Prefix.parse("10.244.9.0/24")) == ("", None, None, None)
    states = tuple(entries.of(subnet) for subnet in tunnelled.peer.subnets)
    peer = PeerState(tunnelled, 0, states, "")
    assert (peer.route, peer.neighbour, peer.forwarding) == (False, False, True)
    assert not peer.is_whole


def _on_terminal(agent: Agent, columns: int, *words: str) -> list[str]:
    """The lines that a command prints on a terminal that wide, without colours."""
    ours, theirs = pty.openpty()
    # A test runner may have these from readline; they would count for more than the terminal.
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            agent.node.command(*program(), *words),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            env={**inherited, "TERM": "xterm", "NODE_NAME": agent.node.name},
        )
        os.close(theirs)
        printed = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            printed += data
        process.wait(60)
    finally:
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()).replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("columns", [80, 160])
def test_terminals(pair: Pair, cluster: Cluster, columns: int) -> None:
    """Addresses stay in one piece; what has no room has its place elsewhere."""
    pair.store.claim(cluster.node(3), 2)
    until(lambda: any(peer["problem"] for peer in pair.status()[1]["peers"]), "the conflict")
    lines = _on_terminal(pair.one, columns, "status")
    assert lines[0] == "agent running; the file store answers"
    assert max(map(len, lines)) <= columns, lines
    head = next(line for line in lines if line.startswith("NODE "))
    assert ("VTEP MAC" in head, "PROBLEM" in head) == (columns > 80, columns > 80)
    assert head.split("UNDERLAY")[1].split()[:4] == ["ROUTE", "NEIGH", "FDB", "AGE"]
    for number in (1, 2):
        first = next(line for line in lines if line.startswith(f"node-{number} "))
        second = lines[lines.index(first) + 1]
        for line, subnet in zip((first, second), subnets(number), strict=True):
            assert subnet in line
        assert f"192.168.50.{number} " in first and f"2001:db8:50::{number}" in second
    assert "overlaps with that of node-2" in " ".join(" ".join(lines).split())
    lines = _on_terminal(pair.one, columns, "check", "--peer", "node-2")
    assert lines[0].split() == ["NODE", "ADDRESS", "RESULT"]
    assert max(map(len, lines)) <= columns, lines


# -- status ----------------------------------------------------------------------------------


def test_status_of_a_store_that_is_away(pair: Pair) -> None:
    """Known while the agent runs; nobody knows when it does not. The data path is whole."""
    pair.store.down()
    until(lambda: pair.status()[1]["store"]["up"] is False, "the store is away")
    said = pair.one.command("status").stdout.splitlines()[0]
    away = f"{pair.store.path}: No such file or directory"
    assert said == f"agent running; the file store IS AWAY: {away}"
    assert pair.status()[1]["store"]["problem"] == f"the store is away: {away}"
    assert pair.status()[0] == 0
    pair.store.up()
    until(lambda: pair.status()[1]["store"]["up"] is True, "the store is back")
    pair.one.kill()
    status, document = pair.status()
    assert status == 1
    assert document["agent"]["running"] is False
    assert document["store"] == {"kind": "file", "up": None, "problem": ""}
    first = pair.one.command("status").stdout.splitlines()[0]
    assert first.startswith("agent NOT RUNNING; it wrote what it knew ")
    assert first.endswith("s ago, and had the nodes from the file store")


def test_status_of_a_store_that_says_nothing_of_use(pair: Pair) -> None:
    """It is there: the reason is what is wrong in it, as /healthz has it."""
    whole = pair.store.path.read_text()
    pair.store.path.write_text(whole[:-5])
    until(lambda: pair.status()[1]["store"]["up"] is False, "the file cannot be used")
    said = pair.one.command("status").stdout.splitlines()[0]
    assert said.startswith(f"agent running; it CANNOT GO BY the file store: {pair.store.path} is ")
    assert said.endswith(pair.status()[1]["store"]["problem"])
    pair.store.path.write_text(whole)
    until(lambda: pair.status()[1]["store"]["up"] is True, "it can again")
    assert pair.status()[1]["store"]["problem"] == ""


def test_a_device_that_is_another(pair: Pair) -> None:
    """Its VNI, port and addresses are the kernel's, not the file's."""
    pair.one.stop()
    node = pair.one.node
    node.run("ip", "address", "flush", "dev", "adder.1")
    mac = next(d["mac"] for d in pair.status()[1]["devices"] if d["name"] == "adder6.1")
    node.run("ip", "link", "delete", "adder6.1")
    node.run("ip", "link", "add", "adder6.1", "address", mac, "mtu", "1430", "type", "vxlan",
             "id", "2", "dstport", "4789", "local", "2001:db8:50::1", "dev", "eth0")  # fmt: skip
    node.run("ip", "link", "set", "adder6.1", "up")
    status, document = pair.status()
    assert status == 1
    ipv4, ipv6 = document["devices"]
    assert ipv4["problem"] == "lacks its address 10.244.1.0/32"
    assert (ipv6["vni"], ipv6["port"]) == (2, 4789)
    assert ipv6["problem"] == "has VNI 2 instead of 1"
    # Answers to packets with another source come by another way: they prove nothing.
    node.run("ip", "route", "replace", "10.244.2.0/24", "via", "10.244.2.0", "dev", "adder.1",
             "onlink", "proto", "97")  # fmt: skip
    reasons = _reasons(pair)
    assert "device adder.1 lacks its address 10.244.1.0/32" in reasons["10.244.2.0"]
    assert "device adder6.1 has VNI 2 instead of 1" in reasons["fd00:10:244:2::"]


def _make(pair: Pair, mac: str, *words: str, local: str = "192.168.50.1") -> str:
    """Make adder.1 anew with other parameters; what `status` says of it."""
    node = pair.one.node
    node.run("ip", "link", "delete", "adder.1")
    node.run("ip", "link", "add", "adder.1", "address", mac, "mtu", "1430", "type", "vxlan", "id",
             "1", "dstport", "8472", "local", local, *words)  # fmt: skip
    node.run("ip", "link", "set", "adder.1", "up")
    node.run("ip", "address", "add", "10.244.1.0/32", "dev", "adder.1")
    problem: str = pair.status()[1]["devices"][0]["problem"]
    return problem


def test_a_device_that_was_made_otherwise(pair: Pair) -> None:
    """With the agent's name, MAC, VNI and port; of what there is to see it has all."""
    pair.one.stop()
    mac = next(d["mac"] for d in pair.status()[1]["devices"] if d["name"] == "adder.1")
    make = partial(_make, pair, mac)
    assert make("dev", "eth0", "nolearning") == ""
    other = "has local address 192.168.50.111 instead of 192.168.50.1"
    assert make("dev", "eth0", "nolearning", local="192.168.50.111") == other
    assert make("dev", "lo", "nolearning") == "has underlay lo instead of eth0"
    assert make("nolearning") == "has underlay none instead of eth0"
    assert make("dev", "eth0") == "has learning on instead of off"
    assert make("dev", "eth0", "nolearning", "gbp") == "has group policy on instead of off"
    document = pair.one.peers()
    document["conf"]["checksum"] = "off"
    pair.one.node.write(PEERS_FILE, json.dumps(document))
    other = "has tx checksum offload on instead of off"
    assert make("dev", "eth0", "nolearning") == other
    # An agent of an earlier version did not write all of it down.
    del document["underlay"]
    document["conf"]["checksum"] = "auto"
    pair.one.node.write(PEERS_FILE, json.dumps(document))
    assert make("dev", "lo", "nolearning", local="192.168.50.111") == ""


def test_another_state_file(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """By option and by the agent's own variable; the option goes first."""
    node = cluster.node(1)
    store = File(tmp_path / "nodes.json")
    options = [*store.options(node), "--state-file=/run/other/nodes.json"]
    agent = Agent(node, tmp_path / "log", options).start().ready()
    assert agent.command("status").returncode == 3
    for command in ("status", "check"):
        done = agent.command(command, "--state-file=/run/other/nodes.json")
        assert done.returncode == 0, done.stderr
    agent.variables["FLANNELD_STATE_FILE"] = "/run/other/nodes.json"
    assert agent.command("status").returncode == 0
    done = agent.command("status", f"--state-file={PEERS_FILE}")
    assert done.returncode == 3 and PEERS_FILE in done.stderr


# -- check -----------------------------------------------------------------------------------


def test_wrong_usage(pair: Pair) -> None:
    for words in (["--timeout", "0"], ["--timeout", "soon"], ["--timeout", "nan"], ["node-2"]):
        done = pair.one.command("check", *words)
        assert done.returncode == 2 and words[-1] in done.stderr, done.stderr
        assert "_seconds" not in done.stderr
        assert not done.stdout


def test_without_the_right_to_send(pair: Pair) -> None:
    """`check` says which capability it lacks; `status` works without any."""
    limited = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *program()]
    for command, status in (("check", 3), ("status", 0)):
        done = subprocess.run(
            pair.one.node.command(*limited, command),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert ("CAP_NET_RAW" in done.stderr) == (command == "check")
        assert "Traceback" not in done.stderr


def test_the_families_have_underlays_of_their_own(pair: Pair) -> None:
    """What answers over IPv4 says nothing of a tunnel over IPv6."""
    pair.two.node.run("nft", "add table ip6 test; "
                      "add chain ip6 test in { type filter hook input priority 0; }; "
                      "add rule ip6 test in iifname eth0 drop")  # fmt: skip
    reasons = _reasons(pair)
    assert reasons["10.244.2.0"] == ""
    assert "no answer from its underlay address 2001:db8:50::2:" in reasons["fd00:10:244:2::"]
    # And what is wrong here with one family is not what ails the other.
    pair.one.stop()
    pair.one.node.run("ip", "route", "delete", "10.244.2.0/24")
    reasons = _reasons(pair)
    assert "its route is missing here" in reasons["10.244.2.0"]
    assert "no answer from its underlay address 2001:db8:50::2:" in reasons["fd00:10:244:2::"]


def test_a_wrong_neighbour(pair: Pair) -> None:
    pair.one.stop()
    for device, address in (("adder.1", "10.244.2.0"), ("adder6.1", "fd00:10:244:2::")):
        pair.one.node.run("ip", "neighbour", "replace", address, "lladdr", "02:00:00:00:00:01",
                          "dev", device, "nud", "permanent")  # fmt: skip
    pair.reason("its neighbour is missing here, or not as it should be; the agent does not run")


def test_no_way_to_the_underlay(pair: Pair) -> None:
    pair.one.stop()
    for family in ("-4", "-6"):
        pair.one.node.run("ip", family, "route", "flush", "dev", "eth0")
    pair.reason("there is no route to its underlay address {}")


def test_routes_of_others_in_the_way(pair: Pair) -> None:
    """Ours is there, and a more specific one takes the packets."""
    for kind in ("blackhole", "unreachable", "prohibit"):
        pair.one.node.run("ip", "route", "add", kind, "10.244.2.0/28")
        reasons = _reasons(pair)
        words = (
            "another route or rule of this node takes its packets: see `ip route get 10.244.2.0`"
        )
        assert reasons == {"10.244.2.0": words, "fd00:10:244:2::": ""}
        pair.one.node.run("ip", "route", "delete", kind, "10.244.2.0/28")


def test_a_smaller_mtu_of_this_node(pair: Pair) -> None:
    """The kernel itself refuses larger packets then: the text has what it takes to mend it."""
    pair.one.stop()
    pair.one.node.run("ip", "link", "set", "eth0", "mtu", "1400")
    for _ in range(2):  # the kernel has learned at the second time
        for reason in _reasons(pair, "--timeout", "0.3").values():
            assert "larger ones do not: the MTU on the way is smaller" in reason
            # A virtual cable lets four bytes more through, as for the tag of a VLAN.
            advised = int(reason.rpartition(" ")[2])
            assert 1400 <= advised <= 1404, reason


def test_packets_that_get_lost(pair: Pair) -> None:
    """Two full ones of each family: that is no question of the MTU."""
    subprocess.run(
        ["nft", "add table bridge test; "
         "add chain bridge test way { type filter hook forward priority 0; }; "
         "add rule bridge test way ether type ip meta length > 1400 quota until 3000 bytes drop; "
         "add rule bridge test way ether type ip6 meta length > 1400 quota until 3100 bytes drop"],
        check=True,
    )  # fmt: skip
    try:
        reasons = _reasons(pair)
    finally:
        subprocess.run(["nft", "delete", "table", "bridge", "test"], check=True)
    assert len(reasons) == 2
    for reason in reasons.values():
        assert "packets of all sizes come through, but some are lost" in reason


def test_a_peer_without_an_agent(pair: Pair) -> None:
    """It runs no longer, and its devices went."""
    pair.two.stop()
    for device in ("adder.1", "adder6.1"):
        pair.two.node.run("ip", "link", "delete", device)
    pair.reason("{} answers, but nothing comes through the tunnel: no reply on UDP/8472")


def test_direct_routes(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """No tunnel leads there, so that nothing is said of one."""
    pair = Pair(cluster, tmp_path, DirectRouting=True)
    status, document = pair.status()
    assert status == 0
    (peer,) = document["peers"]
    assert (peer["route"], peer["neighbour"], peer["fdb"]) == (True, None, None)
    assert _reasons(pair) == {"10.244.2.0": "", "fd00:10:244:2::": ""}
    pair.two.node.run("nft", "add table inet test; "
                      "add chain inet test in { type filter hook prerouting priority -300; }; "
                      "add rule inet test in ip daddr 10.244.0.0/16 drop; "
                      "add rule inet test in ip6 daddr fd00:10:244::/48 drop")  # fmt: skip
    pair.reason("{} answers, but nothing behind it, where a direct route leads")
    pair.one.stop()
    for family in ("-4", "-6"):
        pair.one.node.run("ip", family, "route", "flush", "proto", "97")
    pair.reason("its route is missing here")


def test_ipv6_pods_over_an_ipv4_underlay(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """Both families through the one tunnel; the MTU that is advised is this tunnel's."""
    store = File(tmp_path / "nodes.json")
    agents = []
    for number in (1, 2):
        node = cluster.node(number, ipv6=False)
        options = store.options(node)
        for entry in store.nodes.values():
            entry.pop("publicIPv6", None)
        store.write()
        agents.append(Agent(node, tmp_path / f"{node.name}.log", options).start())
    one = agents[0].ready()
    agents[1].ready()
    one.until(lambda: routes(one.node) == set(subnets(2)), "its peer")
    done = one.command("check", "--output", "json")
    assert done.returncode == 0, done.stdout
    (device,) = json.loads(one.command("status", "--output", "json").stdout)["devices"]
    assert (device["name"], device["mtu"], device["problem"]) == ("adder.1", 1450, "")
    agents[1].node.run("nft", "add table inet test; "
                       "add chain inet test in { type filter hook input priority 0; }; "
                       "add rule inet test in iifname eth0 meta length > 1400 drop")  # fmt: skip
    done = one.command("check", "--output", "json", "--timeout", "0.3")
    assert done.returncode == 1
    for peer in json.loads(done.stdout)["peers"]:
        assert "packets of 1350 bytes come through" in peer["reason"], peer
        assert peer["reason"].endswith(f"set MTU in {store.path} to 1400")
