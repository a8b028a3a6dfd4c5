# SPDX-License-Identifier: Apache-2.0
"""Masquerade on the real kernel: rule sets, packets, races, and what the Go plugins made."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import pathlib
import posix
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libcni import ipmasq
from libcni.attachment import Attachment
from libcni.ipmasq import nft
from libcni.netlink.socket import NetlinkError
from libcni.nftables import transaction
from libcni.types.errors import (
    CHECK_FAILED,
    INVALID_NETWORK_CONFIG,
    KERNEL,
    TRY_AGAIN_LATER,
    CniError,
)
from tests.rig import isolation
from tests.rig.capabilities import CAP_NET_ADMIN, without
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner
from tests.rig.xtables import path_with

POD = Attachment("podnet", "0a1b", "eth0")
OTHER = Attachment("podnet", "2c3d", "eth0")
BOTH = ["10.244.1.2/24", "fd00:1::2/64"]
SETS = {"ip4.podnet/10.244.1.0/24": ["10.244.1.2"], "ip6.podnet/fd00_1__/64": ["fd00:1::2"]}


@pytest.fixture(autouse=True)
def nothing_stays(host: Host) -> Iterator[None]:
    """At the end of each test, what masquerades is removed, before the host is compared."""
    yield
    for network in ("podnet", "podnet2", "other", "gonet"):
        ipmasq.gc(network, set())


def ruleset(kind: str, table: str = "adder_ipmasq") -> list[dict[str, Any]]:
    """The objects of one kind ("set", "rule", "chain") that nft lists in a table."""
    listed = json.loads(isolation.command("nft", "-j", "list", "ruleset"))["nftables"]
    return [o[kind] for o in listed if kind in o and o[kind].get("table") == table]


def elements() -> dict[str, dict[str, str]]:
    """Set name -> address -> comment."""
    return {
        made["name"]: {e["elem"]["val"]: e["elem"]["comment"] for e in made.get("elem", [])}
        for made in ruleset("set")
    }


def masquerade_rules() -> list[str]:
    """The sets that masquerade rules look up."""
    return [
        rule["expr"][0]["match"]["right"].lstrip("@")
        for rule in ruleset("rule")
        if {"masquerade": None} in rule["expr"]
    ]


@pytest.fixture(params=["nft", "legacy"])
def iptables(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Makes one variant of iptables the system's; its name."""
    variant: str = request.param
    path = path_with(variant, tmp_path)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setitem(posix.environ, b"PATH", path.encode())
    return variant


def nat_rules() -> list[str]:
    """What both IP versions of the system's iptables have in table nat."""
    return [
        line
        for family in ("iptables", "ip6tables")
        for line in isolation.command(f"{family}-save", "-t", "nat").split("\n")
        if line.startswith(("-A ", ":CNI"))
    ]


# -- the nftables backend -------------------------------------------------------------------------


def test_rule_set(host: Host) -> None:
    ipmasq.ensure(POD, BOTH)
    [chain] = ruleset("chain")
    assert (chain["type"], chain["hook"], chain["prio"]) == ("nat", "postrouting", 100)
    assert elements() == {
        name: dict.fromkeys(addresses, "cni:podnet:0a1b:eth0") for name, addresses in SETS.items()
    }
    text = isolation.command("nft", "list", "table", "inet", "adder_ipmasq")
    for line in (
        'ip daddr 224.0.0.0/4 return comment "multicast keeps its source"',
        'ip6 daddr ff00::/8 return comment "multicast keeps its source"',
        "ip saddr @ip4.podnet/10.244.1.0/24 ip daddr != 10.244.1.0/24 masquerade "
        'comment "network podnet, subnet 10.244.1.0/24"',
        "ip6 saddr @ip6.podnet/fd00_1__/64 ip6 daddr != fd00:1::/64 masquerade "
        'comment "network podnet, subnet fd00:1::/64"',
        'comment "network podnet, subnet fd00:1::/64"',
    ):
        assert line in text
    first, second = (rule["expr"][-1] for rule in ruleset("rule")[:2])
    assert first == second == {"return": None}


def test_the_listing_can_be_loaded(host: Host, tmp_path: pathlib.Path) -> None:
    ipmasq.ensure(POD, BOTH)
    saved = tmp_path / "saved"
    saved.write_text("flush ruleset\n" + isolation.command("nft", "list", "ruleset"))
    isolation.command("nft", "-f", saved)
    ipmasq.check(POD, BOTH, "nftables")
    ipmasq.remove(POD, BOTH)
    assert not any(elements().values())


