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
    optional_interface_name,
    optional_mac,
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
    "bridge": None,
    "isGateway": None,
    "isDefaultGateway": None,
    "forceAddress": None,
    "ipMasq": None,
    "ipMasqBackend": None,
    "mtu": None,
    "hairpinMode": None,
    "promiscMode": None,
    "vlan": None,
    "vlanTrunk": {
        "id": None,
        "minID": None,
        "maxID": None,
    },
    "preserveDefaultVlan": None,
    "macspoofchk": None,
    "enabledad": None,
    "disableContainerInterface": None,
    "portIsolation": None,
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
    "args": {
        "cni": {
            "mac": None,
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


def _ip_masq_backend(value: Any) -> bool:
    return string(value) and value in ("", "iptables", "nftables")


def _mtu(value: Any) -> bool:
    return integer(value) and 0 <= value <= 65535


def _vlan(value: Any) -> bool:
    return integer(value) and 0 <= value <= 4094


def _vlan_trunk_item_id(value: Any) -> bool:
    return integer(value) and 1 <= value <= 4094


_VLAN_TRUNK_ITEM: dict[str, Callable[[Any], bool]] = {
    "id": _vlan_trunk_item_id,
    "maxID": _vlan_trunk_item_id,
    "minID": _vlan_trunk_item_id,
}


def _vlan_trunk_item(value: Any) -> bool:
    return (
        mapping(value)
        and ("minID" not in value or "maxID" in value)
        and ("maxID" not in value or "minID" in value)
        and members(value, _VLAN_TRUNK_ITEM)
    )


def _vlan_trunk(value: Any) -> bool:
    return array(value) and each(value, _vlan_trunk_item)


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


_ARGS_CNI: dict[str, Callable[[Any], bool]] = {
    "mac": optional_mac,
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
    "bridge": optional_interface_name,
    "capabilities": _capabilities,
    "cni.dev/attachments": _cni_dev_valid_attachments,
    "cni.dev/valid-attachments": _cni_dev_valid_attachments,
    "cniVersion": string,
    "disableContainerInterface": boolean,
    "dns": _dns,
    "enabledad": boolean,
    "forceAddress": boolean,
    "hairpinMode": boolean,
    "ipMasq": boolean,
    "ipMasqBackend": _ip_masq_backend,
    "ipam": _ipam,
    "isDefaultGateway": boolean,
    "isGateway": boolean,
    "macspoofchk": boolean,
    "mtu": _mtu,
    "name": string,
    "portIsolation": boolean,
    "preserveDefaultVlan": boolean,
    "prevResult": mapping,
    "promiscMode": boolean,
    "runtimeConfig": _runtime_config,
    "type": string,
    "vlan": _vlan,
    "vlanTrunk": _vlan_trunk,
}


def _document(value: Any) -> bool:
    return mapping(value) and members(value, _DOCUMENT)


def validate(document: Any) -> bool:
    """True when the schema accepts `document`, whose keys are canonical."""
    return _document(document)
