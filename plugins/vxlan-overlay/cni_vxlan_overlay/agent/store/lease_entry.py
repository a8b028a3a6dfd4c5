# SPDX-License-Identifier: Apache-2.0
"""An entry of flannel's in etcd <-> `model.Node`. Pure.

    <prefix>/subnets/10.5.52.0-24                  one family
    <prefix>/subnets/10.5.52.0-24&fc00::-64        both

    {"PublicIP":"192.168.50.1","PublicIPv6":null,"BackendType":"vxlan",
     "BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"}}

Source: flannel's pkg/subnet (MakeSubnetKey, ParseSubnetKey) and pkg/lease (LeaseAttrs). NodeName
is ours; Go's reader passes over it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cni_vxlan_overlay.agent.model import Node, Offer
from cni_vxlan_overlay.agent.store.annotations import (
    BACKEND,
    Foreign,
    Unusable,
    backend_data,
    text,
    usable_address,
    vtep_mac_of,
)
from cni_vxlan_overlay.peers import Endpoint, Peer
from libcni import jsontext
from libcni.inet import Prefix
from libcni.types.errors import CniError

_KEY = re.compile(r"(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([0-9a-f:.]+)-(\d+))?", re.ASCII)
#: What an entry says where it has no IPv4.
_NO_SUBNET, _NO_ADDRESS = "0.0.0.0-0", "0.0.0.0"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A key below <prefix>/subnets/ and what etcd knows of it.

    lease: ID of its lease, 0 for none (a reservation). created, modified: revisions.
    """

    key: str
    value: bytes
    lease: int = 0
    created: int = 0
    modified: int = 0


def key_of(subnets: Iterable[Prefix]) -> str:
    """The key of a node with these subnets, at most one of each family."""
    by_size = {len(subnet.packed): subnet for subnet in subnets}
    ipv4, ipv6 = by_size.get(4), by_size.get(16)
    key = ipv4.text().replace("/", "-") if ipv4 else _NO_SUBNET
    return f"{key}&{ipv6.text().replace('/', '-')}" if ipv6 else key


def subnets_of(key: str) -> tuple[Prefix, ...]:
    """The inverse, IPv4 first. Raises Unusable."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise Unusable(f"key {key!r} is none of a subnet")
    subnets = []
    for address, length in ((found[1], found[2]), (found[3], found[4])):
        if address is None or f"{address}-{length}" == _NO_SUBNET:
            continue
        try:
            subnet = Prefix.parse(f"{address}/{length}")
        except ValueError as error:
            raise Unusable(f"key {key!r}: {error}") from None
        subnets.append(subnet.network())
    if not subnets:
        raise Unusable(f"key {key!r} names no subnet")
    return tuple(subnets)


def value_of(offer: Offer) -> bytes:
    """What this node writes, in the form and order of Go's encoder."""
    addresses = {endpoint.is_ipv6: endpoint for endpoint in offer.endpoints}
    ipv4, ipv6 = addresses.get(False), addresses.get(True)
    parts = [
        ("PublicIP", json.dumps(ipv4.public_ip if ipv4 else _NO_ADDRESS)),
        ("PublicIPv6", json.dumps(ipv6.public_ip if ipv6 else None)),
        ("BackendType", json.dumps(BACKEND)),
    ]
    if ipv4:
        parts.append(("BackendData", backend_data(offer.vni, ipv4.mac)))
    if ipv6:
        parts.append(("BackendV6Data", backend_data(offer.vni, ipv6.mac)))
    if offer.name:
        parts.append(("NodeName", json.dumps(offer.name)))
    return ("{" + ",".join(f'"{key}":{value}' for key, value in parts) + "}").encode()


def is_at(entry: Entry, addresses: Iterable[str]) -> bool:
    """True if the entry's node is at one of these addresses, whatever else its value says."""
    try:
        values = _values(entry)
    except Unusable:
        return False
    return any(
        address in (values.get("publicip"), values.get("publicipv6")) for address in addresses
    )


def name_of(entry: Entry) -> str:
    """The name of its node, "" if it says none."""
    try:
        return text(_values(entry).get("nodename"))
    except Unusable:
        return ""


def read_entry(entry: Entry, vni: int, networks: Collection[Prefix] = ()) -> Node:
    """The node, with its subnets of the families that the overlay has.

    vni, networks: of our overlay; none stands for any. Raises Unusable saying what is wrong,
    Foreign for another backend or VNI.
    """
    subnets = _inside(entry.key, subnets_of(entry.key), networks)
    values = _values(entry)
    kind = values.get("backendtype")
    if kind != BACKEND:
        raise Foreign(f"backend type {kind!r} instead of {BACKEND!r}")
    endpoints = []
    for family, address_key, data_key in (
        (4, "PublicIP", "BackendData"),
        (6, "PublicIPv6", "BackendV6Data"),
    ):
        data = values.get(data_key.lower())
        if data in (None, ""):
            continue
        mac = vtep_mac_of(f"{entry.key}: {data_key}", data, vni)
        where = f"{entry.key}: {address_key}"
        endpoints.append(
            Endpoint(usable_address(where, values.get(address_key.lower()), family), mac)
        )
    if not endpoints:
        raise Unusable(f"{entry.key} has neither BackendData nor BackendV6Data")
    name = text(values.get("nodename")) or endpoints[0].public_ip
    return Node(
        uid=entry.key,
        peer=Peer(name, endpoints, subnets),
        age=f"{entry.created:020}",
        version=str(entry.modified),
    )


def _inside(
    key: str, subnets: tuple[Prefix, ...], networks: Collection[Prefix]
) -> tuple[Prefix, ...]:
    """Those of the networks' families. Raises Unusable for one outside, as it would lead away
    what is meant for others."""
    if not networks:
        return subnets
    by_bits = {network.bits: network for network in networks}
    found = tuple(subnet for subnet in subnets if subnet.bits in by_bits)
    for subnet in found:
        network = by_bits[subnet.bits]
        if subnet.length < network.length or not network.contains(subnet.packed):
            raise Unusable(f"key {key!r} is outside the overlay's network {network.text()}")
    if not found:
        raise Unusable(f"key {key!r} has no subnet of a family that the overlay has")
    return found


def _values(entry: Entry) -> Mapping[str, Any]:
    try:
        document = jsontext.loads(entry.value, entry.key)
    except CniError as error:
        raise Unusable(str(error)) from None
    if not isinstance(document, Mapping):
        raise Unusable(f"{entry.key}: a JSON object is expected")
    return {name.lower(): value for name, value in document.items()}
