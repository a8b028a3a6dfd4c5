# SPDX-License-Identifier: Apache-2.0
"""vxlan-overlay beside an agent that is played by hand: subnet file, CHECK and STATUS."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from cni_vxlan_overlay.fabric import fabric_of
from cni_vxlan_overlay.peers import Endpoint, Peer, vtep_mac
from libcni.inet import Prefix
from tests.overlay.cluster import underlay_address
from tests.overlay.lone import BRIDGE, DATA, DEVICE, SUBNET_FILE, Lone, config
from tests.overlay.test_plugin_failures import AGENT, FLANNELD
from tests.rig.host import Host, Netns

PEERS_FILE = pathlib.Path("/run/flannel/peers.json")
OURS = FLANNELD + f"ADDER_DEVICES=adder.1\nADDER_PEERS={PEERS_FILE}\n"
MAC, PEER_MAC = vtep_mac(1, underlay_address(1)), vtep_mac(1, underlay_address(2))


def make_device(host: Host, *options: str) -> None:
    """The agent's device, addresses, and what one peer takes."""
    kind = ["local", underlay_address(1), "dev", "eth0", "id", "1", "dstport", "8472"]
    kind.append("nolearning")
    for option in options:
        if option in ("learning", "gbp"):
            kind = [word for word in kind if word != f"no{option}"] + [option]
        else:
            key, value = option.split("=")
            kind[kind.index(key) + 1] = value
    host.run(
        *("ip", "link", "add", "adder.1", "mtu", "1450", "address", MAC, "type", "vxlan", *kind),
    )
    host.run("ip", "link", "set", "adder.1", "addrgenmode", "none")
    host.run("ip", "link", "set", "adder.1", "up")
    host.run("ip", "address", "add", "10.244.1.0/32", "dev", "adder.1")
    host.run(
        *("ip", "neighbour", "replace", "10.244.2.0", "lladdr", PEER_MAC, "dev", "adder.1"),
        *("nud", "permanent"),
    )
    host.run(
        *("bridge", "fdb", "replace", PEER_MAC, "dst", underlay_address(2), "dev", "adder.1"),
        *("self", "permanent"),
    )
    host.run(
        *("ip", "route", "replace", "10.244.2.0/24", "via", "10.244.2.0", "dev", "adder.1"),
        *("onlink", "proto", "97"),
    )


def peers_document() -> dict[str, Any]:
    """What vxlan-overlayd writes for the plugin, as far as the plugin reads it."""
    return {
        "devices": {"adder.1": MAC},
        "conf": {"vni": 1, "port": 8472, "learning": False, "gbp": False, "checksum": "on"},
        "underlay": {"interface": "eth0", "local": {"adder.1": underlay_address(1)}},
        "fabric": {
            "forwarding": [["adder.1", PEER_MAC, underlay_address(2)]],
            "neighbours": [["adder.1", "10.244.2.0", PEER_MAC]],
            "routes": [["10.244.2.0/24", "10.244.2.0", "adder.1"]],
        },
    }


@pytest.fixture
def agent(host: Host, lone: Lone) -> Lone:
    """The node after an agent's start."""
    make_device(host)
    PEERS_FILE.write_text(json.dumps(peers_document()))
    SUBNET_FILE.write_text(OURS)
    host.share("adder.1")
    return lone


def test_the_hand_made_state_is_the_one_that_is_computed() -> None:
    """The files of these tests say what the code says of the same peer."""
    from cni_vxlan_overlay.fabric import Ground

    peer = Peer("two", [Endpoint(underlay_address(2), PEER_MAC)], [Prefix.parse("10.244.2.0/24")])
    fabric = fabric_of([peer], Ground({False: "adder.1"}))
    written = peers_document()["fabric"]
    for kind in ("forwarding", "neighbours", "routes"):
        assert [list(entry) for entry in getattr(fabric, kind)] == written[kind]


