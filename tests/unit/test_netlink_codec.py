# SPDX-License-Identifier: Apache-2.0
"""Every message that we build, decoded by pyroute2; our codec against itself; the tables."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import pyroute2.netlink.rtnl as rtnl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink import nftsocket
from pyroute2.netlink.rtnl import br_vlan, ifaddrmsg, ifinfmsg, ndmsg, rtmsg

from libcni.inet import Prefix, pton
from libcni.netlink import addr, codec, fdb, link, neigh, route, vlan
from libcni.netlink import socket as netlink_socket
from libcni.netlink.codec import Message, Reader, encode
from libcni.netlink.tables import kinds, nft
from libcni.netlink.tables.link import LINK, LINK_ATTRIBUTES
from tools import generate_netlink_tables

LINK_CLASS = ifinfmsg.ifinfmsg
ADDRESS_CLASS = ifaddrmsg.ifaddrmsg
ROUTE_CLASS = rtmsg.rtmsg
NEIGHBOUR_CLASS = ndmsg.ndmsg

MAC = "02:00:00:00:00:05"
REQUEST, ACK, REPLACE, EXCL, NEW, APPEND = 1, 4, 0x100, 0x200, 0x400, 0x800
CREATE = REQUEST | ACK | EXCL | NEW


def decode(message: Message, cls: Any) -> Any:
    """What pyroute2 reads in a message."""
    data = struct.pack("=IHHII", 16 + len(message.body), message.type, message.flags, 7, 0)
    decoded = cls(data + message.body)
    decoded.decode()
    return decoded


def plain(value: Any) -> Any:
    """A decoded nest as a dictionary, repeated attributes as a list."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict) or "attrs" not in value:
        return value
    result: dict[str, Any] = {}
    for name, inner in value["attrs"]:
        inner = plain(inner)
        if name in result:
            earlier = result[name]
            inner = [*(earlier if isinstance(earlier, list) else [earlier]), inner]
        result[name] = inner
    return result


V4, V6 = Prefix.parse("10.1.2.3/24"), Prefix.parse("fd00:1::3/64")
BRIDGE = ("family", 7)