def test_many_containers_share_one_rule(host: Host) -> None:
    for number in range(20):
        ipmasq.ensure(Attachment("podnet", f"c{number}", "eth0"), [f"10.244.1.{number + 2}/24"])
    assert masquerade_rules() == ["ip4.podnet/10.244.1.0/24"]
    assert len(elements()["ip4.podnet/10.244.1.0/24"]) == 20
    ipmasq.ensure(Attachment("other", "c", "eth0"), ["10.244.1.2/24"])
    assert len(masquerade_rules()) == 2


def test_ensure_is_idempotent(host: Host) -> None:
    ipmasq.ensure(POD, BOTH)
    before = isolation.command("nft", "list", "ruleset")
    ipmasq.ensure(POD, BOTH)
    ipmasq.ensure(POD, BOTH + BOTH)
    assert isolation.command("nft", "list", "ruleset") == before


@pytest.mark.parametrize("addresses", [BOTH, None, [], ["10.244.1.99/24"]])
def test_remove(host: Host, addresses: list[str] | None) -> None:
    ipmasq.ensure(POD, BOTH)
    ipmasq.ensure(OTHER, ["10.244.1.3/24"])
    ipmasq.remove(POD, addresses).close()
    assert elements() == {
        "ip4.podnet/10.244.1.0/24": {"10.244.1.3": "cni:podnet:2c3d:eth0"},
        "ip6.podnet/fd00_1__/64": {},
    }
    ipmasq.remove(POD, addresses).close()


def test_remove_on_an_empty_host(host: Host) -> None:
    before = host.snapshot()
    ipmasq.remove(POD, BOTH).close()
    ipmasq.remove(POD).close()
    host.assert_unchanged(before)


def test_stale_owner_is_replaced_and_cannot_delete(host: Host) -> None:
    """B got A's address while A's DEL was late: that DEL must not touch B's."""
    ipmasq.ensure(POD, BOTH)
    ipmasq.ensure(OTHER, BOTH)
    ipmasq.check(OTHER, BOTH)
    with pytest.raises(CniError, match="belongs to another attachment"):
        ipmasq.check(POD, BOTH)
    ipmasq.remove(POD, BOTH)
    ipmasq.remove(POD)
    ipmasq.check(OTHER, BOTH)


def test_host_routes_leave_nothing(host: Host) -> None:
    """With /32 a set serves one address, so it goes with it."""
    before = host.snapshot()
    for number in range(5):
        attachment = Attachment("podnet", f"c{number}", "eth0")
        addresses = [f"10.244.1.{number}/32", f"fd00::{number}/128"]
        ipmasq.ensure(attachment, addresses)
        ipmasq.remove(attachment, addresses if number % 2 else None)
    assert elements() == {}
    assert masquerade_rules() == []
    host.assert_clean(before)


def test_long_identities(host: Host) -> None:
    attachment = Attachment("n" * 200, "c" * 64, "ethernet1234567")
    ipmasq.ensure(attachment, BOTH)
    ipmasq.check(attachment, BOTH)
    assert json.loads(isolation.command("nft", "-j", "list", "ruleset"))
    ipmasq.gc("n" * 200, {("c" * 64, "ethernet1234567")})
    ipmasq.check(attachment, BOTH)
    ipmasq.remove(attachment)
    assert not any(elements().values())


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        ("flush ruleset", "chain inet adder_ipmasq postrouting"),
        ("flush table inet adder_ipmasq", "the rule for set ip4.podnet/10.244.1.0/24"),
        ("flush chain inet adder_ipmasq postrouting", "the rule for set"),
        ("flush set inet adder_ipmasq ip4.podnet/10.244.1.0/24", "address 10.244.1.2"),
        ("delete element inet adder_ipmasq ip6.podnet/fd00_1__/64 { fd00:1::2 }", "fd00:1::2"),
    ],
)
def test_damage_is_noticed_and_mended(host: Host, damage: str, missing: str) -> None:
    ipmasq.ensure(POD, BOTH)
    ipmasq.check(POD, BOTH)
    intact = (masquerade_rules(), elements())
    isolation.command("nft", damage)
    with pytest.raises(CniError) as caught:
        ipmasq.check(POD, BOTH)
    assert caught.value.code == CHECK_FAILED
    assert missing in caught.value.msg
    ipmasq.ensure(POD, BOTH)
    ipmasq.check(POD, BOTH)
    assert (masquerade_rules(), elements()) == intact


