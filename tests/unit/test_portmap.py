# SPDX-License-Identifier: Apache-2.0
"""portmap's pure parts: claims, records, the backend, and every message decoded by pyroute2."""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink import nfctsocket, nftsocket

from cni_portmap import ipt, leftovers, table
from cni_portmap.config import Config, targets
from cni_portmap.mapping import Claim, parse
from cni_portmap.record import Record, unpack
from libcni.attachment import Attachment
from libcni.inet import Prefix, pton
from libcni.netlink import conntrack
from libcni.netlink.codec import Message
from libcni.nftables import maps
from libcni.nftables.rules import has_comment
from libcni.nftables.transaction import INET
from libcni.skel.request import Request
from libcni.types.errors import CniError
from libcni.types.result import Interface, IPConfig, Result

POD = Attachment("podnet", "0a1b", "eth0")
TARGETS: dict[int, bytes] = {AF_INET: pton("10.1.2.3"), AF_INET6: pton("fd00::3")}


def request(**keys: Any) -> Request:
    return Request("ADD", "portmap", {"name": "podnet", **keys}, "1.1.0", POD)


def decode(kind: Any, message: Message) -> Any:
    header = struct.pack("=IHHII", 16 + len(message.body), message.type, message.flags, 1, 0)
    decoded = kind(header + message.body)
    decoded.decode()
    return decoded


# -- claims ---------------------------------------------------------------------------------------


def test_claims() -> None:
    found = parse(
        [
            {"hostPort": 8080, "containerPort": 80},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "0.0.0.0"},
            {"hostPort": 9000, "hostPortEnd": 9002, "containerPort": 90, "hostIP": "::1"},
        ],
        TARGETS,
    )
    shown = [(c.family, c.protocol, c.address, c.port, c.count, c.target_port) for c in found]
    assert shown == [
        (AF_INET, 6, b"", 8080, 1, 80),
        (AF_INET6, 6, b"", 8080, 1, 80),
        (AF_INET, 17, b"", 53, 1, 5353),
        (AF_INET6, 6, pton("::1"), 9000, 3, 90),
    ]
    assert found[3].text(2) == "[::1]:9002/tcp"
    assert parse([{"hostPort": 1, "containerPort": 1}], {}) == []


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([(80, 80), (80, 81)], r"^runtimeConfig\.portMappings\[1\]: .* mapped twice"),
        ([(80, 80, 90), (85, 86, 95)], "mapped twice"),
        ([(80, 80, 90), (85, 1)], "mapped twice"),
        ([(80, 65530, 90)], "65540"),
        ([(90, 1, 80)], r"portMappings\[0\]\.hostPortEnd: 80 is"),
    ],
)
def test_refused(entries: list[tuple[int, ...]], words: str) -> None:
    rows = [
        {"hostPort": e[0], "containerPort": e[1], **({"hostPortEnd": e[2]} if e[2:] else {})}
        for e in entries
    ]
    with pytest.raises(CniError, match=words) as caught:
        parse(rows, TARGETS)
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([(8005, 85), (8000, 80, 8010)], [(8005, 1, 85), (8000, 5, 80), (8006, 5, 86)]),
        ([(8000, 80, 8010), (8005, 85)], [(8000, 11, 80)]),
        ([(8000, 80, 8010), (8005, 85, 8015)], [(8000, 11, 80), (8011, 5, 91)]),
        ([(8000, 80, 8010), (8000, 80, 8010)], [(8000, 11, 80)]),
    ],
)
def test_what_is_mapped_twice_to_the_same_is_mapped_once(
    entries: list[tuple[int, ...]], expected: list[tuple[int, int, int]]
) -> None:
    rows = [
        {"hostPort": e[0], "containerPort": e[1], **({"hostPortEnd": e[2]} if e[2:] else {})}
        for e in entries
    ]
    found = parse(rows, {AF_INET: TARGETS[AF_INET]})
    assert [(claim.port, claim.count, claim.target_port) for claim in found] == expected


def test_targets_as_in_go() -> None:
    result = Result(
        [Interface("br0"), Interface("eth0", sandbox="/x"), Interface("eth1", sandbox="/x")],
        [
            IPConfig("10.0.0.1/24", interface=0),
            IPConfig("10.0.0.2/24", interface=2),
            IPConfig("10.0.0.3/24", interface=1),
            IPConfig("10.0.0.4/24", interface=1),
            IPConfig("fd00::1/64", interface=9),
        ],
    )
    found = targets(request(), result)
    assert {f: p.text() for f, p in found.items()} == {2: "10.0.0.3/24", 10: "fd00::1/64"}
    assert targets(request(), Result([], [IPConfig("10.0.0.9/8")]))[2].text() == "10.0.0.9/8"


# -- the backend ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "backend"),
    [
        ({}, ""),
        ({"backend": "iptables"}, "iptables"),
        ({"conditionsV4": ["-s", "1.1.1.1"]}, "iptables"),
        ({"conditionsV6": ["!", "-s", "::"]}, "iptables"),
        ({"conditionsV4": ["ip", "saddr", "1.1.1.1"]}, "nftables"),
        ({"externalSetMarkChain": "KUBE-MARK-MASQ"}, "iptables"),
        ({"markMasqBit": 3}, ""),
        ({"conditionsV4": []}, ""),
    ],
)
def test_backend(keys: dict[str, Any], backend: str) -> None:
    assert Config(request(**keys)).backend == backend


# -- records --------------------------------------------------------------------------------------

