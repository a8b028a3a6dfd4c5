# SPDX-License-Identifier: Apache-2.0
"""libcni.netlink on the real kernel, compared with what `ip` and `bridge` show."""

from __future__ import annotations

import json
import os
import posix
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EEXIST, ENODEV, ENOENT, EOPNOTSUPP, EPERM
from functools import partial
from typing import Any

import pytest

from libcni.inet import Prefix, pton
from libcni.netlink import addr, fdb, link, neigh, route, socket, vlan
from libcni.netlink.link import Link, find_link
from libcni.netlink.socket import NETLINK_NETFILTER, NetlinkError, Socket
from libcni.netns import enter, open_netns
from libcni.nftables import rules, transaction
from libcni.types.errors import KERNEL, TRY_AGAIN_LATER, CniError
from tests.rig.capabilities import CAP_NET_ADMIN, without
from tests.rig.host import Host, Netns

MAC = "02:00:00:00:00:05"
V4, V6 = Prefix.parse("10.1.0.1/24"), Prefix.parse("fd00:1::1/64")


@pytest.fixture(autouse=True)
def no_links_stay(host: Host) -> Iterator[None]:
    """At the end of each test, what it made goes, before the host is compared."""
    yield
    for name in host.link_names() - {"lo"}:
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def bridge_json(*words: str) -> Any:
    """What `bridge` of iproute2 shows."""
    shown = subprocess.run(
        ["bridge", "-j", "-d", *words], check=True, capture_output=True, text=True
    )
    return json.loads(shown.stdout or "[]")


def make_bridge(sock: Socket, name: str = "br0") -> Link:
    replies = sock.run(link.new_bridge(name, mac="02:00:00:00:00:01"), link.get_link(name))
    return Link(replies[1].items[0])


def test_bridge_and_veth_in_two_batches(host: Host, netns: Callable[..., Netns]) -> None:
    container = netns()
    sock = Socket()
    bridge = make_bridge(sock)
    assert (bridge.kind, bridge.mac, bridge.is_up) == ("bridge", "02:00:00:00:00:01", True)
    target = open_netns(str(container.path))
    replies = sock.run(
        link.new_veth(
            "veth1",
            "eth0",
            peer_netns=target.fd,
            peer_mac=MAC,
            mac="02:00:00:00:00:06",
            mtu=1400,
            master=bridge.index,
        ),
        link.set_link("veth1", alias="cni:n:c:eth0", hairpin=True, isolated=True, learning=False),
        link.get_link("veth1"),
        addr.new_address(bridge.index, V4),
        addr.new_address(bridge.index, V6, nodad=True),
    )
    port = Link(replies[2].items[0])
    assert (port.name, port.mtu, port.master) == ("veth1", 1400, bridge.index)
    assert (port.alias, port.kind, port.mac) == ("cni:n:c:eth0", "veth", "02:00:00:00:00:06")
    assert port.is_up and port.hairpin and port.isolated and not port.learning
    assert port.link_netnsid >= 0

    shown = host.ip("-d", "link", "show", "veth1")[0]
    assert shown["master"] == "br0" and shown["ifalias"] == "cni:n:c:eth0"
    assert shown["mtu"] == 1400 and "UP" in shown["flags"]
    flags = shown["linkinfo"]["info_slave_data"]
    assert flags["hairpin"] and flags["isolated"] and not flags["learning"]
    inside = container.ip("link", "show", "eth0")[0]
    assert inside["address"] == MAC and inside["mtu"] == 1400 and inside["ifindex"] == port.peer
    assert "UP" not in inside["flags"]
    v4, v6 = sorted(host.ip("addr", "show", "br0")[0]["addr_info"], key=lambda a: a["family"])
    assert (v4["local"], v4["prefixlen"], v4["broadcast"]) == ("10.1.0.1", 24, "10.1.0.255")
    assert (v6["local"], v6["prefixlen"], v6.get("nodad")) == ("fd00:1::1", 64, True)
    assert {a.prefix for a in addr.dump_addresses(sock, bridge.index)} >= {V4, V6}
    assert addr.dump_addresses(sock, port.index, 2) == []

    assert [seen.name for seen in link.dump_links(sock, kind="veth")] == ["veth1"]
    assert [seen.name for seen in link.dump_links(sock, master=bridge.index)] == ["veth1"]
    assert {seen.name for seen in link.dump_links(sock)} == {"lo", "br0", "veth1"}
    target.close()


