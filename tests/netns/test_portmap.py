# SPDX-License-Identifier: Apache-2.0
"""portmap on the real kernel, nftables: traffic, who has a port, DEL by identity, undo."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cni_portmap import nft
from cni_portmap.holders import lookup
from cni_portmap.record import unpack
from cni_portmap.table import OWNERS
from libcni.attachment import Attachment
from libcni.nftables.transaction import open_socket
from libcni.types.errors import CONFLICT, INVALID_NETWORK_CONFIG, KERNEL
from tests.netns.portmap_network import (
    HOST,
    HOST6,
    TABLE,
    Node,
    elements,
    is_refused,
    listen,
    mapping,
    node,
    source_of,
    within,
)
from tests.rig import isolation, plugins
from tests.rig.capabilities import WITHOUT_NET_ADMIN
from tests.rig.killed import killed_after

__all__ = ["node"]
MINE = "cni:podnet:container-2:eth0"


def test_reached_from_everywhere(node: Node) -> None:
    ours, other = node.container(), node.container()
    ours.add(mapping(8080))
    server = listen(ours.netns, 80)
    # The client's address is kept; who would be answered past the host is masqueraded.
    assert source_of(server, node.client, HOST, 8080) == "10.8.0.2"
    assert source_of(server, node.client, HOST6, 8080) == "fd00:8::2"
    for place in (None, ours.netns, other.netns):
        assert source_of(server, place, HOST, 8080) in ("10.9.0.1", HOST)
        assert source_of(server, place, HOST6, 8080) in ("fd00:9::1", HOST6)
    assert source_of(server, None, "127.0.0.1", 8080) == "10.9.0.1"
    assert source_of(server, other.netns, "10.9.0.1", 8080) == "10.9.0.1"
    ours.delete()
    assert is_refused(node.client, HOST, 8080)
    assert elements() == {}


def test_only_local_destinations_are_translated(node: Node) -> None:
    """GHSA-jv3w-x3r3-g6rm: what the host forwards to another's port 8080 stays its own."""
    ours, other = node.container(), node.container()
    ours.add(mapping(8080))
    theirs = listen(other.netns, 8080)
    assert source_of(theirs, node.client, other.address, 8080) == "10.8.0.2"
    assert source_of(theirs, node.client, other.address6, 8080) == "fd00:8::2"
    outside = listen(node.client, 8080)
    assert source_of(outside, ours.netns, "10.8.0.2", 8080) == "10.9.0.2"
    assert is_refused(node.client, other.address, 8081)


def test_delete_needs_only_the_identity(node: Node) -> None:
    ours = node.container()
    ours.add(mapping(8080), mapping(5353, 53, protocol="udp"), mapping(9000, hostIP=HOST))
    assert set(elements()) == {
        "addresses4", "localhost4", "neighbours4_24", "neighbours6_64", "owners", "ports4",
        "ports6",
    }  # fmt: skip
    assert {c for comments in elements().values() for c in comments} == {MINE}
    ours.netns.delete()
    ours.delete()
    assert elements() == {}
    ours.delete()


def test_delete_finds_what_somebody_has_left_without_its_owner(node: Node) -> None:
    ours, other = node.container(), node.container()
    config = ours.add(mapping(8080), mapping(9000, hostIP=HOST))
    other.add(mapping(8081))
    theirs = {k: [c for c in v if c != MINE] for k, v in elements().items()}
    listed = json.loads(node.host.run("nft", "-j", "list", "set", "inet", TABLE, "owners"))
    (owners,) = (item["set"] for item in listed["nftables"] if "set" in item)
    mine = [e["elem"]["val"] for e in owners["elem"] if e["elem"].get("comment") == MINE]
    place = {"family": "inet", "table": TABLE, "name": "owners", "elem": mine}
    subprocess.run(
        ["nft", "-j", "-f", "-"],
        input=json.dumps({"nftables": [{"delete": {"element": place}}]}),
        text=True,
        check=True,
    )
    ours.call("DEL", {**config, "prevResult": None}).succeeded()
    assert elements() == {k: v for k, v in theirs.items() if v}


@pytest.mark.parametrize(
    "keys", [{}, {"conditionsV4": ["ip", "saddr", "10.8.0.2"], "snat": False}]
)
def test_delete_when_all_owners_were_flushed(node: Node, keys: dict[str, Any]) -> None:
    """With nothing but the identity; also rules alone."""
    ours, other = node.container(), node.container()
    ours.add(mapping(8080), **keys)
    other.add(mapping(8081), name="other")
    node.host.run("nft", "flush set inet adder_portmap owners")
    ours.delete()
    assert {c for comments in elements().values() for c in comments} == {
        "cni:other:container-3:eth0"
    }
    assert MINE not in node.host.run("nft", "list", "table", "inet", TABLE)
    assert is_refused(node.client, HOST, 8080)
    other.call("DEL", {**other.config(), "name": "other", "prevResult": None}).succeeded()
    assert elements() == {}


