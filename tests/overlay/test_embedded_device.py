# SPDX-License-Identifier: Apache-2.0
"""The VXLAN device of a node without an agent: each parameter, and devices that are in the way."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from cni_vxlan_overlay.peers import vtep_mac
from tests.overlay.cluster import underlay_address
from tests.overlay.lone import DEVICE, DEVICE6, Lone, answer, config, peer
from tests.rig.host import Host, Netns

NetnsFactory = Callable[..., Netns]
V6_PEERS = [peer(2, publicIP=underlay_address(2, ipv6=True))]


def vxlan(lone: Lone, name: str = DEVICE) -> dict[str, Any]:
    """The attributes of the kind."""
    data: dict[str, Any] = lone.link(name)["linkinfo"]["info_data"]
    return data


def attach(lone: Lone, container: str, **changes: Any) -> None:
    """ADD of another container; CHECK and STATUS agree with it."""
    netns = lone.host.netns()
    document = config(**changes)
    result = lone.call("ADD", document, netns, container).result()
    lone.call("CHECK", {**document, "prevResult": result}, netns, container).succeeded()
    lone.call("STATUS", document).succeeded()


def test_defaults(lone: Lone) -> None:
    attach(lone, "c1")
    data, link = vxlan(lone), lone.link()
    assert (data["id"], data["port"], data["local"], data["link"]) == (
        *(7, 8472, underlay_address(1)),
        "eth0",
    )
    assert data["learning"] is False and "gbp" not in data
    assert (link["mtu"], link["address"]) == (1450, vtep_mac(7, underlay_address(1)))
    assert link["ifalias"] == "vxlan-overlay:overlay"
    (address,) = lone.host.ip("address", "show", "dev", DEVICE)[0]["addr_info"]
    assert (address["local"], address["prefixlen"]) == ("10.244.1.0", 32)


def test_defaults_over_ipv6(lone: Lone) -> None:
    attach(lone, "c1", peers=V6_PEERS)
    data, link = vxlan(lone, DEVICE6), lone.link(DEVICE6)
    assert data["local6"] == underlay_address(1, ipv6=True)
    assert (link["mtu"], link["address"]) == (1430, vtep_mac(7, underlay_address(1, True)))
    assert DEVICE not in lone.host.link_names()


#: Keys of the configuration, and what of the device they decide.
PARAMETERS: dict[str, tuple[dict[str, Any], Callable[[Lone], Any], Any]] = {
    "port": ({"port": 4789}, lambda lone: vxlan(lone)["port"], 4789),
    "mtu": ({"mtu": 1380}, lambda lone: lone.link()["mtu"], 1380),
    "learning": ({"learning": True}, lambda lone: vxlan(lone)["learning"], True),
    "gbp": ({"gbp": True}, lambda lone: vxlan(lone).get("gbp"), True),
    "underlay": (
        {"underlay": "192.168.60.1"},
        lambda lone: (vxlan(lone)["local"], vxlan(lone)["link"]),
        ("192.168.60.1", "eth1"),
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter(host: Host, lone: Lone, name: str) -> None:
    """Given from the start, and changed later: then our device is made as it says now.

    A second ADD with the same leaves it alone.
    """
    lone.interface("eth1", "192.168.60.1/24")
    keys, read, expected = PARAMETERS[name]
    attach(lone, "before")
    assert read(lone) != expected
    attach(lone, "after", **keys)
    assert read(lone) == expected
    index = lone.link()["ifindex"]
    attach(lone, "again", **keys)
    assert (read(lone), lone.link()["ifindex"]) == (expected, index)
    assert lone.routes() == {"10.244.2.0/24"}
    attach(lone, "back")
    assert read(lone) != expected


@pytest.mark.parametrize(
    ("choice", "expected"), [("off", "off"), ("on", "on"), ("auto", "on"), ("", "on")]
)
def test_checksum_offload(host: Host, lone: Lone, choice: str, expected: str) -> None:
    """What ethtool says; and CHECK says when somebody changes it."""
    attach(lone, "c1", txChecksumOffload=choice)
    assert f"tx-checksumming: {expected}\n" in host.run("ethtool", "-k", DEVICE)
    other = "on" if expected == "off" else "off"
    host.run("ethtool", "-K", DEVICE, "tx", other)
    if choice in ("on", "off"):
        netns = host.netns()
        document = config(txChecksumOffload=choice)
        result = lone.call("ADD", document, netns, "c2").result()
        assert f"tx-checksumming: {expected}\n" in host.run("ethtool", "-k", DEVICE)
        host.run("ethtool", "-K", DEVICE, "tx", other)
        error = lone.call("CHECK", {**document, "prevResult": result}, netns, "c2")
        error.failed(103, DEVICE, "checksum", other)


UNDERLAYS = {
    "name": ("eth1", "192.168.60.1"),
    "address": ("192.168.60.1", "192.168.60.1"),
    "second address": ("192.168.60.7", "192.168.60.7"),
    "reach": ("reach 192.168.60.99", "192.168.60.1"),
    "reach through a router": ("reach 198.51.100.1", "192.168.60.1"),
    "the first peer": ("", "192.168.50.1"),
}


@pytest.mark.parametrize("name", UNDERLAYS)
def test_underlay(host: Host, lone: Lone, name: str) -> None:
    """Each way to say which interface, with two there are."""
    choice, expected = UNDERLAYS[name]
    lone.interface("eth1", "192.168.60.1/24", "192.168.60.7/24")
    host.run("ip", "route", "add", "198.51.100.0/24", "via", "192.168.60.254")
    attach(lone, "c1", underlay=choice)
    assert vxlan(lone)["local"] == expected


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_no_peers_yet(host: Host, lone: Lone, family: str) -> None:
    """The default route tells; any family of address will do."""
    gateway = underlay_address(254, family == "IPv6")
    if family == "IPv6":
        host.run("ip", "-4", "address", "flush", "dev", "eth0")
    host.run("ip", "route", "add", "default", "via", gateway)
    attach(lone, "c1", underlay=None, peers=None)
    name = DEVICE6 if family == "IPv6" else DEVICE
    assert name in host.link_names() and len({DEVICE, DEVICE6} & host.link_names()) == 1
    assert lone.link(name)["mtu"] == (1430 if family == "IPv6" else 1450)


#: Somebody else's device, and what the refusal says.
FOREIGN: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "a bridge of that name": (["adder.7", "type", "bridge"], ("adder.7", "bridge", "vni")),
    "a plain VXLAN of that name": (
        ["adder.7", "type", "vxlan", "id", "9", "dstport", "9999"],
        ("adder.7", "vxlan", "ip link delete adder.7"),
    ),
    "VNI and port": (
        ["flannel.7", "type", "vxlan", "id", "7", "dstport", "8472", "nolearning"],
        ("adder.7", "flannel.7", "VNI 7", "8472", "flanneld"),
    ),
    "VNI and port of nobody known": (
        ["vx", "type", "vxlan", "id", "7", "dstport", "8472", "dev", "eth0"],
        ("adder.7", "device vx", "VNI 7", "8472", "`vni` or `port`"),
    ),
    "the port alone": (
        ["collector", "type", "vxlan", "external", "dstport", "8472"],
        ("adder.7", "device collector", "8472"),
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_device(host: Host, lone: Lone, name: str) -> None:
    """It is left alone, and named; nothing of the ADD remains."""
    words, culprits = FOREIGN[name]
    host.run("ip", "link", "add", *words)
    host.run("ip", "link", "set", words[0], "up")
    before = host.snapshot()
    netns = host.netns()
    inside = netns.snapshot()
    lone.call("ADD", config(), netns).failed(101, *culprits)
    host.assert_undone(before)
    assert inside.difference(netns.snapshot()) == []
    if name != "the port alone":  # of which only the attempt tells
        lone.call("STATUS", config()).failed(50, *culprits)
    host.run("ip", "link", "delete", words[0])
    attach(lone, "c1")


def test_the_port_belongs_to_no_device(host: Host, lone: Lone) -> None:
    """A program that has the port."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("0.0.0.0", 8472))
        before = host.snapshot()
        error = lone.call("ADD", config(), host.netns()).failed(101, DEVICE, "8472")
        assert "another program" in error["msg"]
        host.assert_undone(before)


