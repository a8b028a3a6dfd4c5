# SPDX-License-Identifier: Apache-2.0
"""sbr: the messages for rules as pyroute2 reads them; which route goes to which table."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl import fibmsg, rtmsg

from cni_sbr.add import place
from cni_sbr.move import MovedRoute
from libcni.inet import Prefix
from libcni.netlink import rule
from libcni.netlink.codec import Message
from libcni.types.result import IPConfig


def decode(message: Message, cls: Any) -> Any:
    """What pyroute2 reads in a message."""
    data = struct.pack("=IHHII", 16 + len(message.body), message.type, message.flags, 7, 0)
    decoded = cls(data + message.body)
    decoded.decode()
    return decoded


@pytest.mark.parametrize("table", [100, 300])
@pytest.mark.parametrize("address", ["10.1.2.3/32", "fd00::3/128"])
def test_rules(address: str, table: int) -> None:
    source = Prefix.parse(address)
    for message, kind in (
        (rule.new_rule(source, table, 173), 32),
        (rule.delete_rule(source, table, 173), 33),
    ):
        found = decode(message, fibmsg.fibmsg)
        assert message.type == kind
        assert (found["family"], found["src_len"], found["action"]) == (
            source.family,
            source.bits,
            1,
        )
        assert found["table"] == (table if table < 256 else 0)
        assert dict(found["attrs"]) == {
            "FRA_SRC": address.partition("/")[0],
            "FRA_TABLE": table,
            "FRA_PROTOCOL": 173,
        }


def body(dst: str, gw: str = "", src: str = "", oif: int = 5) -> bytes:
    """A route as the kernel shows it, by pyroute2."""
    prefix = Prefix.parse(dst)
    message = rtmsg.rtmsg()
    message["family"], message["dst_len"], message["table"] = prefix.family, prefix.length, 254
    message["flags"] = 16
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", 254), ("RTA_OIF", oif)]
    if prefix.length:
        attributes.append(("RTA_DST", dst.partition("/")[0]))
    if gw:
        attributes.append(("RTA_GATEWAY", gw))
    if src:
        attributes.append(("RTA_PREFSRC", src))
    attributes.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", 1300), ("RTAX_INITCWND", 20)]}))
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data[16:])


@pytest.mark.parametrize("table", [100, 300])
def test_a_moved_route_keeps_what_we_do_not_know(table: int) -> None:
    route = MovedRoute(body("10.9.0.0/16", gw="10.1.2.1"))
    found = decode(route.add_to(table), rtmsg.rtmsg)
    attributes = dict(found["attrs"])
    assert attributes["RTA_TABLE"] == table and found["flags"] == 0
    assert attributes["RTA_GATEWAY"] == "10.1.2.1" and attributes["RTA_OIF"] == 5
    metrics = dict(attributes["RTA_METRICS"]["attrs"])
    assert metrics == {"RTAX_MTU": 1300, "RTAX_INITCWND": 20}
    assert [name for name, _ in found["attrs"]].count("RTA_TABLE") == 1


def test_which_route_goes_where() -> None:
    chosen = [
        (IPConfig("10.1.2.3/24"), 100),
        (IPConfig("10.1.3.3/24"), 101),
        (IPConfig("fd00::3/64"), 102),
    ]
    for route, expected in (
        (MovedRoute(body("0.0.0.0/0", gw="10.1.3.1")), [101]),
        (MovedRoute(body("10.1.2.0/24", src="10.1.2.3")), [100]),
        (MovedRoute(body("10.9.0.0/16")), [100, 101]),
        (MovedRoute(body("10.9.0.0/16", gw="192.0.2.1")), [100, 101]),
        (MovedRoute(body("fd00::/64")), [102]),
    ):
        assert place([route], chosen)[id(route)] == expected
    lonely = MovedRoute(body("fd00::/64"))
    assert place([lonely], chosen[:2]) == {}
