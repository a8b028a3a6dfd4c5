# SPDX-License-Identifier: Apache-2.0
"""Peers that the configuration or a file names, for nodes without an agent."""

from __future__ import annotations

from cni_vxlan_overlay.config import invalid
from cni_vxlan_overlay.peers import Endpoint, Peer, vtep_mac
from libcni.inet import Prefix, pton
from libcni.mac import parse_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_vxlan_overlay.config import Config
    from cni_vxlan_overlay.lease import Lease


def load_peers(config: Config) -> list[Peer]:
    """All nodes that `peers` and `peersFile` name, this one too if it is among them.

    Raises CniError 7 naming the entry that is wrong, 5 for a file that cannot be read, 6 for
    one that is not JSON: nothing is changed for a list that is known in part.
    """
    places: dict[Peer, str] = {}  # in both lists, one may be said twice
    for number, entry in enumerate(config.peers):
        place = f"peers[{number}]"
        places.setdefault(parse_peer(entry, config.vni, place), place)
    if config.peers_file:
        for number, peer in enumerate(read_peers(config.peers_file, config.vni)):
            places.setdefault(peer, f"{config.peers_file}: [{number}]")
    _refuse_conflicts(places)
    return list(places)


def read_peers(path: str, vni: int) -> list[Peer]:
    """The peers in a file. Raises CniError 5, 6 or 7."""
    from libcni.fs import io_error, read_file
    from libcni.jsontext import loads

    try:
        document = loads(read_file(path), path)
    except OSError as error:
        raise io_error(error, "read peersFile", path) from None
    if isinstance(document, dict):
        document = document.get("peers", document.get("nodes"))
    if not isinstance(document, list):
        raise invalid(
            f"peersFile {path} holds no list of peers",
            "a JSON list as in `peers` is expected, or an object with one as `peers` or `nodes`",
        )
    return [parse_peer(entry, vni, f"{path}: [{n}]") for n, entry in enumerate(document)]


def parse_peer(entry: Any, vni: int, where: str) -> Peer:
    """One entry. Raises CniError 7 beginning with `where`, the place of the entry."""
    if not isinstance(entry, dict):
        raise invalid(f"{where} is {entry!r}, not an object")
    values: dict[str, str] = {}
    for key, value in entry.items():
        if value is not None and not isinstance(value, str):
            raise invalid(f"{where}.{key} is {value!r}, not a string")
        values[key.lower()] = value or ""
    mac = values.get("vtepmac", "")
    if mac:
        mac = parse_mac(mac, f"{where}.vtepMAC")
    try:
        endpoints = []
        for key in ("publicip", "publicipv6"):
            if values.get(key):
                address = values[key]
                _refuse_unusable(address)
                endpoints.append(Endpoint(address, mac or vtep_mac(vni, address)))
        subnets = [
            Prefix.parse(values[key]) for key in ("subnet", "ipv6subnet") if values.get(key)
        ]
    except ValueError as error:
        raise invalid(f"{where}: {error}") from None
    if not endpoints:
        raise invalid(f"{where} has no publicIP", "the address by which the peer is reached")
    if len({endpoint.is_ipv6 for endpoint in endpoints}) < len(endpoints):
        raise invalid(f"{where}: publicIP and publicIPv6 are of one family")
    if not subnets:
        raise invalid(f"{where} has neither subnet nor ipv6Subnet")
    if len({len(subnet.packed) for subnet in subnets}) < len(subnets):
        raise invalid(f"{where}: subnet and ipv6Subnet are of one family")
    for subnet in subnets:
        if subnet != subnet.network():
            raise invalid(
                f"{where}: subnet {subnet.text()} has host bits set",
                f"did you mean {subnet.network().text()}?",
            )
    return Peer(values.get("name") or endpoints[0].public_ip, endpoints, subnets)


def _refuse_unusable(address: str) -> None:
    """Raise ValueError for an address at which no node can be."""
    packed = pton(address)
    multicast = packed[0] == 0xFF if len(packed) == 16 else packed[0] >= 224
    if multicast or not any(packed):
        raise ValueError(f"publicIP {address} is no address of a node")


