# SPDX-License-Identifier: Apache-2.0
"""A rejection names the key's path, its value and what was expected."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from libcni.schema import explain
from libcni.types.errors import INVALID_NETWORK_CONFIG

CASES: list[tuple[str, Any, str, str]] = [
    ("bridge", {"isGateway": "yes"}, "isGateway: \"yes\" is not of type 'boolean'", "a boolean"),
    ("bridge", {"mtu": True}, "mtu: true is not of type 'integer'", "from 0 to 65535"),
    ("bridge", {"vlan": 4095}, "vlan: 4095 is greater than the maximum of 4094", "VLAN"),
    ("bridge", {"vlan": -1}, "vlan: -1 is less than the minimum of 0", "from 0 to 4094"),
    (
        "bridge",
        {"ipMasqBackend": "ebpf"},
        'ipMasqBackend: "ebpf" is not one of "", "iptables", "nftables"',
        "nftables",
    ),
    ("bridge", {"bridge": "a b"}, 'bridge: "a b" is not an interface name', "15 bytes"),
    (
        "bridge",
        {"runtimeConfig": {"mac": "zz"}},
        'runtimeConfig.mac: "zz" is not a MAC address',
        "0a:58:",
    ),
    (
        "bridge",
        {"vlanTrunk": [{"id": 1}, {"minID": 0, "maxID": 4}]},
        "vlanTrunk[1].minID: 0 is less than the minimum of 1",
        "expected",
    ),
    ("bridge", {"vlanTrunk": [{"minID": 1}]}, "vlanTrunk[0]: 'maxID' is a dependency", "VLAN"),
    ("bridge", {"capabilities": {"a b": 1}}, 'capabilities["a b"]: 1 is not of type', "boolean"),
    (
        "host-local",
        {"ipam": {"ranges": [[{"subnet": "10.1.2.0"}]]}},
        'ipam.ranges[0][0].subnet: "10.1.2.0" is not an IP prefix in CIDR notation',
        "10.1.2.0/24",
    ),
    ("host-local", {"ipam": {"ranges": [[]]}}, "ipam.ranges[0]: [] should be non-empty", "list"),
    ("host-local", {}, "'ipam' is a required property", "host-local"),
    (
        "host-local",
        {"ipam": {"routes": [{"gw": "10.0.0.1"}]}},
        "ipam.routes[0]: 'dst' is a required property",
        "Destination",
    ),
    ("host-local", {"ipam": {"gateway": "x" * 500}}, "… (502 characters) is not an IP", "10.1."),
    ("loopback", [], "[] is not of type 'object'", "a network configuration"),
    ("conflist", {"name": "n", "disableGC": "maybe"}, 'disableGC: "maybe" is not', ""),
    ("conflist", {"name": "n", "plugins": [{}]}, "plugins[0]: 'type' is a required", "executable"),
    ("error", {"code": 1, "msg": ""}, "msg: '' should be non-empty", ""),
]


@pytest.mark.parametrize(("name", "document", "msg", "details"), CASES)
def test_explain(name: str, document: Any, msg: str, details: str) -> None:
    found_msg, found_details = explain.explain(name, document)
    assert msg in found_msg
    assert details in found_details
    assert "(?:" not in found_msg + found_details, "a pattern is no explanation"


def test_wrong_values_come_before_missing_keys_and_the_rest_is_mentioned() -> None:
    document = {"ipam": {"routes": [{}], "gateway": "x", "dataDir": 5}}
    msg, details = explain.explain("host-local", document)
    assert msg.startswith("ipam.dataDir: 5 is not of type 'string'")
    assert 'also: ipam.gateway: "x" is not an IP address; ' in details
    assert "ipam.routes[0]: 'dst' is a required property" in details


def test_many_errors_are_counted() -> None:
    document = {"vlan": "a", "mtu": "a", "ipMasq": "a", "bridge": 1, "isGateway": 1, "name": 1}
    _, details = explain.explain("bridge", document)
    assert details.endswith(", and 2 more")


def test_rejection_carries_the_code() -> None:
    error = explain.rejection("bridge", {"mtu": "1500"})
    assert error.code == INVALID_NETWORK_CONFIG
    assert error.msg == "mtu: \"1500\" is not of type 'integer'"
    assert "1450" in error.details


def test_rejection_of_a_valid_document_still_says_something() -> None:
    assert "bridge" in explain.rejection("bridge", {}).msg


def test_schemas_are_found_below_another_root(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "plugins/odd"
    folder.mkdir(parents=True)
    (folder / "schema.json").write_text(json.dumps({"type": "object"}))
    monkeypatch.setattr(explain, "SCHEMA_ROOT", tmp_path)
    assert explain.explain("odd", [])[0] == "[] is not of type 'object'"
    with pytest.raises(FileNotFoundError, match="bridge"):
        explain.explain("bridge", {})