def test_set_link_changes_only_what_is_given(host: Host) -> None:
    sock = Socket()
    bridge = make_bridge(sock)
    sock.run(link.set_link(index=bridge.index, promiscuous=True, mtu=1300, alias="x"))
    seen = find_link(sock, "br0")
    assert seen is not None and seen.is_up and seen.is_promiscuous and seen.promiscuity
    assert (seen.mtu, seen.alias, seen.mac) == (1300, "x", bridge.mac)
    sock.run(link.set_link("br0", up=False, promiscuous=False, alias="", mac=MAC))
    sock.run(link.set_link(index=bridge.index, new_name="br9"))
    seen = find_link(sock, index=bridge.index)
    assert seen is not None and not seen.is_up and not seen.is_promiscuous
    assert (seen.name, seen.alias, seen.mac) == ("br9", "", MAC)
    sock.run(link.delete_link(index=bridge.index))
    assert find_link(sock, "br9") is None and find_link(sock, index=bridge.index) is None


def test_routes_carry_every_field(host: Host) -> None:
    sock = Socket()
    bridge = make_bridge(sock)
    sock.run(link.new_veth("v0", "v1", master=bridge.index), link.set_link("v1", up=True))
    sock.run(
        addr.new_address(bridge.index, V4),
        addr.new_address(bridge.index, V6, nodad=True),
        route.new_route(
            Prefix.parse("10.9.0.0/16"),
            bridge.index,
            pton("10.1.0.7"),
            src=V4.packed,
            mtu=1300,
            advmss=1200,
            priority=5,
        ),
        route.new_route(Prefix.parse("10.8.0.0/16"), bridge.index, table=500),
        route.new_route(Prefix.parse("10.7.0.0/16"), bridge.index, pton("192.0.2.1"), onlink=True),
        route.new_route(Prefix.parse("::/0"), bridge.index, pton("fd00:1::7"), mtu=1280),
    )
    shown = host.ip("-4", "route", "show", "10.9.0.0/16")[0]
    assert (shown["gateway"], shown["metric"], shown["prefsrc"]) == ("10.1.0.7", 5, "10.1.0.1")
    assert shown["metrics"] == [{"mtu": 1300, "advmss": 1200}]
    assert host.ip("-4", "route", "show", "table", "500")[0]["dst"] == "10.8.0.0/16"
    assert host.ip("-4", "route", "show", "10.7.0.0/16")[0]["flags"] == ["onlink"]
    assert host.ip("-6", "route", "show", "default")[0]["gateway"] == "fd00:1::7"

    by_dst = {seen.dst.text(): seen for seen in route.dump_routes(sock, 2, bridge.index)}
    seen = by_dst["10.9.0.0/16"]
    assert (seen.gw, seen.priority, seen.mtu, seen.advmss) == (pton("10.1.0.7"), 5, 1300, 1200)
    assert by_dst["10.7.0.0/16"].flags & route.RTNH_F_ONLINK
    assert by_dst["10.1.0.0/24"].scope == route.RT_SCOPE_LINK
    assert [r.dst.text() for r in route.dump_routes(sock, 2, table=500)] == ["10.8.0.0/16"]
    assert route.dump_routes(sock, 2, table=501) == []
    assert "::/0" in {seen.dst.text() for seen in route.dump_routes(sock, 10, bridge.index)}
    sock.run(route.delete_route(Prefix.parse("10.9.0.0/16"), bridge.index, priority=5))
    assert host.ip("-4", "route", "show", "10.9.0.0/16") == []


def test_routes_over_several_gateways(host: Host) -> None:
    sock = Socket()
    bridge = make_bridge(sock)
    sock.run(addr.new_address(bridge.index, V4), addr.new_address(bridge.index, V6, nodad=True))
    v4, v6 = Prefix.parse("10.9.0.0/16"), Prefix.parse("fd09::/32")
    hops = [(pton("10.1.0.7"), bridge.index), (pton("10.1.0.8"), bridge.index)]
    sock.run(
        route.new_route(v4, nexthops=hops),
        route.new_route(v6, bridge.index, pton("fd00:1::7"), mode=route.APPEND),
        route.new_route(v6, bridge.index, pton("fd00:1::8"), mode=route.APPEND),
    )
    reply = sock.batch([route.new_route(v4, bridge.index, pton("10.1.0.9"))])[0]
    assert reply.error == EEXIST
    for family, dst, gateways in ((2, v4, ("10.1.0.7", "10.1.0.8")), (10, v6, ("fd00:1::7",))):
        seen = [r for r in route.dump_routes(sock, family, bridge.index) if r.dst == dst]
        assert {hop[0] for r in seen for hop in r.nexthops} >= {pton(gw) for gw in gateways}
    assert len(host.ip("-4", "route", "show", "10.9.0.0/16")[0]["nexthops"]) == 2


