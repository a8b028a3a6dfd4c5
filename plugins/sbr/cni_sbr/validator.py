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
    string,
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
    "table": None,
    "gateways": None,
    "addSourceHints": None,
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


def _table(value: Any) -> bool:
    return integer(value) and 1 <= value <= 4294967295


def _gateways(value: Any) -> bool:
    return array(value) and each(value, address)


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "addSourceHints": boolean,
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "gateways": _gateways,
    "name": string,
    "prevResult": mapping,
    "table": _table,
    "type": string,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