# message, pyroute2's class, type, flags, header fields that are not 0, attributes
MESSAGES: list[tuple[Message, Any, int, int, dict[str, int], dict[str, Any]]] = [
    (
        link.get_link("eth0"),
        LINK_CLASS,
        rtnl.RTM_GETLINK,
        REQUEST,
        {},
        {"IFLA_IFNAME": "eth0", "IFLA_EXT_MASK": 8},
    ),
    (
        link.get_link(index=9),
        LINK_CLASS,
        rtnl.RTM_GETLINK,
        REQUEST,
        {"index": 9},
        {"IFLA_EXT_MASK": 8},
    ),
    (
        link.new_bridge("br0", mac=MAC, mtu=1400, vlan_filtering=True),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        CREATE,
        {"flags": 1, "change": 1},
        {
            "IFLA_IFNAME": "br0",
            "IFLA_ADDRESS": MAC,
            "IFLA_MTU": 1400,
            "IFLA_LINKINFO": {
                "IFLA_INFO_KIND": "bridge",
                "IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": 1},
            },
        },
    ),
    (
        link.new_bridge("br0", up=False),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        CREATE,
        {},
        {"IFLA_IFNAME": "br0", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "bridge"}},
    ),
    (
        link.new_veth("veth1", "eth0", peer_netns=11, peer_mac=MAC, mtu=1400, master=3),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        CREATE,
        {"flags": 1, "change": 1},
        {
            "IFLA_IFNAME": "veth1",
            "IFLA_MTU": 1400,
            "IFLA_MASTER": 3,
            "IFLA_LINKINFO": {
                "IFLA_INFO_KIND": "veth",
                "IFLA_INFO_DATA": {
                    "VETH_INFO_PEER": {
                        "IFLA_IFNAME": "eth0",
                        "IFLA_ADDRESS": MAC,
                        "IFLA_MTU": 1400,
                        "IFLA_NET_NS_FD": 11,
                    }
                },
            },
        },
    ),
    (
        link.new_link(
            "vx0",
            "vxlan",
            {
                "IFLA_VXLAN_ID": 42,
                "IFLA_VXLAN_LOCAL": pton("10.0.0.1"),
                "IFLA_VXLAN_PORT": 4789,
                "IFLA_VXLAN_LEARNING": 0,
                "IFLA_VXLAN_PORT_RANGE": (1000, 2000),
            },
            up=False,
        ),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        CREATE,
        {},
        {
            "IFLA_IFNAME": "vx0",
            "IFLA_LINKINFO": {
                "IFLA_INFO_KIND": "vxlan",
                "IFLA_INFO_DATA": {
                    "IFLA_VXLAN_ID": 42,
                    "IFLA_VXLAN_LOCAL": "10.0.0.1",
                    "IFLA_VXLAN_PORT": 4789,
                    "IFLA_VXLAN_LEARNING": 0,
                    "IFLA_VXLAN_PORT_RANGE": {"low": 1000, "high": 2000},
                },
            },
        },
    ),
    (
        link.set_link(
            "eth0", up=True, promiscuous=False, mtu=9000, mac=MAC, master=0, alias="a b"
        ),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        REQUEST | ACK,
        {"flags": 1, "change": 0x101},
        {
            "IFLA_IFNAME": "eth0",
            "IFLA_MTU": 9000,
            "IFLA_ADDRESS": MAC,
            "IFLA_MASTER": 0,
            "IFLA_IFALIAS": "a b",
        },
    ),
    (
        link.set_link(index=5, new_name="eth1", netns=12),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        REQUEST | ACK,
        {"index": 5},
        {"IFLA_IFNAME": "eth1", "IFLA_NET_NS_FD": 12},
    ),
    (
        link.set_link("veth1", hairpin=True, isolated=False, learning=True),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        REQUEST | ACK,
        {},
        {
            "IFLA_IFNAME": "veth1",
            "IFLA_LINKINFO": {
                "IFLA_INFO_SLAVE_KIND": "bridge",
                "IFLA_INFO_SLAVE_DATA": {
                    "IFLA_BRPORT_MODE": 1,
                    "IFLA_BRPORT_ISOLATED": 0,
                    "IFLA_BRPORT_LEARNING": 1,
                },
            },
        },
    ),
    (
        # pyroute2 reads the nest of settings as one array of numbers, so that one is compared
        # with the bytes that linux/ip.h asks for below.
        link.set_inet("veth1", address_generation=False),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        REQUEST | ACK,
        {},
        {
            "IFLA_IFNAME": "veth1",
            "IFLA_AF_SPEC": {"AF_INET6": {"IFLA_INET6_ADDR_GEN_MODE": 1}},
        },
    ),
    (
        link.set_link("br0", vlan_filtering=True),
        LINK_CLASS,
        rtnl.RTM_NEWLINK,
        REQUEST | ACK,
        {},
        {
            "IFLA_IFNAME": "br0",
            "IFLA_LINKINFO": {
                "IFLA_INFO_KIND": "bridge",
                "IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": 1},
            },
        },
    ),
    (
        link.delete_link("veth1"),
        LINK_CLASS,
        rtnl.RTM_DELLINK,
        REQUEST | ACK,
        {},
        {"IFLA_IFNAME": "veth1"},
    ),
    (link.delete_link(index=4), LINK_CLASS, rtnl.RTM_DELLINK, REQUEST | ACK, {"index": 4}, {}),
    (
        addr.new_address(4, V4),
        ADDRESS_CLASS,
        rtnl.RTM_NEWADDR,
        CREATE,
        {"family": 2, "prefixlen": 24, "index": 4},
        {"IFA_LOCAL": "10.1.2.3", "IFA_ADDRESS": "10.1.2.3", "IFA_BROADCAST": "10.1.2.255"},
    ),
    (
        addr.new_address(4, Prefix.parse("10.1.2.3/31"), replace=True, scope=253),
        ADDRESS_CLASS,
        rtnl.RTM_NEWADDR,
        REQUEST | ACK | NEW | REPLACE,
        {"family": 2, "prefixlen": 31, "index": 4, "scope": 253},
        {"IFA_LOCAL": "10.1.2.3", "IFA_ADDRESS": "10.1.2.3"},
    ),
    (
        addr.new_address(4, V6, nodad=True, flags=addr.IFA_F_NOPREFIXROUTE),
        ADDRESS_CLASS,
        rtnl.RTM_NEWADDR,
        CREATE,
        {"family": 10, "prefixlen": 64, "index": 4, "flags": 2},
        {"IFA_LOCAL": "fd00:1::3", "IFA_ADDRESS": "fd00:1::3", "IFA_FLAGS": 0x202},
    ),
    (
        addr.delete_address(4, V6),
        ADDRESS_CLASS,
        rtnl.RTM_DELADDR,
        REQUEST | ACK,
        {"family": 10, "prefixlen": 64, "index": 4},
        {"IFA_LOCAL": "fd00:1::3", "IFA_ADDRESS": "fd00:1::3"},
    ),
    (
        route.new_route(Prefix.parse("0.0.0.0/0"), 4, pton("10.1.2.1")),
        ROUTE_CLASS,
        rtnl.RTM_NEWROUTE,
        CREATE,
        {"family": 2, "table": 254, "proto": 3, "type": 1},
        {"RTA_OIF": 4, "RTA_GATEWAY": "10.1.2.1", "RTA_TABLE": 254},
    ),
    (
        route.new_route(
            Prefix.parse("fd00:9::/48"),
            4,
            pton("fd00:1::1"),
            src=pton("fd00:1::3"),
            mtu=1300,
            advmss=1240,
            priority=50,
            table=1000,
            scope=0,
            onlink=True,
            mode=route.APPEND,
        ),
        ROUTE_CLASS,
        rtnl.RTM_NEWROUTE,
        REQUEST | ACK | NEW | APPEND,
        {"family": 10, "dst_len": 48, "proto": 3, "type": 1, "flags": 4},
        {
            "RTA_DST": "fd00:9::",
            "RTA_OIF": 4,
            "RTA_GATEWAY": "fd00:1::1",
            "RTA_PREFSRC": "fd00:1::3",
            "RTA_PRIORITY": 50,
            "RTA_TABLE": 1000,
            "RTA_METRICS": {"RTAX_MTU": 1300, "RTAX_ADVMSS": 1240},
        },
    ),
    (
        route.new_route(Prefix.parse("10.9.0.0/16"), 4, mode=route.REPLACE),
        ROUTE_CLASS,
        rtnl.RTM_NEWROUTE,
        REQUEST | ACK | NEW | REPLACE,
        {"family": 2, "dst_len": 16, "table": 254, "proto": 3, "type": 1, "scope": 253},
        {"RTA_DST": "10.9.0.0", "RTA_OIF": 4, "RTA_TABLE": 254},
    ),
    (
        route.new_route(
            Prefix.parse("10.9.0.0/16"), nexthops=[(pton("10.1.2.1"), 4), (pton("10.1.2.2"), 5)]
        ),
        ROUTE_CLASS,
        rtnl.RTM_NEWROUTE,
        CREATE,
        {"family": 2, "dst_len": 16, "table": 254, "proto": 3, "type": 1},
        {
            "RTA_DST": "10.9.0.0",
            "RTA_TABLE": 254,
            "RTA_MULTIPATH": [{"RTA_GATEWAY": "10.1.2.1"}, {"RTA_GATEWAY": "10.1.2.2"}],
        },
    ),
    (
        route.delete_route(Prefix.parse("10.9.0.0/16"), 4, pton("10.1.2.1"), priority=5),
        ROUTE_CLASS,
        rtnl.RTM_DELROUTE,
        REQUEST | ACK,
        {"family": 2, "dst_len": 16, "table": 254, "scope": 255},
        {
            "RTA_DST": "10.9.0.0",
            "RTA_OIF": 4,
            "RTA_GATEWAY": "10.1.2.1",
            "RTA_PRIORITY": 5,
            "RTA_TABLE": 254,
        },
    ),
    (
        neigh.new_neighbour(4, pton("10.1.2.9"), MAC),
        NEIGHBOUR_CLASS,
        rtnl.RTM_NEWNEIGH,
        REQUEST | ACK | NEW | REPLACE,
        {"family": 2, "ifindex": 4, "state": 0x80},
        {"NDA_DST": "10.1.2.9", "NDA_LLADDR": MAC},
    ),
    (
        neigh.delete_neighbour(4, pton("fd00::9")),
        NEIGHBOUR_CLASS,
        rtnl.RTM_DELNEIGH,
        REQUEST | ACK,
        {"family": 10, "ifindex": 4},
        {"NDA_DST": "fd00::9"},
    ),
    (
        fdb.new_entry(4, MAC, pton("192.0.2.1"), mode=fdb.APPEND),
        NEIGHBOUR_CLASS,
        rtnl.RTM_NEWNEIGH,
        REQUEST | ACK | NEW | APPEND,
        {"family": 7, "ifindex": 4, "state": 0x80, "flags": 2},
        {"NDA_DST": "192.0.2.1", "NDA_LLADDR": MAC},
    ),
    (
        fdb.new_entry(4, MAC, vlan=10),
        NEIGHBOUR_CLASS,
        rtnl.RTM_NEWNEIGH,
        REQUEST | ACK | NEW | REPLACE,
        {"family": 7, "ifindex": 4, "state": 0x40, "flags": 4},
        {"NDA_LLADDR": MAC, "NDA_VLAN": 10},
    ),
    (
        fdb.delete_entry(4, MAC),
        NEIGHBOUR_CLASS,
        rtnl.RTM_DELNEIGH,
        REQUEST | ACK,
        {"family": 7, "ifindex": 4, "flags": 4},
        {"NDA_LLADDR": MAC},
    ),
    (
        vlan.add_vlan(4, 10, flags=vlan.PVID | vlan.UNTAGGED),
        LINK_CLASS,
        rtnl.RTM_SETLINK,
        REQUEST | ACK,
        {"family": 7, "index": 4},
        {"IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": {"flags": 6, "vid": 10}}},
    ),
    (
        vlan.add_vlan(4, 10, 20, bridge_itself=True),
        LINK_CLASS,
        rtnl.RTM_SETLINK,
        REQUEST | ACK,
        {"family": 7, "index": 4},
        {
            "IFLA_AF_SPEC": {
                "IFLA_BRIDGE_VLAN_FLAGS": 2,
                "IFLA_BRIDGE_VLAN_INFO": [{"flags": 8, "vid": 10}, {"flags": 16, "vid": 20}],
            }
        },
    ),
    (
        vlan.delete_vlan(4, 1),
        LINK_CLASS,
        rtnl.RTM_DELLINK,
        REQUEST | ACK,
        {"family": 7, "index": 4},
        {"IFLA_AF_SPEC": {"IFLA_BRIDGE_VLAN_INFO": {"flags": 0, "vid": 1}}},
    ),
    (
        vlan.get_vlans(4),
        br_vlan.br_vlan_query,
        114,
        REQUEST,
        {"family": 7, "ifindex": 4},
        {},
    ),
]


