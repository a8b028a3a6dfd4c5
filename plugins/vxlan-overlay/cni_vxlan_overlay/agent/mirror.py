# SPDX-License-Identifier: Apache-2.0
"""The kernel's state as this agent knows it, kept up by events; and which events matter."""

from __future__ import annotations

import itertools
from typing import Any

from cni_vxlan_overlay.agent.kernel import Kernel
from cni_vxlan_overlay.agent.messages import (
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
)
from cni_vxlan_overlay.agent.readings import forwarding_of, neighbour_of
from cni_vxlan_overlay.fabric import Fabric
from libcni.inet import Prefix, ntop, pton

_AF_BRIDGE = 7
#: NLM_F_REPLACE, in the message of a route that took the place of another; of that nothing is
#: said (linux/netlink.h).
_REPLACED = 0x100
_MAIN = 254

#: Of a Fabric.
Entry = tuple[str, str, str]


class Mirror:
    """What of ours is in the kernel. A MAC has one destination, and an address one MAC: a newer
    value takes the place of an older. Routes are by destination, of which there may be more.

    refused: destinations whose route could not be made, since somebody else has one.
    """

    def __init__(self, fabric: Fabric | None = None) -> None:
        #: By device and MAC, by device and address, by destination: the entries themselves, so
        #: that comparing thousands of them makes nothing new.
        self._forwarding: dict[tuple[str, str], Entry] = {}
        self._neighbours: dict[tuple[str, str], Entry] = {}
        self._routes: dict[str, set[Entry]] = {}
        self.refused: set[str] = set()
        if fabric is not None:
            self.add(fabric)

    def add(self, fabric: Fabric) -> None:
        """All of this is there now."""
        for entry in fabric.forwarding:
            self._forwarding[entry[:2]] = entry
        for entry in fabric.neighbours:
            self._neighbours[entry[:2]] = entry
        for entry in fabric.routes:
            self._routes.setdefault(entry[0], set()).add(entry)

    def remove(self, fabric: Fabric) -> None:
        """None of this is there any more; what has another value by now stays."""
        for entry in fabric.forwarding:
            if self._forwarding.get(entry[:2]) == entry:
                del self._forwarding[entry[:2]]
        for entry in fabric.neighbours:
            if self._neighbours.get(entry[:2]) == entry:
                del self._neighbours[entry[:2]]
        for entry in fabric.routes:
            there = self._routes.get(entry[0])
            if there is not None:
                there.discard(entry)
                if not there:
                    del self._routes[entry[0]]

    def replace_routes(self, destinations: set[str]) -> None:
        """Routes to these destinations were replaced: forget the earlier ones."""
        for destination in destinations:
            self._routes.pop(destination, None)

    def fabric(self) -> Fabric:
        """All of it, in the form that is compared."""
        return Fabric(
            self._forwarding.values(),
            self._neighbours.values(),
            itertools.chain.from_iterable(self._routes.values()),
        )

    def take(self, message: Any, kernel: Kernel, wanted: Fabric) -> bool:
        """Take in an event; True if the kernel's state differs from `wanted` by it."""
        kind = message["header"]["type"]
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            names = {index: name for name, index in kernel.devices.items()}
            if message["ifindex"] not in names:
                return False
            if message["family"] == _AF_BRIDGE:
                return self._take_forwarding(message, names, wanted)
            return self._take_neighbour(message, names, wanted)
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            return self._take_route(message, kernel, wanted)
        return False

    def _take_forwarding(self, message: Any, names: dict[int, str], wanted: Fabric) -> bool:
        mac = message.get("NDA_LLADDR")
        if not mac:
            return False
        key = (names[message["ifindex"]], str(mac))
        entry = forwarding_of(message, names)
        if message["header"]["type"] == RTM_NEWNEIGH and entry is not None:
            before = self._forwarding.get(key)
            if before != entry:
                self._forwarding[key] = entry
            return entry not in wanted.forwarding or before not in (None, entry)
        # Deleted, or one that ages, which is as bad.
        return self._forwarding.pop(key, None) in wanted.forwarding

    def _take_neighbour(self, message: Any, names: dict[int, str], wanted: Fabric) -> bool:
        address = message.get("NDA_DST")
        if not address:
            return False
        key = (names[message["ifindex"]], ntop(pton(address)))
        entry = neighbour_of(message, names)
        there = message["header"]["type"] == RTM_NEWNEIGH and entry is not None
        if there and entry is not None:
            if self._neighbours.get(key) != entry:
                self._neighbours[key] = entry
            return entry not in wanted.neighbours
        # Deleted, or no longer permanent, which is as bad.
        return self._neighbours.pop(key, None) in wanted.neighbours

    def _take_route(self, message: Any, kernel: Kernel, wanted: Fabric) -> bool:
        if message["table"] != _MAIN or not message.get("RTA_DST"):
            return False
        entry = kernel.route_of(message)
        destination = Prefix(pton(message.get("RTA_DST")), message["dst_len"]).text()
        if message["header"]["type"] == RTM_DELROUTE:
            if entry is None:  # somebody else's, and perhaps ours can be made now
                return destination in self.refused
            self.remove(Fabric(routes=[entry]))
            return entry in wanted.routes
        lost = False
        if message["header"]["flags"] & _REPLACED:
            before = self._routes.pop(destination, set())
            lost = not wanted.routes.isdisjoint(before)
        if entry is None:
            return lost
        self.add(Fabric(routes=[entry]))
        return entry not in wanted.routes