def test_a_table_that_sleeps_is_noticed(host: Host) -> None:
    ipmasq.ensure(POD, BOTH)
    isolation.command("nft", "add table inet adder_ipmasq { flags dormant; }")
    with pytest.raises(CniError, match="adder_ipmasq is dormant") as caught:
        ipmasq.check(POD, BOTH)
    assert caught.value.code == CHECK_FAILED
    isolation.command("nft", "add table inet adder_ipmasq")
    ipmasq.check(POD, BOTH)


@pytest.mark.parametrize("gone", [slice(2), slice(1), slice(1, 2)], ids=["both", "ip", "ip6"])
def test_missing_multicast_rules_are_noticed(host: Host, gone: slice) -> None:
    ipmasq.ensure(POD, BOTH)
    rules = ruleset("rule")
    for rule in rules[gone]:
        words = ("delete", "rule", "inet", "adder_ipmasq", "postrouting", "handle")
        isolation.command("nft", *words, str(rule["handle"]))
    with pytest.raises(CniError, match="multicast"):
        ipmasq.check(POD, BOTH)
    ipmasq.ensure(POD, BOTH)
    ipmasq.check(POD, BOTH)
    told = [sorted(json.dumps(rule["expr"]) for rule in each) for each in (rules, ruleset("rule"))]
    assert told[0] == told[1]


def test_gc(host: Host) -> None:
    ipmasq.ensure(POD, BOTH)
    ipmasq.ensure(OTHER, ["10.244.1.3/24"])
    ipmasq.ensure(Attachment("podnet", "2c3d", "net1"), ["10.9.0.3/24"])
    ipmasq.ensure(Attachment("podnet2", "2c3d", "net1"), ["10.9.0.4/24"])
    isolation.command(
        *("nft", "add element inet adder_ipmasq ip4.podnet/10.244.1.0/24 { 10.244.1.200 }")
    )
    ipmasq.gc("podnet", {("2c3d", "eth0")})
    names = {made["name"]: made.get("elem", []) for made in ruleset("set")}
    assert set(names) == {"ip4.podnet/10.244.1.0/24", "ip4.podnet2/10.9.0.0/24"}
    assert len(names["ip4.podnet/10.244.1.0/24"]) == 2  # the administrator's own stays
    assert sorted(masquerade_rules()) == sorted(names)
    ipmasq.check(OTHER, ["10.244.1.3/24"])
    ipmasq.gc("podnet2", set())
    assert masquerade_rules() == ["ip4.podnet/10.244.1.0/24"]
    isolation.command("nft", "flush set inet adder_ipmasq ip4.podnet/10.244.1.0/24")


def test_a_network_takes_the_place_of_one_that_nobody_is_in(host: Host) -> None:
    """As networks come and go (compose projects), whose configurations are gone when GC could run.

    What is in use, and what an administrator uses, stays.
    """
    used = Attachment("other", "2c3d", "eth0")
    ipmasq.ensure(used, ["10.9.0.3/24"])
    ipmasq.ensure(POD, BOTH)
    ipmasq.remove(POD, BOTH).close()
    ipmasq.ensure(Attachment("podnet", "4e5f", "eth0"), ["10.244.1.4/24"])  # has its set still
    assert sorted(masquerade_rules()) == sorted([*SETS, "ip4.other/10.9.0.0/24"])
    ipmasq.remove(Attachment("podnet", "4e5f", "eth0"), None).close()
    isolation.command(
        *("nft", "add element inet adder_ipmasq ip4.podnet/10.244.1.0/24 { 10.244.1.200 }")
    )
    for turn in range(3):
        project = Attachment("podnet2" if turn % 2 else "gonet", f"p{turn}", "eth0")
        address = [f"10.8.{turn}.2/24"]
        ipmasq.ensure(project, address)
        ipmasq.check(project, address)
        ipmasq.remove(project, address).close()
    kept = ["ip4.other/10.9.0.0/24", "ip4.podnet/10.244.1.0/24", "ip4.gonet/10.8.2.0/24"]
    assert sorted(made["name"] for made in ruleset("set")) == sorted(kept)
    assert sorted(masquerade_rules()) == sorted(kept)
    ipmasq.check(used, ["10.9.0.3/24"])
    isolation.command("nft", "flush set inet adder_ipmasq ip4.podnet/10.244.1.0/24")


