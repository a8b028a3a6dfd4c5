# SPDX-License-Identifier: Apache-2.0
"""What a container has before the interrupted plugin comes: a `Base` of `lists` each."""

from __future__ import annotations

from typing import Any

from tests.rig.host import Host, Netns

#: Hardware address of the interface that `spare_device` leaves on the host.
SPARE = "02:00:00:00:07:08"


def nothing(host: Host, container: Netns, number: int) -> None:
    """An empty namespace."""


def loopback(host: Host, container: Netns, number: int) -> None:
    """`lo` has been up and has its addresses, which stay as it goes down."""
    container.run("ip", "link", "set", "lo", "up")
    container.run("ip", "link", "set", "lo", "down")


def underlay(host: Host, container: Netns, number: int) -> None:
    """The host has an interface `under0` with an address, whose other end nobody reads."""
    if "under0" not in host.link_names():
        host.run("ip", "link", "add", "under0", "type", "veth", "peer", "name", "far0")
        for name in ("under0", "far0"):
            host.run("ip", "link", "set", name, "addrgenmode", "none")
            host.run("ip", "link", "set", name, "up")
        host.run("ip", "address", "add", "172.31.0.1/24", "dev", "under0")


def spare_device(host: Host, container: Netns, number: int) -> None:
    """The host has an interface to give away; one for all, as one container at a time asks."""
    if "spare0" not in host.link_names():
        host.run("ip", "link", "add", "spare0", "type", "veth", "peer", "name", "wire0")
        host.run("ip", "link", "set", "spare0", "address", SPARE, "mtu", "1450")


def veth(host: Host, container: Netns, number: int) -> dict[str, Any]:
    """eth0 with an address of each family, and its host end; the result that tells of them."""
    number += 1  # the first address is the gateway's
    outer, mac = f"out{number}", f"02:00:00:00:01:{number:02x}"
    host.run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns",
             container.name)  # fmt: skip
    host.run("ip", "link", "set", outer, "addrgenmode", "none")
    host.run("ip", "link", "set", outer, "up")
    host.run("ip", "address", "add", "10.210.0.1/32", "dev", outer)
    host.run("ip", "route", "add", f"10.210.0.{number}", "dev", outer)
    inside = container.run
    inside("ip", "link", "set", "eth0", "address", mac, "addrgenmode", "none")
    inside("ip", "link", "set", "lo", "up")
    inside("ip", "link", "set", "eth0", "up")
    inside("ip", "address", "add", f"10.210.0.{number}/24", "dev", "eth0")
    inside("ip", "address", "add", f"fd00:210::{number}/64", "dev", "eth0", "nodad")
    inside("ip", "route", "add", "default", "via", "10.210.0.1")
    inside("ip", "route", "add", "default", "via", "fd00:210::1")
    return {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": outer, "mac": host.ip("link", "show", outer)[0]["address"]},
            {"name": "eth0", "mac": mac, "sandbox": container.path},
        ],
        "ips": [
            {"address": f"10.210.0.{number}/24", "gateway": "10.210.0.1", "interface": 1},
            {"address": f"fd00:210::{number}/64", "gateway": "fd00:210::1", "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
