# SPDX-License-Identifier: Apache-2.0
"""net-conf.json as flannel reads it: keys, defaults, bounds; and errors that name the culprit."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_vxlan_overlay.agent.model import Backend
from cni_vxlan_overlay.agent.netconf import parse_netconf
from cni_vxlan_overlay.agent.store import StoreError
from libcni.inet import Prefix

#: What flannel's manifest has in its ConfigMap.
MANIFEST = """
{
  "Network": "10.244.0.0/16",
  "EnableNFTables": false,
  "Backend": {
    "Type": "vxlan"
  }
}
"""


def text(**keys: Any) -> str:
    return json.dumps(keys)


def prefix(cidr: str) -> Prefix:
    return Prefix.parse(cidr)


def test_the_manifest_of_flannel() -> None:
    netconf = parse_netconf(MANIFEST)
    assert netconf.networks == (prefix("10.244.0.0/16"),)
    assert netconf.subnet_len == {4: 24}
    assert netconf.subnet_min == {4: prefix("10.244.1.0/24")}
    assert netconf.subnet_max == {4: prefix("10.244.255.0/24")}
    assert netconf.backend == Backend(1, 8472, 0, False, False, False, "auto")


def test_every_key() -> None:
    netconf = parse_netconf(
        text(
            Network="10.3.0.0/16",
            IPv6Network="fc00::/48",
            EnableIPv4=True,
            EnableIPv6=True,
            EnableNFTables=True,
            SubnetLen=28,
            SubnetMin="10.3.5.0",
            SubnetMax="10.3.8.16",
            IPv6SubnetLen=124,
            IPv6SubnetMin="fc00:0:0:1::",
            IPv6SubnetMax="fc00:0:0:f::10",
            Backend={
                "Type": "VXLAN",
                "VNI": 4096,
                "Port": 4789,
                "MTU": 1400,
                "Learning": True,
                "DirectRouting": True,
                "GBP": True,
                "TxChecksumOffload": "off",
            },
        )
    )
    assert netconf.networks == (prefix("10.3.0.0/16"), prefix("fc00::/48"))
    assert netconf.subnet_len == {4: 28, 6: 124}
    assert netconf.subnet_min == {4: prefix("10.3.5.0/28"), 6: prefix("fc00:0:0:1::/124")}
    assert netconf.subnet_max == {4: prefix("10.3.8.16/28"), 6: prefix("fc00:0:0:f::10/124")}
    assert netconf.backend == Backend(4096, 4789, 1400, True, True, True, "off")


def test_keys_match_whatever_their_case_and_the_last_wins() -> None:
    netconf = parse_netconf(
        '{"Network": "10.1.0.0/16", "network": "10.3.0.0/16", "SUBNETLEN": 26,'
        ' "backend": {"type": "vxlan", "vni": 5, "mtu": 1400, "directrouting": true}}'
    )
    assert netconf.networks == (prefix("10.3.0.0/16"),)
    assert netconf.subnet_len == {4: 26}
    assert netconf.backend == Backend(vni=5, mtu=1400, direct_routing=True)


@pytest.mark.parametrize(
    ("network", "length", "first", "last"),
    [
        ("10.0.0.0/8", 24, "10.0.1.0/24", "10.255.255.0/24"),
        ("10.3.0.0/22", 24, "10.3.1.0/24", "10.3.3.0/24"),
        ("10.3.0.0/23", 25, "10.3.0.128/25", "10.3.1.128/25"),
        ("10.3.0.0/28", 30, "10.3.0.4/30", "10.3.0.12/30"),
    ],
)
def test_defaults_of_ipv4(network: str, length: int, first: str, last: str) -> None:
    netconf = parse_netconf(text(Network=network))
    assert netconf.subnet_len == {4: length}
    assert (netconf.subnet_min, netconf.subnet_max) == ({4: prefix(first)}, {4: prefix(last)})


@pytest.mark.parametrize(
    ("network", "length", "first", "last"),
    [
        ("fc00::/48", 64, "fc00:0:0:1::/64", "fc00:0:0:ffff::/64"),
        ("fc00::/62", 64, "fc00:0:0:1::/64", "fc00:0:0:3::/64"),
        ("fc00::/63", 65, "fc00:0:0:0:8000::/65", "fc00:0:0:1:8000::/65"),
        ("fc00::/124", 126, "fc00::4/126", "fc00::c/126"),
    ],
)
def test_defaults_of_ipv6(network: str, length: int, first: str, last: str) -> None:
    netconf = parse_netconf(text(EnableIPv4=False, EnableIPv6=True, IPv6Network=network))
    assert netconf.networks == (prefix(network),)
    assert netconf.subnet_len == {6: length}
    assert (netconf.subnet_min, netconf.subnet_max) == ({6: prefix(first)}, {6: prefix(last)})


def test_null_empty_and_zero_are_not_given() -> None:
    given_nothing = text(
        Network="10.3.0.0/16",
        IPv6Network="",
        EnableIPv4=None,
        SubnetLen=0,
        SubnetMin="",
        SubnetMax="0.0.0.0",
        IPv6SubnetMin=None,
        Backend={"Type": "", "VNI": None, "Port": 0, "MTU": 0, "TxChecksumOffload": ""},
    )
    assert parse_netconf(given_nothing) == parse_netconf(text(Network="10.3.0.0/16"))
    assert parse_netconf(text(Network="10.3.0.0/16", Backend=None)).backend == Backend()


def test_host_bits_of_a_network_are_cleared() -> None:
    assert parse_netconf(text(Network="10.3.4.5/16")).networks == (prefix("10.3.0.0/16"),)


def test_a_network_that_is_not_enabled_is_ignored_and_said_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    netconf = parse_netconf(text(Network="10.3.0.0/16", IPv6Network="fc00::/48"))
    assert netconf.networks == (prefix("10.3.0.0/16"),)
    assert "IPv6Network fc00::/48 is ignored, as EnableIPv6 is not true" in caplog.text


def test_unknown_keys_are_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    parse_netconf(text(Network="10.3.0.0/16", SubnetLenght=26, Backend={"DirectRoute": True}))
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "net-conf.json: unknown key SubnetLenght is ignored"),
        (logging.WARNING, "net-conf.json: unknown key Backend.DirectRoute is ignored"),
    ]


def test_known_keys_cause_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    parse_netconf(MANIFEST)
    assert not caplog.records


@pytest.mark.parametrize(
    ("document", "parts"),
    [
        ("", ["net-conf.json is empty"]),
        ("{", ["not valid JSON", "line 1"]),
        ("[]", ["the document", "object", "[]"]),
        ('"x"', ["the document", "object"]),
        ("{}", ["Network is missing", "EnableIPv4"]),
        (text(EnableIPv4=False), ["EnableIPv4", "EnableIPv6", "false"]),
        (text(Network="10.3.0.0/16", EnableIPv6=True), ["IPv6Network is missing", "EnableIPv6"]),
        (text(Network="10.3.0.0"), ["Network", '"10.3.0.0"', "IPv4 network"]),
        (text(Network="fc00::/48"), ["Network", '"fc00::/48"', "IPv4 network"]),
        (text(Network=["10.3.0.0/16"]), ["Network", '["10.3.0.0/16"]', "string"]),
        (
            text(Network="10.3.0.0/16", EnableIPv6=True, IPv6Network="10.4.0.0/16"),
            ["IPv6Network", '"10.4.0.0/16"', "IPv6 network"],
        ),
        (text(Network="10.3.0.0/16", EnableIPv4="true"), ["EnableIPv4", '"true"', "true or"]),
        (text(Network="10.3.0.0/16", EnableNFTables=1), ["EnableNFTables", "not 1"]),
        (text(Network="10.3.0.0/29"), ["Network 10.3.0.0/29", "too small", "/28"]),
        (text(Network="10.3.0.0/16", SubnetLen=31), ["SubnetLen 31", "30 at most"]),
        (text(Network="10.3.0.0/16", SubnetLen=17), ["SubnetLen 17", "four", "18 at least"]),
        (text(Network="10.3.0.0/16", SubnetLen=-1), ["SubnetLen", "-1", "0 to 32"]),
        (text(Network="10.3.0.0/16", SubnetLen=True), ["SubnetLen", "true", "integer"]),
        (text(Network="10.3.0.0/16", SubnetLen=24.0), ["SubnetLen", "24.0", "integer"]),
        (text(Network="10.3.0.0/16", SubnetMin="10.4.0.0"), ["SubnetMin 10.4.0.0", "outside"]),
        (text(Network="10.3.0.0/16", SubnetMax="10.4.0.0"), ["SubnetMax 10.4.0.0", "outside"]),
        (text(Network="10.3.0.0/16", SubnetMin="fc00::1"), ["SubnetMin fc00::1", "outside"]),
        (text(Network="10.3.0.0/16", SubnetMin="10.3.1.1"), ["SubnetMin 10.3.1.1", "begin"]),
        (text(Network="10.3.0.0/16", SubnetMax="10.3.1.9"), ["SubnetMax 10.3.1.9", "10.3.1.0/24"]),
        (text(Network="10.3.0.0/16", SubnetMin="10.3"), ["SubnetMin", '"10.3"', "IP address"]),
        (
            text(Network="10.3.0.0/16", SubnetMin="10.3.9.0", SubnetMax="10.3.8.0"),
            ["SubnetMin 10.3.9.0", "above", "SubnetMax 10.3.8.0"],
        ),
        (
            text(EnableIPv4=False, EnableIPv6=True, IPv6Network="fc00::/125"),
            ["IPv6Network fc00::/125", "too small", "/124"],
        ),
        (
            text(EnableIPv4=False, EnableIPv6=True, IPv6Network="fc00::/48", IPv6SubnetLen=127),
            ["IPv6SubnetLen 127", "126 at most"],
        ),
        (
            text(EnableIPv4=False, EnableIPv6=True, IPv6Network="fc00::/48", IPv6SubnetLen=49),
            ["IPv6SubnetLen 49", "50 at least"],
        ),
        (text(Network="10.3.0.0/16", Backend="vxlan"), ["Backend", '"vxlan"', "object"]),
        (text(Network="10.3.0.0/16", Backend={"Type": "host-gw"}), ["Backend.Type", "host-gw"]),
        (text(Network="10.3.0.0/16", Backend={"VNI": 1 << 24}), ["Backend.VNI", "16777216"]),
        (text(Network="10.3.0.0/16", Backend={"VNI": "1"}), ["Backend.VNI", '"1"']),
        (text(Network="10.3.0.0/16", Backend={"Port": 65536}), ["Backend.Port", "65536"]),
        (text(Network="10.3.0.0/16", Backend={"MTU": 575}), ["Backend.MTU 575", "576"]),
        (text(Network="10.3.0.0/16", Backend={"GBP": "yes"}), ["Backend.GBP", '"yes"']),
        (
            text(Network="10.3.0.0/16", Backend={"TxChecksumOffload": "never"}),
            ["Backend.TxChecksumOffload", "never", "auto"],
        ),
    ],
)
def test_errors_name_key_and_value(document: str, parts: list[str]) -> None:
    with pytest.raises(StoreError) as raised:
        parse_netconf(document)
    for part in parts:
        assert part in str(raised.value)


def test_a_store_that_does_not_allocate_leaves_the_subnet_keys_alone() -> None:
    """flannel does not look at them under Kubernetes, so a cluster may run with nonsense."""
    document = text(Network="10.3.0.0/29", SubnetLen=99, SubnetMin="10.9.9.9")
    netconf = parse_netconf(document, allocates=False)
    assert netconf.networks == (prefix("10.3.0.0/29"),)
    assert (netconf.subnet_len, netconf.subnet_min, netconf.subnet_max) == ({}, {}, {})
    with pytest.raises(StoreError, match="SubnetLen"):
        parse_netconf(document)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["Network", "ipv6network", "EnableIPv6", "SubnetLen", "SubnetMin", "IPv6SubnetMax", "Backend"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines are busy
@given(st.dictionaries(NAMES, VALUES), st.dictionaries(st.sampled_from(["Type", "VNI"]), VALUES))
def test_any_json_is_read_or_refused_by_name(
    keys: dict[str, Any], backend: dict[str, Any]
) -> None:
    document = json.dumps({"Network": "10.3.0.0/16", "Backend": backend} | keys)
    try:
        netconf = parse_netconf(document)
    except StoreError as error:
        assert str(error).startswith("net-conf.json")
    else:
        assert netconf.networks


@given(st.integers(0, 28), st.integers(2, 30), st.integers(0, (1 << 32) - 1))
def test_bounds_are_subnets_inside_the_network(length: int, subnet: int, address: int) -> None:
    network = Prefix(address.to_bytes(4, "big"), length).network()
    document = text(Network=network.text(), SubnetLen=subnet)
    if subnet < length + 2:
        with pytest.raises(StoreError, match="four subnets"):
            parse_netconf(document)
        return
    netconf = parse_netconf(document)
    low, high = netconf.subnet_min[4], netconf.subnet_max[4]
    assert low.length == high.length == subnet
    assert network.packed < low.packed <= high.packed
    assert low.network() == low and high.network() == high
    assert network.contains(low.packed) and high.broadcast() == network.broadcast()
