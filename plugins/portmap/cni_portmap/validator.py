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
    optional_address,
    optional_chain_name,
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
    "backend": None,
    "snat": None,
    "masqAll": None,
    "markMasqBit": None,
    "externalSetMarkChain": None,
    "conditionsV4": None,
    "conditionsV6": None,
    "runtimeConfig": {
        "portMappings": {
            "hostPort": None,
            "hostPortEnd": None,
            "containerPort": None,
            "protocol": None,
            "hostIP": None,
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


def _backend(value: Any) -> bool:
    return string(value) and value in ("", "iptables", "nftables")


def _mark_masq_bit(value: Any) -> bool:
    return integer(value) and 0 <= value <= 31


def _conditions_v4_item(value: Any) -> bool:
    return string(value) and len(value) >= 1


def _conditions_v4(value: Any) -> bool:
    return array(value) and each(value, _conditions_v4_item)


def _runtime_config_port_mappings_item_host_port(value: Any) -> bool:
    return integer(value) and 1 <= value <= 65535


def _runtime_config_port_mappings_item_host_port_end(value: Any) -> bool:
    return integer(value) and 0 <= value <= 65535


_RUNTIME_CONFIG_PORT_MAPPINGS_ITEM: dict[str, Callable[[Any], bool]] = {
    "containerPort": _runtime_config_port_mappings_item_host_port,
    "hostIP": optional_address,
    "hostPort": _runtime_config_port_mappings_item_host_port,
    "hostPortEnd": _runtime_config_port_mappings_item_host_port_end,
    "protocol": string,
}


def _runtime_config_port_mappings_item(value: Any) -> bool:
    return (
        mapping(value)
        and "hostPort" in value
        and "containerPort" in value
        and members(value, _RUNTIME_CONFIG_PORT_MAPPINGS_ITEM)
    )


def _runtime_config_port_mappings(value: Any) -> bool:
    return array(value) and each(value, _runtime_config_port_mappings_item)


_RUNTIME_CONFIG: dict[str, Callable[[Any], bool]] = {
    "portMappings": _runtime_config_port_mappings,
}


def _runtime_config(value: Any) -> bool:
    return mapping(value) and members(value, _RUNTIME_CONFIG)


_DOCUMENT: dict[str, Callable[[Any], bool]] = {
    "backend": _backend,
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "conditionsV4": _conditions_v4,
    "conditionsV6": _conditions_v4,
    "externalSetMarkChain": optional_chain_name,
    "markMasqBit": _mark_masq_bit,
    "masqAll": boolean,
    "name": string,
    "prevResult": mapping,
    "runtimeConfig": _runtime_config,
    "snat": boolean,
    "type": string,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