def test_gc_of_thousands(host: Host) -> None:
    name = "ip4.podnet/10.0.0.0/8"
    ipmasq.ensure(POD, ["10.255.0.1/8"])
    stale = ", ".join(
        f'10.1.{i // 250}.{i % 250} comment "cni:podnet:c{i}:eth0"' for i in range(3000)
    )
    subprocess.run(
        ["nft", "-f", "-"],
        input=f"add element inet adder_ipmasq {name} {{ {stale} }}",
        text=True,
        check=True,
    )
    ipmasq.gc("podnet", {("0a1b", "eth0"), ("c7", "eth0")})
    assert set(elements()[name]) == {"10.255.0.1", "10.1.0.7"}


def test_unknown_backend(host: Host) -> None:
    with pytest.raises(CniError, match="unknown ipmasq backend") as caught:
        ipmasq.ensure(POD, BOTH, "pf")
    assert caught.value.code == INVALID_NETWORK_CONFIG


def test_a_foreign_chain_in_the_way_is_named(host: Host) -> None:
    hook = "{ type filter hook forward priority 0; }"
    isolation.command(
        "nft", f"add table inet adder_ipmasq; add chain inet adder_ipmasq postrouting {hook}"
    )
    with pytest.raises(CniError, match="postrouting") as caught:
        ipmasq.ensure(POD, BOTH)
    assert caught.value.code == KERNEL


def test_without_nat_in_nftables(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old kernel refuses the chain: iptables serves, unless nftables was asked for."""
    monkeypatch.setattr(
        nft, "_missing_frame", lambda *_: [nft.TABLE.create(), nft.TABLE.flush_chain("none")]
    )
    ipmasq.ensure(POD, BOTH)
    assert len(nat_rules()) == 8
    with pytest.raises(CniError):
        ipmasq.ensure(POD, BOTH, "nftables")
    assert elements() == {}


def test_usable(host: Host) -> None:
    assert ipmasq.unusable() == ipmasq.unusable("nftables") == ipmasq.unusable("iptables") == ""


@pytest.mark.parametrize("backend", ["", "nftables"])
@pytest.mark.parametrize(
    "operation",
    [
        lambda backend: ipmasq.ensure(OTHER, ["10.244.1.3/24"], backend),
        lambda _: ipmasq.remove(POD, BOTH),
        lambda _: ipmasq.remove(POD),
        lambda _: ipmasq.undo(POD, BOTH),
        lambda backend: ipmasq.check(POD, BOTH, backend),
        lambda _: ipmasq.gc("podnet", set()),
    ],
    ids=["ensure", "remove", "search", "undo", "check", "gc"],
)
def test_a_lack_of_permission_is_no_lack_of_nftables(
    host: Host, operation: Callable[[str], Any], backend: str
) -> None:
    """The kernel answers the first request only; that is told, and iptables is not tried."""
    ipmasq.ensure(POD, BOTH)
    before = isolation.command("nft", "list", "ruleset")
    with pytest.raises(NetlinkError, match=r"nftables: .*Operation not permitted") as caught:
        without(CAP_NET_ADMIN, lambda: operation(backend))
    assert caught.value.errno == errno.EPERM
    assert isolation.command("nft", "list", "ruleset") == before
    assert "not permitted" in without(CAP_NET_ADMIN, lambda: ipmasq.unusable(backend))


def test_a_kernel_without_nftables(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of a subsystem that nfnetlink does not know, it answers as one that lacks it."""
    monkeypatch.setattr(transaction, "_GET_GENERATION", 200 << 8)
    assert transaction.is_missing()
    ipmasq.remove(POD, BOTH).close()
    ipmasq.ensure(POD, ["10.244.1.2/24"]).close()
    assert nat_rules() and not elements()
    assert ipmasq.unusable() == ""
    assert "Invalid argument" in ipmasq.unusable("nftables")


# -- many at once ---------------------------------------------------------------------------------


def _work(barrier: Any, number: int, rounds: int, failures: Any) -> None:
    attachment = Attachment("podnet", f"c{number}", "eth0")
    addresses = [f"10.244.1.{number + 2}/24", f"fd00:1::{number + 2:x}/64"]
    try:
        barrier.wait(60)
        for turn in range(rounds):
            ipmasq.ensure(attachment, addresses)
            ipmasq.check(attachment, addresses)
            if turn < rounds - 1:
                ipmasq.remove(attachment, addresses if turn % 2 else None).close()
    except BaseException as error:
        failures.put(f"{number}: {error!r}")


def _come_and_go(barrier: Any, number: int, failures: Any) -> None:
    """A network of one container, over and over."""
    attachment = Attachment(f"net{number}", "c", "eth0")
    addresses = [f"10.8.{number}.2/24"]
    try:
        barrier.wait(60)
        for _ in range(8):
            ipmasq.ensure(attachment, addresses).close()
            ipmasq.check(attachment, addresses)
            ipmasq.remove(attachment, addresses).close()
        ipmasq.ensure(attachment, addresses).close()
    except BaseException as error:
        failures.put(f"{number}: {error!r}")


def test_networks_that_take_each_others_places(host: Host) -> None:
    """None loses its rule to another that found it empty a moment before."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    failures = context.SimpleQueue()
    processes = [
        context.Process(target=_come_and_go, args=(barrier, number, failures))
        for number in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert failures.empty(), failures.get()
    assert [process.exitcode for process in processes] == [0] * 8
    for number in range(8):
        ipmasq.check(Attachment(f"net{number}", "c", "eth0"), [f"10.8.{number}.2/24"])
        ipmasq.gc(f"net{number}", set())


def test_fifty_at_once(host: Host) -> None:
    """Racing first ADDs make each thing once; none loses its element to another's DEL."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(50)
    failures = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(barrier, number, 4, failures)) for number in range(50)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert failures.empty(), failures.get()
    assert [process.exitcode for process in processes] == [0] * 50
    assert sorted(masquerade_rules()) == sorted(SETS)
    assert [len(addresses) for addresses in elements().values()] == [50, 50]
    assert len(ruleset("rule")) == 4


