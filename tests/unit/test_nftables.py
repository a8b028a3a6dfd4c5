# SPDX-License-Identifier: Apache-2.0
"""Every nftables message, decoded by pyroute2 and compared field by field."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink import nftsocket

from libcni.attachment import Attachment
from libcni.inet import Prefix
from libcni.ipmasq import nft
from libcni.ipmasq.leftovers import go_comment_prefix
from libcni.netlink.codec import Message
from libcni.nftables import expressions, rules, sets
from libcni.nftables.transaction import INET, comment_of

TABLE = rules.Table(INET, "test")


def decode(kind: Any, message: Message) -> Any:
    """The message as pyroute2 understands it."""
    header = struct.pack("=IHHII", 16 + len(message.body), message.type, message.flags, 1, 0)
    decoded = kind(header + message.body)
    decoded.decode()
    assert decoded["nfgen_family"] == INET
    assert decoded["version"] == decoded["res_id"] == 0
    return decoded


def expression_list(message: Message) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for expression in decode(nftsocket.nft_rule_msg, message).get("NFTA_RULE_EXPRESSIONS"):
        data = expression.get_attr("NFTA_EXPR_DATA")
        found.append((expression.get_attr("NFTA_EXPR_NAME"), dict(data["attrs"]) if data else {}))
    return found


def test_table() -> None:
    decoded = decode(nftsocket.nft_table_msg, TABLE.create())
    assert decoded["header"]["type"] == 0xA00
    assert decoded["header"]["flags"] == 0x405
    assert decoded.get("NFTA_TABLE_NAME") == "test"


def test_base_chain() -> None:
    decoded = decode(nftsocket.nft_chain_msg, TABLE.create_base_chain("post", "nat", 4, -300))
    assert decoded["header"]["type"] == 0xA03
    assert decoded.get("NFTA_CHAIN_TABLE") == "test"
    assert decoded.get("NFTA_CHAIN_NAME") == "post"
    assert decoded.get("NFTA_CHAIN_TYPE") == "nat"
    hook = decoded.get("NFTA_CHAIN_HOOK")
    assert hook.get_attr("NFTA_HOOK_HOOKNUM") == 4
    assert hook.get_attr("NFTA_HOOK_PRIORITY") == -300


@pytest.mark.parametrize(
    ("subnet", "family", "offset", "length", "mask"),
    [
        ("10.1.0.0/16", 2, 16, 4, "ffff0000"),
        ("10.1.2.3/32", 2, 16, 4, None),
        ("fd00::/64", 10, 24, 16, "ff" * 8 + "00" * 8),
        ("fd00::1/128", 10, 24, 16, None),
        ("0.0.0.0/0", 2, 16, 4, "00000000"),
    ],
)
def test_destination(subnet: str, family: int, offset: int, length: int, mask: str | None) -> None:
    prefix = Prefix.parse(subnet)
    found = expression_list(
        TABLE.add_rule(
            "post",
            [
                *expressions.family(family),
                expressions.source_address(family),
                expressions.lookup("some"),
                *expressions.destination_in(family, prefix.packed, prefix.length, True),
                expressions.masquerade(),
            ],
            "why",
        )
    )
    names = ["meta", "cmp", "payload", "lookup", "payload", "bitwise", "cmp", "masq"]
    if mask is None:
        names.remove("bitwise")
    assert [name for name, _ in found] == names
    by_position = [attributes for _, attributes in found]
    assert by_position[0]["NFTA_META_DREG"] in ("NFT_REG_1", 1)
    assert by_position[2]["NFTA_PAYLOAD_OFFSET"] == (12 if family == 2 else 8)
    assert by_position[3]["NFTA_LOOKUP_SET"] == "some"
    assert by_position[4]["NFTA_PAYLOAD_OFFSET"] == offset
    assert by_position[4]["NFTA_PAYLOAD_LEN"] == length
    if mask is not None:
        data = dict(by_position[5]["NFTA_BITWISE_MASK"]["attrs"])["NFTA_DATA_VALUE"]
        assert data == bytes.fromhex(mask)


def test_verdict() -> None:
    [(name, attributes)] = expression_list(
        TABLE.add_rule("post", [expressions.verdict(expressions.RETURN)], "")
    )
    assert name == "immediate"
    verdict = attributes["NFTA_IMMEDIATE_DATA"].get_attr("NFTA_DATA_VERDICT")
    assert verdict.get_attr("NFTA_VERDICT_CODE") in (-5, "NFT_RETURN")


def test_set() -> None:
    message = sets.create_set(TABLE, "ip4.net/10.0.0.0/8", sets.IPV4_ADDRESS, "what for", 3)
    decoded = decode(nftsocket.nft_set_msg, message)
    assert decoded["header"]["type"] == 0xA09
    assert decoded.get("NFTA_SET_NAME") == "ip4.net/10.0.0.0/8"
    assert decoded.get("NFTA_SET_KEY_TYPE") == 7
    assert decoded.get("NFTA_SET_KEY_LEN") == 4
    assert decoded.get("NFTA_SET_ID") == 3
    assert b"what for\0" in message.body


@pytest.mark.parametrize("comment", ["cni:net:id:eth0", "x" * 127, "é"])
def test_elements_come_back(comment: str) -> None:
    message = sets.add_element(TABLE, "some", b"\x0a\x01\x02\x03", comment)
    decoded = decode(nftsocket.nft_set_elem_list_msg, message)
    assert decoded["header"]["type"] == 0xA0C
    assert decoded["header"]["flags"] == 0x605  # create, and it must be new
    assert decoded.get("NFTA_SET_ELEM_LIST_SET") == "some"
    [element] = sets.read_elements(message.body)
    assert element.key == b"\x0a\x01\x02\x03"
    assert element.comment == comment


def test_comments_are_cut() -> None:
    assert len(comment_of("x" * 500)) == 2 + 127 + 1


def test_deletion_is_split() -> None:
    keys = [bytes((10, 0, i // 256, i % 256)) for i in range(450)]
    messages = sets.delete_elements(TABLE, "some", keys)
    assert [len(sets.read_elements(message.body)) for message in messages] == [200, 200, 50]
    assert all(len(message.body) < 1 << 16 for message in messages)
    assert sets.delete_elements(TABLE, "some", []) == []


def test_rules_are_recognised_exactly() -> None:
    rule = TABLE.add_rule("post", [expressions.lookup("ip4.a.ip4.b/10.0.0.0/8")], "one two")
    assert rules.looks_up(rule.body, "ip4.a.ip4.b/10.0.0.0/8")
    assert not rules.looks_up(rule.body, "ip4.b/10.0.0.0/8")
    assert not rules.looks_up(rule.body, "ip4.a.ip4.b/10.0.0.0")
    assert rules.has_comment(rule.body, "one two")
    assert not rules.has_comment(rule.body, "one")
    assert rules.has_comment_prefix(rule.body, "one")
    assert not rules.has_comment_prefix(rule.body, "two")


@pytest.mark.parametrize(
    ("network", "address", "name"),
    [
        ("podnet", "10.244.1.7/24", "ip4.podnet/10.244.1.0/24"),
        ("podnet", "fd00:1::7/64", "ip6.podnet/fd00_1__/64"),
        ("9-net", "::ffff:10.1.2.3/120", "ip4.9-net/10.1.2.0/24"),
    ],
)
def test_set_names(network: str, address: str, name: str) -> None:
    assert nft.set_name(network, Prefix.parse(address)) == name


def test_long_networks_have_sets_of_their_own() -> None:
    prefix = Prefix.parse("fd00:1111:2222:3333:4444:5555:6666:7777/128")
    names = {nft.set_name("n" * length, prefix) for length in range(100, 256)}
    assert len(names) == 156
    assert all(len(name) <= 255 for name in names)


def test_comment_of_go() -> None:
    # sha512("test") and sha512("eth0:1234"), 16 digits each
    assert go_comment_prefix("test", "1234", "eth0").startswith("ee26b0dd4af7e749-")
    assert Attachment("test", "1234", "x").go_masquerade_chain == "CNI-2bbe0c48b91a7d1b8a6753a8"
