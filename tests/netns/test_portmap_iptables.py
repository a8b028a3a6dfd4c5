# SPDX-License-Identifier: Apache-2.0
"""portmap by iptables, and what Go's plugin and ours make of each other's."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from libcni.types.errors import CONFLICT, KERNEL
from tests.netns.portmap_network import (
    HOST,
    HOST6,
    Container,
    Node,
    elements,
    is_refused,
    listen,
    mapping,
    node,
    source_of,
    within,
)
from tests.rig.plugins import GO_BIN_DIR, Runner, environment
from tests.rig.xtables import path_with

__all__ = ["node"]
TWO = (mapping(8080), mapping(8081, hostIP=HOST), mapping(5353, 53, protocol="udp"))


@pytest.fixture(params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> dict[str, str]:
    """Variables with which one variant of iptables is the system's."""
    return {"PATH": path_with(request.param, tmp_path), "VARIANT": request.param}


def saved(node: Node, variant: str = "nft") -> dict[str, list[str]]:
    """Chains and rules of the nat tables, without what is there before the first plugin."""
    found = {}
    for family in ("iptables", "ip6tables"):
        text = node.host.run(f"/usr/sbin/{family}-{variant}-save", "-t", "nat")
        lines = [line.partition(" [")[0] if line[0] == ":" else line for line in text.splitlines()]
        found[family] = [
            line
            for line in lines
            if line.startswith("-A ") or (line.startswith(":") and "CNI" in line)
        ]
    return found


def of(container: Container, lines: dict[str, list[str]]) -> list[str]:
    """The lines that belong to a container."""
    return [
        line
        for group in lines.values()
        for line in group
        if "CNI-DN-" in line or container.container_id in line
    ]


@pytest.fixture
def go(node: Node) -> Runner:
    """Runs Debian's plugin."""
    return Runner(GO_BIN_DIR, node.host)


def test_traffic(node: Node, variant: dict[str, str]) -> None:
    ours, other = node.container(), node.container()
    config = ours.config(*TWO, backend="iptables")
    ours.call("ADD", config, variables=variant).result()
    server = listen(ours.netns, 80)
    assert source_of(server, node.client, HOST, 8080) == "10.8.0.2"
    assert source_of(server, node.client, HOST6, 8080) == "fd00:8::2"
    for place in (ours.netns, other.netns):
        assert source_of(server, place, HOST, 8080) == "10.9.0.1"
    assert source_of(server, None, "127.0.0.1", 8080) == "10.9.0.1"
    theirs = listen(other.netns, 8080)
    assert source_of(theirs, node.client, other.address, 8080) == "10.8.0.2"
    ours.call("CHECK", config, variables=variant).succeeded()
    ours.delete(variables=variant)
    assert of(ours, saved(node, variant["VARIANT"])) == []
    ours.call("CHECK", config, variables=variant).failed(103)
    assert is_refused(node.client, HOST, 8080)
    ours.delete(variables=variant)
    if variant["VARIANT"] == "legacy":
        node.host.expect_leftovers("iptables-legacy keeps its shared chains")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"snat": False},
        {"markMasqBit": 5},
        {"conditionsV4": ["!", "-s", "192.0.2.0/24"], "conditionsV6": ["-s", "2001:db8::/32"]},
    ],
)
def test_the_same_rules_as_gos(node: Node, go: Runner, keys: dict[str, Any]) -> None:
    ours = node.container()
    many = [mapping(9000 + n) for n in range(20)]
    config = ours.config(*TWO, *many, backend="iptables", **keys)
    ours.call("ADD", config).result()
    made = saved(node)
    for lines in made.values():
        # The one rule that Go has not: whose chain it is.
        [mark] = [
            line for line in lines if line.endswith(f'"cni:podnet:{ours.container_id}:eth0"')
        ]
        assert " -j " not in mark and lines.index(mark) > max(
            number for number, line in enumerate(lines) if " -j DNAT " in line
        )
        lines.remove(mark)
    ours.delete()
    for family in ("iptables", "ip6tables"):
        node.host.run(family, "-t", "nat", "-F")
        node.host.run(family, "-t", "nat", "-X")
    go("portmap", "ADD", config, netns=ours.netns, container_id=ours.container_id).result()
    theirs = saved(node)
    assert {k: sorted(v) for k, v in made.items()} == {k: sorted(v) for k, v in theirs.items()}
    # Ours sees nothing missing in theirs, and theirs can be removed.
    ours.call("CHECK", config).succeeded()
    ours.delete()
    assert of(ours, saved(node)) == []