def _one_fails(barrier: Any, number: int, failures: Any) -> None:
    """An ADD that fails after its masquerade was made (odd), or that succeeds (even)."""
    attachment = Attachment("podnet", f"c{number}", "eth0")
    addresses = [f"10.244.1.{number + 2}/24"]
    nft.TABLE.made_here = False
    try:
        barrier.wait(60)
        ipmasq.ensure(attachment, addresses)
        if number % 2:
            ipmasq.undo(attachment, addresses).close()
        else:
            ipmasq.check(attachment, addresses)
    except BaseException as error:
        failures.put(f"{number}: {error!r}")


@pytest.mark.parametrize("turn", range(30))
def test_a_failing_and_a_succeeding_first_add(host: Host, turn: int) -> None:
    """Whichever made the table, the one that stays has its masquerade."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    failures = context.SimpleQueue()
    processes = [
        context.Process(target=_one_fails, args=(barrier, number, failures)) for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert failures.empty(), failures.get()
    assert [process.exitcode for process in processes] == [0] * 4
    for number in (0, 2):
        ipmasq.check(Attachment("podnet", f"c{number}", "eth0"), [f"10.244.1.{number + 2}/24"])
    assert set(elements()["ip4.podnet/10.244.1.0/24"]) == {"10.244.1.2", "10.244.1.4"}


def test_undo_of_a_first_add(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft.TABLE, "made_here", False)
    before = host.snapshot()
    ipmasq.ensure(POD, BOTH)
    ipmasq.undo(POD, BOTH).close()
    host.assert_unchanged(before)
    ipmasq.undo(POD, BOTH).close()
    host.assert_unchanged(before)


def test_undo_leaves_what_was_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ipmasq.ensure(OTHER, BOTH)
    ipmasq.remove(OTHER, BOTH).close()
    before = host.snapshot()
    monkeypatch.setattr(nft.TABLE, "made_here", False)  # another process
    ipmasq.ensure(POD, BOTH)
    ipmasq.undo(POD, BOTH).close()
    host.assert_unchanged(before)


def test_undo_leaves_what_others_use(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft.TABLE, "made_here", False)
    ipmasq.ensure(POD, BOTH)
    ipmasq.ensure(OTHER, ["10.244.1.3/24"])
    ipmasq.undo(POD, BOTH).close()
    ipmasq.check(OTHER, ["10.244.1.3/24"])


def _churn(stop: Any) -> None:
    while not stop.is_set():
        subprocess.run(["nft", "add table ip noise; delete table ip noise"], check=True)


def test_others_change_the_rule_set(host: Host) -> None:
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    noise = [context.Process(target=_churn, args=(stop,)) for _ in range(3)]
    for process in noise:
        process.start()
    try:
        for turn in range(30):
            ipmasq.ensure(POD, BOTH)
            if turn % 3 == 0:
                ipmasq.gc("podnet", set())
            else:
                ipmasq.remove(POD, BOTH if turn % 2 else None)
    finally:
        stop.set()
        for process in noise:
            process.join(30)
    assert not any(elements().values())


# -- packets --------------------------------------------------------------------------------------


@pytest.fixture
def router(host: Host, netns: Callable[..., Netns]) -> Iterator[tuple[Netns, Netns]]:
    """A client behind the host and a server beyond it that knows no way to the client."""
    client, server = netns("client"), netns("server")
    for namespace, subnet4, subnet6 in (
        (client, "10.244.1.{}/24", "fd00:1::{}/64"),
        (server, "192.0.2.{}/24", "fd00:2::{}/64"),
    ):
        name = namespace.name
        host.run(*f"ip link add {name} type veth peer name eth0 netns {name}".split())
        for word in (subnet4, subnet6):
            host.run(*f"ip address add {word.format(1)} dev {name} nodad".split())
            namespace.run(*f"ip address add {word.format(2)} dev eth0 nodad".split())
        host.run(*f"ip link set {name} up".split())
        namespace.run(*["ip", "link", "set", "eth0", "up"])
    client.run(*["ip", "route", "add", "default", "via", "10.244.1.1"])
    client.run(*["ip", "route", "add", "default", "via", "fd00:1::1"])
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    yield client, server


def _socket(namespace: Netns, family: int, address: str) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((address, 0))
        made.settimeout(3)
        return made

    return isolation.within(namespace.path, make)


def seen_from(client: Netns, server: Netns, source: str, destination: str) -> str:
    """Send a datagram; the address that the receiver sees, which can also answer."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    receiver = _socket(server, family, destination)
    sender = _socket(client, family, source)
    with receiver, sender:
        deadline = time.monotonic() + 10
        receiver.settimeout(0.3)
        while True:
            sender.sendto(b"ping", receiver.getsockname()[:2])
            try:
                _, address = receiver.recvfrom(100)
                return str(address[0])
            except TimeoutError:
                assert time.monotonic() < deadline, "nothing arrived"


