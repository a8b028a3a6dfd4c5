# SPDX-License-Identifier: Apache-2.0
"""Kubernetes Node objects <-> `model.Node`, by flannel's annotations. Pure: no I/O, no state.

A Node object is the JSON of the API (`Mapping`), read without trusting any of it: a node may be
annotated by any version of flannel, by hand, or not at all (flannel itself panics at the last).
Source: flannel's pkg/subnet/kube and pkg/backend/vxlan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cni_vxlan_overlay.agent.model import Node, Offer
from cni_vxlan_overlay.agent.store import StoreError
from cni_vxlan_overlay.peers import Endpoint, Peer
from libcni import jsontext
from libcni.inet import Prefix, is_loopback, ntop, pton
from libcni.types.errors import CniError

#: The only backend type that takes part.
BACKEND = "vxlan"

_PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2}){4}")


class Unusable(ValueError):
    """A node says that it takes part, but what it says cannot be used; the text says why."""


class Foreign(Exception):
    """A node takes part in another overlay: another backend, or another VNI."""


class Keys:
    """The names of flannel's annotations under a prefix."""

    def __init__(self, prefix: str) -> None:
        """prefix: "domain", "domain/" or "domain/name" (joined with a hyphen), as flanneld's
        --kube-annotation-prefix. Raises StoreError naming it."""
        full = prefix if "/" in prefix else prefix + "/"
        if not full.endswith(("/", "-")):
            full += "-"
        if not _PREFIX.fullmatch(full):
            raise StoreError(
                f"annotation prefix {prefix!r}: a domain in lower case is expected, with at most "
                "one slash and a name after it"
            )
        self.managed = full + "kube-subnet-manager"
        self.backend_type = full + "backend-type"
        #: By family, 4 and 6.
        self.data = {4: full + "backend-data", 6: full + "backend-v6-data"}
        self.public_ip = {4: full + "public-ip", 6: full + "public-ipv6"}
        #: Written by administrators: what to publish in place of the address found.
        self.overwrite = {family: key + "-overwrite" for family, key in self.public_ip.items()}
        #: Written by administrators: which address of the node to take for its underlay.
        self.node_public_ip = {4: full + "node-public-ip", 6: full + "node-public-ipv6"}

    def published(self) -> tuple[str, ...]:
        """The annotations that a node writes about itself."""
        return (self.managed, self.backend_type, *self.data.values(), *self.public_ip.values())


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def text(value: object) -> str:
    """The value if it is a string, otherwise an empty one."""
    return value if isinstance(value, str) else ""