def test_another_networks_device(host: Host, lone: Lone) -> None:
    """Two networks with one VNI: the second is told whose it is."""
    attach(lone, "c1")
    before = host.snapshot()
    second = config(name="other", network="10.99.0.0/16", subnet="10.99.1.0/24", peers=[])
    lone.call("ADD", second, host.netns(), "c2").failed(101, DEVICE, "'overlay'", "`vni`")
    host.assert_undone(before)
    lone.call("STATUS", second).failed(50, DEVICE, "'overlay'")


def test_two_networks(host: Host, lone: Lone) -> None:
    """Each with its VNI: neither touches the other's device, routes or attachments."""
    attach(lone, "c1")
    first, index = lone.routes(), lone.link()["ifindex"]
    second = {
        "name": "other",
        "vni": 8,
        "network": "10.99.0.0/16",
        "subnet": "10.99.1.0/24",
        "peers": [peer(2, subnet="10.99.2.0/24")],
        "delegate": {"bridge": "cni1"},
    }
    host.share("adder.8", "cni1")
    attach(lone, "c2", **second)
    assert lone.routes() == {*first, "10.99.2.0/24"}
    attach(lone, "c3")
    assert lone.routes() == {*first, "10.99.2.0/24"}
    assert lone.link()["ifindex"] == index
    netns = host.netns()
    lone.call("ADD", config(**{**second, "peers": []}), netns, "c4").result()
    assert lone.routes() == first