def test_add_with_flanneld(host: Host, lone: Lone) -> None:
    """What the delegate is given, key by key, is what the flannel plugin makes of that file."""
    SUBNET_FILE.write_text(
        "FLANNEL_NETWORK=10.244.0.0/16,10.250.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
        "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n"
        "FLANNEL_MTU=1400\nFLANNEL_IPMASQ=true\n"
    )
    netns = host.netns()
    document = {
        **AGENT,
        "delegate": {"hairpinMode": True, "isDefaultGateway": True},
        "ipam": {"routes": [{"dst": "192.0.2.0/24"}]},
        "runtimeConfig": {"mac": "0a:58:0a:f4:01:07"},
    }
    result = lone.call("ADD", document, netns).result()
    assert json.loads((DATA / "c1:eth0").read_text()) == {
        "cniVersion": "1.1.0",
        "name": "overlay",
        "type": "bridge",
        "hairpinMode": True,
        "isDefaultGateway": True,
        "isGateway": True,
        "ipMasq": False,
        "mtu": 1400,
        "runtimeConfig": {"mac": "0a:58:0a:f4:01:07"},
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
            "routes": [
                {"dst": "192.0.2.0/24"},
                {"dst": "10.244.0.0/16"},
                {"dst": "10.250.0.0/16"},
                {"dst": "fd00:10:244::/48"},
            ],
        },
    }
    assert (DATA / "c1:eth0").stat().st_mode & 0o777 == 0o600
    assert host.run("nft", "list", "ruleset") == ""
    (link,) = netns.ip("link", "show", "eth0")
    assert (link["mtu"], link["address"]) == (1400, "0a:58:0a:f4:01:07")
    lone.call("CHECK", {**document, "prevResult": result}, netns).succeeded()
    lone.call("STATUS", document).succeeded()


#: Keys in the configuration; what of the delegate's document they decide.
DELEGATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {"type": "bridge", "isGateway": True, "mtu": 1450}),
    "mtu": ({"delegate": {"mtu": 1300}}, {"mtu": 1300}),
    "mtu of ours": ({"mtu": 1350}, {"mtu": 1350}),
    "mtu of ours, too large": ({"mtu": 9000}, {"mtu": 1450}),
    "not the gateway": ({"delegate": {"isGateway": False}}, {"isGateway": False}),
    "bridge": ({"delegate": {"bridge": "br9"}}, {"bridge": "br9"}),
    "no masquerade": ({"delegate": {"ipMasq": False}}, {"ipMasq": False}),
    "IPAM's directory": (
        {"ipam": {"dataDir": "/run/flannel/net"}},
        {
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/flannel/net",
                "ranges": [[{"subnet": "10.244.1.0/24"}]],
                "routes": [{"dst": "10.244.0.0/16"}],
            }
        },
    ),
    "dns": ({"dns": {"nameservers": ["10.96.0.10"]}}, {"dns": {"nameservers": ["10.96.0.10"]}}),
}


@pytest.mark.parametrize("name", DELEGATES)
def test_delegates_configuration(host: Host, agent: Lone, name: str) -> None:
    """`delegate` goes before the defaults, which are flannel's."""
    keys, expected = DELEGATES[name]
    host.share("br9")
    netns = host.netns()
    result = agent.call("ADD", {**AGENT, **keys}, netns).result()
    written = json.loads((DATA / "c1:eth0").read_text())
    assert {key: written[key] for key in expected} == expected
    agent.call("CHECK", {**AGENT, **keys, "prevResult": result}, netns).succeeded()
    agent.call("DEL", {**AGENT, **keys}, netns).succeeded()
    net = pathlib.Path("/run/flannel/net/overlay")
    if net.exists():
        assert list(net.glob("10.*")) == []
        for path in (*net.iterdir(), net, net.parent):
            path.rmdir() if path.is_dir() else path.unlink()


#: What may stand in the subnet file, and what the error names.
NO_SUBNET: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "missing": (None, ("No such file", "vxlan-overlayd or flanneld")),
    "empty": (b"", ("FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ")),
    "garbage": (b"\0\xff\xfe" * 100, ("FLANNEL_NETWORK",)),
    "half written": (FLANNELD[:60].encode(), ("FLANNEL_MTU", "FLANNEL_IPMASQ")),
    "half a word": (FLANNELD[:-3].encode(), ("FLANNEL_IPMASQ", "fal")),
    "no subnet yet": (b"FLANNEL_NETWORK=10.244.0.0/16\n", ("FLANNEL_SUBNET",)),
    "a subnet that is none": (
        FLANNELD.replace("10.244.1.1/24", "10.244.1.1").encode(),
        ("FLANNEL_SUBNET", "10.244.1.1"),
    ),
    "a network that is none": (
        FLANNELD.replace("10.244.0.0/16", "10.244.0.0/16,pods").encode(),
        ("FLANNEL_NETWORK", "pods"),
    ),
    "an MTU that is none": (FLANNELD.replace("1450", "auto").encode(), ("FLANNEL_MTU", "auto")),
}