@pytest.mark.parametrize(
    ("addresses", "backend"),
    [(BOTH, "nftables"), (BOTH, "iptables")],
)
def test_packets(
    router: tuple[Netns, Netns], host: Host, addresses: list[str], backend: str
) -> None:
    client, server = router
    assert seen_from(client, server, "10.244.1.2", "192.0.2.2") == "10.244.1.2"
    assert seen_from(client, server, "fd00:1::2", "fd00:2::2") == "fd00:1::2"
    ipmasq.ensure(POD, addresses, backend)
    assert seen_from(client, server, "10.244.1.2", "192.0.2.2") == "192.0.2.1"
    assert seen_from(client, server, "fd00:1::2", "fd00:2::2") == "fd00:2::1"
    client.ping("192.0.2.2")
    client.ping("fd00:2::2")
    # Another container of the subnet has not asked for it.
    client.run(*["ip", "address", "add", "10.244.1.3/24", "dev", "eth0"])
    assert seen_from(client, server, "10.244.1.3", "192.0.2.2") == "10.244.1.3"
    ipmasq.remove(POD, addresses)
    assert seen_from(client, server, "10.244.1.2", "192.0.2.2") == "10.244.1.2"


def test_packets_within_the_subnet_keep_their_source(
    router: tuple[Netns, Netns], host: Host
) -> None:
    """The masquerading prefix counts: here the server is inside of it."""
    client, server = router
    ipmasq.ensure(POD, ["10.244.1.2/0"])
    assert seen_from(client, server, "10.244.1.2", "192.0.2.2") == "10.244.1.2"
    ipmasq.ensure(OTHER, ["10.244.1.2/32"])
    assert seen_from(client, server, "10.244.1.2", "192.0.2.2") == "192.0.2.1"


# -- the iptables backend -------------------------------------------------------------------------


def test_iptables_as_go_has_it(host: Host, iptables: str) -> None:
    ipmasq.ensure(POD, BOTH, "iptables")
    chain = POD.go_masquerade_chain
    comment = '-m comment --comment "name: \\"podnet\\" id: \\"0a1b\\""'
    assert set(nat_rules()) == {
        f":{chain} - [0:0]",
        f"-A {chain} -d 10.244.1.0/24 {comment} -j ACCEPT",
        f"-A {chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE",
        f"-A POSTROUTING -s 10.244.1.2/32 {comment} -j {chain}",
        f"-A {chain} -d fd00:1::/64 {comment} -j ACCEPT",
        f"-A {chain} ! -d ff00::/8 {comment} -j MASQUERADE",
        f"-A POSTROUTING -s fd00:1::2/128 {comment} -j {chain}",
    }
    before = nat_rules()
    ipmasq.ensure(POD, BOTH, "iptables")
    assert nat_rules() == before
    ipmasq.check(POD, BOTH, "iptables")