def test_addresses_come_and_go(host: Host) -> None:
    sock = Socket()
    bridge = make_bridge(sock)
    assert sock.batch([addr.new_address(bridge.index, V4)] * 2)[1].error == EEXIST
    sock.run(addr.new_address(bridge.index, V4, replace=True))
    sock.run(addr.delete_address(bridge.index, V4))
    assert not sock.batch([addr.delete_address(bridge.index, V4)])[0].check(99)
    assert addr.dump_addresses(sock, bridge.index, 2) == []
    with pytest.raises(NetlinkError, match=r"add address 10\.1\.0\.1/24 to link 999: No such dev"):
        sock.run(addr.new_address(999, V4))


def test_neighbours_and_forwarding_entries(host: Host) -> None:
    sock = Socket()
    bridge = make_bridge(sock)
    sock.run(
        addr.new_address(bridge.index, V4),
        link.new_veth("v0", "v1", master=bridge.index),
        neigh.new_neighbour(bridge.index, pton("10.1.0.9"), MAC),
    )
    shown = host.ip("neigh", "show", "10.1.0.9")[0]
    assert (shown["lladdr"], shown["state"]) == (MAC, ["PERMANENT"])
    seen = {(n.dst, n.mac, n.state) for n in neigh.dump_neighbours(sock, 2, bridge.index)}
    assert (pton("10.1.0.9"), MAC, neigh.NUD_PERMANENT) in seen
    assert pton("10.1.0.9") not in {n.dst for n in neigh.dump_neighbours(sock, 2, 1)}
    sock.run(neigh.delete_neighbour(bridge.index, pton("10.1.0.9")))
    assert pton("10.1.0.9") not in {n.dst for n in neigh.dump_neighbours(sock, 2, bridge.index)}

    port = find_link(sock, "v0")
    assert port is not None
    sock.run(fdb.new_entry(port.index, MAC))
    entry = next(e for e in bridge_json("fdb", "show") if e["mac"] == MAC)
    assert (entry["ifname"], entry["master"], entry["state"]) == ("v0", "br0", "static")
    assert MAC in {e.mac for e in fdb.dump_entries(sock, master=bridge.index)}
    assert MAC in {e.mac for e in fdb.dump_entries(sock, port.index)}
    sock.run(fdb.delete_entry(port.index, MAC))
    assert sock.batch([fdb.delete_entry(port.index, MAC)])[0].error == ENOENT


def test_vxlan_with_two_destinations(host: Host) -> None:
    import libcni.netlink.tables.kinds  # noqa: F401

    sock = Socket()
    data = {"IFLA_VXLAN_ID": 42, "IFLA_VXLAN_PORT": 4789, "IFLA_VXLAN_LEARNING": 0}
    sock.run(link.new_link("vx0", "vxlan", data, mac=MAC))
    shown = host.ip("-d", "link", "show", "vx0")[0]["linkinfo"]["info_data"]
    assert (shown["id"], shown["port"], shown["learning"]) == (42, 4789, False)
    seen = find_link(sock, "vx0")
    assert seen is not None and seen.info["IFLA_VXLAN_ID"] == 42
    zero = "00:00:00:00:00:00"
    for end in ("192.0.2.1", "192.0.2.2"):
        sock.run(fdb.new_entry(seen.index, zero, pton(end), mode=fdb.APPEND))
    assert {e["dst"] for e in bridge_json("fdb", "show", "dev", "vx0")} == {
        *("192.0.2.1", "192.0.2.2")
    }
    assert {e.dst for e in fdb.dump_entries(sock, seen.index)} >= {pton("192.0.2.1")}


