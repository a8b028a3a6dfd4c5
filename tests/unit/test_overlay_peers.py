# SPDX-License-Identifier: Apache-2.0
"""Peers and what they take in the kernel: laws that hold for any list of nodes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import netaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_vxlan_overlay.config import Config
from cni_vxlan_overlay.fabric import Fabric, Ground, add_peer, fabric_of
from cni_vxlan_overlay.lease import Lease
from cni_vxlan_overlay.peer_list import load_peers, others, parse_peer, reachable, read_peers
from cni_vxlan_overlay.peers import Endpoint, Peer, vtep_mac
from libcni.inet import Prefix
from libcni.types.errors import CniError

VNIS = st.integers(1, (1 << 24) - 1)
IPV4 = st.integers(0x0100_0000, 0xDFFF_FFFF).map(lambda n: str(netaddr.IPAddress(n)))
IPV6 = st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(lambda n: str(netaddr.IPAddress(n, 6)))
DEVICES = st.sampled_from(
    [{False: "adder.1"}, {True: "adder6.1"}, {False: "adder.1", True: "adder6.1"}]
)


def subnet4(number: int) -> Prefix:
    return Prefix.parse(f"10.{number // 256}.{number % 256}.0/24")


def subnet6(number: int) -> Prefix:
    return Prefix.parse(f"fd00:0:0:{number:x}::/64")


@st.composite
def peer_lists(draw: st.DrawFn) -> list[Peer]:
    """Nodes with one or two endpoints and subnets, of which no two are the same."""
    numbers = draw(st.lists(st.integers(0, 65535), unique=True, max_size=8))
    addresses4 = draw(st.lists(IPV4, unique=True, min_size=8, max_size=8))
    addresses6 = draw(st.lists(IPV6, unique=True, min_size=8, max_size=8))
    peers = []
    for index, number in enumerate(numbers):
        shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        addresses = [addresses4[index]] * (shape[0] & 1) + [addresses6[index]] * (shape[0] >> 1)
        endpoints = [Endpoint(address, vtep_mac(1, address)) for address in addresses]
        subnets = [subnet4(number)] * (shape[1] & 1) + [subnet6(number)] * (shape[1] >> 1)
        peers.append(Peer(f"node-{index}", endpoints, subnets))
    return peers


GROUNDS = st.builds(
    Ground,
    DEVICES,
    st.booleans(),
    st.just([Prefix.parse("0.0.0.0/1"), Prefix.parse("2000::/4")]),
)


@given(VNIS, IPV4 | IPV6)
def test_a_vteps_mac_follows_from_vni_and_address(vni: int, address: str) -> None:
    mac = vtep_mac(vni, address)
    assert mac == vtep_mac(vni, address.upper())
    first = int(mac[:2], 16)
    assert len(mac) == 17 and not first & 1 and first & 2, "locally administered, unicast"
    assert mac != vtep_mac(vni % ((1 << 24) - 1) + 1, address)


def test_macs_of_a_large_cluster_differ() -> None:
    addresses = [f"10.{n // 256}.{n % 256}.1" for n in range(20_000)]
    assert len({vtep_mac(1, address) for address in addresses}) == len(addresses)


def test_the_mac_never_changes() -> None:
    """Nodes of two releases have to agree on it."""
    assert vtep_mac(7, "192.168.50.2") == "0a:e2:f5:80:2c:78"
    assert vtep_mac(7, "2001:DB8:50:0::2") == vtep_mac(7, "2001:db8:50::2")
    assert vtep_mac(7, "::ffff:192.168.50.2") == vtep_mac(7, "192.168.50.2")


@given(peer_lists(), GROUNDS)
def test_every_route_leads_somewhere(peers: list[Peer], ground: Ground) -> None:
    """Behind each next hop on a device there is a neighbour, and behind that an address."""
    fabric = fabric_of(peers, ground)
    neighbours = {(device, hop): mac for device, hop, mac in fabric.neighbours}
    forwarding = {(device, mac): address for device, mac, address in fabric.forwarding}
    owners = {subnet.text(): peer for peer in peers for subnet in peer.subnets}
    for destination, next_hop, device in fabric.routes:
        owner = owners[destination]
        if device:
            address = forwarding[device, neighbours[device, next_hop]]
        else:
            assert ground.direct and ground.is_on_link(next_hop)
            address = next_hop
        assert address in {endpoint.public_ip for endpoint in owner.endpoints}
    assert len(neighbours) == len(fabric.neighbours) == len([r for r in fabric.routes if r[2]])
    assert len(forwarding) == len(fabric.forwarding)


@given(peer_lists(), GROUNDS)
def test_a_route_for_every_subnet_in_reach(peers: list[Peer], ground: Ground) -> None:
    """And for none other; over either family if need be."""
    routed = {destination for destination, _, _ in fabric_of(peers, ground).routes}
    assert routed == {
        subnet.text()
        for peer in peers
        for subnet in peer.subnets
        if any(endpoint.is_ipv6 in ground.devices for endpoint in peer.endpoints)
    }


@given(peer_lists(), GROUNDS, st.randoms())
def test_a_fabric_is_the_sum_of_its_peers(peers: list[Peer], ground: Ground, dice: Any) -> None:
    """In any order, and one after the other as all at once; differences are those of sets."""
    whole = fabric_of(peers, ground)
    shuffled = list(peers)
    dice.shuffle(shuffled)
    assert fabric_of(shuffled, ground) == whole
    part, rest = Fabric(), Fabric()
    for peer in peers[::2]:
        add_peer(part, peer, ground)
    for peer in peers[1::2]:
        add_peer(rest, peer, ground)
    assert whole.difference(part) == rest
    assert whole.difference(rest) == part
    assert len(whole) == len(part) + len(rest)
    assert not len(whole.difference(whole))


@given(peer_lists())
def test_both_ends_choose_the_same_family(peers: list[Peer]) -> None:
    """What is sent through one device comes back through the other end of the same tunnel."""
    for one in peers:
        for other in peers:
            for here, there in ((a, b) for a in one.subnets for b in other.subnets):
                if here.family != there.family:
                    continue
                to_other = other.endpoint_for(there, [e.is_ipv6 for e in one.endpoints])
                back = one.endpoint_for(here, [e.is_ipv6 for e in other.endpoints])
                assert (to_other is None) == (back is None)
                if to_other is not None and back is not None:
                    assert to_other.is_ipv6 == back.is_ipv6


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
PLAUSIBLE = st.sampled_from(
    ["10.244.2.0/24", "10.244.2.1/24", "192.168.50.2", "fd00:2::/64", "2001:db8::2", "", "x",
     "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "0.0.0.0", "10.244.2.0", "::", "1.2.3.4/33"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["publicIP", "publicip", "publicIPv6", "subnet", "ipv6Subnet", "vtepMAC", "name", "other"]
)


@given(JSON | st.dictionaries(KEYS, PLAUSIBLE | JSON))
def test_an_entry_is_a_peer_or_refused(entry: Any) -> None:
    """Any JSON whatever: what is no peer is refused with its place."""
    try:
        peer = parse_peer(entry, 1, "peers[3]")
    except CniError as error:
        assert error.code == 7 and "peers[3]" in error.msg
        return
    assert 1 <= len(peer.endpoints) <= 2 and 1 <= len(peer.subnets) <= 2
    assert len({endpoint.is_ipv6 for endpoint in peer.endpoints}) == len(peer.endpoints)
    assert all(subnet == subnet.network() for subnet in peer.subnets)


def as_entry(peer: Peer) -> dict[str, str]:
    """A peer as in the configuration."""
    entry = {"name": peer.name}
    for endpoint, key in zip(peer.endpoints, ("publicIP", "publicIPv6"), strict=False):
        entry[key] = endpoint.public_ip
    for subnet in peer.subnets:
        entry["ipv6Subnet" if subnet.bits == 128 else "subnet"] = subnet.text()
    return entry


@given(peer_lists())
def test_entries_round_trip(peers: list[Peer]) -> None:
    assert [parse_peer(as_entry(peer), 1, "") for peer in peers] == peers


def configured(entries: list[dict[str, str]]) -> Config:
    return Config(
        {"name": "x", "network": "10.0.0.0/8", "subnet": "10.255.255.0/24", "peers": entries}
    )


def test_a_conflict_names_the_entries(tmp_path: pathlib.Path) -> None:
    twice = {"publicIP": "192.0.2.2", "subnet": "10.0.1.0/24"}
    other = {"publicIP": "192.0.2.2", "subnet": "10.0.2.0/24"}
    with pytest.raises(CniError, match=r"^peers\[0\] \(192.0.2.2\) and peers\[2\] \(") as refused:
        load_peers(configured([twice, twice, other]))
    assert refused.value.msg.endswith("have one publicIP, 192.0.2.2")
    file = tmp_path / "peers.json"
    file.write_text(json.dumps([other]))
    config = configured([twice])
    config.peers_file = str(file)
    with pytest.raises(CniError) as refused:
        load_peers(config)
    assert f"and {file}: [0] (" in refused.value.msg


SMALL = st.builds(
    lambda number, length: str(netaddr.IPNetwork(f"10.0.0.{number}/{length}").cidr),
    st.integers(0, 255),
    st.integers(25, 32),
)


@given(st.lists(SMALL, max_size=6))
def test_overlaps_are_found(subnets: list[str]) -> None:
    """All of them, and nothing else: against netaddr, each with each."""
    networks = [netaddr.IPNetwork(subnet) for subnet in subnets]
    overlap = any(
        one in other or other in one
        for index, one in enumerate(networks)
        for other in networks[:index]
    )
    entries = [
        {"publicIP": f"192.0.2.{number + 1}", "subnet": subnet}
        for number, subnet in enumerate(subnets)
    ]
    if overlap:
        with pytest.raises(CniError, match="overlaps"):
            load_peers(configured(entries))
    else:
        assert len(load_peers(configured(entries))) == len(entries)


@given(peer_lists(), st.data())
def test_one_list_for_all_nodes(peers: list[Peer], data: st.DataObject) -> None:
    """Whichever node reads it: it skips itself and no other."""
    if not peers:
        assert others(peers, {"192.0.2.1"}) == []
        return
    own = data.draw(st.sampled_from(peers))
    address = data.draw(st.sampled_from(own.endpoints)).public_ip
    assert others(peers, {address}) == [peer for peer in peers if peer is not own]


@given(peer_lists(), st.sampled_from([["10.0.0.0/8"], ["fd00::/16"], ["10.0.0.0/8", "fd00::/16"]]))
def test_only_families_that_pods_have(peers: list[Peer], networks: list[str]) -> None:
    """A list with both families is good for a node with one."""
    lease = Lease([Prefix.parse(network) for network in networks], [])
    wanted = {network.family for network in lease.networks}
    both = {False: "192.0.2.1", True: "2001:db8::1"}
    found = reachable(peers, lease, both, "eth0")
    assert [subnet for peer in found for subnet in peer.subnets] == [
        subnet for peer in peers for subnet in peer.subnets if subnet.family in wanted
    ]


def test_a_list_of_thousands_is_read_in_one_go(tmp_path: pathlib.Path) -> None:
    """The check for overlaps compares neighbours, not each with each."""
    entries = [
        {"publicIP": f"192.0.{n // 250}.{n % 250 + 1}", "subnet": subnet4(n).text()}
        for n in range(5000)
    ]
    path = tmp_path / "peers.json"
    path.write_text(json.dumps({"nodes": entries}))
    assert len(read_peers(str(path), 1)) == 5000
    document = {"network": "10.0.0.0/8", "subnet": "10.255.255.0/24", "peersFile": str(path)}
    assert len(load_peers(Config(document))) == 5000