@pytest.mark.parametrize("addresses", [BOTH, None])
def test_iptables_remove(host: Host, iptables: str, addresses: list[str] | None) -> None:
    ipmasq.ensure(OTHER, ["10.244.1.3/24"], "iptables")
    kept = nat_rules()
    ipmasq.ensure(POD, BOTH, "iptables")
    assert len(nat_rules()) > len(kept)
    ipmasq.remove(POD, addresses)
    assert nat_rules() == kept
    ipmasq.remove(POD, addresses)
    assert nat_rules() == kept


def test_iptables_two_interfaces_share_a_chain(host: Host, iptables: str) -> None:
    second = Attachment("podnet", "0a1b", "eth1")
    ipmasq.ensure(POD, ["10.244.1.2/24"], "iptables")
    first_rules = set(nat_rules())
    ipmasq.ensure(second, ["10.9.0.2/24"], "iptables")
    ipmasq.check(POD, ["10.244.1.2/24"], "iptables")
    ipmasq.check(second, ["10.9.0.2/24"], "iptables")
    order = [line for line in nat_rules() if line.startswith("-A CNI-")]
    assert order[-1].endswith("-j MASQUERADE")
    ipmasq.remove(second, ["10.9.0.2/24"])
    ipmasq.check(POD, ["10.244.1.2/24"], "iptables")
    assert first_rules <= set(nat_rules())
    ipmasq.remove(POD, ["10.244.1.2/24"])
    assert nat_rules() == []


@pytest.mark.parametrize("line", range(3))
def test_iptables_check_names_the_rule(host: Host, iptables: str, line: int) -> None:
    ipmasq.ensure(POD, BOTH[:1], "iptables")
    rule = [rule for rule in nat_rules() if rule.startswith("-A")][line]
    subprocess.run(
        ["iptables-restore", "--noflush"],
        input=f"*nat\n-D{rule[2:]}\nCOMMIT\n",
        text=True,
        check=True,
    )
    with pytest.raises(CniError, match="lacks") as caught:
        ipmasq.check(POD, BOTH[:1], "iptables")
    assert caught.value.code == CHECK_FAILED
    ipmasq.ensure(POD, BOTH[:1], "iptables")
    ipmasq.check(POD, BOTH[:1], "iptables")


def test_iptables_gc(host: Host, iptables: str) -> None:
    ipmasq.ensure(OTHER, BOTH, "iptables")
    kept = nat_rules()
    ipmasq.ensure(POD, BOTH, "iptables")
    ipmasq.ensure(Attachment("podnet2", "0a1b", "eth0"), ["10.8.0.2/24"], "iptables")
    ipmasq.gc("podnet", {("2c3d", "eth0")})
    ipmasq.remove(Attachment("podnet2", "0a1b", "eth0"))
    assert nat_rules() == kept


def test_iptables_rules_of_others_stay(host: Host, iptables: str) -> None:
    for words in (
        ("iptables", "-t", "nat", "-N", "MINE"),
        ("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.1.2", "-j", "MINE"),
    ):
        isolation.command(*words)
    before = nat_rules()
    ipmasq.ensure(POD, BOTH, "iptables")
    ipmasq.remove(POD, BOTH)
    assert nat_rules() == before
    isolation.command("iptables", "-t", "nat", "-F", "POSTROUTING")
    isolation.command("iptables", "-t", "nat", "-X", "MINE")


