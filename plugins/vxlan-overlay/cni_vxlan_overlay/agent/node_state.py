# SPDX-License-Identifier: Apache-2.0
"""What this node's agent wrote down, held against the kernel as it is now."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Iterable
from typing import Any

from cni_vxlan_overlay import offload
from cni_vxlan_overlay.agent.kernel import Kernel
from cni_vxlan_overlay.agent.memory import is_locked, parse_node
from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.fabric import Fabric
from libcni.inet import Prefix, ntop
from libcni.types.errors import CniError


class NoState(Exception):
    """There is nothing to tell; the text says which file is missing or wrong, and what to do."""


@dataclasses.dataclass(frozen=True)
class Device:
    """A VXLAN device as it is now; `problem` is "" when it is as the agent wants it.

    mtu: bytes, 0 when the device is missing.
    """

    name: str
    vni: int
    port: int
    mtu: int
    mac: str
    is_up: bool
    problem: str

    @property
    def is_ipv6(self) -> bool:
        """True over an underlay of IPv6."""
        return self.name.startswith("adder6.")


@dataclasses.dataclass(frozen=True)
class SubnetState:
    """What leads to one subnet of a peer: None where no entry is wanted, else whether it is there.

    device: that it is reached through; "" for a direct route through the underlay.
    """

    subnet: Prefix
    device: str
    route: bool | None
    neighbour: bool | None
    forwarding: bool | None


@dataclasses.dataclass(frozen=True)
class PeerState:
    """A peer and what leads to its subnets. route, neighbour, forwarding: as in SubnetState, of
    all of them.

    since: when it was first seen, Unix seconds. problem: "" without any.
    """

    node: Node
    since: float
    subnets: tuple[SubnetState, ...]
    problem: str

    @property
    def route(self) -> bool | None:
        """Whether all routes are there."""
        return _all(subnet.route for subnet in self.subnets)

    @property
    def neighbour(self) -> bool | None:
        """Whether all neighbours are there."""
        return _all(subnet.neighbour for subnet in self.subnets)

    @property
    def forwarding(self) -> bool | None:
        """Whether all forwarding entries are there."""
        return _all(subnet.forwarding for subnet in self.subnets)

    @property
    def is_whole(self) -> bool:
        """True when it has no problem and nothing is missing."""
        return not self.problem and False not in (self.route, self.neighbour, self.forwarding)


def _all(signs: Iterable[bool | None]) -> bool | None:
    known = [sign for sign in signs if sign is not None]
    return all(known) if known else None


@dataclasses.dataclass(frozen=True)
class NodeState:
    """All of it. written: when the agent last wrote its file, Unix seconds. store_up: whether
    its store answers, None while no agent runs who would know. store_problem: why not, "" when
    nothing is wrong or nobody knows. source: what the network's configuration is read from."""

    node: Node
    is_running: bool
    store: str
    store_up: bool | None
    written: float
    mtu: int
    port: int
    devices: tuple[Device, ...]
    peers: tuple[PeerState, ...]
    store_problem: str = ""
    source: str = "net-conf.json"

    @property
    def is_whole(self) -> bool:
        """True when nothing is wrong with devices and peers, and the agent runs."""
        return (
            self.is_running
            and not any(device.problem for device in self.devices)
            and all(peer.is_whole for peer in self.peers)
        )


async def read_node_state(path: str) -> NodeState:
    """Read the agent's file and the kernel. Raises NoState, NetlinkError."""
    document = _load(path)
    try:
        kernel = Kernel()
        try:
            return await _compare(document, kernel, is_locked(path))
        finally:
            await kernel.close()
    except (ValueError, KeyError, TypeError) as error:
        raise NoState(f"{path} is not what vxlan-overlayd {_about()} writes: {error!r}") from None


def _about() -> str:
    from libcni.about import VERSION

    return VERSION


def _load(path: str) -> Any:
    try:
        return json.loads(pathlib.Path(path).read_bytes())
    except FileNotFoundError:
        raise NoState(
            f"{path} is not there: no agent has had a subnet on this node yet (is vxlan-overlayd "
            "running, and does it reach its store? else name the file by --state-file)"
        ) from None
    except (OSError, ValueError) as error:
        raise NoState(f"{path} cannot be read: {error}") from None


async def _compare(document: Any, kernel: Kernel, is_running: bool) -> NodeState:
    conf = document["conf"]
    kernel.networks = [Prefix.parse(text) for text in conf["networks"]]
    own = parse_node(document["self"])
    devices = []
    for name, mac in document["devices"].items():
        device = await _device(kernel, name, mac, document)
        if not device.problem:
            device = await _addressed(kernel, device, own, list(document["devices"]))
        devices.append(device)
    wanted = Fabric(*[map(tuple, document["fabric"][kind]) for kind in Fabric.__slots__])
    entries = Entries(wanted, await kernel.read())
    peers = [
        _peer(parse_node(entry), entry, entries, list(document["devices"]))
        for entry in document["peers"]
    ]
    return NodeState(
        node=own,
        is_running=is_running,
        store=document["store"],
        store_up=bool(document["store_up"]) if is_running else None,
        written=float(document["written"]),
        mtu=document["mtu"],
        port=conf["port"],
        devices=tuple(devices),
        peers=tuple(peers),
        # Both are missing where an earlier version wrote it.
        store_problem=str(document.get("store_problem", "")) if is_running else "",
        source=str(document.get("source", "net-conf.json")),
    )


