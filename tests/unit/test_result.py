# SPDX-License-Identifier: Apache-2.0
"""Results of every version: reading, writing, and what conversion keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcni.inet import ntop
from libcni.schema.explain import validator
from libcni.types.errors import CniError
from libcni.types.result import DNS, Interface, IPConfig, Result, Route
from libcni.version import NEWEST, SUPPORTED

MODERN = [v for v in SUPPORTED if v >= "0.3.0"]

names = st.text("abcdefghijklmnop0123456789", min_size=1, max_size=12)
uints = st.integers(1, 2**32 - 1)
ipv4 = st.ip_addresses(v=4).map(str)
# The IPv4-mapped ones are IPv4 to Go and to us, and are tested by name below.
ipv6_text = (
    st.binary(min_size=16, max_size=16)
    .filter(lambda packed: not packed.startswith(b"\0" * 10 + b"\xff\xff"))
    .map(ntop)
)
cidr4 = st.tuples(ipv4, st.integers(0, 32)).map(lambda t: f"{t[0]}/{t[1]}")
cidr6 = st.tuples(ipv6_text, st.integers(0, 128)).map(lambda t: f"{t[0]}/{t[1]}")
interfaces = st.builds(
    Interface,
    name=names,
    mac=st.sampled_from(["", "0a:58:0a:01:02:03"]),
    mtu=st.just(0) | uints,
    sandbox=st.sampled_from(["", "/run/netns/a"]),
    socket_path=st.sampled_from(["", "/run/vhost.sock"]),
    pci_id=st.sampled_from(["", "0000:00:1f.6"]),
)
# A gateway is of its destination's family.
families = [(cidr4, ipv4), (cidr6, ipv6_text)]
ips = st.one_of(
    [
        st.builds(
            IPConfig,
            address=cidr,
            gateway=st.just("") | address,
            interface=st.none() | st.integers(0, 3),
        )
        for cidr, address in families
    ]
)
routes = st.one_of(
    [
        st.builds(
            Route,
            dst=cidr,
            gw=st.just("") | address,
            mtu=st.just(0) | uints,
            advmss=st.just(0) | uints,
            priority=st.just(0) | uints,
            table=st.none() | st.integers(0, 2**32 - 1),
            scope=st.none() | st.integers(0, 255),
        )
        for cidr, address in families
    ]
)
dns = st.builds(
    DNS,
    nameservers=st.lists(ipv4, max_size=2),
    domain=st.just("") | names,
    search=st.lists(names, max_size=2),
    options=st.lists(names, max_size=2),
)
results = st.builds(
    Result,
    interfaces=st.lists(interfaces, max_size=3),
    ips=st.lists(ips, max_size=4),
    routes=st.lists(routes, max_size=4),
    dns=dns,
)


def expressible(result: Result, version: str) -> Result:
    """What of a result a version can say: the oracle, written from the specification."""
    if version >= "1.0.0":
        return result
    bare = [Interface(i.name, i.mac, 0, i.sandbox) for i in result.interfaces]
    if version >= "0.3.0":
        return Result(bare, result.ips, result.routes, result.dns)
    first: dict[bool, IPConfig] = {}
    for ip in result.ips:
        first.setdefault(":" in ip.address, IPConfig(ip.address, ip.gateway))
    addresses = [first[family] for family in (False, True) if family in first]
    kept = [Route(r.dst, r.gw) for r in result.routes if (":" in r.dst) in first]
    kept.sort(key=lambda r: ":" in r.dst)
    return Result([], addresses, kept, result.dns)


@given(results, st.sampled_from(MODERN))
def test_there_and_back_keeps_what_the_version_can_say(result: Result, version: str) -> None:
    document = json.loads(json.dumps(result.to_json(version)))
    assert Result.from_json(document, "0.1.0") == expressible(result, version)


@given(results.filter(lambda r: r.ips), st.sampled_from(["0.1.0", "0.2.0"]))
def test_there_and_back_through_the_old_shapes(result: Result, version: str) -> None:
    document = json.loads(json.dumps(result.to_json(version)))
    assert Result.from_json(document, NEWEST) == expressible(result, version)


@given(results, st.sampled_from(MODERN), st.sampled_from(SUPPORTED))
def test_a_detour_over_another_version_loses_only_what_both_cannot_say(
    result: Result, one: str, other: str
) -> None:
    if other < "0.3.0" and not result.ips:
        return
    there = Result.from_json(result.to_json(one), one)
    back = Result.from_json(there.to_json(other), other)
    assert back == expressible(expressible(result, one), other)


@given(results.filter(lambda r: r.ips), st.sampled_from(SUPPORTED))
def test_every_version_validates(result: Result, version: str) -> None:
    validator(f"result.{version}").validate(result.to_json(version))


FULL: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "dns": {"domain": "d", "nameservers": ["10.1.0.1"], "options": ["o"], "search": ["s"]},
    "interfaces": [
        {"mac": "00:11:22:33:44:55", "mtu": 1500, "name": "cni0"},
        {"name": "eth0", "pciID": "p", "sandbox": "/run/netns/a", "socketPath": "/s"},
    ],
    "ips": [
        {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0},
        {"address": "2001:db8::5/64", "interface": 1},
    ],
    "routes": [
        {"dst": "0.0.0.0/0"},
        {
            "advmss": 1400,
            "dst": "2001:db8:1::/48",
            "gw": "2001:db8::1",
            "mtu": 1450,
            "priority": 5,
            "scope": 0,
            "table": 100,
        },
    ],
}


def test_newest_version_prints_keys_sorted_and_keeps_interface_zero() -> None:
    written = Result.from_json(FULL, "0.1.0").to_json("1.1.0")
    assert json.dumps(written) == json.dumps(FULL)


def test_0_4_0_prints_in_the_order_of_the_reference() -> None:
    assert json.dumps(Result.from_json(FULL, "").to_json("0.4.0")) == json.dumps(
        {
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": "cni0", "mac": "00:11:22:33:44:55"},
                {"name": "eth0", "sandbox": "/run/netns/a"},
            ],
            "ips": [
                {
                    "version": "4",
                    "interface": 0,
                    "address": "10.1.0.5/16",
                    "gateway": "10.1.0.1",
                },
                {"version": "6", "interface": 1, "address": "2001:db8::5/64"},
            ],
            "routes": [
                {"dst": "0.0.0.0/0"},
                {
                    "dst": "2001:db8:1::/48",
                    "gw": "2001:db8::1",
                    "mtu": 1450,
                    "advmss": 1400,
                    "priority": 5,
                    "table": 100,
                    "scope": 0,
                },
            ],
            "dns": {
                "nameservers": ["10.1.0.1"],
                "domain": "d",
                "search": ["s"],
                "options": ["o"],
            },
        }
    )


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_old_shape(version: str) -> None:
    assert Result.from_json(FULL, "").to_json(version) == {
        "cniVersion": version,
        "ip4": {
            "ip": "10.1.0.5/16",
            "gateway": "10.1.0.1",
            "routes": [{"dst": "0.0.0.0/0"}],
        },
        "ip6": {
            "ip": "2001:db8::5/64",
            "routes": [{"dst": "2001:db8:1::/48", "gw": "2001:db8::1"}],
        },
        "dns": FULL["dns"],
    }


@pytest.mark.parametrize("version", SUPPORTED)
def test_empty_dns_is_printed_before_1_0_0_only(version: str) -> None:
    document = Result(ips=[IPConfig("10.0.0.1/8")]).to_json(version)
    assert document.get("dns") == (None if version >= "1.0.0" else {})
    assert "interfaces" not in document and "routes" not in document


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_no_address_cannot_be_said_before_0_3_0(version: str) -> None:
    with pytest.raises(CniError, match="cannot convert: no valid IP addresses"):
        Result([Interface("eth0")]).to_json(version)


def test_missing_version_is_the_configurations() -> None:
    old = {"ip4": {"ip": "10.0.0.2/24"}}
    new = {"ips": [{"address": "10.0.0.2/24"}]}
    expected = Result(ips=[IPConfig("10.0.0.2/24")])
    assert Result.from_json(old, "0.2.0") == expected
    assert Result.from_json(old, "") == expected
    assert Result.from_json(new, "1.0.0") == expected
    assert Result.from_json(new, "0.2.0") == Result()


def test_misprint_of_0_3_0_is_read() -> None:
    document = {"cniVersion": "0.3.0", "ip": [{"version": "4", "address": "10.0.0.2/24"}]}
    assert Result.from_json(document, "").ips == [IPConfig("10.0.0.2/24")]


def test_keys_match_in_any_case_and_null_is_absent() -> None:
    document = {
        "CNIVersion": "1.0.0",
        "IPs": [{"Address": "10.0.0.2/24", "interface": None}],
        "interfaces": None,
        "unknown": {"a": 1},
        "DNS": {"Nameservers": None},
    }
    assert Result.from_json(document, "") == Result(ips=[IPConfig("10.0.0.2/24")])


def test_addresses_come_out_canonical() -> None:
    document = {
        "cniVersion": "1.0.0",
        "ips": [{"address": "2001:DB8:0::1/64"}, {"address": "::ffff:10.0.0.1/120"}],
    }
    assert [ip.address for ip in Result.from_json(document, "").ips] == [
        "2001:db8::1/64",
        "10.0.0.1/24",
    ]


@pytest.mark.parametrize(
    ("document", "culprit"),
    [
        ([], "not a JSON object"),
        ("x", "not a JSON object"),
        ({"cniVersion": 1}, "cniVersion"),
        ({"cniVersion": "1.2.0"}, '"1.2.0"'),
        ({"ips": {}}, "ips"),
        ({"ips": [1]}, r"ips\[0\]"),
        ({"ips": [{}]}, r"ips\[0\]\.address"),
        ({"ips": [{"address": "10.0.0.1"}]}, "10.0.0.1"),
        ({"ips": [{"address": "10.0.0.1/33"}]}, "10.0.0.1/33"),
        ({"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]}, "gateway"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": True}]}, "interface"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": "0"}]}, "interface"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": -1}]}, "interface"),
        ({"interfaces": [{"name": 1}]}, r"interfaces\[0\]\.name"),
        ({"interfaces": [{"name": "a", "mtu": 1.5}]}, "mtu"),
        ({"routes": [{"dst": "default"}]}, r"routes\[0\]\.dst"),
        ({"routes": [{"dst": "::/0", "table": 2**32}]}, "table"),
        ({"dns": []}, "dns"),
        ({"dns": {"search": "a"}}, "dns.search"),
        ({"dns": {"search": [1]}}, r"dns\.search\[0\]"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "x"}}, "ip4.ip"),
        ({"cniVersion": "0.2.0", "ip4": "x"}, "ip4"),
        ({"cniVersion": "0.1.0", "ip6": {"ip": "::1/8", "routes": [{}]}}, r"ip6\.routes\[0\]"),
    ],
)
def test_malformed_result_names_the_culprit(document: object, culprit: str) -> None:
    with pytest.raises(CniError, match=culprit) as caught:
        Result.from_json(document, "1.0.0")
    assert caught.value.code in (1, 6)


_KEYS = ("ips", "IP4", "ip", "address", "routes", "dst", "dns", "interfaces", "name", "mtu",
         "cniVersion", "search")  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | cidr4,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner),
)


@given(anything)
def test_anything_is_read_or_refused_with_a_code(document: Any) -> None:
    try:
        Result.from_json(document, "1.1.0").to_json("1.1.0")
    except CniError as error:
        assert error.code in (1, 6)


def test_what_prints_is_what_debians_plugins_print() -> None:
    """Compared in whole by tests/netns; here the indented text of one known answer."""
    from libcni.jsontext import dumps_indented

    result = Result(ips=[IPConfig("10.22.0.2/16", "10.22.0.1")], routes=[Route("0.0.0.0/0")])
    assert dumps_indented(result.to_json("0.4.0")) == json.dumps(
        json.loads(
            '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.22.0.2/16",'
            '"gateway":"10.22.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}'
        ),
        indent=4,
    )