def test_go_removes_ours(node: Node, go: Runner) -> None:
    ours = node.container()
    config = ours.config(*TWO, backend="iptables")
    ours.call("ADD", config).result()
    options: dict[str, Any] = {"netns": ours.netns, "container_id": ours.container_id}
    # Its own CHECK looks for IPv4's rules in ip6tables, and fails on its own too.
    go("portmap", "DEL", config, **options).succeeded()
    assert of(ours, saved(node)) == []


def test_ours_removes_gos(node: Node, go: Runner, variant: dict[str, str]) -> None:
    """By the name of the network alone; another network's stay."""
    ours, other = node.container(), node.container()
    for container in (ours, other):
        port = 8080 + int(container.container_id[-1])
        config = container.config(mapping(port), mapping(port, protocol="udp"))
        options: dict[str, Any] = {"netns": container.netns, "variables": variant}
        go("portmap", "ADD", config, container_id=container.container_id, **options).result()
    ours.delete(variables=variant)
    left = of(ours, saved(node, variant["VARIANT"]))
    assert left and not [line for line in left if ours.container_id in line]
    assert [line for line in left if other.container_id in line]
    gc = {
        "cniVersion": "1.1.0",
        "name": "podnet",
        "type": "portmap",
        "cni.dev/valid-attachments": [],
    }
    node.run_plugin("portmap", "GC", {**gc, "name": "other"}, variables=variant).succeeded()
    assert of(ours, saved(node, variant["VARIANT"])) == left
    node.run_plugin("portmap", "GC", gc, variables=variant).succeeded()
    assert of(ours, saved(node, variant["VARIANT"])) == []
    if variant["VARIANT"] == "legacy":
        node.host.expect_leftovers("iptables-legacy keeps its shared chains")


def test_ours_removes_what_old_and_new_versions_left(node: Node) -> None:
    """CNI-SN- chains of up to 0.7, and the tables of the nftables backend of 1.6 and later."""
    ours = node.container()
    from cni_portmap.leftovers import chain_name

    old = chain_name("podnet", ours.container_id, "CNI-SN-")
    run = node.host.run
    for words in (
        f"-N {old}",
        "-N CNI-HOSTPORT-SNAT",
        f"-A {old} -s 127.0.0.1/32 -d 10.9.0.2/32 -p tcp --dport 80 -j MASQUERADE",
        f"-A CNI-HOSTPORT-SNAT -s 10.9.0.2/32 -j {old}",
    ):
        run("iptables", "-t", "nat", *words.split())
    run(
        "nft",
        "add table ip cni_hostport; add chain ip cni_hostport hostports; "
        "add chain ip cni_hostport masquerading; "
        "add rule ip cni_hostport hostports tcp dport 8080 dnat to 10.9.0.2:80 comment "
        f'"{ours.container_id}"; '
        'add rule ip cni_hostport hostports tcp dport 8081 accept comment "other"; '
        f'add rule ip cni_hostport masquerading masquerade comment "{ours.container_id}"',
    )
    ours.delete()
    ruleset = run("nft", "list", "ruleset")
    assert ours.container_id not in ruleset and old not in ruleset
    assert 'comment "other"' in ruleset
    run("iptables", "-t", "nat", "-X", "CNI-HOSTPORT-SNAT")


def test_taken(node: Node, go: Runner) -> None:
    """By ours or by Go's; the container's other network is no other container."""
    ours, other = node.container(), node.container()
    config = ours.config(mapping(8080))
    go("portmap", "ADD", config, netns=ours.netns, container_id=ours.container_id).result()
    before = node.host.snapshot()
    for wanted in (mapping(8080), mapping(8000, hostPortEnd=8090), mapping(8080, hostIP=HOST)):
        other.call("ADD", other.config(wanted, backend="iptables")).failed(
            CONFLICT, "8080/tcp", "podnet", other.container_id, ours.container_id
        )
    node.host.assert_unchanged(before)
    other.add(mapping(8080, protocol="udp"), mapping(8081), backend="iptables")
    ours.add(mapping(8080), backend="iptables", name="second")