def metadata(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """`metadata` of a Node object, empty if it has none."""
    return mapping(node.get("metadata"))


def noted_on(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """`metadata.annotations` of a Node object, empty if it has none."""
    return mapping(metadata(node).get("annotations"))


def subnets_of(node: Mapping[str, Any], networks: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """The node's subnets: its pod CIDRs, of the families that the overlay has, IPv4 first.

    Empty when Kubernetes has given it none yet. Raises Unusable naming the pod CIDR that cannot
    be read, is outside the network, or is a second one of its family.
    """
    spec = mapping(node.get("spec"))
    listed = spec.get("podCIDRs")
    if not isinstance(listed, list) or not listed:
        listed = [spec["podCIDR"]] if spec.get("podCIDR") else []
    by_bits = {network.bits: network for network in networks}
    found: dict[int, Prefix] = {}
    for cidr in listed:
        try:
            subnet = Prefix.parse(text(cidr)).network()
        except ValueError:
            raise Unusable(f"pod CIDR {cidr!r} is no network in CIDR notation") from None
        if subnet.bits in found:
            raise Unusable(
                f"pod CIDRs {found[subnet.bits].text()} and {subnet.text()} are of one family: "
                "one of each is supported"
            )
        found[subnet.bits] = subnet
        network = by_bits.get(subnet.bits)
        if network is None:
            continue
        if subnet.length < network.length or not network.contains(subnet.packed):
            raise Unusable(
                f"pod CIDR {subnet.text()} is outside the overlay's network {network.text()}: "
                "kube-controller-manager's --cluster-cidr and net-conf.json should agree"
            )
    return tuple(found[bits] for bits in sorted(found) if bits in by_bits)


def usable_address(what: str, value: object, family: int) -> str:
    """The address in RFC 5952 form. what: where it stands. Raises Unusable naming both."""
    try:
        packed = pton(text(value))
    except ValueError:
        packed = b""
    if len(packed) != (4 if family == 4 else 16):
        raise Unusable(f"{what} {value!r}: an IPv{family} address is expected")
    multicast = packed[0] & 0xF0 == 0xE0 if family == 4 else packed[0] == 0xFF
    if not any(packed) or is_loopback(packed) or multicast:
        raise Unusable(f"{what} {value!r}: no packet can be sent to a node there")
    return ntop(packed)


def _mac(what: str, value: object) -> str:
    """A unicast MAC address in lower case with colons. Raises Unusable naming where it stands."""
    found = text(value).lower().replace("-", ":")
    if not _MAC.fullmatch(text(value)) or found == "00:00:00:00:00:00" or int(found[1], 16) & 1:
        raise Unusable(f"{what}: VtepMAC {value!r} is no MAC address of a device")
    return found


def vtep_mac_of(what: str, document: object, vni: int) -> str:
    """The MAC address in flannel's backend data: {"VNI": 1, "VtepMAC": "0a:..."}.

    what: where it stands. Raises Unusable naming it, Foreign for another VNI.
    """
    if not isinstance(document, Mapping):
        raise Unusable(f"{what}: a JSON object is expected, not {document!r}")
    values = {name.lower(): value for name, value in document.items()}
    # Older versions of flannel did not write the VNI.
    other = values.get("vni", vni)
    if isinstance(other, bool) or not isinstance(other, int):
        raise Unusable(f"{what}: VNI {other!r} is no integer")
    if other != vni:
        raise Foreign(f"VNI {other} instead of {vni}")
    return _mac(what, values.get("vtepmac"))


def backend_data(vni: int, mac: str) -> str:
    """The same as text, byte for byte what Go writes, as flannel compares it as text."""
    return f'{{"VNI":{vni},"VtepMAC":"{mac}"}}'


def _endpoint(keys: Keys, node: Mapping[str, Any], family: int, vni: int) -> Endpoint | None:
    """The node's endpoint of this family, None if it has none.

    Raises Unusable naming the annotation, Foreign for another VNI.
    """
    noted, key = noted_on(node), keys.data[family]
    data = noted.get(key)
    if data in (None, "", "null"):
        return None  # an address alone may be a leftover of another backend
    what = f"annotation {key}"
    try:
        document = jsontext.loads(text(data).encode(errors="replace"), what)
    except CniError as error:
        raise Unusable(str(error)) from None
    mac = vtep_mac_of(what, document, vni)
    address = noted.get(keys.public_ip[family])
    if not address:
        raise Unusable(f"annotation {keys.public_ip[family]} is missing beside {key}")
    where = f"annotation {keys.public_ip[family]}"
    return Endpoint(usable_address(where, address, family), mac)


def read_node(
    node: Mapping[str, Any], keys: Keys, vni: int, networks: Iterable[Prefix]
) -> Node | None:
    """The node as a peer; None if it does not take part (yet): it has no annotations.

    vni, networks: of our overlay. Raises Unusable or Foreign.
    """
    noted = noted_on(node)
    if noted.get(keys.managed) != "true":
        return None
    kind = noted.get(keys.backend_type)
    if kind != BACKEND:
        raise Foreign(f"backend type {kind!r} instead of {BACKEND!r}")
    meta = metadata(node)
    uid, name = text(meta.get("uid")), text(meta.get("name"))
    if not uid or not name:
        raise Unusable("metadata.uid or metadata.name is missing")
    found = (_endpoint(keys, node, family, vni) for family in (4, 6))
    endpoints = [endpoint for endpoint in found if endpoint is not None]
    if not endpoints:
        raise Unusable(f"neither annotation {keys.data[4]} nor {keys.data[6]} is there")
    subnets = subnets_of(node, networks)
    if not subnets:
        raise Unusable("no pod CIDR of a family that the overlay has")
    # An object without a creation time (no real one) must not pass for the oldest.
    created = text(meta.get("creationTimestamp")) or "9999-12-31T23:59:59Z"
    return Node(
        uid=uid,
        peer=Peer(name, endpoints, subnets),
        age=f"{created} {uid}",
        version=text(meta.get("resourceVersion")),
    )


def given_address(node: Mapping[str, Any], key: str, family: int) -> str:
    """An address that an administrator put in an annotation; "" if there is none.

    Raises StoreError naming node and annotation.
    """
    value = noted_on(node).get(key)
    if not value:
        return ""
    try:
        return usable_address(f"annotation {key}", value, family)
    except Unusable as error:
        raise StoreError(f"node {text(metadata(node).get('name'))}: {error}") from None


def publication(node: Mapping[str, Any], offer: Offer, keys: Keys) -> dict[str, str | None]:
    """What to change in the node's annotations so that they say what is offered.

    Empty when they do already; None removes an annotation (of a family that the underlay has no
    more). The administrator's overwriting annotations go before the offered addresses.
    Raises StoreError naming the annotation that cannot be used.
    """
    wanted: dict[str, str | None] = dict.fromkeys(keys.published())
    wanted[keys.managed] = "true"
    wanted[keys.backend_type] = BACKEND
    for endpoint in offer.endpoints:
        family = 6 if endpoint.is_ipv6 else 4
        overwrite = given_address(node, keys.overwrite[family], family)
        wanted[keys.public_ip[family]] = overwrite or endpoint.public_ip
        wanted[keys.data[family]] = backend_data(offer.vni, endpoint.mac)
    noted = noted_on(node)
    return {key: value for key, value in wanted.items() if noted.get(key) != value}


def withdrawal(node: Mapping[str, Any], keys: Keys) -> dict[str, str | None]:
    """What to change in the node's annotations so that it takes part no more.

    Empty when there is nothing of ours: another backend's annotations stay.
    """
    noted = noted_on(node)
    if noted.get(keys.backend_type) not in (None, BACKEND):
        return {}
    return {key: None for key in keys.published() if key in noted}