@pytest.mark.parametrize("name", NO_SUBNET)
def test_no_subnet_yet(host: Host, lone: Lone, name: str) -> None:
    """ADD and STATUS say 50 and why; nothing is made; DEL and GC do without."""
    content, culprits = NO_SUBNET[name]
    if content is not None:
        SUBNET_FILE.write_bytes(content)
    before = host.snapshot()
    netns = host.netns()
    for verb in ("ADD", "STATUS"):
        lone.call(verb, dict(AGENT), netns).failed(50, str(SUBNET_FILE), *culprits)
    host.assert_unchanged(before)
    lone.call("DEL", dict(AGENT), netns).succeeded()
    lone.call("GC", {**AGENT, "cni.dev/valid-attachments": []}).succeeded()


def test_another_place_of_the_subnet_file(host: Host, lone: Lone) -> None:
    """`subnetFile` names it."""
    path = SUBNET_FILE.parent / "elsewhere.env"
    document = {**AGENT, "subnetFile": str(path)}
    lone.call("STATUS", document).failed(50, str(path))
    path.write_text(FLANNELD)
    lone.call("STATUS", document).succeeded()
    lone.call("ADD", document, host.netns()).result()


Act = Callable[[Host, Lone, Netns], None]


def on_host(*words: str) -> Act:
    """Run a tool on the node; {veth} is the pod's end there."""

    def act(host: Host, lone: Lone, netns: Netns) -> None:
        names = [n for n in host.link_names() if n.startswith("veth")]
        host.run(*(word.format(veth=names[0]) for word in words))

    return act


def in_pod(*words: str) -> Act:
    """Run a tool in the pod."""
    return lambda host, lone, netns: (netns.run(*words), None)[1]


def again(*options: str) -> Act:
    """The agent's device, made by somebody else with other parameters."""

    def act(host: Host, lone: Lone, netns: Netns) -> None:
        host.run("ip", "link", "delete", "adder.1")
        make_device(host, *options)

    return act


def release(host: Host, lone: Lone, netns: Netns) -> None:
    """The reservation is gone."""
    for path in pathlib.Path("/var/lib/cni/networks/overlay").glob("10.*"):
        path.unlink()


#: Of the node, by an agent: what is broken, what CHECK names, and STATUS's code.
NODE: dict[str, tuple[Act, tuple[str, ...], int]] = {
    "device gone": (on_host("ip", "link", "delete", "{device}"), ("{device}", "missing"), 50),
    "device down": (on_host("ip", "link", "set", "{device}", "down"), ("{device}", "down"), 50),
    "MTU": (
        on_host("ip", "link", "set", "{device}", "mtu", "1300"),
        ("{device}", "MTU", "1300", "1450"),
        51,
    ),
    "MAC": (
        on_host("ip", "link", "set", "{device}", "address", "02:00:00:00:00:08"),
        ("{device}", "MAC", "02:00:00:00:00:08"),
        51,
    ),
    "address": (
        on_host("ip", "address", "delete", "10.244.1.0/32", "dev", "{device}"),
        ("10.244.1.0/32", "{device}"),
        51,
    ),
    "forwarding entry": (
        on_host("bridge", "fdb", "delete", "{mac}", "dev", "{device}", "self"),
        ("forwarding entry", "{mac}", underlay_address(2)),
        51,
    ),
    "forwarding entry elsewhere": (
        on_host("bridge", "fdb", "replace", "{mac}", "dst", "192.0.2.9", "dev", "{device}",
                "self", "permanent"),
        ("forwarding entry", "{mac}", underlay_address(2)),
        51,
    ),
    "neighbour": (
        on_host("ip", "neighbour", "delete", "10.244.2.0", "dev", "{device}"),
        ("neighbour", "10.244.2.0", "{mac}"),
        51,
    ),
    "neighbour of another MAC": (
        on_host("ip", "neighbour", "replace", "10.244.2.0", "lladdr", "02:00:00:00:00:09",
                "dev", "{device}", "nud", "permanent"),
        ("neighbour", "10.244.2.0", "{mac}"),
        51,
    ),
    "route": (on_host("ip", "route", "delete", "10.244.2.0/24"), ("10.244.2.0/24",), 51),
    "route elsewhere": (
        on_host("ip", "route", "replace", "10.244.2.0/24", "via", underlay_address(9)),
        ("10.244.2.0/24",),
        51,
    ),
}  # fmt: skip