def test_a_foreign_route_to_a_peer(host: Host, lone: Lone) -> None:
    """Somebody routes a peer's subnet elsewhere: refused, and the route stays."""
    host.run("ip", "route", "add", "10.244.2.0/24", "via", underlay_address(200))
    before = host.snapshot()
    lone.call("ADD", config(), host.netns()).failed(101, "10.244.2.0/24", "`ip route`")
    host.assert_undone(before)


def test_first_adds_at_once(host: Host, lone: Lone, netns: NetnsFactory) -> None:
    """Twenty of them make one device, one bridge, twenty addresses; again and again."""
    document = config(peers=[peer(number) for number in range(2, 12)])
    pods = [(netns(), f"c{number}") for number in range(20)]
    for _ in range(3):
        calls = [lone.start("ADD", document, pod, name) for pod, name in pods]
        results = [answer(call).result() for call in calls]
        assert len({result["ips"][0]["address"] for result in results}) == 20
        assert len(lone.routes()) == 10
        assert lone.link()["ifalias"] == "vxlan-overlay:overlay"
        shown = host.run("bridge", "fdb", "show", "dev", DEVICE).splitlines()
        assert len(shown) == 10
        for (pod, name), result in zip(pods, results, strict=True):
            known = {**document, "prevResult": result}
            lone.call("CHECK", known, pod, name).succeeded()
        calls = [lone.start("DEL", document, pod, name) for pod, name in pods]
        for call in calls:
            answer(call).succeeded()
        assert lone.kept() == set()
        host.run("ip", "link", "delete", DEVICE)
        host.run("ip", "link", "delete", "cni0")


def test_first_adds_at_once_that_fail_beside_others_that_do_not(
    host: Host, lone: Lone, netns: NetnsFactory
) -> None:
    """Undoing its own overlay, an ADD leaves it to those who need it."""
    good = config()
    bad = config(ipam={"type": "no-such-plugin"})
    pods = [(netns(), f"c{number}") for number in range(12)]
    for _ in range(5):
        documents = [bad if number % 2 else good for number in range(12)]
        calls = [
            lone.start("ADD", document, pod, name)
            for document, (pod, name) in zip(documents, pods, strict=True)
        ]
        replies = [answer(call) for call in calls]
        for number, reply in enumerate(replies):
            assert (reply.rc == 0) == (number % 2 == 0), (number, reply)
        assert lone.routes() == {"10.244.2.0/24"}
        lone.call("STATUS", good).succeeded()
        for pod, name in pods[::2]:
            lone.call("DEL", good, pod, name).succeeded()
        assert lone.kept() == set()
        host.run("ip", "link", "delete", DEVICE)


def test_settings_of_the_device(lone: Lone) -> None:
    """No IPv6 address of the kernel's own: no discovery goes into the overlay."""
    attach(lone, "c1")
    mode = pathlib.Path(f"/proc/sys/net/ipv6/conf/{DEVICE}/addr_gen_mode").read_text()
    assert mode.strip() == "1"


def test_thousands_of_peers(host: Host, lone: Lone) -> None:
    """In one batch; a second ADD finds them all there, and a third takes them away.

    More than gc_thresh3: permanent neighbours do not count.
    """
    numbers = range(2, 4002)
    document = config(
        network="10.0.0.0/8",
        subnet="10.1.1.0/24",
        peers=[
            {
                "publicIP": f"172.{16 + number // 250}.0.{number % 250 + 1}",
                "subnet": f"10.{number // 250 + 100}.{number % 250}.0/24",
            }
            for number in numbers
        ],
    )
    netns = host.netns()
    result = lone.call("ADD", document, netns).result()
    assert len(lone.routes()) == len(numbers)
    lone.call("CHECK", {**document, "prevResult": result}, netns).succeeded()
    lone.call("ADD", document, host.netns(), "c2").result()
    lone.call("ADD", {**document, "peers": []}, host.netns(), "c3").result()
    assert lone.routes() == set()
