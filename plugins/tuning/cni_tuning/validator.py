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
    "sysctl": None,
    "mac": None,
    "mtu": None,
    "promisc": None,
    "allmulti": None,
    "txQLen": None,
    "dataDir": None,
    "runtimeConfig": {
        "mac": None,
    },
    "args": {
        "cni": {
            "sysctl": None,
            "mac": None,
            "mtu": None,
            "promisc": None,
            "allmulti": None,
            "txQLen": None,
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


def _sysctl(value: Any) -> bool:
    return mapping(value) and each(value.values(), text)


def _mtu(value: Any) -> bool:
    return integer(value) and 0 <= value <= 4294967295


_RUNTIME_CONFIG: dict[str, Callable[[Any], bool]] = {
    "mac": optional_mac,
}


def _runtime_config(value: Any) -> bool:
    return mapping(value) and members(value, _RUNTIME_CONFIG)


_ARGS_CNI: dict[str, Callable[[Any], bool]] = {
    "allmulti": boolean,
    "mac": optional_mac,
    "mtu": _mtu,
    "promisc": boolean,
    "sysctl": _sysctl,
    "txQLen": _mtu,
}


def _args_cni(value: Any) -> bool:
    return mapping(value) and members(value, _ARGS_CNI)


_ARGS: dict[str, Callable[[Any], bool]] = {
    "cni": _args_cni,
}


def _args(value: Any) -> bool:
    return mapping(value) and members(value, _ARGS)


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "allmulti": boolean,
    "args": _args,
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "dataDir": text,
    "mac": optional_mac,
    "mtu": _mtu,
    "name": string,
    "prevResult": mapping,
    "promisc": boolean,
    "runtimeConfig": _runtime_config,
    "sysctl": _sysctl,
    "txQLen": _mtu,
    "type": string,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