#: Of the attachment: what is broken, what CHECK names. STATUS has nothing against it.
ATTACHMENT: dict[str, tuple[Act, tuple[str, ...]]] = {
    "masquerade": (on_host("nft", "flush", "ruleset"), ("masquerade", "adder_ipmasq")),
    "bridge": (on_host("ip", "link", "delete", BRIDGE), (BRIDGE,)),
    "port": (on_host("ip", "link", "set", "{veth}", "nomaster"), (BRIDGE,)),
    "address": (in_pod("ip", "address", "flush", "dev", "eth0"), ("10.244.1.2",)),
    "route": (in_pod("ip", "route", "delete", "10.244.0.0/16"), ("10.244.0.0/16",)),
    "pod's MTU": (in_pod("ip", "link", "set", "eth0", "mtu", "1300"), ("eth0", "1300")),
    "interface": (in_pod("ip", "link", "delete", "eth0"), ("eth0",)),
    "reservation": (release, ("10.244.1.2",)),
}

#: What the device was made with, by the agent's notes.
MADE_OTHERWISE: dict[str, tuple[Act, tuple[str, ...]]] = {
    "VNI": (again("id=2"), ("adder.1", "vni", "2")),
    "port": (again("dstport=4789"), ("adder.1", "port", "4789")),
    "learning": (again("learning"), ("adder.1", "learning")),
    "group policy": (again("gbp"), ("adder.1", "gbp")),
    "local address": (
        again(f"local={underlay_address(111)}"),
        ("adder.1", "local address", underlay_address(111), underlay_address(1)),
    ),
    "underlay": (again("dev=lo"), ("adder.1", "underlay lo instead of eth0")),
    "checksum offload": (
        on_host("ethtool", "-K", "adder.1", "tx", "off"),
        ("adder.1", "checksum offload off instead of on"),
    ),
}


def filled(act_words: tuple[str, ...], device: str, mac: str) -> list[str]:
    """With the device's name and the peer's MAC."""
    return [word.replace("{device}", device).replace("{mac}", mac) for word in act_words]


def broken(name: str, device: str, mac: str, host: Host, lone: Lone, netns: Netns) -> list[str]:
    """Break one thing of the node; what has to be named."""
    act, culprits, _ = NODE[name]
    words = act.__closure__[0].cell_contents if act.__closure__ else ()
    host.run(*filled(words, device, mac))
    return filled(culprits, device, mac)


@pytest.mark.parametrize("name", NODE)
@pytest.mark.parametrize("mode", ["embedded", "agent"])
def test_check_misses_what_is_broken_on_the_node(
    host: Host, agent: Lone, mode: str, name: str
) -> None:
    """Every single thing, in both modes. STATUS too, where it is the agent that mends it; where
    it is the next ADD, only what would be in its way."""
    if mode == "embedded":
        host.run("ip", "link", "delete", "adder.1")
        document, device, mac = config(), DEVICE, vtep_mac(7, underlay_address(2))
    else:
        document, device, mac = dict(AGENT), "adder.1", PEER_MAC
    netns = host.netns()
    result = agent.call("ADD", document, netns).result()
    known = {**document, "prevResult": result}
    agent.call("CHECK", known, netns).succeeded()
    agent.call("STATUS", document).succeeded()
    culprits = broken(name, device, mac, host, agent, netns)
    agent.call("CHECK", known, netns).failed(103, *culprits)
    if mode == "agent":
        agent.call("STATUS", document).failed(NODE[name][2], *culprits)
    elif name == "route elsewhere":
        agent.call("STATUS", document).failed(51, *culprits)
    else:
        agent.call("STATUS", document).succeeded()
        agent.call("ADD", document, host.netns(), "c2").result()
        agent.call("CHECK", known, netns).succeeded()


@pytest.mark.parametrize("name", ATTACHMENT)
def test_check_misses_what_is_broken_of_the_attachment(host: Host, agent: Lone, name: str) -> None:
    """The delegate's objects, and the masquerade that is made in its stead."""
    netns = host.netns()
    result = agent.call("ADD", dict(AGENT), netns).result()
    known = {**AGENT, "prevResult": result}
    agent.call("CHECK", known, netns).succeeded()
    act, culprits = ATTACHMENT[name]
    act(host, agent, netns)
    reply = agent.call("CHECK", known, netns)
    reply.failed(reply.json["code"], *culprits)
    agent.call("STATUS", dict(AGENT)).succeeded()


