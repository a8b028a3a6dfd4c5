# SPDX-License-Identifier: Apache-2.0
"""Decide whether a configuration is valid. Generated from ../schema.json: do not edit.

Made by `tools/generate_validators.py`, which says why.
"""

from __future__ import annotations

from libcni.schema.predicates import (
    array,
    boolean,
    each,
    mapping,
    members,
    optional_chain_name,
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
    "backend": None,
    "iptablesAdminChainName": None,
    "firewalldZone": None,
    "ingressPolicy": None,
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


def _ingress_policy(value: Any) -> bool:
    return string(value) and value in ("", "open", "same-bridge", "isolated")


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "backend": string,
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "firewalldZone": text,
    "ingressPolicy": _ingress_policy,
    "iptablesAdminChainName": optional_chain_name,
    "name": string,
    "prevResult": mapping,
    "type": string,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