def test_delete_after_the_rule_set_was_saved_and_loaded(node: Node) -> None:
    """nft keeps the comments and loses the record."""
    ours, other = node.container(), node.container()
    ours.add(mapping(8080), mapping(8081, hostIP=HOST))
    other.add(mapping(9090))
    saved = node.host.run("nft", "list", "ruleset")
    node.host.run("nft", "flush", "ruleset")
    subprocess.run(["nft", "-f", "-"], input=saved, text=True, check=True)
    server = listen(ours.netns, 80)
    assert source_of(server, node.client, HOST, 8080) == "10.8.0.2"
    ours.delete()
    assert {c for comments in elements().values() for c in comments} == {
        "cni:podnet:container-3:eth0"
    }
    assert is_refused(node.client, HOST, 8080)


def test_more_mappings_than_a_record_holds(node: Node) -> None:
    ours, other = node.container(), node.container()
    ours.add(*[mapping(port) for port in range(8000, 8040)])
    other.add(mapping(9090))
    assert len(elements()["ports4"]) == 41
    ours.delete()
    assert len(elements()["ports4"]) == 1


@pytest.mark.parametrize(
    "version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
)
@pytest.mark.parametrize("mappings", [[], [mapping(8080)]])
def test_every_version_passes_the_result_on(
    node: Node, version: str, mappings: list[dict[str, Any]]
) -> None:
    ours = node.container()
    new = version >= "1.0.0"
    result: dict[str, Any] = {"cniVersion": version}
    if version < "0.3.0":
        result["ip4"] = {"ip": f"{ours.address}/24"}
    else:
        ip: dict[str, Any] = {"address": f"{ours.address}/24"}
        result["ips"] = [ip if new else {"version": "4", **ip}]
    config = ours.config(*mappings, cniVersion=version, prevResult=result)
    answer = ours.call("ADD", config).result()
    assert answer == (result if new else {**result, "dns": {}})
    assert ("ports4" in elements()) == bool(mappings)


def test_no_mappings_cost_nothing(node: Node) -> None:
    ours = node.container()
    before = node.host.snapshot()
    ours.add()
    ours.add(runtimeConfig=None)
    ours.delete()
    node.host.assert_unchanged(before)


def test_must_be_chained(node: Node) -> None:
    ours = node.container()
    config = ours.config(mapping(8080), prevResult=None)
    ours.call("ADD", config).failed(INVALID_NETWORK_CONFIG, "must be called as chained plugin")


def test_containerd_keys(node: Node) -> None:
    ours = node.container()
    entry = {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}
    ours.add(entry)
    assert source_of(listen(ours.netns, 80), node.client, HOST, 8080) == "10.8.0.2"


@pytest.mark.parametrize(
    ("entry", "culprits"),
    [
        (mapping(0), ["hostPort", "0"]),
        (mapping(65536), ["hostPort", "65536"]),
        (mapping(80, 0), ["containerPort", "0"]),
        (mapping(80, protocol="icmp"), ["icmp", "80"]),
        (mapping(80, hostIP="localhost"), ["hostIP", "localhost"]),
        (mapping(80, hostPortEnd=79), ["[0].hostPortEnd: 79", "80"]),
        (mapping(80, 65530, hostPortEnd=90), ["65540"]),
        (mapping(1, 1, hostPortEnd=20000), ["40000", "10000"]),
    ],
)
def test_bad_mappings(node: Node, entry: dict[str, Any], culprits: list[str]) -> None:
    ours = node.container()
    before = node.host.snapshot()
    ours.call("ADD", ours.config(entry)).failed(INVALID_NETWORK_CONFIG, *culprits)
    node.host.assert_unchanged(before)


def test_mapped_twice(node: Node) -> None:
    ours = node.container()
    ours.call("ADD", ours.config(mapping(8080), mapping(8080, 81))).failed(
        INVALID_NETWORK_CONFIG, "8080/tcp", "80", "81"
    )
    ours.add(mapping(8080), mapping(8080))
    assert elements()["ports4"] == [MINE]


# -- who has a port -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping(8080), mapping(8080)),
        (mapping(8080, hostIP=HOST), mapping(8080)),
        (mapping(8080), mapping(8080, hostIP=HOST)),
        (mapping(8080, hostIP=HOST), mapping(8080, hostIP=HOST)),
        (mapping(8080), mapping(8080, hostIP="0.0.0.0")),
        (mapping(8000, 8000, hostPortEnd=8200), mapping(8080)),
        (mapping(8080), mapping(8000, 8000, hostPortEnd=8200)),
    ],
)
def test_taken(node: Node, first: dict[str, Any], second: dict[str, Any]) -> None:
    ours, other = node.container(), node.container()
    ours.add(mapping(7000), first)
    before = node.host.snapshot()
    other.call("ADD", other.config(mapping(7001), second)).failed(
        CONFLICT,
        "8080/tcp",
        "network podnet, container container-3, interface eth0",
        "network podnet, container container-2, interface eth0",
    )
    node.host.assert_unchanged(before)
    ours.delete()
    other.add(mapping(7001), second)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_refused_add_costs_a_live_attachment_nothing(node: Node, backend: str) -> None:
    ours, other = node.container(), node.container()
    ours.add(mapping(8080), backend=backend)
    config = other.add(mapping(9000), backend=backend)
    before = node.host.snapshot()
    again = other.config(mapping(9000), mapping(8080), backend=backend)
    other.call("ADD", again).failed(CONFLICT, "8080/tcp")
    node.host.assert_unchanged(before)
    other.call("CHECK", config).succeeded()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping(8080), mapping(8080, protocol="udp")),
        (mapping(8080, hostIP=HOST), mapping(8080, hostIP="10.9.0.1")),
        (mapping(8080, hostIP="0.0.0.0"), mapping(8080, hostIP="::")),
        (mapping(8080, hostIP=HOST), mapping(8080, hostIP=HOST6)),
    ],
)
def test_not_taken(node: Node, first: dict[str, Any], second: dict[str, Any]) -> None:
    ours, other = node.container(), node.container()
    ours.add(first)
    other.add(second)