@pytest.mark.parametrize("name", MADE_OTHERWISE)
def test_check_misses_what_the_device_was_made_with(host: Host, agent: Lone, name: str) -> None:
    """Compared with what the agent wrote down."""
    netns = host.netns()
    result = agent.call("ADD", dict(AGENT), netns).result()
    act, culprits = MADE_OTHERWISE[name]
    act(host, agent, netns)
    agent.call("CHECK", {**AGENT, "prevResult": result}, netns).failed(103, *culprits)
    agent.call("STATUS", dict(AGENT)).failed(51, *culprits)


def test_what_an_earlier_agent_did_not_write(host: Host, agent: Lone) -> None:
    """Its file has neither underlay nor checksum offload: nothing is said of them."""
    netns = host.netns()
    result = agent.call("ADD", dict(AGENT), netns).result()
    document = peers_document()
    del document["underlay"], document["conf"]["checksum"]
    PEERS_FILE.write_text(json.dumps(document))
    again(f"local={underlay_address(111)}")(host, agent, netns)
    host.run("ethtool", "-K", "adder.1", "tx", "off")
    agent.call("CHECK", {**AGENT, "prevResult": result}, netns).succeeded()
    agent.call("STATUS", dict(AGENT)).succeeded()


def test_check_does_not_miss_what_is_not_ours(host: Host, agent: Lone) -> None:
    """Others may have routes, neighbours, entries, addresses, tables, ports and settings."""
    netns = host.netns()
    result = agent.call("ADD", dict(AGENT), netns).result()
    mac = "02:00:00:00:00:77"
    for words in (
        ("ip", "route", "add", "10.99.0.0/16", "via", underlay_address(9)),
        ("ip", "route", "add", "10.244.2.0/24", "via", underlay_address(9), "metric", "50"),
        ("ip", "route", "add", "10.244.3.0/24", "via", "10.244.2.0", "dev", "adder.1", "onlink"),
        ("ip", "neighbour", "add", "10.244.3.0", "lladdr", mac, "dev", "adder.1"),
        ("bridge", "fdb", "add", mac, "dst", underlay_address(3), "dev", "adder.1", "self"),
        ("ip", "address", "add", "10.244.1.9/32", "dev", "adder.1"),
        ("ip", "address", "add", "192.168.50.91/24", "dev", "eth0"),
        ("ip", "link", "set", "adder.1", "txqueuelen", "77"),
        ("nft", "add table ip elsewhere"),
        ("ip", "link", "add", "port0", "master", BRIDGE, "type", "veth", "peer", "port1"),
    ):
        host.run(*words)
    agent.call("CHECK", {**AGENT, "prevResult": result}, netns).succeeded()
    agent.call("STATUS", dict(AGENT)).succeeded()


def test_flanneld_says_nothing_of_its_device(host: Host, lone: Lone) -> None:
    """Beside flanneld, CHECK and STATUS look at what is the plugin's own."""
    SUBNET_FILE.write_text(FLANNELD)
    netns = host.netns()
    result = lone.call("ADD", dict(AGENT), netns).result()
    lone.call("CHECK", {**AGENT, "prevResult": result}, netns).succeeded()
    host.run("nft", "flush", "ruleset")
    lone.call("CHECK", {**AGENT, "prevResult": result}, netns).failed(103, "masquerade")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"fabric": 7}',
        '{"fabric": {"routes": [["a"]], "neighbours": [], "forwarding": []}}',
        '{"fabric": {"routes": [], "neighbours": [], "forwarding": []}, "devices": []}',
        '{"fabric": {"routes": [], "neighbours": [], "forwarding": []}, "underlay": 1}',
        '{"fabric": {"routes": [], "neighbours": [], "forwarding": []}, "underlay": {"local": 1}}',
    ],
)
def test_peers_file_that_is_none(host: Host, agent: Lone, content: str) -> None:
    """Named, by both verbs; ADD and DEL have no use for it. Without one, there is no complaint."""
    netns = host.netns()
    PEERS_FILE.write_text(content)
    result = agent.call("ADD", dict(AGENT), netns).result()
    known = {**AGENT, "prevResult": result}
    agent.call("CHECK", known, netns).failed(103, str(PEERS_FILE))
    agent.call("STATUS", dict(AGENT)).failed(51, str(PEERS_FILE))
    PEERS_FILE.unlink()
    agent.call("CHECK", known, netns).succeeded()
    agent.call("STATUS", dict(AGENT)).succeeded()
