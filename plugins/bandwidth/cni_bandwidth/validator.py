# SPDX-License-Identifier: Apache-2.0
"""Decide whether a configuration is valid. Generated from ../schema.json: do not edit.

Made by `tools/generate_validators.py`, which says why.
"""

from __future__ import annotations

from libcni.schema.predicates import array, boolean, each, integer, mapping, members, string

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
    "ingressRate": None,
    "ingressBurst": None,
    "egressRate": None,
    "egressBurst": None,
    "runtimeConfig": {
        "bandwidth": {
            "ingressRate": None,
            "ingressBurst": None,
            "egressRate": None,
            "egressBurst": None,
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


def _ingress_rate(value: Any) -> bool:
    return integer(value) and 0 <= value <= 18446744073709551615


_RUNTIME_CONFIG_BANDWIDTH: dict[str, Callable[[Any], bool]] = {
    "egressBurst": _ingress_rate,
    "egressRate": _ingress_rate,
    "ingressBurst": _ingress_rate,
    "ingressRate": _ingress_rate,
}


def _runtime_config_bandwidth(value: Any) -> bool:
    return mapping(value) and members(value, _RUNTIME_CONFIG_BANDWIDTH)


_RUNTIME_CONFIG: dict[str, Callable[[Any], bool]] = {
    "bandwidth": _runtime_config_bandwidth,
}


def _runtime_config(value: Any) -> bool:
    return mapping(value) and members(value, _RUNTIME_CONFIG)


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "egressBurst": _ingress_rate,
    "egressRate": _ingress_rate,
    "ingressBurst": _ingress_rate,
    "ingressRate": _ingress_rate,
    "name": string,
    "prevResult": mapping,
    "runtimeConfig": _runtime_config,
    "type": string,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