def reachable(
    peers: list[Peer], lease: Lease, addresses: dict[bool, str], underlay: str
) -> list[Peer]:
    """The peers, each with those of its subnets whose family the pods of this node have.

    addresses: of this node on the underlay, by family. underlay: its name, for messages. Raises
    CniError 7 for a subnet outside of the overlay's networks or one that is this node's own,
    and for a peer to which this node has no address to send from.
    """
    found = []
    for peer in peers:
        subnets = []
        for subnet in placed(peer, lease, addresses):
            if peer.endpoint_for(subnet, addresses) is None:
                where = peer.endpoints[0].public_ip
                raise invalid(
                    f"peer {peer.name} is reached at {where}, and underlay {underlay} has no "
                    f"IPv{6 if ':' in where else 4} address to send from",
                    "`ip address` shows those it has; is `underlay` the right one?",
                )
            subnets.append(subnet)
        if subnets:
            found.append(Peer(peer.name, peer.endpoints, subnets))
    return found


def placed(peer: Peer, lease: Lease, addresses: dict[bool, str]) -> list[Prefix]:
    """The subnets of a peer whose family the pods of this node have.

    addresses: of this node on the underlay, for messages; may be empty. Raises CniError 7 for one
    outside of the overlay's networks or one that is this node's own.
    """
    families = {network.family for network in lease.networks}
    subnets = [subnet for subnet in peer.subnets if subnet.family in families]
    for subnet in subnets:
        _refuse_misplaced(peer, subnet, lease, addresses)
    return subnets


def _refuse_misplaced(
    peer: Peer, subnet: Prefix, lease: Lease, addresses: dict[bool, str]
) -> None:
    if lease.network_of(subnet) is None:
        networks = [n.text() for n in lease.networks if n.family == subnet.family]
        raise invalid(
            f"subnet {subnet.text()} of peer {peer.name} is not in {' or '.join(networks)}",
            "`network` and `ipv6Network` hold the pods of all nodes",
        )
    for own in lease.subnets:
        if own.contains(subnet.packed) or subnet.contains(own.packed):
            raise invalid(
                f"subnet {subnet.text()} of peer {peer.name} overlaps with this node's own, "
                f"{own.text()}",
                "if it is this node's own entry: its publicIP has to be the underlay's address"
                + (f", which is {' and '.join(addresses.values())}" if addresses else ""),
            )


def others(peers: list[Peer], addresses: set[str]) -> list[Peer]:
    """The peers less this node, which is known by its underlay addresses."""
    return [
        peer
        for peer in peers
        if not any(endpoint.public_ip in addresses for endpoint in peer.endpoints)
    ]


def _refuse_conflicts(peers: dict[Peer, str]) -> None:
    """Raise CniError 7 when two peers claim one address, MAC, or overlapping subnets.

    peers: each with the place of its entry.
    """
    claims: dict[tuple[str, bool, str], Peer] = {}
    for peer in peers:
        for endpoint in peer.endpoints:
            for what, value in (("publicIP", endpoint.public_ip), ("vtepMAC", endpoint.mac)):
                first = claims.setdefault((what, endpoint.is_ipv6, value), peer)
                if first is not peer:
                    # By place: without names both are called by the very same address.
                    raise invalid(
                        f"{peers[first]} ({first.name}) and {peers[peer]} ({peer.name}) "
                        f"have one {what}, {value}"
                    )
    # Prefixes are disjoint or nested: where two overlap, so do two neighbours in this order.
    owned = [(subnet, peer.name) for peer in peers for subnet in peer.subnets]
    owned.sort(key=lambda item: (item[0].bits, item[0].packed, item[0].length))
    for number in range(1, len(owned)):
        (outer, owner), (inner, name) = owned[number - 1], owned[number]
        if outer.contains(inner.packed):
            raise invalid(
                f"subnet {inner.text()} of peer {name} overlaps with {outer.text()} of {owner}"
            )