def test_vlans_of_a_port(host: Host) -> None:
    sock = Socket()
    reply = sock.batch([link.new_bridge("br0", vlan_filtering=True)])[0]
    if not reply.check(EOPNOTSUPP):
        # The kernel has no VLAN filter: what we send is compared with pyroute2 alone.
        make_bridge(sock)
        bridge = find_link(sock, "br0")
        assert bridge is not None
        refused = sock.batch([vlan.add_vlan(bridge.index, 10, bridge_itself=True)])[0]
        assert refused.error == EOPNOTSUPP
        return
    bridge = find_link(sock, "br0")
    assert bridge is not None and bridge.vlan_filtering
    sock.run(link.new_veth("v0", "v1", master=bridge.index))
    port = find_link(sock, "v0")
    assert port is not None and vlan.dump_vlans(sock, port.index) == {1: 6}
    sock.run(
        vlan.delete_vlan(port.index, 1),
        vlan.add_vlan(port.index, 10, flags=vlan.PVID | vlan.UNTAGGED),
        vlan.add_vlan(port.index, 20, 25),
        vlan.delete_vlan(port.index, 22, 23),
    )
    assert vlan.dump_vlans(sock, port.index) == {10: 6, 20: 0, 21: 0, 24: 0, 25: 0}
    shown = next(row for row in bridge_json("vlan", "show") if row["ifname"] == "v0")
    assert [row["vlan"] for row in shown["vlans"]][:1] == [10]


# -- errors


def test_errors_name_the_request_and_quote_the_kernel(host: Host) -> None:
    sock = Socket()
    with pytest.raises(NetlinkError) as caught:
        sock.run(link.new_bridge("br1", mtu=10))
    assert caught.value.code == KERNEL
    assert caught.value.msg == (
        "create bridge br1: Invalid argument (mtu less than device minimum)"
    )
    with pytest.raises(NetlinkError, match=r"create nosuch x0: .*\(Unknown device type\)"):
        sock.run(link.new_link("x0", "nosuch"))
    make_bridge(sock)
    with pytest.raises(NetlinkError, match="create bridge br0: File exists") as caught:
        sock.run(link.new_bridge("br0"))
    assert caught.value.errno == EEXIST


def test_a_batch_goes_on_after_a_refusal(host: Host) -> None:
    sock = Socket()
    replies = sock.batch(
        [
            link.new_bridge("br0"),
            link.new_bridge("br0"),
            link.get_link("br9"),
            link.get_link("br0"),
        ]
    )
    assert [reply.error for reply in replies] == [0, EEXIST, ENODEV, 0]
    assert Link(replies[3].items[0]).name == "br0"


def test_without_the_capability_one_refusal_is_for_all(host: Host) -> None:
    """nfnetlink answers the first of what one system call sent, and reads no further."""
    questions = [transaction.get_generation(), *[rules.Table(2, "nat").get() for _ in range(3)]]
    sock = Socket(NETLINK_NETFILTER)
    for messages in (questions, questions[1:2], questions):
        replies = without(CAP_NET_ADMIN, partial(sock.batch, messages))
        assert [reply.error for reply in replies] == [EPERM] * len(messages)
    # And what comes later is not taken for an answer to those.
    assert [reply.error for reply in sock.batch(questions)] == [0, ENOENT, ENOENT, ENOENT]


def test_a_batch_of_any_size(host: Host) -> None:
    sock = Socket()
    replies = sock.batch([link.new_bridge(f"b{number}", up=False) for number in range(200)])
    assert [reply.error for reply in replies] == [0] * 200
    assert len(link.dump_links(sock, kind="bridge")) == 200
    assert [r.error for r in sock.batch([link.get_link(f"b{n}") for n in range(200)])] == [0] * 200


def test_up_in_the_peer_is_why_it_is_set_up_later(host: Host) -> None:
    """The kernel constraint that `new_veth` states."""
    sock = Socket()
    message = link.new_veth("v0", "v1")
    at = message.body.index(b"v1\0") - 4 - 8  # ifi_flags of the peer's header
    message.body = message.body[:at] + b"\1\0\0\0\1\0\0\0" + message.body[at + 8 :]
    assert sock.batch([message])[0].error == 107  # ENOTCONN