def test_add_replaces_its_own(node: Node) -> None:
    """After a crash: an ADD again, with other mappings and another address."""
    ours = node.container()
    ours.add(mapping(8080), mapping(8081))
    ours.netns.run("ip", "address", "add", "10.9.0.77/24", "dev", "eth0")
    config = ours.config(mapping(8080, 81), mapping(8082))
    config["prevResult"]["ips"] = [{"address": "10.9.0.77/24", "interface": 1}]
    ours.call("ADD", config).result()
    assert elements()["ports4"] == [MINE, MINE]
    assert "ports6" not in elements()
    assert elements()["localhost4"] == [MINE]
    assert source_of(listen(ours.netns, 81), node.client, HOST, 8080) == "10.8.0.2"
    assert is_refused(node.client, HOST, 8081)
    ours.call("CHECK", config).succeeded()


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("keys", [{}, {"conditionsV4": 1}])
def test_add_again_with_other_mappings(node: Node, backend: str, keys: dict[str, Any]) -> None:
    if keys:
        source = ["-s", "10.8.0.2"] if backend == "iptables" else ["ip", "saddr", "10.8.0.2"]
        keys = {"conditionsV4": source}
    ours = node.container()
    ours.add(mapping(8080), mapping(8082), backend=backend, **keys)
    config = ours.add(mapping(8082, 81), mapping(9090), backend=backend, **keys)
    server, second = listen(ours.netns, 80), listen(ours.netns, 81)
    assert source_of(server, node.client, HOST, 9090) == "10.8.0.2"
    assert source_of(second, node.client, HOST, 8082) == "10.8.0.2"
    assert is_refused(node.client, HOST, 8080)
    assert is_refused(node.client, HOST6, 8080)
    ours.call("CHECK", config).succeeded()
    ours.delete()
    assert is_refused(node.client, HOST, 9090)


@pytest.mark.parametrize("before", ["nftables", "iptables"])
def test_add_again_by_the_other_backend(node: Node, before: str) -> None:
    """What the first one has made goes, that of its own IP versions too."""
    now = "iptables" if before == "nftables" else "nftables"
    ours, other = node.container(), node.container()
    ours.add(mapping(8080), mapping(5353, 53, protocol="udp"), backend=before)
    other.add(mapping(7000), backend=before)
    config = ours.config(mapping(9090), backend=now)
    config["prevResult"]["ips"].pop()
    ours.call("ADD", config).result()
    server = listen(ours.netns, 80)
    assert is_refused(node.client, HOST, 8080)
    assert is_refused(node.client, HOST6, 8080)
    assert source_of(server, node.client, HOST, 9090) == "10.8.0.2"
    tables = node.host.run("iptables-save") + node.host.run("ip6tables-save")
    if now == "nftables":
        assert ours.container_id not in tables and other.container_id in tables
    else:
        assert ours.container_id in tables
        assert {c for comments in elements().values() for c in comments} == {
            f"cni:podnet:{other.container_id}:eth0"
        }
    ours.call("CHECK", config).succeeded()
    ours.delete()


def test_add_again_without_ipv6(node: Node) -> None:
    """By iptables, which has a table for each version."""
    ours = node.container()
    config = ours.add(mapping(8080), backend="iptables")
    config["prevResult"]["ips"].pop()
    ours.call("ADD", config).result()
    assert "-A CNI-DN-" in node.host.run("iptables-save")
    assert "-A CNI-DN-" not in node.host.run("ip6tables-save")


FAILING: dict[str, dict[str, Any]] = {
    "nft": {"conditionsV4": ["nonsense"], "backend": "nftables"},
    "iptables": {"conditionsV4": ["--nonsense"], "backend": "iptables"},
    "ip6tables": {"conditionsV6": ["--nonsense"], "backend": "iptables"},
    "mark": {"externalSetMarkChain": "NOT-THERE", "backend": "iptables"},
    "nft result": {"backend": "nftables"},
    "iptables result": {"backend": "iptables"},
}