def test_first_ones_at_once(node: Node) -> None:
    """Racing first ADDs make what they share once, and one of them has the port."""
    containers = [node.container() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(
                c.call,
                "ADD",
                c.config(mapping(9000 + number), mapping(8080 if number % 2 else 9100 + number),
                         backend="iptables"),
            )
            for number, c in enumerate(containers)
        ]  # fmt: skip
        replies = [call.result() for call in calls]
    assert [reply.rc for reply in replies[::2]] == [0] * 4
    assert sorted(reply.rc for reply in replies[1::2]) == [0, 1, 1, 1]
    assert {r.json["code"] for r in replies if r.rc} == {CONFLICT}
    for lines in saved(node).values():
        assert sorted(lines) == sorted(set(lines))
        assert len([line for line in lines if " DNAT --to-destination " in line]) == 10
    for container in containers:
        container.delete()


def test_external_mark_chain(node: Node) -> None:
    ours = node.container()
    node.host.run("iptables", "-t", "nat", "-N", "THEIRS")
    node.host.run("ip6tables", "-t", "nat", "-N", "THEIRS")
    config = ours.add(mapping(8080), externalSetMarkChain="THEIRS")
    lines = saved(node)["iptables"]
    assert len([line for line in lines if line.endswith("-j THEIRS")]) == 2
    assert not [line for line in lines if "SETMARK" in line]
    ours.call("CHECK", config).succeeded()
    ours.delete()
    for family in ("iptables", "ip6tables"):
        node.host.run(family, "-t", "nat", "-X", "THEIRS")


def test_check_notices_each_rule(node: Node) -> None:
    ours = node.container()
    config = ours.add(mapping(8080), mapping(5353, protocol="udp"), backend="iptables")
    for family, lines in saved(node).items():
        for line in [line for line in lines if line.startswith("-A ") and " -j " in line]:
            words = shlex.split(line)
            node.host.run(family, "-t", "nat", "-D", *words[1:])
            ours.call("CHECK", config).failed(103, words[1])
            ours.call("ADD", config).result()
            ours.call("CHECK", config).succeeded()


def test_refused_by_the_tool(node: Node) -> None:
    ours = node.container()
    ours.add(mapping(9000), backend="iptables")
    before = node.host.snapshot()
    config = ours.config(mapping(8080), conditionsV4=["--nonsense"], name="second")
    error = ours.call("ADD", config).failed(KERNEL, "nonsense")
    assert "iptables-restore" in error["msg"]
    node.host.assert_unchanged(before)


def test_without_the_tool(node: Node) -> None:
    """DEL needs none for iptables-nft."""
    ours = node.container()
    ours.add(mapping(8080), backend="iptables")
    ours.delete(variables={"PATH": "/nonexistent"})
    assert of(ours, saved(node)) == []


def own_rules(node: Node, family: str = "iptables") -> list[str]:
    """The rules of containers' chains, in order."""
    return [line for line in saved(node)[family] if line.startswith("-A CNI-DN-")]


# -- what is not quite as ADD made it -------------------------------------------------------------


def test_order_counts(node: Node) -> None:
    """What marks a packet has to come before what translates it."""
    ours = node.container()
    config = ours.add(mapping(8080), backend="iptables")
    before = own_rules(node)
    chain = before[0].split(" ")[1]
    run = node.host.run
    run("iptables", "-t", "nat", "-D", chain, "2")
    run("iptables", "-t", "nat", *before[1].split(" "))
    assert sorted(own_rules(node)) == sorted(before)
    error = ours.call("CHECK", config).failed(103, chain, "order")
    assert before[1] in error["details"]
    ours.call("ADD", config).result()
    assert own_rules(node) == before
    run("iptables", "-t", "nat", "-D", chain, "2")
    ours.call("CHECK", config).failed(103, "127.0.0.1")
    ours.call("ADD", config).result()
    assert own_rules(node) == before
    ours.call("CHECK", config).succeeded()


CONDITIONS = {
    "conditionsV4": ["-s", "10.8.0.0/255.255.255.0", "-m", "conntrack", "--ctstate", "NEW"]
}