async def _device(kernel: Kernel, name: str, mac: str, document: Any) -> Device:
    conf, mtu = document["conf"], document["mtu"]
    link = await kernel.find_link(name)
    if link is None:
        return Device(name, conf["vni"], conf["port"], 0, "", False, "is missing")
    kernel.devices[name] = link.index
    vni, port = link.info.get("IFLA_VXLAN_ID") or 0, link.info.get("IFLA_VXLAN_PORT") or 0
    found = {
        "is no VXLAN device": link.kind != "vxlan",
        "is down": not link.is_up,
        f"has VNI {vni} instead of {conf['vni']}": vni != conf["vni"],
        f"has UDP port {port} instead of {conf['port']}": port != conf["port"],
        f"has MAC {link.mac} instead of {mac}": link.mac != mac,
        f"has MTU {link.mtu} instead of {mtu}": link.mtu != mtu,
    }
    problem = next((words for words, is_so in found.items() if is_so), "")
    if not problem:
        problem = await _made_otherwise(kernel, name, link, document)
    return Device(name, vni, port, link.mtu, link.mac, link.is_up, problem)


async def _made_otherwise(kernel: Kernel, name: str, link: Any, document: Any) -> str:
    """How a device is not as the agent makes it, in what nobody sees from outside; "" if it is.

    What the agent did not write down (one of an earlier version) is not compared.
    """
    conf, underlay, info = document["conf"], document.get("underlay", {}), link.info
    local = info.get("IFLA_VXLAN_LOCAL") or info.get("IFLA_VXLAN_LOCAL6")
    carrier = info.get("IFLA_VXLAN_LINK")
    compared = {
        "local address": (
            ntop(local) if local else "none",
            underlay.get("local", {}).get(name),
        ),
        "underlay": (
            await kernel.link_name(carrier) if carrier else "none",
            underlay.get("interface"),
        ),
        "learning": (_sign(info.get("IFLA_VXLAN_LEARNING")), _sign(conf["learning"])),
        "group policy": (_sign("IFLA_VXLAN_GBP" in info), _sign(conf["gbp"])),
    }
    for what, (found, wanted) in compared.items():
        if wanted is not None and found != wanted:
            return f"has {what} {found} instead of {wanted}"
    try:
        difference = offload.difference(name, conf["checksum"])
    except CniError as error:
        return error.msg
    return f"has {difference}" if difference else ""


def _sign(value: Any) -> str:
    return "on" if value else "off"


async def _addressed(kernel: Kernel, device: Device, own: Node, names: list[str]) -> Device:
    """The device, with a problem if it lacks an address: the host's own packets, and `check`'s,
    then have another source, and answers to them come by another way."""
    families = {name.startswith("adder6.") for name in names}
    there = await kernel.addresses(kernel.devices[device.name])
    for subnet in own.peer.subnets:
        is_ipv6 = len(subnet.packed) == 16
        address = Prefix(subnet.packed, len(subnet.packed) * 8)
        belongs = is_ipv6 == device.is_ipv6 or is_ipv6 not in families
        if belongs and address not in there:
            return dataclasses.replace(device, problem=f"lacks its address {address.text()}")
    return device


def _peer(node: Node, document: Any, entries: Entries, devices: list[str]) -> PeerState:
    subnets = tuple(entries.of(subnet) for subnet in node.peer.subnets)
    problem = document.get("problem", "")
    if not problem and all(subnet.route is None for subnet in subnets):
        problem = f"no address of it can be reached through {' or '.join(devices) or 'a device'}"
    return PeerState(node, float(document.get("since") or time.time()), subnets, problem)


class Entries:
    """What is wanted in the kernel, by subnet, held against what is there."""

    def __init__(self, wanted: Fabric, there: Fabric) -> None:
        self._routes = {entry[0]: entry for entry in wanted.routes}
        self._neighbours = {entry[:2]: entry for entry in wanted.neighbours}
        self._forwarding = {entry[:2]: entry for entry in wanted.forwarding}
        self._there = there

    def of(self, subnet: Prefix) -> SubnetState:
        """What leads to one subnet."""
        route = self._routes.get(subnet.text())
        if route is None:
            return SubnetState(subnet, "", None, None, None)
        _, hop, device = route
        has_route = route in self._there.routes
        if not device:
            return SubnetState(subnet, "", has_route, None, None)
        neighbour = self._neighbours[device, hop]
        forwarding = self._forwarding[device, neighbour[2]]
        return SubnetState(
            subnet,
            device,
            has_route,
            neighbour in self._there.neighbours,
            forwarding in self._there.forwarding,
        )