@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize("conditional", [False, True])
def test_an_add_again_that_fails_leaves_what_there_was(
    node: Node, failing: str, conditional: bool
) -> None:
    ours, sibling = node.container(), node.container()
    keys = FAILING[failing]
    before_keys: dict[str, Any] = {"backend": keys["backend"]}
    if conditional:
        words = ["ip", "saddr", "10.8.0.2"]
        before_keys["conditionsV4"] = (
            words if keys["backend"] == "nftables" else ["-s", "10.8.0.2"]
        )
    sibling.add(mapping(7000), backend=keys["backend"])
    wanted = [mapping(8080), mapping(8000, 90, hostPortEnd=8003), mapping(5353, protocol="udp")]
    config = ours.add(*wanted, **before_keys)
    before = node.host.run("nft", "-s", "list", "ruleset")
    again = ours.config(mapping(8081), mapping(8080, 81), **{**before_keys, **keys})
    if "result" in failing:
        environment = plugins.environment(
            "ADD", node.run_plugin.bin_dir, ours.netns, ours.container_id, "eth0"
        )
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [node.run_plugin.bin_dir / "portmap"],
                input=json.dumps(again).encode(),
                env=environment,
                stdout=full,
                check=False,
            )
        assert done.returncode == 1
    else:
        code = INVALID_NETWORK_CONFIG if keys["backend"] == "nftables" else KERNEL
        ours.call("ADD", again).failed(code)
    after = node.host.run("nft", "-s", "list", "ruleset")
    assert sorted(after.splitlines()) == sorted(before.splitlines())
    ours.call("CHECK", config).succeeded()
    server = listen(ours.netns, 80)
    assert source_of(server, node.client, HOST, 8080) == "10.8.0.2"
    ours.delete()
    assert is_refused(node.client, HOST, 8080)


def test_second_network_of_a_container(node: Node) -> None:
    """podman network connect: the same mappings; the first has them until it goes."""
    ours = node.container()
    ours.add(mapping(8080), mapping(8081, hostIP=HOST))
    ours.netns.run("ip", "address", "add", "10.9.0.99/24", "dev", "eth0")
    config = ours.config(mapping(8080), mapping(8081, hostIP=HOST), name="second")
    config["prevResult"] = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth1", "sandbox": ours.netns.path}],
        "ips": [{"address": "10.9.0.99/24", "interface": 0}],
    }
    ours.call("ADD", config, ifname="eth1").result()
    ours.call("CHECK", config, ifname="eth1").succeeded()
    assert elements()["ports4"] == [MINE]
    assert elements()["waiting4"] == ["cni:second:container-2:eth1"] * 2
    server = listen(ours.netns, 80)
    assert source_of(server, node.client, HOST, 8080) == "10.8.0.2"
    ours.delete()
    assert elements()["ports4"] == elements()["addresses4"] == ["cni:second:container-2:eth1"]
    assert "waiting4" not in elements()
    for port in (8080, 8081):
        assert source_of(server, node.client, HOST, port) == "10.8.0.2"
    ours.call("CHECK", config, ifname="eth1").succeeded()
    ours.call("DEL", config, ifname="eth1").succeeded()
    assert elements() == {}


def test_second_network_goes_first(node: Node) -> None:
    ours = node.container()
    ours.add(mapping(8080))
    config = ours.config(mapping(8080), name="second")
    ours.call("ADD", config, ifname="eth0").result()
    ours.call("DEL", config, ifname="eth0").succeeded()
    assert elements()["ports4"] == [MINE]
    assert "waiting4" not in elements()


def test_at_once_one_wins(node: Node) -> None:
    """Racing first ADDs make one table, and one of them has the port."""
    containers = [node.container() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(c.call, "ADD", c.config(mapping(8080), mapping(9000 + number)))
            for number, c in enumerate(containers)
        ]
        replies = [call.result() for call in calls]
    assert sorted(reply.rc for reply in replies) == [0] + [1] * 7
    assert {r.json["code"] for r in replies if r.rc} == {CONFLICT}
    assert len(elements()["ports4"]) == 2