CLAIMS = st.builds(
    lambda family, protocol, single, port, count: Claim(
        family, protocol, TARGETS[family] if single else b"", port, count
    ),
    st.sampled_from((AF_INET, AF_INET6)),
    st.sampled_from((6, 17, 132)),
    st.booleans(),
    st.integers(1, 65535),
    st.integers(1, 9999),
)


@given(
    st.lists(CLAIMS, max_size=8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from((b"", b"12345678")),
)
def test_record_comes_back(
    claims: list[Claim], dual: bool, conditional: bool, host_end: bool, digest: bytes
) -> None:
    prefixes = [Prefix.parse("10.1.2.3/24"), Prefix.parse("fd00::3/64")][: 1 + dual]
    record = Record(claims, prefixes, conditional, host_end)
    record.digest = digest
    data = record.pack(1000)
    assert data is not None
    again = unpack(data)
    assert again is not None
    assert again.targets == prefixes
    assert (again.conditional, again.host_end) == (conditional, host_end)
    assert again.digest == digest
    assert [repr(c) for c in again.claims] == [repr(c) for c in claims]
    assert record.pack(len(data) - 1) is None
    if digest:
        assert unpack(data[:-1]) is None


@given(st.binary(max_size=40))
def test_any_bytes_as_record(data: bytes) -> None:
    unpack(data)


# -- messages -------------------------------------------------------------------------------------


def test_map() -> None:
    key, data = maps.type_of(12, 13), maps.type_of(7, 13)
    decoded = decode(nftsocket.nft_set_msg, maps.create_map(table.TABLE, "ports4", key, data, 3))
    assert decoded["nfgen_family"] == INET
    assert decoded.get("NFTA_SET_NAME") == "ports4"
    assert decoded.get("NFTA_SET_KEY_TYPE") == 12 << 6 | 13
    assert decoded.get("NFTA_SET_KEY_LEN") == decoded.get("NFTA_SET_DATA_LEN") == 8
    assert decoded.get("NFTA_SET_DATA_TYPE") == 7 << 6 | 13
    assert decoded.get("NFTA_SET_ID") == 3


def test_elements() -> None:
    claim = Claim(AF_INET, 6, b"", 8080, 300, TARGETS[AF_INET], 80)
    messages = maps.add(table.TABLE, "ports4", table.elements(claim, POD.comment))
    assert len(messages) == 2
    rows = [
        row
        for message in messages
        for row in decode(nftsocket.nft_set_elem_list_msg, message).get(
            "NFTA_SET_ELEM_LIST_ELEMENTS"
        )
    ]
    assert len(rows) == 300
    assert messages[0].type == 0xA0C and messages[0].flags == 0x605
    value = rows[2].get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE")
    assert value == b"\6\0\0\0\x1f\x92\0\0"
    value = rows[2].get_attr("NFTA_SET_ELEM_DATA").get_attr("NFTA_DATA_VALUE")
    assert value == b"\n\1\2\3\0\x52\0\0"
    back = [element for m in messages for element in maps.read(m.body)]
    assert [(e.key, e.data, e.comment) for e in back] == [
        (e.key, e.data, POD.comment) for e in table.elements(claim)
    ]


def test_record_beside_the_comment() -> None:
    element = maps.MapElement(POD.set_key, b"", POD.comment, b"\1\2\3")
    [message] = maps.add(table.TABLE, "owners", [element])
    assert has_comment(message.body, POD.comment)
    [back] = maps.read(message.body)
    assert (back.comment, back.record, back.data) == (POD.comment, b"\1\2\3", b"")
    [message] = maps.delete(table.TABLE, "owners", [element])
    assert maps.read(message.body)[0].comment == ""


def test_waiting_keys() -> None:
    for family, size in ((AF_INET, 4), (AF_INET6, 16)):
        for address in (b"", b"\7" * size):
            [element] = table.elements(Claim(family, 6, address, 80, 1, TARGETS[family], 80))
            key = table.waiting_key(element.key, family, POD.set_key)
            assert len(key) == 12 + size
            assert table.awaited(key) == (element.key, bool(address))


def test_connections() -> None:
    message = conntrack.list_connections(AF_INET, 17, 53)
    decoded = decode(nfctsocket.nfct_msg, message)
    assert decoded["header"]["type"] == 0x101 and decoded["nfgen_family"] == AF_INET
    proto = decoded.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO")
    assert proto.get_attr("CTA_PROTO_NUM") == 17
    assert proto.get_attr("CTA_PROTO_DST_PORT") == 53
    flags = nfctsocket.FILTER_FLAG_CTA_PROTO_NUM | nfctsocket.FILTER_FLAG_CTA_PROTO_DST_PORT
    assert decoded.get_attr("CTA_FILTER").get_attr("CTA_FILTER_ORIG_FLAGS") == flags


# -- iptables -------------------------------------------------------------------------------------


def test_chain_names_are_gos() -> None:
    assert leftovers.chain_name("podnet", "abc") == "CNI-DN-0830037e596fec4874866"
    assert len(leftovers.chain_name("podnet", "abc", "CNI-SN-")) == 28


def test_multiport_holds_fifteen() -> None:
    ports = [Claim(AF_INET, 6, b"", 100 + n, 1, TARGETS[AF_INET], 80) for n in range(16)]
    ports.append(Claim(AF_INET, 6, b"", 8000, 10, TARGETS[AF_INET], 8000))
    rules = ipt.Rules(POD, Config(request()), Prefix.parse("10.1.2.3/24"), ports, [], True)
    groups = [line.split("--dports ")[1].split(" ")[0] for line in rules.entries]
    assert groups == [",".join(str(100 + n) for n in range(15)), "115,8000:8009"]
    assert rules.own[-1].endswith("--to-destination 10.1.2.3:8000-8009/8000")