@pytest.mark.parametrize("source", ["10.8.0.0/23", "", "second"])
def test_conditions_are_compared(node: Node, variant: dict[str, str], source: str) -> None:
    """Another one, none, or a second jump without any."""
    ours = node.container()
    tool = f"/usr/sbin/iptables-{variant['VARIANT']}"
    config = ours.config(mapping(8080), mapping(5353, protocol="udp"), **CONDITIONS)
    for _ in range(2):
        ours.call("ADD", config, variables=variant).result()
        ours.call("CHECK", config, variables=variant).succeeded()
        jumps = saved(node, variant["VARIANT"])["iptables"]
        [jump] = [line for line in jumps if "--dports 8080" in line]
    if source != "second":
        node.host.run(tool, "-t", "nat", "-D", *shlex.split(jump)[1:])
    else:
        source = ""
    other = jump.replace("-s 10.8.0.0/24", f"-s {source}" if source else "")
    node.host.run(tool, "-t", "nat", *shlex.split(other))
    ours.call("CHECK", config, variables=variant).failed(103, "CNI-DN-")
    ours.call("ADD", config, variables=variant).result()
    ours.call("CHECK", config, variables=variant).succeeded()
    ours.delete(variables=variant)
    assert of(ours, saved(node, variant["VARIANT"])) == []
    if variant["VARIANT"] == "legacy":
        node.host.expect_leftovers("iptables-legacy keeps its shared chains")


# -- GC, and interfaces of one container ----------------------------------------------------------


def gc_config(*valid: tuple[Container, str]) -> dict[str, Any]:
    """The configuration of a GC that keeps these (container, interface)."""
    return {
        "cniVersion": "1.1.0",
        "name": "podnet",
        "type": "portmap",
        "cni.dev/valid-attachments": [
            {"containerID": container.container_id, "ifname": ifname}
            for container, ifname in valid
        ],
    }


def is_legacy(node: Node, variant: dict[str, str]) -> bool:
    """True if what is looked for is iptables-legacy's, whose shared chains stay."""
    if variant["VARIANT"] == "legacy":
        node.host.expect_leftovers("iptables-legacy keeps its shared chains")
        return True
    return False


@pytest.mark.parametrize("before", ["ours", "go"])
def test_gc_forgets_udp_connections(
    node: Node, go: Runner, variant: dict[str, str], before: str
) -> None:
    """A client that keeps its socket is not answered by the container that is collected."""
    is_legacy(node, variant)
    ours = node.container()
    config = ours.config(mapping(5353, 53, protocol="udp"), backend="iptables")
    if before == "go":
        options: dict[str, Any] = {"netns": ours.netns, "variables": variant}
        go("portmap", "ADD", config, container_id=ours.container_id, **options).result()
    else:
        ours.call("ADD", config, variables=variant).result()
    server = listen(ours.netns, 53, socket.SOCK_DGRAM)

    def client() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect((HOST, 5353))
        return made

    sender = within(node.client, client)
    sender.send(b"x")
    assert server.recv(10) == b"x"
    tracked = ("conntrack", "-L", "-p", "udp", "--orig-port-dst", "5353")
    assert ours.address in node.host.run(*tracked)
    node.run_plugin("portmap", "GC", gc_config((ours, "eth0")), variables=variant).succeeded()
    assert ours.address in node.host.run(*tracked)
    node.run_plugin("portmap", "GC", gc_config(), variables=variant).succeeded()
    assert of(ours, saved(node, variant["VARIANT"])) == []
    assert ours.address not in node.host.run(*tracked)
    sender.send(b"x")
    server.settimeout(0.3)
    with pytest.raises(TimeoutError):
        server.recv(10)
    sender.close()


LONG = {"name": "n" * 120}