@pytest.mark.parametrize(
    ("message", "cls", "kind", "flags", "header", "attributes"),
    MESSAGES,
    ids=[f"{number}: {row[0].doing}" for number, row in enumerate(MESSAGES)],
)
def test_pyroute2_reads_what_we_mean(
    message: Message,
    cls: Any,
    kind: int,
    flags: int,
    header: dict[str, int],
    attributes: dict[str, Any],
) -> None:
    assert (message.type, message.flags) == (kind, flags)
    decoded = decode(message, cls)
    for name, _ in cls.fields:
        if not name.startswith("__"):
            assert decoded[name] == header.get(name, 0), name
    assert plain(decoded) == attributes


def test_every_builder_is_tried() -> None:
    text = Path(__file__).read_text()
    for module in (link, addr, route, neigh, fdb, vlan):
        for name, function in vars(module).items():
            builds = getattr(function, "__annotations__", {}).get("return") == "Message"
            if builds and not name.startswith("_"):
                assert f"{module.__name__.rpartition('.')[2]}.{name}(" in text, name


def test_multipath_keeps_flags_and_links() -> None:
    message = route.new_route(
        Prefix.parse("10.9.0.0/16"),
        nexthops=[(pton("10.1.2.1"), 4), (pton("10.1.2.2"), 5)],
        onlink=True,
    )
    hops = decode(message, ROUTE_CLASS).get_attr("RTA_MULTIPATH")
    assert [(hop["flags"], hop["hops"], hop["oif"]) for hop in hops] == [(4, 0, 4), (4, 0, 5)]
    read = route.Route(message.body)
    assert read.nexthops == [(pton("10.1.2.1"), 4), (pton("10.1.2.2"), 5)]


