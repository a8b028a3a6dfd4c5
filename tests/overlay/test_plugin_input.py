# SPDX-License-Identifier: Apache-2.0
"""Configurations that cannot be: refused with key and value, and nothing is changed."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.overlay.cluster import underlay_address
from tests.overlay.lone import SUBNET_FILE, Lone, config, peer
from tests.rig.host import Host

PEERS = "/run/flannel/list.json"

#: Changes of a working configuration, code, and what the error names.
REFUSED: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    # the schema's part
    "vni zero": ({"vni": 0}, 7, ("vni", "0")),
    "vni too large": ({"vni": 1 << 24}, 7, ("vni", "16777216")),
    "vni text": ({"vni": "7"}, 7, ("vni", "7")),
    "port": ({"port": 65536}, 7, ("port", "65536")),
    "mtu negative": ({"mtu": -1}, 7, ("mtu", "-1")),
    "learning": ({"learning": "yes"}, 7, ("learning", "yes")),
    "offload": ({"txChecksumOffload": "maybe"}, 7, ("txChecksumOffload", "maybe")),
    "peers": ({"peers": {"a": 1}}, 7, ("peers",)),
    "delegate": ({"delegate": "bridge"}, 7, ("delegate", "bridge")),
    # MTU
    "mtu above the underlay": ({"mtu": 1451}, 7, ("mtu 1451", "1450", "eth0", "1500")),
    "mtu above, over IPv6": (
        {"mtu": 1431, "peers": [peer(2, publicIP=underlay_address(2, ipv6=True))]},
        7,
        ("mtu 1431", "1430", "eth0"),
    ),
    "mtu below what IPv6 takes": (
        {"mtu": 1000, "ipv6Network": "fd00:244::/48", "ipv6Subnet": "fd00:244:0:1::/64"},
        7,
        ("mtu 1000", "ipv6Subnet fd00:244:0:1::/64", "1280"),
    ),
    # networks and subnets
    "no network": ({"network": None}, 7, ("subnet", "network")),
    "subnet elsewhere": ({"subnet": "10.99.1.0/24"}, 7, ("10.99.1.0/24", "10.244.0.0/16")),
    "subnet larger": ({"subnet": "10.0.0.0/8"}, 7, ("10.0.0.0/8", "10.244.0.0/16")),
    "host bits": ({"subnet": "10.244.1.1/24"}, 7, ("10.244.1.1/24", "10.244.1.0/24")),
    "network with host bits": ({"network": "10.244.9.0/16"}, 7, ("network", "10.244.9.0/16")),
    "IPv6 as subnet": ({"subnet": "fd00:1::/64"}, 7, ("subnet", "fd00:1::/64", "IPv4")),
    "IPv4 as ipv6Subnet": (
        {"ipv6Network": "fd00::/48", "ipv6Subnet": "10.244.1.0/24"},
        7,
        ("ipv6Subnet", "10.244.1.0/24", "IPv6"),
    ),
    "no subnet": ({"subnet": None}, 7, ("peers", "subnet")),
    # underlay
    "no such interface": ({"underlay": "eth7"}, 7, ("underlay", "eth7")),
    "no such address": ({"underlay": "192.0.2.7"}, 7, ("underlay", "192.0.2.7")),
    "name too long": ({"underlay": "an-interface-of-20-ch"}, 7, ("an-interface-of-20-ch",)),
    "interface without address": ({"underlay": "eth0-far"}, 7, ("underlay", "eth0-far")),
    "reach nobody": ({"underlay": "reach 192.0.2.7"}, 7, ("192.0.2.7",)),
    "reach no address": ({"underlay": "reach node-2"}, 7, ("node-2",)),
    "no route to the peer": (
        {"underlay": None, "peers": [peer(2, publicIP="192.0.2.2")]},
        7,
        ("underlay", "192.0.2.2"),
    ),
    "no default route": ({"underlay": None, "peers": []}, 7, ("underlay", "default route")),
    # peers
    "peer without address": (
        {"peers": [{"subnet": "10.244.2.0/24"}]},
        7,
        ("peers[0]", "publicIP"),
    ),
    "peer without subnet": ({"peers": [peer(2, subnet=None)]}, 7, ("peers[0]", "subnet")),
    "peer's address": ({"peers": [peer(2, publicIP="node")]}, 7, ("peers[0]", "publicIP", "node")),
    "peer's address is nobody's": ({"peers": [peer(2, publicIP="0.0.0.0")]}, 7, ("0.0.0.0",)),
    "peer's address is a group's": ({"peers": [peer(2, publicIP="239.1.1.1")]}, 7, ("239.1.1.1",)),
    "peer's addresses of one family": (
        {"peers": [peer(2, publicIPv6="192.168.50.7")]},
        7,
        ("peers[0]", "one family"),
    ),
    "peer's subnet with host bits": (
        {"peers": [peer(2, subnet="10.244.2.1/24")]},
        7,
        ("peers[0]", "10.244.2.1/24", "10.244.2.0/24"),
    ),
    "peer's subnets of one family": (
        {"peers": [peer(2, ipv6Subnet="10.244.3.0/24")]},
        7,
        ("peers[0]", "one family"),
    ),
    "peer's subnet elsewhere": (
        {"peers": [peer(2, subnet="10.99.2.0/24")]},
        7,
        ("10.99.2.0/24", "192.168.50.2", "10.244.0.0/16"),
    ),
    "peer has our subnet": (
        {"peers": [peer(2, name="two", subnet="10.244.1.0/25")]},
        7,
        ("10.244.1.0/25", "two", "10.244.1.0/24", "192.168.50.1"),
    ),
    "peers overlap": (
        {"peers": [peer(2), peer(3, subnet="10.244.2.128/25")]},
        7,
        ("10.244.2.0/24", "10.244.2.128/25", "192.168.50.2", "192.168.50.3"),
    ),
    "peers at one address": (
        {"peers": [peer(2, name="a"), peer(3, name="b", publicIP="192.168.50.2")]},
        7,
        ("a", "b", "192.168.50.2"),
    ),
    "peers with one MAC": (
        {"peers": [peer(n, name="same", vtepMAC="02:00:00:00:00:02") for n in (2, 3)]},
        7,
        ("vtepMAC", "02:00:00:00:00:02"),
    ),
    "peer's MAC": ({"peers": [peer(2, vtepMAC="02:00")]}, 7, ("vtepMAC", "02:00")),
    "peer's MAC is a group's": (
        {"peers": [peer(2, vtepMAC="01:00:5e:00:00:02")]},
        7,
        ("vtepMAC", "01:00:5e:00:00:02"),
    ),
    # delegate
    "delegate's name": ({"delegate": {"name": "x"}}, 7, ("delegate", "name")),
    "delegate's ipam": ({"delegate": {"ipam": {}}}, 7, ("delegate", "ipam")),
    "delegate's type": ({"delegate": {"type": 7}}, 7, ("delegate", "type", "7")),
}


def unchanged(host: Host, lone: Lone, document: dict[str, Any], code: int, *names: str) -> None:
    """ADD fails so, and leaves everything as it was."""
    before = host.snapshot()
    netns = host.netns()
    inside = netns.snapshot()
    lone.call("ADD", document, netns).failed(code, *names)
    host.assert_unchanged(before)
    assert inside.difference(netns.snapshot()) == []


@pytest.mark.parametrize("name", REFUSED)
def test_refused(host: Host, lone: Lone, name: str) -> None:
    """ADD says what is wrong; STATUS says the same beforehand; DEL does not mind."""
    keys, code, culprits = REFUSED[name]
    document = config(**keys)
    unchanged(host, lone, document, code, *culprits)
    status = lone.call("STATUS", document)
    assert status.rc == 1 and all(culprit in str(status.json) for culprit in culprits), status
    lone.call("DEL", document, host.netns()).succeeded()


def test_a_peer_of_a_family_that_the_underlay_has_not(host: Host, lone: Lone) -> None:
    """Not left out in silence: its pods would be out of reach, and nobody would know why."""
    host.run("ip", "-6", "address", "flush", "dev", "eth0")
    document = config(peers=[peer(2), peer(3, name="three", publicIP="2001:db8:50::3")])
    unchanged(host, lone, document, 7, "three", "2001:db8:50::3", "eth0", "IPv6")


#: What may be in the peers file: its bytes (None: nothing), code, what the error names.
FILES: dict[str, tuple[bytes | None, int, tuple[str, ...]]] = {
    "missing": (None, 5, ("No such file",)),
    "empty": (b"", 6, ()),
    "half": (b'[{"publicIP": "192.168.50.2", "subn', 6, ()),
    "binary": (b"\0\xff\xfe", 6, ()),
    "a number": (b"7", 7, ("list",)),
    "an object without": (b'{"hosts": []}', 7, ("list", "peers", "nodes")),
    "an entry that is none": (b'["node-2"]', 7, ("[0]", "node-2")),
    "a wrong type": (b'[{"publicIP": 7, "subnet": "10.244.2.0/24"}]', 7, ("[0]", "publicIP", "7")),
    "the second": (
        b'[{"publicIP": "192.168.50.2", "subnet": "10.244.2.0/24"}, {"publicIP": "192.168.50.3"}]',
        7,
        ("[1]", "subnet"),
    ),
    "MAC": (
        b'[{"publicIP": "192.168.50.2", "subnet": "10.244.2.0/24", "vtepMAC": "zz"}]',
        7,
        ("[0]", "vtepMAC", "zz"),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_peers_file(host: Host, lone: Lone, name: str) -> None:
    """Named with the entry; a list that is known in part changes nothing, not even for others."""
    content, code, culprits = FILES[name]
    path = pathlib.Path(PEERS)
    path.write_bytes(b'[{"publicIP": "192.168.50.9", "subnet": "10.244.9.0/24"}]')
    document = config(peers=[], peersFile=PEERS)
    lone.call("ADD", document, host.netns(), "other").result()
    assert lone.routes() == {"10.244.9.0/24"}
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    unchanged(host, lone, document, code, PEERS, *culprits)
    assert lone.routes() == {"10.244.9.0/24"}


def test_a_peers_file_that_is_a_directory(host: Host, lone: Lone) -> None:
    """As any other that cannot be read."""
    unchanged(host, lone, config(peersFile="/run"), 5, "/run")


@pytest.mark.parametrize("spelling", ["0A-1B-2C-3D-4E-5F", "0a1b.2c3d.4e5f", "0A:1B:2C:3D:4E:5F"])
def test_spellings_of_a_mac(host: Host, lone: Lone, spelling: str) -> None:
    """As the schema allows; one entry, however often."""
    document = config(peers=[peer(2, vtepMAC=spelling)])
    netns = host.netns()
    result = lone.call("ADD", document, netns).result()
    lone.call("CHECK", {**document, "prevResult": result}, netns).succeeded()
    shown = host.run("bridge", "fdb", "show", "dev", "adder.7").splitlines()
    assert [line.split()[0] for line in shown] == ["0a:1b:2c:3d:4e:5f"]


def test_keys_in_any_case(host: Host, lone: Lone) -> None:
    """As Go reads JSON, in the peers file as well."""
    pathlib.Path(PEERS).write_text('[{"PublicIP": "192.168.50.3", "SUBNET": "10.244.3.0/24"}]')
    other = {"peersFile": "Peersfile", "vni": "VNI", "subnet": "Subnet", "network": "NETWORK"}
    document = {other.get(k, k): v for k, v in config(peersFile=PEERS).items()}
    lone.call("ADD", document, host.netns()).result()
    assert lone.routes() == {"10.244.2.0/24", "10.244.3.0/24"}


def test_the_subnet_file_has_no_say_without_an_agent(host: Host, lone: Lone) -> None:
    """Nor does a broken one."""
    SUBNET_FILE.write_text("garbage")
    lone.call("ADD", config(), host.netns()).result()
    lone.call("STATUS", config()).succeeded()
