# SPDX-License-Identifier: Apache-2.0
"""Decide whether a configuration is valid. Generated from ../schema.json: do not edit.

Made by `tools/generate_validators.py`, which says why.
"""

from __future__ import annotations

from libcni.schema.predicates import (
    address_or_prefix,
    array,
    boolean,
    each,
    integer,
    mapping,
    members,
    optional_address,
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
    "ipam": {
        "type": None,
        "addresses": {
            "address": None,
            "gateway": None,
        },
        "exclusive": None,
        "dataDir": None,
        "routes": {
            "dst": None,
            "gw": None,
            "mtu": None,
            "advmss": None,
            "priority": None,
            "table": None,
            "scope": None,
        },
        "dns": {
            "nameservers": None,
            "domain": None,
            "search": None,
            "options": None,
        },
    },
    "runtimeConfig": {
        "ips": None,
    },
    "args": {
        "cni": {
            "ips": None,
        },
    },
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


_IPAM_ADDRESSES_ITEM: dict[str, Callable[[Any], bool]] = {
    "address": prefix,
    "gateway": optional_address,
}


def _ipam_addresses_item(value: Any) -> bool:
    return mapping(value) and "address" in value and members(value, _IPAM_ADDRESSES_ITEM)


def _ipam_addresses(value: Any) -> bool:
    return array(value) and each(value, _ipam_addresses_item)


def _unsigned32(value: Any) -> bool:
    return integer(value) and 0 <= value <= 4294967295


def _route_scope(value: Any) -> bool:
    return integer(value) and 0 <= value <= 255


_ROUTE: dict[str, Callable[[Any], bool]] = {
    "advmss": _unsigned32,
    "dst": prefix,
    "gw": optional_address,
    "mtu": _unsigned32,
    "priority": _unsigned32,
    "scope": _route_scope,
    "table": _unsigned32,
}


def _route(value: Any) -> bool:
    return mapping(value) and "dst" in value and members(value, _ROUTE)


def _ipam_routes(value: Any) -> bool:
    return array(value) and each(value, _route)


def _dns_nameservers(value: Any) -> bool:
    return array(value) and each(value, string)


_DNS: dict[str, Callable[[Any], bool]] = {
    "domain": string,
    "nameservers": _dns_nameservers,
    "options": _dns_nameservers,
    "search": _dns_nameservers,
}


def _dns(value: Any) -> bool:
    return mapping(value) and members(value, _DNS)


_IPAM: dict[str, Callable[[Any], bool]] = {
    "addresses": _ipam_addresses,
    "dataDir": text,
    "dns": _dns,
    "exclusive": boolean,
    "routes": _ipam_routes,
    "type": string,
}


def _ipam(value: Any) -> bool:
    return mapping(value) and members(value, _IPAM)


def _runtime_config_ips(value: Any) -> bool:
    return array(value) and each(value, address_or_prefix)


_RUNTIME_CONFIG: dict[str, Callable[[Any], bool]] = {
    "ips": _runtime_config_ips,
}


def _runtime_config(value: Any) -> bool:
    return mapping(value) and members(value, _RUNTIME_CONFIG)


_ARGS_CNI: dict[str, Callable[[Any], bool]] = {
    "ips": _runtime_config_ips,
}


def _args_cni(value: Any) -> bool:
    return mapping(value) and members(value, _ARGS_CNI)


_ARGS: dict[str, Callable[[Any], bool]] = {
    "cni": _args_cni,
}


def _args(value: Any) -> bool:
    return mapping(value) and members(value, _ARGS)


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "args": _args,
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "ipam": _ipam,
    "name": string,
    "prevResult": mapping,
    "runtimeConfig": _runtime_config,
    "type": string,
}


def _document(value: Any) -> bool:
    return mapping(value) and "ipam" in value and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