def test_the_socket_stays_in_the_namespace_it_was_made_in(
    host: Host, netns: Callable[..., Netns]
) -> None:
    container = netns()
    make_bridge(Socket())
    here = Socket()
    reader, writer = posix.pipe()
    child = posix.fork()
    if not child:
        enter(open_netns(str(container.path)))
        seen = f"{find_link(here, 'br0') is not None} {find_link(Socket(), 'br0') is not None}"
        posix.write(writer, seen.encode())
        posix._exit(0)
    posix.waitpid(child, 0)
    assert posix.read(reader, 100) == b"True False"
    posix.close(reader)
    posix.close(writer)


# -- dumps and events


@contextmanager
def churn() -> Iterator[None]:
    """A child that makes and deletes links as fast as it can."""
    child = posix.fork()
    if not child:
        try:
            sock = Socket()
            while True:
                for number in range(40):
                    sock.batch([link.new_bridge(f"churn{number}", up=False)])
                sock.batch([link.delete_link(f"churn{number}") for number in range(40)])
        finally:
            os._exit(0)
    try:
        yield
    finally:
        posix.kill(child, signal.SIGKILL)
        posix.waitpid(child, 0)


def test_dumps_hold_while_links_come_and_go(host: Host) -> None:
    sock = Socket()
    sock.batch([link.new_bridge(f"stable{number}", up=False) for number in range(60)])
    with churn():
        until = time.monotonic() + 3
        while time.monotonic() < until:
            names = [seen.name for seen in link.dump_links(sock, kind="bridge")]
            assert len(names) == len(set(names))
            assert len([name for name in names if name.startswith("stable")]) == 60


class Interrupted(Socket):
    """A socket whose first dumps look interrupted."""

    left = 0

    def receive(self, wait: bool = True, size: int = 1 << 16) -> list[tuple[int, int, int, bytes]]:
        messages = super().receive(wait, size)
        if self.left and any(kind == 3 for kind, _, _, _ in messages):
            self.left -= 1
            return [(kind, flags | 0x10, seq, body) for kind, flags, seq, body in messages]
        return messages


def test_an_interrupted_dump_is_done_again(host: Host) -> None:
    sock = Interrupted()
    sock.left = 3
    assert [seen.name for seen in link.dump_links(sock)] == ["lo"]
    assert sock.left == 0


def test_a_dump_that_never_holds_is_code_11(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "_BACK_OFF", (0.001, 0.001))
    sock = Interrupted()
    sock.left = 9
    with pytest.raises(CniError, match="list links") as caught:
        link.dump_links(sock)
    assert caught.value.code == TRY_AGAIN_LATER


def test_no_answer_in_time_is_code_11(host: Host) -> None:
    sock = Socket()
    sock.set_timeout(0.05)
    began = time.monotonic()
    with pytest.raises(CniError) as caught:
        sock.receive()
    assert caught.value.code == TRY_AGAIN_LATER
    assert time.monotonic() - began < 10


def test_deletion_is_seen_before_the_grace_period_ends(host: Host) -> None:
    sock = Socket()
    bridge = make_bridge(sock)
    sock.run(link.new_veth("v0", "v1", master=bridge.index))
    port = find_link(sock, "v0")
    assert port is not None
    watch = link.watch_links()
    # Leaving the bridge is an RTM_DELLINK of the bridge family for the same index.
    sock.run(link.set_link("v0", master=0))
    assert not link.wait_deleted(watch, port.index, 0.05)
    child = posix.fork()
    if not child:
        sock.batch([link.delete_link(index=port.index)])
        posix._exit(0)
    assert link.wait_deleted(watch, port.index, 5)
    assert find_link(sock, "v0") is None and find_link(sock, "v1") is None
    posix.waitpid(child, 0)


def test_lost_events_do_not_hang(host: Host) -> None:
    sock = Socket()
    bridge = make_bridge(sock)
    watch = link.watch_links()
    for _ in range(80):
        sock.run(*[link.set_link("br0", alias=f"{number}") for number in range(60)])
    sock.run(link.delete_link(index=bridge.index))
    assert link.wait_deleted(watch, bridge.index, 5)


def test_wait_ends_when_the_other_descriptor_does(host: Host) -> None:
    reader, writer = posix.pipe()
    posix.close(writer)
    began = time.monotonic()
    assert not link.wait_deleted(link.watch_links(), 1, 15, reader)
    assert time.monotonic() - began < 10
    posix.close(reader)
