# SPDX-License-Identifier: Apache-2.0
"""The bridge plugin's pure decisions: configuration, MAC addresses, VLANs, gateways."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cni_bridge.addressing import complete
from cni_bridge.config import PVID, UNTAGGED, Config, load, trunk_vlans
from cni_bridge.delete import lenient
from cni_bridge.vlans import vlan_message
from libcni.attachment import Attachment
from libcni.interface.container import next_hop
from libcni.mac import parse_mac
from libcni.skel.request import Request
from libcni.types.errors import CniError
from libcni.types.result import IPConfig, Result, Route


def config(**keys: Any) -> Config:
    return Config({"ipam": {"type": "host-local"}, **keys})


def request(document: dict[str, Any], args: str = "") -> Request:
    return Request("ADD", "bridge", document, "1.1.0", Attachment("n", "c", "eth0"), args=args)


def test_defaults() -> None:
    read = Config({})
    assert read.bridge == "cni0" and read.container_interface
    switches = set(Config.__slots__) - {"bridge", "container_interface"}
    assert not any(getattr(read, name) for name in switches)
    assert Config({"bridge": ""}).bridge == "cni0"


@pytest.mark.parametrize(
    "text", ["0a:58:0A:f4:01:02", "0A-58-0a-f4-01-02", "0a58.0af4.0102", "0A58.0AF4.0102"]
)
def test_mac_in_every_form(text: str) -> None:
    assert parse_mac(text, "x") == "0a:58:0a:f4:01:02"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0a:58",
        "0a:58:0a:f4:01:02:03",
        "0a58:0af4:0102",
        "0a:58:0a-f4:01:02",
        "0a:58:0a:f4:01:0g",
    ]
    + ["01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "\u0660a:58:0a:f4:01:02"],
)
def test_what_is_no_mac_of_an_interface(text: str) -> None:
    with pytest.raises(CniError) as caught:
        parse_mac(text, "CNI_ARGS MAC", 4)
    assert caught.value.code == 4
    with pytest.raises(CniError) as caught:
        parse_mac(text, "runtimeConfig.mac")
    assert caught.value.code == 7 and repr(text) in caught.value.msg


def test_a_mac_of_cni_args_is_an_environment_error() -> None:
    with pytest.raises(CniError) as caught:
        load(request({}, "MAC=0a:58"))
    assert caught.value.code == 4


def test_cni_args_are_checked_even_when_not_used() -> None:
    document = {"runtimeConfig": {"mac": "02:00:00:00:00:01"}}
    assert load(request(document, "MAC=02:00:00:00:00:02")).mac == "02:00:00:00:00:01"
    with pytest.raises(CniError):
        load(request(document, "K8S_POD_NAME=x"))


def test_trunk() -> None:
    items = [{"id": 7}, {"minID": 5, "maxID": 8}, {"id": 3, "minID": 1, "maxID": 1}, {}]
    assert trunk_vlans(items) == (1, 3, 5, 6, 7, 8)
    for broken in ({"id": 0}, {"id": 4095}, {"minID": 0, "maxID": 3}, {"minID": 1, "maxID": 4095}):
        with pytest.raises(CniError):
            trunk_vlans([broken])
    with pytest.raises(CniError, match="maxID is missing"):
        trunk_vlans([{"minID": 1}])


def test_vlans_of_a_port() -> None:
    native = PVID | UNTAGGED
    assert config().vlans() == {}
    assert config(vlan=100).vlans() == {100: native}
    assert config(vlanTrunk=[{"minID": 20, "maxID": 21}]).vlans() == {1: native, 20: 0, 21: 0}
    assert config(vlan=20, vlanTrunk=[{"minID": 20, "maxID": 21}]).vlans() == {20: native, 21: 0}


@pytest.mark.parametrize("kind", [17, 19])
def test_vlan_message_as_pyroute2_reads_it(kind: int) -> None:
    """Not every kernel can filter VLANs, so the message itself is looked at."""
    message = vlan_message(kind, 33, "veth0", {5: 0, 100: PVID | UNTAGGED})
    assert message.type == kind
    header = (16 + len(message.body)).to_bytes(4, "little") + kind.to_bytes(2, "little")
    decoded = ifinfmsg(header + b"\0" * 10 + message.body)
    decoded.decode()
    assert decoded["family"] == 7 and decoded["index"] == 33
    spec = decoded.get_attr("IFLA_AF_SPEC")
    seen = [info for name, info in spec["attrs"] if name == "IFLA_BRIDGE_VLAN_INFO"]
    assert [(v["vid"], v["flags"]) for v in seen] == [(5, 0), (100, 6)]


def result(*addresses: str, routes: list[Route] | None = None) -> Result:
    return Result(ips=[IPConfig(address) for address in addresses], routes=routes)


def test_gateways_and_default_routes() -> None:
    made = result("10.1.2.9/16", "10.7.0.3/24", "fd00::9/64")
    gateways = complete(made, config(isDefaultGateway=True))
    assert [g.text() for g in gateways] == ["10.1.0.1/16", "10.7.0.1/24", "fd00::1/64"]
    assert [ip.gateway for ip in made.ips] == ["10.1.0.1", "10.7.0.1", "fd00::1"]
    assert all(ip.interface == 2 for ip in made.ips)
    assert [(r.dst, r.gw) for r in made.routes] == [("0.0.0.0/0", "10.1.0.1"), ("::/0", "fd00::1")]


def test_routes_of_ipam_come_first() -> None:
    for route in (Route("0.0.0.0/0"), Route("0.0.0.0/0", "10.1.0.7")):
        made = result("10.1.2.9/16", routes=[route])
        complete(made, config(isDefaultGateway=True))
        assert made.routes == [route]
    other = Route("0.0.0.0/0", table=100)
    made = result("10.1.2.9/16", routes=[other])
    complete(made, config(isDefaultGateway=True))
    assert len(made.routes) == 2


def test_without_gateway_nothing_is_filled_in() -> None:
    made = result("10.1.2.9/16")
    assert complete(made, config()) == [] and made.ips[0].gateway == "" and not made.routes
    with pytest.raises(CniError, match="missing IP config"):
        complete(result(), config())
    with pytest.raises(CniError, match=r"ipam\.addresses names none"):
        complete(result(), config(ipam={"type": "static"}))


def test_next_hop() -> None:
    made = result("10.1.2.9/16", "fd00::9/64")
    assert next_hop(Route("10.9.0.0/16"), made) == ""
    complete(made, config(isGateway=True))
    assert next_hop(Route("10.9.0.0/16"), made) == "10.1.0.1"
    assert next_hop(Route("fd09::/64"), made) == "fd00::1"
    assert next_hop(Route("10.9.0.0/16", "10.1.0.5"), made) == "10.1.0.5"
    assert next_hop(Route("10.9.0.0/16", scope=253), made) == ""


def test_del_reads_whatever_there_is() -> None:
    for damaged in ({}, {"bridge": 7, "ipam": [], "ipMasq": "yes", "macspoofchk": 1}):
        read = lenient(damaged)
        assert read.bridge == "cni0" and read.ipam == ""
        assert not read.masquerade and not read.spoof_check
