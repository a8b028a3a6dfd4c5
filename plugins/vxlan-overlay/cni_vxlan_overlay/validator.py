# SPDX-License-Identifier: Apache-2.0
"""Decide whether a configuration is valid. Generated from ../schema.json: do not edit.

Made by `tools/generate_validators.py`, which says why.
"""

from __future__ import annotations

from libcni.schema.predicates import (
    address,
    array,
    boolean,
    each,
    integer,
    mapping,
    members,
    optional_mac,
    optional_prefix,
    prefix,
    string,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from libcni.schema.canonical import Keys

#: The known keys and, for each that holds an object or a list of objects, those inside.
KEYS: Keys = {
    "cniVersion": None,
    "name": None,
    "type": None,
    "capabilities": None,
    "prevResult": None,
    "cni.dev/valid-attachments": {
        "containerID": None,
        "ifname": None,
    },
    "cni.dev/attachments": {
        "containerID": None,
        "ifname": None,
    },
    "vni": None,
    "port": None,
    "mtu": None,
    "learning": None,
    "directRouting": None,
    "gbp": None,
    "txChecksumOffload": None,
    "underlay": None,
    "network": None,
    "ipv6Network": None,
    "subnet": None,
    "ipv6Subnet": None,
    "subnetFile": None,
    "peers": {
        "name": None,
        "publicIP": None,
        "publicIPv6": None,
        "subnet": None,
        "ipv6Subnet": None,
        "vtepMAC": None,
    },
    "peersFile": None,
    "dataDir": None,
    "delegate": None,
    "ipam": None,
    "runtimeConfig": None,
}


def _capabilities(value: Any) -> bool:
    return mapping(value) and each(value.values(), boolean)


_ATTACHMENT: dict[str, Callable[[Any], bool]] = {
    "containerID": string,
    "ifname": string,
}


def _attachment(value: Any) -> bool:
    return mapping(value) and members(value, _ATTACHMENT)


def _cni_dev_valid_attachments(value: Any) -> bool:
    return array(value) and each(value, _attachment)


def _vni(value: Any) -> bool:
    return integer(value) and 1 <= value <= 16777215


def _port(value: Any) -> bool:
    return integer(value) and 1 <= value <= 65535


def _mtu(value: Any) -> bool:
    return integer(value) and 0 <= value <= 65535


def _tx_checksum_offload(value: Any) -> bool:
    return string(value) and value in ("", "auto", "on", "off")


_PEERS_ITEM: dict[str, Callable[[Any], bool]] = {
    "ipv6Subnet": prefix,
    "name": string,
    "publicIP": address,
    "publicIPv6": address,
    "subnet": prefix,
    "vtepMAC": optional_mac,
}


def _peers_item(value: Any) -> bool:
    return mapping(value) and members(value, _PEERS_ITEM)


def _peers(value: Any) -> bool:
    return array(value) and each(value, _peers_item)


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "dataDir": text,
    "delegate": mapping,
    "directRouting": boolean,
    "gbp": boolean,
    "ipam": mapping,
    "ipv6Network": optional_prefix,
    "ipv6Subnet": optional_prefix,
    "learning": boolean,
    "mtu": _mtu,
    "name": string,
    "network": optional_prefix,
    "peers": _peers,
    "peersFile": text,
    "port": _port,
    "prevResult": mapping,
    "runtimeConfig": mapping,
    "subnet": optional_prefix,
    "subnetFile": text,
    "txChecksumOffload": _tx_checksum_offload,
    "type": string,
    "underlay": text,
    "vni": _vni,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