def test_iptables_lock(
    host: Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody sits on the lock: a bounded wait, then "try again later"."""
    from libcni import iptables as module

    monkeypatch.setattr(module, "_LOCK_WAIT", 1)
    for tool in ("restore", "save"):
        (tmp_path / f"iptables-{tool}").symlink_to("/usr/sbin/xtables-legacy-multi")
    monkeypatch.setitem(posix.environ, b"PATH", os.fsencode(tmp_path))
    with open("/run/xtables.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(CniError) as caught:
            ipmasq.ensure(POD, BOTH[:1], "iptables")
        assert time.monotonic() - start < 10
    assert caught.value.code == TRY_AGAIN_LATER


def test_iptables_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from libcni import iptables as module

    monkeypatch.setattr(module, "_SYSTEM_DIRECTORIES", "/nonexistent")
    monkeypatch.setitem(posix.environ, b"PATH", b"/nonexistent")
    with pytest.raises(CniError, match="iptables-restore is not installed"):
        ipmasq.ensure(POD, BOTH, "iptables")
    assert "not installed" in ipmasq.unusable("iptables")
    ipmasq.remove(POD, BOTH)


# -- made by the Go plugins -----------------------------------------------------------------------


def go_bridge(
    run_plugin: Runner,
    go_bin_dir: pathlib.Path,
    command: str,
    namespace: Netns,
    result: Any = None,
) -> dict[str, Any]:
    """Run Debian's Go bridge with ipMasq, on the system's iptables; its result."""
    config: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "gonet",
        "type": "bridge",
        "bridge": "br0",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]],
        },
    }
    if result:
        config["prevResult"] = result
    reply = run_plugin(
        "bridge",
        command,
        config,
        netns=namespace,
        container_id="go1",
        bin_dir=go_bin_dir,
        variables={"PATH": os.environ["PATH"]},
    )
    assert reply.rc == 0, reply
    return reply.json or {}


@pytest.mark.parametrize("known", [True, False])
def test_go_iptables_state_is_checked_and_removed(
    iptables: str,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    go_bin_dir: pathlib.Path,
    known: bool,
) -> None:
    result = go_bridge(run_plugin, go_bin_dir, "ADD", netns())
    assert len(nat_rules()) == 8
    attachment = Attachment("gonet", "go1", "eth0")
    addresses = [ip["address"] for ip in result["ips"]]
    ipmasq.check(attachment, addresses)
    ipmasq.check(attachment, addresses, "iptables")
    with pytest.raises(CniError):
        ipmasq.check(attachment, addresses, "nftables")
    ipmasq.remove(attachment, addresses if known else None)
    assert nat_rules() == []


def test_go_removes_our_iptables_state(
    iptables: str, netns: Callable[..., Netns], run_plugin: Runner, go_bin_dir: pathlib.Path
) -> None:
    namespace = netns()
    result = go_bridge(run_plugin, go_bin_dir, "ADD", namespace)
    attachment = Attachment("gonet", "go1", "eth0")
    addresses = [ip["address"] for ip in result["ips"]]
    theirs = sorted(nat_rules())
    ipmasq.remove(attachment)
    ipmasq.ensure(attachment, addresses, "iptables")
    assert sorted(nat_rules()) == theirs
    go_bridge(run_plugin, go_bin_dir, "DEL", namespace, result)
    assert nat_rules() == []


#: What the Go plugins' nftables backend makes (v1.6 on; Debian's are older).
GO_NFTABLES = """
table inet cni_plugins_masquerade {{
  chain masq_checks {{
    ip saddr == 10.244.1.2 ip daddr != 10.244.1.0/24 masquerade comment "{ours}, net: podnet"
    ip saddr == 10.244.1.9 ip daddr != 10.244.1.0/24 masquerade comment "{others}, net: podnet"
    ip saddr == 10.9.0.9 ip daddr != 10.9.0.0/24 masquerade comment "{elsewhere}, net: x"
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip daddr 224.0.0.0/4 return
    goto masq_checks
  }}
}}"""


@pytest.fixture
def go_nftables(host: Host) -> Iterator[None]:
    """Rules of the Go plugins for POD, OTHER, and a container of another network."""
    from libcni.ipmasq.leftovers import go_comment_prefix

    text = GO_NFTABLES.format(
        ours=go_comment_prefix("podnet", "0a1b", "eth0"),
        others=go_comment_prefix("podnet", "2c3d", "eth0"),
        elsewhere=go_comment_prefix("x", "0a1b", "eth0"),
    )
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    yield
    isolation.command("nft", "delete table inet cni_plugins_masquerade")


def go_nftables_sources() -> set[str]:
    return {
        rule["expr"][0]["match"]["right"]
        for rule in ruleset("rule", "cni_plugins_masquerade")
        if rule["chain"] == "masq_checks"
    }


@pytest.mark.usefixtures("go_nftables")
def test_go_nftables_state_is_checked_and_removed() -> None:
    ipmasq.check(POD, BOTH)
    ipmasq.check(POD, BOTH, "nftables")
    ipmasq.remove(POD, BOTH)
    assert go_nftables_sources() == {"10.244.1.9", "10.9.0.9"}
    with pytest.raises(CniError):
        ipmasq.check(POD, BOTH)


@pytest.mark.usefixtures("go_nftables")
def test_go_nftables_gc() -> None:
    nft.gc("podnet", {("2c3d", "eth0")})
    assert go_nftables_sources() == {"10.244.1.9", "10.9.0.9"}
