# SPDX-License-Identifier: Apache-2.0
"""Network configuration lists for which plugins are interrupted, and what they stand on.

A list of one plugin that changes what an earlier one made stands on an interface made by hand, so
that whatever the plugin fails to restore is seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tests.faults import bases
from tests.rig.host import Host, Netns

VERSION = "1.1.0"
Plugin = dict[str, Any]
#: Prepares a container, and the host under it; the prevResult that the first plugin gets.
Base = Callable[[Host, Netns, int], dict[str, Any] | None]


@dataclasses.dataclass(frozen=True)
class NetworkList:
    """plugins: their configurations. base: see `Base`, called with the container's number.

    on_host: the plugins find everything on the host, so DEL and GC do without the namespace.
    keeps: regular expression of state lines that are documented to stay. shared: interfaces that
    outlive the last DEL. alone: one container at a time can be attached. ports: the runtime
    passes portMappings. interrupted: positions of the plugins to interrupt, instead of all.
    verbs: those to interrupt.
    """

    name: str
    plugins: tuple[Plugin, ...]
    base: Base = bases.nothing
    on_host: bool = False
    keeps: str = r"\b\B"
    shared: tuple[str, ...] = ()
    alone: bool = False
    ports: bool = False
    interrupted: tuple[int, ...] = ()
    verbs: tuple[str, ...] = ("ADD", "DEL", "GC")

    def document(self, position: int, number: int, **keys: Any) -> dict[str, Any]:
        """What the plugin at `position` reads for the container of that number."""
        runtime: dict[str, Any] = {}
        if self.ports and self.plugins[position].get("capabilities", {}).get("portMappings"):
            port = {"hostPort": 20000 + number, "containerPort": 80, "protocol": "tcp"}
            runtime = {"runtimeConfig": {"portMappings": [port, {**port, "protocol": "udp"}]}}
        head = {"cniVersion": VERSION, "name": self.name}
        return {**head, **self.plugins[position], **runtime, **keys}


def _ipam(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "type": "host-local",
        "ranges": [[{"subnet": f"10.{number}.0.0/16"}], [{"subnet": f"fd00:{number}::/64"}]],
        **keys,
    }


_DEFAULT = {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
_ADDRESS = {"address": "10.1.2.3/24"}
_BRIDGE: Plugin = {
    "type": "bridge",
    "bridge": "kill0",
    "isGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "hairpinMode": True,
    "ipam": _ipam(201, **_DEFAULT),
}
#: portmap leaves it switched on, as others rely on it by now.
_LOCALNET = r"ipv4/conf/out\d+/route_localnet=[01]"
_PORTMAP: Plugin = {"type": "portmap", "capabilities": {"portMappings": True}}
_FIREWALL: Plugin = {"type": "firewall", "backend": "nftables"}
_BANDWIDTH: Plugin = {
    "type": "bandwidth",
    "ingressRate": 8_000_000,
    "ingressBurst": 800_000,
    "egressRate": 8_000_000,
    "egressBurst": 800_000,
}
_TUNING: Plugin = {
    "type": "tuning",
    "mac": "0a:58:0a:f4:01:02",
    "mtu": 1400,
    "promisc": True,
    "allmulti": True,
    "txQLen": 77,
    "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1", "net.ipv4.conf.IFNAME.rp_filter": "2"},
}
_OVERLAY: Plugin = {
    "type": "vxlan-overlay",
    "vni": 7,
    "underlay": "under0",
    "network": "10.244.0.0/16",
    "subnet": "10.244.1.0/24",
    "peers": [{"publicIP": "172.31.0.2", "subnet": "10.244.2.0/24"}],
}

LISTS = (
    NetworkList("bridge", (_BRIDGE,), on_host=True, shared=("kill0",)),
    NetworkList(
        "ptp", ({"type": "ptp", "ipMasq": True, "ipam": _ipam(202, **_DEFAULT)},), on_host=True
    ),
    NetworkList(
        "macvlan",
        ({"type": "macvlan", "master": "under0", "mtu": 1400, "ipam": _ipam(203, **_DEFAULT)},),
        bases.underlay,
    ),
    NetworkList("tap", ({"type": "tap", "multiQueue": True, "ipam": _ipam(204, **_DEFAULT)},)),
    NetworkList("loopback", ({"type": "loopback"},), bases.loopback),
    NetworkList(
        "host-device",
        ({"type": "host-device", "hwaddr": bases.SPARE, "ipam": _ipam(205, **_DEFAULT)},),
        bases.spare_device,
        alone=True,
    ),
    NetworkList("host-local", ({"type": "host-local", "ipam": _ipam(206)},), on_host=True),
    NetworkList(
        "static",
        (
            {
                "type": "static",
                "ipam": {"type": "static", "addresses": [{"address": "10.1.2.3/24"}]},
            },
        ),
        on_host=True,
    ),
    NetworkList("portmap", (_PORTMAP,), bases.veth, on_host=True, ports=True, keeps=_LOCALNET),
    NetworkList(
        "portmap-iptables",
        ({**_PORTMAP, "backend": "iptables"},),
        bases.veth,
        on_host=True,
        ports=True,
        keeps=_LOCALNET,
    ),
    NetworkList("firewall", (_FIREWALL,), bases.veth, on_host=True),
    NetworkList(
        "firewall-iptables", ({**_FIREWALL, "backend": "iptables"},), bases.veth, on_host=True
    ),
    NetworkList("bandwidth", (_BANDWIDTH,), bases.veth, on_host=True),
    # Its GC forgets what the interface was like, which goes with its container; see "whole".
    NetworkList("tuning", (_TUNING,), bases.veth, verbs=("ADD", "DEL")),
    NetworkList(
        "sbr",
        (_BRIDGE, {"type": "sbr"}),
        shared=("kill0",),
        interrupted=(1,),
    ),
    NetworkList(
        "vxlan-overlay",
        (_OVERLAY,),
        bases.underlay,
        on_host=True,
        shared=("cni0", "adder.7", "adder6.7"),
    ),
    NetworkList(
        "whole",
        (_BRIDGE, _PORTMAP, _FIREWALL, _BANDWIDTH, _TUNING),
        on_host=True,
        shared=("kill0",),
        ports=True,
    ),
)
BY_NAME: Mapping[str, NetworkList] = {each.name: each for each in LISTS}