def test_at_once_all_succeed(node: Node) -> None:
    containers = [node.container() for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        for reply in pool.map(
            lambda n: containers[n].call("ADD", containers[n].config(mapping(9000 + n))),
            range(10),
        ):
            reply.result()
        assert len(elements()["ports4"]) == 10
        list(pool.map(lambda c: c.delete(), containers))
    assert elements() == {}


# -- variants -------------------------------------------------------------------------------------


def test_host_ip(node: Node) -> None:
    ours = node.container()
    ours.add(
        mapping(8080, hostIP="10.9.0.1"),
        mapping(8081, hostIP="::"),
        mapping(8082, hostIP="127.0.0.1"),
    )
    server = listen(ours.netns, 80)
    within(
        node.client, lambda: node.client.run("ip", "route", "replace", "10.9.0.0/24", "via", HOST)
    )
    assert source_of(server, node.client, "10.9.0.1", 8080) == "10.8.0.2"
    assert is_refused(node.client, HOST, 8080)
    assert source_of(server, node.client, HOST6, 8081) == "fd00:8::2"
    assert is_refused(node.client, HOST, 8081)
    assert source_of(server, None, "127.0.0.1", 8082) == "10.9.0.1"
    assert is_refused(node.client, HOST, 8082)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_range(node: Node, backend: str) -> None:
    ours = node.container()
    config = ours.add(mapping(8000, 90, hostPortEnd=8009), backend=backend)
    for offset in (0, 4, 9):
        server = listen(ours.netns, 90 + offset)
        assert source_of(server, node.client, HOST, 8000 + offset) == "10.8.0.2"
        server.close()
    assert is_refused(node.client, HOST, 8010)
    ours.call("CHECK", config).succeeded()


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_ranges_that_say_the_same(node: Node, backend: str) -> None:
    ours = node.container()
    wanted = [mapping(8005, 95), mapping(8000, 90, hostPortEnd=8010)]
    config = ours.add(*wanted, mapping(8010, 100, hostPortEnd=8012), backend=backend)
    for offset in (4, 5, 6, 11):
        server = listen(ours.netns, 90 + offset)
        assert source_of(server, node.client, HOST, 8000 + offset) == "10.8.0.2"
        server.close()
    ours.call("CHECK", config).succeeded()


def test_large_range(node: Node) -> None:
    ours = node.container()
    config = ours.add(mapping(10000, 10000, hostPortEnd=14999, protocol="udp"))
    assert len(elements()["ports4"]) == len(elements()["ports6"]) == 5000
    ours.call("CHECK", config).succeeded()
    ours.delete()
    assert elements() == {}


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize(
    ("keys", "outside", "inside"),
    [
        ({"masqAll": True}, "10.9.0.1", "10.9.0.1"),
        ({"snat": False}, "10.8.0.2", None),
        ({"snat": False, "masqAll": True}, "10.8.0.2", None),
    ],
)
def test_masquerade(
    node: Node, backend: str, keys: dict[str, Any], outside: str, inside: str | None
) -> None:
    ours = node.container()
    config = ours.add(mapping(8080), backend=backend, **keys)
    server = listen(ours.netns, 80)
    assert source_of(server, node.client, HOST, 8080) == outside
    if inside:
        assert source_of(server, ours.netns, HOST, 8080) == inside
    else:
        with pytest.raises(OSError):
            source_of(server, ours.netns, HOST, 8080)
    ours.call("CHECK", config).succeeded()


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_udp(node: Node, backend: str) -> None:
    """A client that goes on sending from one port reaches the container that is there now."""
    ours, other = node.container(), node.container()

    def client() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("10.8.0.2", 4444))
        made.connect((HOST, 5353))
        made.settimeout(2)
        return made

    sender = within(node.client, client)

    def send() -> None:
        # What an ICMP answer to an earlier datagram reports is not about this one.
        for _ in range(2):
            try:
                sender.send(b"x")
                return
            except OSError:
                continue

    send()  # before any mapping: a connection that leads to the host
    time.sleep(0.2)
    for container in (ours, other):
        container.add(mapping(5353, 53, protocol="udp"), backend=backend)
        server = listen(container.netns, 53, socket.SOCK_DGRAM)
        send()
        assert server.recv(10) == b"x"
        container.delete()
        entries = node.host.run("conntrack", "-L", "-p", "udp", "--orig-port-dst", "5353")
        assert container.address not in entries
        server.close()
        send()  # to nobody, until the next one is there
        time.sleep(0.2)
    sender.close()


