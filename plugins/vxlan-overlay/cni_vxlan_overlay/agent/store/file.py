# SPDX-License-Identifier: Apache-2.0
"""The file store: all nodes are in one JSON file, which somebody else keeps on every node.

    {
      "Network": "10.244.0.0/16",
      "Backend": {"Type": "vxlan", "VNI": 1},
      "nodes": [
        {"name": "node-1", "publicIP": "192.168.50.1", "subnet": "10.244.1.0/24"},
        {"name": "node-2", "publicIP": "192.168.50.2", "subnet": "10.244.2.0/24"}
      ]
    }

The keys of net-conf.json, and nodes as the plugin's `peers` has them; the plugin reads the same
file as its `peersFile`. This node is the entry with its name, or with its address. Of two that
claim the same, the first one keeps it. Nothing is ever written.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

from cni_vxlan_overlay.agent.model import NetConf, Node, Offer
from cni_vxlan_overlay.agent.netconf import parse_netconf
from cni_vxlan_overlay.agent.store import Event, Hints, Listing, StoreError, Unavailable
from cni_vxlan_overlay.peer_list import parse_peer
from libcni import jsontext
from libcni.types.errors import CniError

log = logging.getLogger(__name__)

#: Seconds between looks at the file. Looking works on every file system, and with a link that
#: leads to another file (a mounted ConfigMap), where being told of changes does not.
_LOOK = 0.5
#: Keys that net-conf.json has not.
_LISTS = ("nodes", "peers")

#: Who has changed the file will have changed one of these.
_Stamp = tuple[int, int, int, int]


class FileStore:
    """`Store` on a file."""

    kind = "file"

    def __init__(self, path: str, node_name: str = "") -> None:
        """node_name: of this node's entry; "" to go by its address."""
        self._path = self.source = path
        self._name = node_name
        self._warned = ""
        #: The file as last read: its content, and what that says.
        self._said: tuple[bytes, tuple[NetConf, list[Node]]] | None = None

    async def netconf(self) -> NetConf:
        """The network's configuration. Raises StoreError naming file and key, Unavailable."""
        return self._read()[0]

    async def hints(self) -> Hints:
        """None: a node's address here is what it publishes."""
        return Hints()

    async def publish(self, offer: Offer) -> Node:
        """This node's entry. Raises StoreError if there is none: everybody reads the same file."""
        nodes = self._read()[1]
        addresses = [endpoint.public_ip for endpoint in offer.endpoints]
        name = offer.name or self._name
        own = next((node for node in nodes if name and node.name == name), None) or next(
            (node for node in nodes if _is_at(node, addresses)), None
        )
        if own is None:
            who = f"{name!r} or " if name else ""
            raise StoreError(
                f"{self._path} has no node {who}with the publicIP {' or '.join(addresses)}: add "
                "this node to it, on all nodes"
            )
        self._compare(own, offer)
        return own

    def _compare(self, own: Node, offer: Offer) -> None:
        """Others go by the file: say so where they will not reach this node by it."""
        offered = set(offer.endpoints)
        wrong = [endpoint for endpoint in own.peer.endpoints if endpoint not in offered]
        text = ""
        if wrong:
            text = (
                f"{self._path} says that {own.name} is at {wrong[0].public_ip} with VTEP MAC "
                f"{wrong[0].mac}, but here it is "
                + " and ".join(f"{e.public_ip} with {e.mac}" for e in offer.endpoints)
                + ": others will not reach it; set publicIP, or vtepMAC if it is behind NAT"
            )
        if text and text != self._warned:
            log.error("%s", text)
        self._warned = text

    async def watch(self) -> AsyncIterator[Event]:
        """A Listing now, and after each change of the file. Raises Unavailable, StoreError."""
        seen: _Stamp | None = None
        while True:
            stamp = self._stamp()
            if stamp != seen:
                seen = stamp
                yield Listing(tuple(self._read()[1]), str(stamp[0]))
            await asyncio.sleep(_LOOK)

    def _stamp(self) -> _Stamp:
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise Unavailable(f"{self._path}: {error.strerror}") from None
        return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)

    def _read(self) -> tuple[NetConf, list[Node]]:
        try:
            with open(self._path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise Unavailable(f"{self._path}: {error.strerror}") from None
        if self._said is None or self._said[0] != content:
            self._said = content, self._parse(content)  # which warns, so once
        return self._said[1]

    def _parse(self, content: bytes) -> tuple[NetConf, list[Node]]:
        try:
            document = jsontext.loads(content, self._path)
        except CniError as error:
            raise StoreError(str(error)) from None
        if not isinstance(document, dict):
            raise StoreError(f"{self._path}: an object with `Network` and `nodes` is expected")
        text = json.dumps(_netconf_document(document))
        conf = parse_netconf(text, allocates=False, source=self._path)
        return conf, self._nodes(document, conf.backend.vni)

    def _nodes(self, document: dict[str, Any], vni: int) -> list[Node]:
        entries = next((value for key, value in document.items() if key.lower() in _LISTS), None)
        if not isinstance(entries, list):
            raise StoreError(f"{self._path}: `nodes` is missing; it is the list of all nodes")
        nodes: dict[str, Node] = {}
        for number, entry in enumerate(entries):
            where = f"{self._path}: nodes[{number}]"
            try:
                peer = parse_peer(entry, vni, where)
            except CniError as error:
                raise StoreError(str(error)) from None
            if peer.name in nodes:
                raise StoreError(f"{where}: there is another node {peer.name!r}")
            nodes[peer.name] = Node(peer.name, peer, f"{number:08}")
        return list(nodes.values())

    async def ready(self) -> None:
        """Nobody to tell."""

    async def renew(self) -> float:
        """Nothing expires."""
        return 0

    async def withdraw(self, own: Node | None) -> None:
        """The file is not ours; say what its keeper has to do. Idempotent."""
        log.info("if this node does not come back, remove it from %s on the others", self._path)

    async def close(self) -> None:
        """Nothing is open."""


def _is_at(node: Node, addresses: list[str]) -> bool:
    return any(endpoint.public_ip in addresses for endpoint in node.peer.endpoints)


def _netconf_document(document: dict[str, Any]) -> dict[str, Any]:
    """The part that is net-conf.json; a family is enabled by naming its network."""
    conf = {key: value for key, value in document.items() if key.lower() not in _LISTS}
    given = {key.lower() for key, value in conf.items() if value}
    if "ipv6network" in given:
        conf.setdefault("EnableIPv6", True)
        conf.setdefault("EnableIPv4", "network" in given)
    return conf
