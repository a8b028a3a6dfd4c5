# SPDX-License-Identifier: Apache-2.0
"""The links that plugins are given to work on, and the results that describe them."""

from __future__ import annotations

from typing import Any

from pyroute2 import IPRoute

from cni_conformance.case import VERSIONS
from cni_conformance.sandbox import Sandbox

#: The host's interface for types that put something on top of one ("${master}"), its address.
MASTER = "cnfup"
MASTER_ADDRESS = ("192.0.2.1", 24)

#: The first port of the host ("${hostPort}"); each attachment has the next one.
_HOST_PORT = 8080
#: State lines of what is on an interface that a chained plugin was given, and goes with it.
PERISHABLE = (r"(qdisc|fdb|vlan|neighbour): cnfveth\d+ ",)


def fill(template: Any, names: dict[str, str | int]) -> Any:
    """A copy with "${name}" in strings replaced; a string of nothing else may become a number."""
    if isinstance(template, dict):
        return {fill(key, names): fill(value, names) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, names) for value in template]
    if isinstance(template, str):
        if template[:2] == "${" and template[2:-1] in names:
            return names[template[2:-1]]
        for name, value in names.items():
            template = template.replace(f"${{{name}}}", str(value))
    return template


def names_for(number: int, ifname: str) -> dict[str, str | int]:
    """What stands for the names in a profile's configuration, for one attachment."""
    return {
        "ifname": ifname,
        "master": MASTER,
        "device": f"cnfdev{number}",
        "hostPort": _HOST_PORT + number,
    }


def _index(netlink: IPRoute, name: str) -> int:
    index: int = netlink.link_lookup(ifname=name)[0]
    return index


def _up(netlink: IPRoute, name: str) -> None:
    netlink.link("set", index=_index(netlink, name), state="up")


def _make_pair(netlink: IPRoute, name: str, peer: dict[str, Any]) -> None:
    netlink.link("add", ifname=name, kind="veth", peer=peer)


def prepare_host(with_master: bool) -> None:
    """Set `lo` up and, on demand, make MASTER with an address and a far end that is up."""
    with IPRoute() as netlink:
        _up(netlink, "lo")
        if with_master:
            _make_pair(netlink, MASTER, {"ifname": f"{MASTER}-far"})
            for name in (MASTER, f"{MASTER}-far"):
                _up(netlink, name)
            address, length = MASTER_ADDRESS
            netlink.addr("add", index=_index(netlink, MASTER), address=address, prefixlen=length)


def remove(*names: str) -> None:
    """Remove links of the host, and with each its far end. Those that are absent are removed."""
    with IPRoute() as netlink:
        for name in names:
            for index in netlink.link_lookup(ifname=name):
                netlink.link("del", index=index)


def make_device(name: str) -> None:
    """A link to be moved into a sandbox."""
    with IPRoute() as netlink:
        _make_pair(netlink, name, {"ifname": f"{name}-f"})
        _up(netlink, f"{name}-f")


def make_interface(sandbox: Sandbox, ifname: str, number: int, version: str) -> dict[str, Any]:
    """An interface with an address in the sandbox, as an earlier plugin would have made it.

    Returns that plugin's result in the form of this version.
    """
    host = f"cnfveth{number}"
    address, gateway = f"10.98.{number // 200}.{number % 200 + 10}", "10.98.255.1"
    with IPRoute() as netlink:
        with open(sandbox.path) as pinned:
            _make_pair(netlink, host, {"ifname": ifname, "net_ns_fd": pinned.fileno()})
        _up(netlink, host)
        host_mac = str(netlink.link("get", index=_index(netlink, host))[0].get("address"))

    def configure(netlink: IPRoute) -> str:
        index = _index(netlink, ifname)
        netlink.link("set", index=index, state="up")
        netlink.addr("add", index=index, address=address, prefixlen=16)
        netlink.route("add", dst="default", gateway=gateway)
        return str(netlink.link("get", index=index)[0].get("address"))

    mac = sandbox.netlink(configure)
    ip: dict[str, Any] = {"address": f"{address}/16", "gateway": gateway, "interface": 1}
    if VERSIONS.index(version) < VERSIONS.index("1.0.0"):
        ip["version"] = "4"
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": host, "mac": host_mac},
            {"name": ifname, "mac": mac, "sandbox": sandbox.path},
        ],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0", "gw": gateway}],
        "dns": {"nameservers": ["10.98.255.1"], "search": ["conformance.example"]},
    }
