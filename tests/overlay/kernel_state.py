# SPDX-License-Identifier: Apache-2.0
"""What is the agent's in a node's kernel: as iproute2 shows it, and as it is to be."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping

from cni_vxlan_overlay.peers import vtep_mac
from tests.overlay.agents import Agent
from tests.overlay.cluster import Node, underlay_address
from tests.overlay.stores import subnets

DEVICES = ("adder.1", "adder6.1")
#: (what, where it is): one entry of a kernel, in iproute2's words.
Entry = tuple[str, ...]
#: What is read, with dashes between: one process, as this is done very often.
_READ = "; echo ---; ".join(
    [
        "ip -j -4 route show proto 97",
        "ip -j -6 route show proto 97",
        *(f"ip -j neigh show dev {name} 2>&-" for name in DEVICES),
        *(f"bridge -j fdb show dev {name} 2>&-" for name in DEVICES),
        *(f"ip -j address show dev {name} 2>&-" for name in DEVICES),
        "true",
    ]
)


def found(node: Node) -> tuple[set[Entry], set[Entry]]:
    """What is ours in a node's kernel: entries, and devices with their addresses."""
    parts = [json.loads(part.strip() or "[]") for part in node.run("sh", "-c", _READ).split("---")]
    entries: set[Entry] = set()
    for route in parts[0] + parts[1]:
        if route["dev"].startswith("other"):
            continue
        flags = " ".join(sorted(set(route["flags"]) & {"onlink"}))
        entries.add(("route", route["dst"], route["gateway"], route["dev"], flags))
    for name, neighbours in zip(DEVICES, parts[2:4], strict=True):
        for entry in neighbours:
            if "PERMANENT" in entry["state"]:
                entries.add(("neighbour", name, entry["dst"], entry["lladdr"]))
    for name, forwarding in zip(DEVICES, parts[4:6], strict=True):
        for entry in forwarding:
            more = {k: v for k, v in entry.items() if k not in ("mac", "dst", "ifname", "flags")}
            entries.add(("forwarding", name, entry["mac"], entry["dst"], str(more)))
    devices: set[Entry] = set()
    for name, links in zip(DEVICES, parts[6:8], strict=True):
        for link in links:
            up = "up" if "UP" in link["flags"] else "down"
            devices.add(("device", name, link["address"], str(link["mtu"]), up))
            for address in link["addr_info"]:
                if address["scope"] != "link":
                    words = f"{address['local']}/{address['prefixlen']}"
                    devices.add(("address", name, words))
    return entries, devices


def expected(
    number: int, own: str, peers: Mapping[int, str], direct: bool = False
) -> tuple[set[Entry], set[Entry]]:
    """A node's kernel, as `found` has it.

    own: its underlay address; that of IPv6 ends like it. peers: address of each, by number.
    direct: routes lead to the peers' addresses themselves.
    """
    entries: set[Entry] = set()
    for peer, address in peers.items():
        if peer == number:
            continue
        for name, public, subnet in zip(DEVICES, _both(address), subnets(peer), strict=True):
            network = str(ipaddress.ip_network(subnet).network_address)
            if direct:
                entries.add(("route", subnet, public, "eth0", ""))
                continue
            mac = vtep_mac(1, public)
            entries.add(("route", subnet, network, name, "onlink"))
            entries.add(("neighbour", name, network, mac))
            entries.add(("forwarding", name, mac, public, "{'state': 'permanent'}"))
    devices: set[Entry] = set()
    for name, public, subnet in zip(DEVICES, _both(own), subnets(number), strict=True):
        first = ipaddress.ip_network(subnet).network_address
        devices.add(("device", name, vtep_mac(1, public), "1430", "up"))
        devices.add(("address", name, f"{first}/{first.max_prefixlen}"))
    return entries, devices


def _both(address: str) -> tuple[str, str]:
    return address, underlay_address(int(address.rpartition(".")[2]), True)


def difference(agent: Agent, wanted: tuple[set[Entry], set[Entry]]) -> list[str]:
    """How a node's kernel differs from what is wanted, rules included; [] if it does not."""
    words = []
    for there, shall in zip(found(agent.node), wanted, strict=True):
        words += [f"lacks {entry}" for entry in sorted(shall - there)]
        words += [f"has {entry}" for entry in sorted(there - shall)]
    rules = agent.node.run("nft", "list", "ruleset").count("masquerade fully-random")
    return words + ([f"{rules} rules that masquerade"] if rules != 4 else [])


def settled(
    agent: Agent, wanted: tuple[set[Entry], set[Entry]], what: str, seconds: float
) -> None:
    """Wait until a node's kernel is as wanted; AssertionError with the difference, and the log."""
    seen: list[str] = []

    def agrees() -> bool:
        seen[:] = difference(agent, wanted)
        return not seen

    try:
        agent.until(agrees, what, seconds)
    except AssertionError as error:
        raise AssertionError("\n".join([*seen, str(error)])) from None