@pytest.mark.parametrize("before", ["ours", "go"])
def test_names_longer_than_a_comment(
    node: Node, go: Runner, variant: dict[str, str], before: str
) -> None:
    """The comment of the jump is cut; the chain still tells whose it is."""
    is_legacy(node, variant)
    ours, other = node.container(), node.container()
    for container in (ours, other):
        container.container_id = (container.container_id + "-" + "c" * 200)[:128]
    config = ours.config(mapping(8080), backend="iptables", **LONG)
    if before == "go":
        options: dict[str, Any] = {"netns": ours.netns, "variables": variant}
        go("portmap", "ADD", config, container_id=ours.container_id, **options).result()
    else:
        ours.call("ADD", config, variables=variant).result()
    ours.call("CHECK", config, variables=variant).succeeded()
    wanted = other.config(mapping(8080), backend="iptables", **LONG)
    error = other.call("ADD", wanted, variables=variant).failed(CONFLICT, "8080/tcp")
    assert ours.container_id[:100] in error["msg"]
    ours.call("ADD", {**config, "name": "second"}, variables=variant).result()
    ours.call("DEL", {**config, "name": "second"}, variables=variant).succeeded()
    for name, left in (("n" * 119, True), (LONG["name"], False)):
        gc = {**gc_config((other, "eth0")), "name": name}
        node.run_plugin("portmap", "GC", gc, variables=variant).succeeded()
        found = [
            line for line in saved(node, variant["VARIANT"])["iptables"] if "-j CNI-DN-" in line
        ]
        assert bool(found) == left
    assert not [
        line for line in saved(node, variant["VARIANT"])["iptables"] if line.startswith(":CNI-DN-")
    ]


def second_interface(ours: Container, *mappings: dict[str, Any]) -> dict[str, Any]:
    """The configuration of an ADD in the same network for the container's eth1, 10.9.0.99."""
    config = ours.config(*mappings, backend="iptables")
    config["prevResult"]["interfaces"][1]["name"] = "eth1"
    config["prevResult"]["ips"] = [{"address": "10.9.0.99/24", "interface": 1}]
    return config


def add_two(node: Node, ours: Container, variant: dict[str, str]) -> list[dict[str, Any]]:
    """eth0 with 8080 and eth1 with 9090, in one network."""
    is_legacy(node, variant)
    ours.netns.run("ip", "address", "add", "10.9.0.99/24", "dev", "eth0")
    first = ours.config(mapping(8080), backend="iptables")
    second = second_interface(ours, mapping(9090, 81))
    for _ in range(2):
        ours.call("ADD", first, variables=variant).result()
        ours.call("ADD", second, variables=variant, ifname="eth1").result()
    ours.call("CHECK", first, variables=variant).succeeded()
    ours.call("CHECK", second, variables=variant, ifname="eth1").succeeded()
    return [first, second]


@pytest.mark.parametrize("order", [("eth0", "eth1"), ("eth1", "eth0")])
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_two_interfaces_in_one_network(
    node: Node, variant: dict[str, str], order: tuple[str, str], verb: str
) -> None:
    """The DEL of one leaves the other's ports."""
    ours = node.container()
    first, second = add_two(node, ours, variant)
    configs, ports = {"eth0": first, "eth1": second}, {"eth0": (8080, 80), "eth1": (9090, 81)}
    gone, left = order

    def remove(ifname: str, *others: str) -> None:
        if verb == "DEL":
            ours.delete(variables=variant, ifname=ifname)
        else:
            gc = gc_config(*[(ours, other) for other in others])
            node.run_plugin("portmap", "GC", gc, variables=variant).succeeded()

    remove(gone, left)
    assert is_refused(node.client, HOST, ports[gone][0])
    server = listen(ours.netns, ports[left][1])
    assert source_of(server, node.client, HOST, ports[left][0]) == "10.8.0.2"
    ours.call("CHECK", configs[left], variables=variant, ifname=left).succeeded()
    ours.call("CHECK", configs[gone], variables=variant, ifname=gone).failed(103)
    remove(left)
    assert of(ours, saved(node, variant["VARIANT"])) == []