def test_udp_of_others_is_left_alone(node: Node) -> None:
    """A container's own connection to port 53 of another host is not the mapping's business."""
    ours, other, third = node.container(), node.container(), node.container()
    third.add(mapping(9000))  # from now on the kernel tracks connections
    outside = listen(node.client, 53, socket.SOCK_DGRAM)
    sender = within(other.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.sendto(b"x", ("10.8.0.2", 53))
    assert outside.recv(10) == b"x"
    ours.add(mapping(53, 53, protocol="udp"))
    ours.delete()
    entries = node.host.run("conntrack", "-L", "-p", "udp", "--orig-port-dst", "53")
    assert other.address in entries


def test_sctp(node: Node) -> None:
    """The kernel at hand need not have SCTP; the rules say what it would do."""
    ours = node.container()
    config = ours.add(mapping(8080, protocol="sctp"))
    assert "sctp . 8080" in node.host.run("nft", "list", "map", "inet", TABLE, "ports4")
    ours.call("CHECK", config).succeeded()


# -- conditions -----------------------------------------------------------------------------------


def test_conditions(node: Node) -> None:
    ours, other = node.container(), node.container()
    keys = {"conditionsV4": ["ip", "saddr", "10.8.0.2"]}
    config = ours.add(mapping(8080), mapping(8000, 90, hostPortEnd=8001), **keys)
    server, second = listen(ours.netns, 80), listen(ours.netns, 91)
    assert source_of(server, node.client, HOST, 8080) == "10.8.0.2"
    assert source_of(second, node.client, HOST, 8001) == "10.8.0.2"
    assert source_of(server, node.client, HOST6, 8080) == "fd00:8::2"
    assert is_refused(other.netns, HOST, 8080)
    ours.call("CHECK", config).succeeded()
    rule = "delete rule inet adder_portmap conditional handle {}"
    listed = json.loads(
        node.host.run("nft", "-j", "-a", "list", "chain", "inet", TABLE, "conditional")
    )
    handles = [item["rule"]["handle"] for item in listed["nftables"] if "rule" in item]
    node.host.run("nft", rule.format(handles[0]))
    ours.call("CHECK", config).failed(103)
    ours.delete()
    assert "8001" not in node.host.run("nft", "list", "table", "inet", TABLE)
    assert elements() == {}


OTHER_RULES = {
    "another target port": "ip saddr 10.8.0.2 tcp dport 8080 dnat ip to 10.9.0.2:9999",
    "another source": "ip saddr 203.0.113.0/24 tcp dport 8080 dnat ip to 10.9.0.2:80",
    "no condition": "tcp dport 8080 dnat ip to 10.9.0.2:80",
    "another port": "ip saddr 10.8.0.2 tcp dport 8079 dnat ip to 10.9.0.2:80",
}


@pytest.mark.parametrize("what", OTHER_RULES)
def test_conditions_are_compared(node: Node, what: str) -> None:
    ours, other = node.container(), node.container()
    keys = {"conditionsV4": ["counter", "ip", "saddr", "10.8.0.2"]}
    other.add(mapping(8070), conditionsV4=["ip", "saddr", "10.8.0.3"])
    config = ours.add(mapping(8080), mapping(8000, 90, hostPortEnd=8001), **keys)
    assert source_of(listen(ours.netns, 80), node.client, HOST, 8080) == "10.8.0.2"
    # Neither others' rules nor what was counted is compared.
    other.delete()
    ours.call("CHECK", config).succeeded()
    ours.call("CHECK", {**config, "conditionsV4": ["ip", "saddr", "10.8.0.2"]}).failed(
        103, "conditional"
    )
    listed = json.loads(
        node.host.run("nft", "-j", "-a", "list", "chain", "inet", TABLE, "conditional")
    )
    handle = next(item["rule"]["handle"] for item in listed["nftables"] if "rule" in item)
    node.host.run(
        "nft",
        f"replace rule inet {TABLE} conditional handle {handle} "
        f'meta nfproto ipv4 {OTHER_RULES[what]} comment "{MINE}"',
    )
    ours.call("CHECK", config).failed(103)
    ours.call("ADD", config).result()
    ours.call("CHECK", config).succeeded()
    ours.delete()
    assert MINE not in node.host.run("nft", "list", "table", "inet", TABLE)


def test_conditions_after_an_add_that_failed(node: Node) -> None:
    """The kernel numbers the maps in rules, and they have other numbers when they are put back."""
    ours, other = node.container(), node.container()
    keys = {"conditionsV4": ["ip", "saddr", "{ 10.8.0.2, 10.8.0.3 }"]}
    other.add(mapping(7000, 90, hostPortEnd=7003), **keys)
    config = ours.add(mapping(8000, 90, hostPortEnd=8003), **keys)
    other.delete()
    bad = ours.config(mapping(8001), conditionsV4=["nonsense"])
    assert "undo" not in ours.call("ADD", bad).stderr
    ours.call("CHECK", config).succeeded()
    server = listen(ours.netns, 92)
    assert source_of(server, node.client, HOST, 8002) == "10.8.0.2"


def test_a_record_without_the_digest(node: Node) -> None:
    """As the version before made it: its attachments are not found wanting."""
    ours = node.container()
    config = ours.add(mapping(8080), conditionsV4=["ip", "saddr", "10.8.0.2"])
    attachment = Attachment("podnet", ours.container_id, "eth0")
    sock = open_socket()
    owner = lookup(sock, OWNERS, attachment.set_key)
    sock.close()
    known = unpack(owner.record) if owner else None
    assert known is not None and known.digest
    known.digest = b""
    nft.remember(attachment, known)
    ours.call("CHECK", config).succeeded()
    known.digest = b"another "
    nft.remember(attachment, known)
    ours.call("CHECK", config).failed(103, "conditional")


def test_conditions_after_the_rule_set_was_saved_and_loaded(node: Node) -> None:
    """Without its record a rule is known by its ports only."""
    ours = node.container()
    config = ours.add(
        mapping(8080), mapping(8000, 90, hostPortEnd=8001), conditionsV4=["tcp", "sport", ">", "1"]
    )
    text = node.host.run("nft", "list", "ruleset")
    node.host.run("nft", "flush", "ruleset")
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    ours.call("CHECK", config).succeeded()
    node.host.run("nft", "flush", "ruleset")
    other = text.replace("10.9.0.2:80 ", "10.9.0.2:9999 ")
    assert other != text
    subprocess.run(["nft", "-f", "-"], input=other, text=True, check=True)
    ours.call("CHECK", config).failed(103, "8080/tcp")


@pytest.mark.parametrize(
    ("keys", "culprits"),
    [
        ({"conditionsV4": ["-s", "1.2.3.4"], "backend": "nftables"}, ["conditionsV4", "nftables"]),
        ({"conditionsV6": ["ip6", "saddr", "::1"], "backend": "iptables"}, ["conditionsV6"]),
        ({"conditionsV4": ["-s", "1.1.1.1"], "conditionsV6": ["tcp"]}, ["conditionsV6"]),
        ({"conditionsV4": ["nonsense"]}, ["conditionsV4", "nonsense"]),
        ({"conditionsV4": ["tcp", "dport", "1;", "flush", "ruleset"]}, ["conditionsV4"]),
        ({"externalSetMarkChain": "X", "markMasqBit": 3}, ["externalSetMarkChain", "markMasqBit"]),
        ({"externalSetMarkChain": "X", "backend": "nftables"}, ["externalSetMarkChain"]),
        ({"backend": "ipvs"}, ["backend"]),
    ],
)
def test_bad_configurations(node: Node, keys: dict[str, Any], culprits: list[str]) -> None:
    ours = node.container()
    before = node.host.snapshot()
    ours.call("ADD", ours.config(mapping(8080), **keys)).failed(INVALID_NETWORK_CONFIG, *culprits)
    node.host.assert_unchanged(before)


# -- CHECK, GC, STATUS, undo ----------------------------------------------------------------------

BREAKAGES = {
    "delete element inet adder_portmap ports4 { tcp . 8080 }": "8080/tcp",
    "delete element inet adder_portmap ports6 { tcp . 8080 }": "8080/tcp",
    "delete element inet adder_portmap addresses4 { tcp . 8081 . 10.8.0.1 }": "10.8.0.1:8081/tcp",
    "delete element inet adder_portmap ports4 { tcp . 8080 }; add element inet adder_portmap "
    'ports4 { tcp . 8080 comment "cni:podnet:container-2:eth0" : 10.9.0.9 . 80 }': "10.9.0.9",
    "delete element inet adder_portmap ports4 { tcp . 8080 }; add element inet adder_portmap "
    'ports4 { tcp . 8080 comment "cni:podnet:container-9:eth0" : 10.9.0.2 . 80 }': "container-9",
    "delete element inet adder_portmap localhost4 { 10.9.0.2 }": "localhost4",
    "flush set inet adder_portmap neighbours4_24": "neighbours4_24",
    "flush set inet adder_portmap neighbours6_64": "neighbours6_64",
    "flush set inet adder_portmap owners": "owners",
    "flush chain inet adder_portmap prerouting": "to this host, prerouting",
    "flush chain inet adder_portmap output": "to this host, output",
    "flush chain inet adder_portmap hostports": "rule",
    "flush chain inet adder_portmap postrouting": "rule",
    "delete table inet adder_portmap": "rule",
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_check_notices(node: Node, breakage: str) -> None:
    ours = node.container()
    config = ours.add(mapping(8080), mapping(8081, hostIP=HOST))
    ours.call("CHECK", config).succeeded()
    node.host.run("nft", breakage)
    ours.call("CHECK", config).failed(103, BREAKAGES[breakage])
    # The next ADD makes everything anew.
    if "container-9" not in breakage:
        ours.call("ADD", config).result()
        ours.call("CHECK", config).succeeded()
    else:
        node.host.run("nft", "delete element inet adder_portmap ports4 { tcp . 8080 }")


IDLE = {
    "add table inet adder_portmap { flags dormant; }": "dormant",
    "flush chain inet adder_portmap output; delete chain inet adder_portmap output; "
    "add chain inet adder_portmap output; add rule inet adder_portmap output "
    'fib daddr type local jump hostports comment "to this host, output"': "output",
    "flush chain inet adder_portmap output; delete chain inet adder_portmap output; "
    "add chain inet adder_portmap output { type nat hook output priority 50; }; "
    "add rule inet adder_portmap output "
    'fib daddr type local jump hostports comment "to this host, output"': "output",
}


@pytest.mark.parametrize("breakage", IDLE)
def test_check_notices_what_the_kernel_does_not_call(node: Node, breakage: str) -> None:
    ours = node.container()
    config = ours.add(mapping(8080))
    isolation.command("nft", breakage)
    ours.call("CHECK", config).failed(103, IDLE[breakage])
    isolation.command("nft", f"add table inet {TABLE}")
    if IDLE[breakage] == "dormant":
        ours.call("CHECK", config).succeeded()


def test_check_notices_route_localnet(node: Node) -> None:
    ours = node.container()
    config = ours.add(mapping(8080))
    node.host.run("sysctl", "-qw", "net.ipv4.conf.br0.route_localnet=0")
    ours.call("CHECK", config).failed(103, "ipv4/conf/br0/route_localnet")


def test_gc(node: Node) -> None:
    ours, other, foreign = node.container(), node.container(), node.container()
    ours.add(mapping(8080))
    other.add(mapping(8081), mapping(5353, protocol="udp"), conditionsV6=["ip6", "saddr", "::2"])
    foreign.add(mapping(8082), name="foreign")
    valid = [{"containerID": ours.container_id, "ifname": "eth0"}]
    config = {
        "cniVersion": "1.1.0",
        "name": "podnet",
        "type": "portmap",
        "cni.dev/valid-attachments": valid,
    }
    node.run_plugin("portmap", "GC", config).succeeded()
    assert elements()["ports4"] == [MINE, "cni:foreign:container-4:eth0"][::-1]
    assert elements()["owners"] == ["cni:foreign:container-4:eth0", MINE]
    node.run_plugin("portmap", "GC", config).succeeded()
    config.pop("cni.dev/valid-attachments")
    node.run_plugin("portmap", "GC", config).failed(7, "valid-attachments")


def test_gc_of_what_no_owner_names(node: Node) -> None:
    ours = node.container()
    ours.add(mapping(8080))
    node.host.run("nft", "flush set inet adder_portmap owners")
    config = {
        "cniVersion": "1.1.0",
        "name": "podnet",
        "type": "portmap",
        "cni.dev/valid-attachments": [],
    }
    node.run_plugin("portmap", "GC", config).succeeded()
    assert elements() == {}


@pytest.mark.parametrize("backend", ["", "nftables", "iptables"])
def test_status(node: Node, backend: str) -> None:
    config = {"cniVersion": "1.1.0", "name": "podnet", "type": "portmap", "backend": backend}
    node.run_plugin("portmap", "STATUS", config).succeeded()


@pytest.mark.parametrize("backend", ["", "nftables"])
def test_a_lack_of_permission_is_told(node: Node, backend: str) -> None:
    """Without CAP_NET_ADMIN nftables is not taken for missing, and iptables is not tried."""
    ours, other = node.container(), node.container()
    ours.add(mapping(8080))
    before = elements()
    config = ours.config(mapping(8080), cniVersion="1.1.0", backend=backend)
    config["cni.dev/valid-attachments"] = []
    codes = {"ADD": 102, "CHECK": 102, "DEL": 102, "GC": 102, "STATUS": 50}
    for verb, code in codes.items():
        pod = other if verb == "ADD" else ours
        error = pod.call(verb, config, under=WITHOUT_NET_ADMIN).failed(code, "nftables: ")
        assert "Operation not permitted" in error["msg"]
    assert elements() == before


def test_status_without_iptables(node: Node) -> None:
    config = {"cniVersion": "1.1.0", "name": "podnet", "type": "portmap"}
    bad = {**config, "backend": "nftables", "externalSetMarkChain": "X"}
    node.run_plugin("portmap", "STATUS", bad).failed(7, "externalSetMarkChain")


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_undone_when_the_result_cannot_be_written(node: Node, backend: str) -> None:
    ours, other = node.container(), node.container()
    other.add(mapping(9000), name="other", backend=backend)
    node.host.run("sysctl", "-qw", "net.ipv4.conf.br0.route_localnet=0")
    before = node.host.snapshot()
    config = ours.config(mapping(8080), mapping(5353, protocol="udp"), backend=backend)
    environment = plugins.environment("ADD", node.run_plugin.bin_dir, ours.netns, "x", "eth0")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [node.run_plugin.bin_dir / "portmap"],
            input=json.dumps(config).encode(),
            env=environment,
            stdout=full,
            check=False,
        )
    assert done.returncode == 1
    changes = before.difference(node.host.snapshot())
    # The other container relies on it.
    assert [c for c in changes if "route_localnet" not in c] == []


def test_undone_first_add_leaves_no_table(node: Node) -> None:
    ours = node.container()
    before = node.host.snapshot()
    environment = plugins.environment("ADD", node.run_plugin.bin_dir, ours.netns, "x", "eth0")
    with open("/dev/full", "w") as full:
        subprocess.run(
            [node.run_plugin.bin_dir / "portmap"],
            input=json.dumps(ours.config(mapping(8080))).encode(),
            env=environment,
            stdout=full,
            check=False,
        )
    node.host.assert_unchanged(before)


def test_killed_at_any_moment(node: Node) -> None:
    ours = node.container()
    config = json.dumps(
        ours.config(mapping(8080), mapping(5353, protocol="udp"), mapping(8081, hostIP=HOST))
    ).encode()
    environment = plugins.environment(
        "ADD", node.run_plugin.bin_dir, ours.netns, ours.container_id, "eth0"
    )
    for _ in range(15):
        program = node.run_plugin.bin_dir / "portmap"
        killed_after(random.random() * 0.12, program, environment, config)
        ours.delete()
        assert elements() == {}


def test_the_child_does_not_hold_the_pipes(node: Node) -> None:
    """DEL returns, and its output ends, though the kernel's wait may not be over."""
    ours = node.container()
    ours.add(mapping(8080))
    before = set(os.listdir("/proc"))
    ours.delete()
    assert elements() == {}
    deadline = time.monotonic() + 5
    while any(pid.isdigit() and _is_portmap(pid) for pid in set(os.listdir("/proc")) - before):
        assert time.monotonic() < deadline, "the child stays"
        time.sleep(0.05)


def _is_portmap(pid: str) -> bool:
    """True for a process of the plugin on this test's host, whatever else the machine runs."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            named = b"portmap" in file.read()
        return named and os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return False
