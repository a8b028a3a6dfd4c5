# SPDX-License-Identifier: Apache-2.0
"""Decide whether a configuration is valid. Generated from ../schema.json: do not edit.

Made by `tools/generate_validators.py`, which says why.
"""

from __future__ import annotations

from libcni.schema.predicates import (
    array,
    boolean,
    each,
    integer,
    mapping,
    members,
    optional_mac,
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
    "multiQueue": None,
    "mtu": None,
    "mac": None,
    "owner": None,
    "group": None,
    "selinuxContext": None,
    "bridge": None,
    "ipam": {
        "type": None,
    },
    "dns": {
        "nameservers": None,
        "domain": None,
        "search": None,
        "options": None,
    },
    "runtimeConfig": {
        "mac": None,
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


def _mtu(value: Any) -> bool:
    return integer(value) and 0 <= value <= 65535


def _owner(value: Any) -> bool:
    return integer(value) and 0 <= value <= 4294967294


_IPAM: dict[str, Callable[[Any], bool]] = {
    "type": string,
}


def _ipam(value: Any) -> bool:
    return mapping(value) and members(value, _IPAM)


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


_RUNTIME_CONFIG: dict[str, Callable[[Any], bool]] = {
    "mac": optional_mac,
}


def _runtime_config(value: Any) -> bool:
    return mapping(value) and members(value, _RUNTIME_CONFIG)


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "bridge": text,
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "dns": _dns,
    "group": _owner,
    "ipam": _ipam,
    "mac": optional_mac,
    "mtu": _mtu,
    "multiQueue": boolean,
    "name": string,
    "owner": _owner,
    "prevResult": mapping,
    "runtimeConfig": _runtime_config,
    "selinuxContext": text,
    "type": string,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