def test_two_interfaces_of_gos(node: Node, go: Runner, variant: dict[str, str]) -> None:
    """Its one chain is not ours to divide; ours with one interface is for its DEL to remove."""
    is_legacy(node, variant)
    ours = node.container()
    options: dict[str, Any] = {
        "netns": ours.netns, "container_id": ours.container_id, "variables": variant,
    }  # fmt: skip
    first = ours.config(mapping(8080), backend="iptables")
    second = second_interface(ours, mapping(9090, 81))
    go("portmap", "ADD", first, ifname="eth0", **options).result()
    go("portmap", "ADD", second, ifname="eth1", **options).result()
    ours.call("CHECK", second, variables=variant, ifname="eth1").succeeded()
    ours.delete(variables=variant, ifname="eth1")
    assert of(ours, saved(node, variant["VARIANT"])) == []
    # A second one of ours beside a first one of Go's takes nothing away.
    go("portmap", "ADD", first, ifname="eth0", **options).result()
    before = of(ours, saved(node, variant["VARIANT"]))
    for backend in ("nftables", "iptables"):
        config = {**second, "backend": backend}
        for _ in range(2):
            ours.call("ADD", config, variables=variant, ifname="eth1").result()
        ours.call("CHECK", config, variables=variant, ifname="eth1").succeeded()
        assert set(before) <= set(of(ours, saved(node, variant["VARIANT"])))
    ours.call("CHECK", first, variables=variant).succeeded()
    ours.delete(variables=variant)
    ours.call("CHECK", second, variables=variant, ifname="eth1").succeeded()
    ours.delete(variables=variant, ifname="eth1")
    assert of(ours, saved(node, variant["VARIANT"])) == []
    ours.call("ADD", second, variables=variant, ifname="eth1").result()
    go("portmap", "DEL", second, ifname="eth1", **options).succeeded()
    assert of(ours, saved(node, variant["VARIANT"])) == []


#: What makes an ADD by a backend fail when it has begun.
FAILING: dict[str, dict[str, Any]] = {
    "nftables": {"conditionsV4": ["nonsense"]},
    "iptables": {"externalSetMarkChain": "NOT-THERE"},
}


@pytest.mark.parametrize(("before", "now"), [("nftables", "iptables"), ("iptables", "nftables")])
def test_an_add_that_fails_by_the_other_backend(node: Node, before: str, now: str) -> None:
    """Leaves what the attachment has."""
    ours = node.container()
    config = ours.add(mapping(8080), backend=before)
    again = ours.config(mapping(8080), mapping(8081), backend=now, **FAILING[now])
    reply = ours.call("ADD", again)
    assert reply.rc == 1 and "undo" not in reply.stderr
    ours.call("CHECK", config).succeeded()
    ours.delete()
    assert not elements() and not of(ours, saved(node))


@pytest.mark.parametrize("backend", FAILING)
def test_an_add_that_fails_for_another_interface(node: Node, go: Runner, backend: str) -> None:
    """Leaves what Go's plugin made for the first, whose chain does not say for which."""
    ours = node.container()
    options: dict[str, Any] = {"netns": ours.netns, "container_id": ours.container_id}
    first = ours.config(mapping(8080), backend="iptables")
    go("portmap", "ADD", first, ifname="eth0", **options).result()
    before = saved(node)
    second = {**second_interface(ours, mapping(9090, 81)), "backend": backend, **FAILING[backend]}
    assert ours.call("ADD", second, ifname="eth1").rc == 1
    assert of(ours, saved(node)) == of(ours, before)
    ours.call("CHECK", first).succeeded()
    go("portmap", "DEL", first, ifname="eth0", **options).succeeded()


@pytest.mark.parametrize("backend", FAILING)
def test_an_add_that_fails_forgets_udp_connections(node: Node, backend: str) -> None:
    """What came while the mappings were there does not stay translated."""
    ours, plugins = node.container(), node.run_plugin.bin_dir
    config = ours.config(mapping(5353, 53, protocol="udp"), backend=backend)
    server = listen(ours.netns, 53, socket.SOCK_DGRAM)
    sender = within(node.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    # ADD waits with its result for room in the pipe, which is never made.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(512))
    os.set_blocking(writer, True)

    def interfere() -> None:
        server.settimeout(0.2)
        try:
            for _ in range(100):
                sender.sendto(b"x", (HOST, 5353))
                with contextlib.suppress(TimeoutError):
                    server.recv(10)
                    return
            raise AssertionError("the mapping never worked")
        finally:
            os.close(reader)

    with sender, ThreadPoolExecutor() as pool:
        done = pool.submit(interfere)
        process = subprocess.run(
            [plugins / "portmap"],
            input=json.dumps(config).encode(),
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment("ADD", plugins, ours.netns, ours.container_id, "eth0"),
            check=False,
        )
        os.close(writer)
        done.result()
    assert process.returncode == 1 and b"undo" not in process.stderr, process.stderr
    assert not elements() and not of(ours, saved(node))
    tracked = node.host.run("conntrack", "-L", "-p", "udp", "--orig-port-dst", "5353")
    assert ours.address not in tracked