# -- what the kernel sends, encoded by pyroute2


def encoded(cls: Any, header: dict[str, Any], attributes: list[Any]) -> bytes:
    message = cls()
    message.update(header)
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data[16:])


def test_link_is_read_as_pyroute2_writes_it() -> None:
    info = {
        "attrs": [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            (
                "IFLA_INFO_SLAVE_DATA",
                {"attrs": [("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 1)]},
            ),
        ]
    }
    body = encoded(
        LINK_CLASS,
        {"index": 6, "flags": 0x101, "ifi_type": 1},
        [
            ("IFLA_IFNAME", "veth6"),
            ("IFLA_QDISC", "noqueue"),
            ("IFLA_ADDRESS", MAC),
            ("IFLA_MTU", 1400),
            ("IFLA_MASTER", 3),
            ("IFLA_LINK", 2),
            ("IFLA_LINK_NETNSID", 5),
            ("IFLA_IFALIAS", "cni:n:c:i"),
            ("IFLA_OPERSTATE", "UP"),
            ("IFLA_PROMISCUITY", 1),
            ("IFLA_LINKINFO", info),
        ],
    )
    seen = link.Link(body)
    assert (seen.index, seen.name, seen.mac, seen.mtu, seen.type) == (6, "veth6", MAC, 1400, 1)
    assert (seen.master, seen.peer, seen.link_netnsid, seen.kind) == (3, 2, 5, "veth")
    assert (seen.alias, seen.operstate, seen.promiscuity) == ("cni:n:c:i", 6, 1)
    assert seen.is_up and seen.is_promiscuous and seen.hairpin and seen.isolated and seen.learning
    assert not seen.vlan_filtering


def test_route_and_address_are_read_as_pyroute2_writes_them() -> None:
    seen = route.Route(
        encoded(
            ROUTE_CLASS,
            {
                "family": 2,
                "dst_len": 16,
                "table": 252,
                "proto": 3,
                "scope": 0,
                "type": 1,
                "flags": 4,
            },
            [
                ("RTA_DST", "10.9.0.0"),
                ("RTA_TABLE", 1000),
                ("RTA_OIF", 4),
                ("RTA_GATEWAY", "10.1.2.1"),
                ("RTA_PRIORITY", 7),
                ("RTA_PREFSRC", "10.1.2.3"),
                ("RTA_METRICS", {"attrs": [("RTAX_MTU", 1300), ("RTAX_ADVMSS", 1200)]}),
            ],
        )
    )
    assert (seen.dst.text(), seen.table, seen.oif, seen.gw) == (
        *("10.9.0.0/16", 1000, 4),
        pton("10.1.2.1"),
    )
    assert (seen.priority, seen.mtu, seen.advmss, seen.src) == (7, 1300, 1200, pton("10.1.2.3"))
    assert seen.flags == route.RTNH_F_ONLINK and seen.nexthops == [(pton("10.1.2.1"), 4)]
    address = addr.Address(
        encoded(
            ADDRESS_CLASS,
            {"family": 10, "prefixlen": 64, "index": 4, "scope": 0, "flags": 0x42},
            [("IFA_ADDRESS", "fd00:1::3"), ("IFA_FLAGS", 0x242)],
        )
    )
    assert (address.prefix, address.index, address.flags) == (V6, 4, 0x242)
    assert address.is_tentative and not address.is_duplicate


def test_vlan_entries_are_read_as_pyroute2_writes_them() -> None:
    from libcni.netlink.tables.vlan import VLAN_ATTRIBUTES

    entries = [
        ("BRIDGE_VLANDB_ENTRY", {"attrs": [("BRIDGE_VLANDB_ENTRY_INFO", {"flags": 6, "vid": 1})]}),
        (
            "BRIDGE_VLANDB_ENTRY",
            {
                "attrs": [
                    ("BRIDGE_VLANDB_ENTRY_INFO", {"flags": 0, "vid": 10}),
                    ("BRIDGE_VLANDB_ENTRY_RANGE", 12),
                ]
            },
        ),
    ]
    body = encoded(br_vlan.br_vlan_msg, {"family": 7, "ifindex": 4}, entries)
    read = vlan._READER.read(VLAN_ATTRIBUTES, body, 8)
    assert read["BRIDGE_VLANDB_ENTRY"] == [
        {"BRIDGE_VLANDB_ENTRY_INFO": (6, 1)},
        {"BRIDGE_VLANDB_ENTRY_INFO": (0, 10), "BRIDGE_VLANDB_ENTRY_RANGE": 12},
    ]


#: linux/netlink.h: NLA_F_NESTED.
NESTED = 0x8000


def test_ipv4_settings_are_a_nest_of_numbers() -> None:
    body = link.set_inet(index=7, arp_notify=True).body
    # linux/ip.h: IPV4_DEVCONF_ARP_NOTIFY is 22; if_link.h: IFLA_INET_CONF 1, IFLA_AF_SPEC 26.
    setting = struct.pack("=HHI", 8, 22, 1)
    conf = struct.pack("=HH", 12, 1 | NESTED) + setting
    family = struct.pack("=HH", 16, socket.AF_INET | NESTED) + conf
    assert body[16:] == struct.pack("=HH", 20, 26 | NESTED) + family


def test_nftables_rule_is_read_by_pyroute2() -> None:
    rule = {
        "NFTA_RULE_TABLE": "t",
        "NFTA_RULE_CHAIN": "c",
        "NFTA_RULE_EXPRESSIONS": [
            {
                "NFTA_EXPR_NAME": "payload",
                "NFTA_EXPR_DATA": {
                    "NFTA_PAYLOAD_DREG": 1,
                    "NFTA_PAYLOAD_BASE": 1,
                    "NFTA_PAYLOAD_OFFSET": 12,
                    "NFTA_PAYLOAD_LEN": 4,
                },
            },
            {
                "NFTA_EXPR_NAME": "lookup",
                "NFTA_EXPR_DATA": {"NFTA_LOOKUP_SET": "s", "NFTA_LOOKUP_SREG": 1},
            },
            {"NFTA_EXPR_NAME": "masq", "NFTA_EXPR_DATA": {}},
        ],
    }
    message = Message(10 << 8 | 6, 0xC05, "add rule", nft.RULE, (2, 0, 0), rule)
    names = [
        expression.get_attr("NFTA_EXPR_NAME")
        for expression in decode(message, nftsocket.nft_rule_msg).get_attr("NFTA_RULE_EXPRESSIONS")
    ]
    assert names == ["payload", "lookup", "masq"]
    reader = Reader(*nft.RULE_ATTRIBUTES, *nft.EXPR, *nft.PAYLOAD, *nft.LOOKUP, *nft.MASQ)
    assert reader.read(nft.RULE_ATTRIBUTES, message.body, 4) == rule


# -- our codec against itself


def values_of(kind: Any, table_depth: int) -> st.SearchStrategy[Any]:
    """Values that a kind can carry and give back."""
    if kind == "s":
        return st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
    if kind == "b":
        return st.binary(max_size=40)
    if kind == "m":
        return st.binary(min_size=6, max_size=6).map(lambda mac: mac.hex(":"))
    if kind == "f":
        return st.just(True)
    if isinstance(kind, str):
        each = [_number(code) for code in kind[1:] if code != "x"]
        return each[0] if len(each) == 1 else st.tuples(*each)
    if isinstance(kind, dict):
        return attributes_of(kind, table_depth - 1)
    shape, detail, inner = kind
    if shape == "list":
        return st.lists(values_of(inner, table_depth - 1), max_size=3)
    if shape == "choice":
        return st.nothing()
    fields = [_number(code) for code in detail[2 if shape == "nexthops" else 1 :] if code != "x"]
    nest = st.tuples(st.tuples(*fields), attributes_of(inner, table_depth - 1)).map(
        lambda pair: {"": pair[0], **pair[1]}
    )
    return st.lists(nest, max_size=3) if shape == "nexthops" else nest


def _number(code: str) -> st.SearchStrategy[int]:
    bits = struct.calcsize("=" + code) * 8
    if code.islower():
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
    return st.integers(0, (1 << bits) - 1)


def attributes_of(table: codec.Table, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    fitting = {
        name: values_of(kind, depth)
        for name, (_, kind) in table.items()
        if not (isinstance(kind, tuple) and kind[0] == "choice")
        and (depth > 0 or isinstance(kind, str))
    }
    return st.fixed_dictionaries({}, optional=fitting)


TABLES = {
    name: table
    for module in (nft, kinds)
    for name, table in vars(module).items()
    if name.isupper() and isinstance(table, dict) and name not in ("KINDS", "EXPRESSIONS")
}
TABLES["LINK_ATTRIBUTES"] = LINK_ATTRIBUTES


@pytest.mark.parametrize("name", TABLES)
@given(data=st.data())
def test_what_is_packed_is_unpacked(name: str, data: st.DataObject) -> None:
    table = TABLES[name]
    values = data.draw(attributes_of(table, 2))
    packed = encode(table, values)
    assert len(packed) % 4 == 0
    assert Reader(*_names(table, 4)).read(table, packed) == values


def _names(table: codec.Table, depth: int) -> set[str]:
    names = set(table)
    for _, kind in table.values():
        inner = kind[2] if isinstance(kind, tuple) else kind
        if (
            isinstance(inner, dict)
            and depth
            and not (isinstance(kind, tuple) and kind[0] == "choice")
        ):
            names |= _names(inner, depth - 1)
    return names


@given(st.binary(max_size=200))
def test_reading_rubbish_ends(data: bytes) -> None:
    try:
        link.Link(data.ljust(16, b"\0"))
    except struct.error:
        pass  # an attribute shorter than its type


@pytest.mark.parametrize(
    "attributes",
    [
        {"IFLA_MTU": -1},
        {"IFLA_MTU": 1 << 32},
        {"IFLA_MTU": "1400"},
        {"IFLA_IFNAME": "a\0b"},
        {"IFLA_ADDRESS": "zz:00"},
        {"IFLA_IFALIAS": "x" * 70000},
    ],
)
def test_a_value_that_does_not_fit_is_named(attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(attributes))):
        Message(16, 5, "test", LINK, (0, 0, 0, 0, 0), attributes)


def test_unknown_attributes_are_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError, match="IFLA_NONSENSE"):
        encode(LINK_ATTRIBUTES, {"IFLA_NONSENSE": 1})


# -- numbers and tables


def test_constants_are_pyroute2s() -> None:
    from pyroute2 import netlink as base

    for module in (codec, link, addr, route, neigh):
        for name, value in vars(module).items():
            if name.startswith(("NLM_F_", "RTM_", "IFF_", "IFA_F_", "NUD_", "NTF_")):
                for source in (base, rtnl, ifinfmsg, ifaddrmsg, ndmsg):
                    if hasattr(source, name):
                        assert getattr(source, name) == value, name
                        break
                else:
                    pytest.fail(f"pyroute2 does not know {name}")
    assert netlink_socket.NETLINK_NETFILTER == base.NETLINK_NETFILTER


def test_tables_are_those_that_pyroute2_gives() -> None:
    for name, text in generate_netlink_tables.modules().items():
        checked_in = (generate_netlink_tables.TARGET / name).read_text()
        assert checked_in == text, f"run python -m tools.generate_netlink_tables ({name})"
