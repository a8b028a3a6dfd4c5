# SPDX-License-Identifier: Apache-2.0
"""The stores of a test cluster, each with the options by which an agent finds it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
from typing import Any, Protocol

from tests.overlay.api_server import ApiServer, in_thread
from tests.overlay.api_server import node as node_object
from tests.overlay.cluster import Node, underlay_address
from tests.overlay.etcd import EtcdServer

NETWORK, NETWORK6 = "10.244.0.0/16", "fd00:10:244::/48"


def subnets(number: int) -> list[str]:
    """The pod CIDRs of a node."""
    return [f"10.244.{number}.0/24", f"fd00:10:244:{number:x}::/64"]


def net_conf(**backend: Any) -> str:
    """net-conf.json for both families."""
    return json.dumps(
        {
            "Network": NETWORK,
            "IPv6Network": NETWORK6,
            "EnableIPv6": True,
            "Backend": {"Type": "vxlan", **backend},
        }
    )


class StoreRig(Protocol):
    """A store that can be taken away."""

    def options(self, node: Node) -> list[str]:
        """Prepare a node, and the agent's options there."""
        ...

    def moved(self, node: Node) -> None:
        """The node has another address: what its administrator does then."""
        ...

    def leave(self, node: Node) -> None:
        """The node is taken out of the cluster by its administrator."""
        ...

    def down(self) -> None:
        """The store goes away."""
        ...

    def up(self) -> None:
        """It is back."""
        ...

    def close(self) -> None:
        """The end."""
        ...


class Kubernetes:
    """A stand-in for an API server, on the underlay."""

    def __init__(self, **backend: Any) -> None:
        self.backend = backend
        self.server = ApiServer()
        self._stack = contextlib.ExitStack()
        self._port = 0
        self.up()

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._stack = contextlib.ExitStack()
        handle = socket.socket()
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind((underlay_address(254), self._port))
        self._port = handle.getsockname()[1]
        self._stack.enter_context(in_thread(self.server, handle))

    def down(self) -> None:
        """Refuse connections."""
        self._stack.close()

    close = down

    def options(self, node: Node) -> list[str]:
        """A Node object with its pod CIDRs, unless there is one."""
        name = node.name
        try:
            self.server.get(name)
        except KeyError:
            self.server.add(node_object(name, *subnets(node.number)))
        node.write("/etc/cni/net-conf.json", net_conf(**self.backend))
        return [
            "--kube-subnet-mgr",
            f"--kube-api-url=http://{underlay_address(254)}:{self._port}",
            "--net-config-path=/etc/cni/net-conf.json",
            "--iface=eth0",
            "--ip-masq",
        ]

    def moved(self, node: Node) -> None:
        """The agent says so itself."""

    def claim(self, node: Node, number: int) -> None:
        """A younger Node object with the same pod CIDRs."""
        self.server.add(node_object(node.name, *subnets(number)), created="2099-01-01T00:00:00Z")

    def leave(self, node: Node) -> None:
        """Delete the Node object."""
        self.server.delete(node.name)


class File:
    """A file that all nodes can read."""

    def __init__(self, path: pathlib.Path, **backend: Any) -> None:
        self.path = path
        self.backend = backend
        self.nodes: dict[str, dict[str, str]] = {}

    def write(self) -> None:
        """Replace the file."""
        document = {
            "network": NETWORK,
            "ipv6Network": NETWORK6,
            "nodes": list(self.nodes.values()),
            "Backend": {"Type": "vxlan", **self.backend},
        }
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(document))
        temporary.rename(self.path)

    def options(self, node: Node) -> list[str]:
        """An entry for the node, unless there is one."""
        if node.name not in self.nodes:
            self.claim(node, node.number)
        return [f"--nodes-file={self.path}", "--iface=eth0", "--ip-masq"]

    def moved(self, node: Node) -> None:
        """Change its addresses."""
        number = int(node.address.rpartition(".")[2])
        self.nodes[node.name] |= {
            "publicIP": node.address,
            "publicIPv6": underlay_address(number, True),
        }
        self.write()

    def claim(self, node: Node, number: int) -> None:
        """The last entry, with these pod CIDRs."""
        ipv4, ipv6 = subnets(number)
        self.nodes[node.name] = {
            "name": node.name,
            "publicIP": node.address,
            "publicIPv6": underlay_address(node.number, True),
            "subnet": ipv4,
            "ipv6Subnet": ipv6,
        }
        self.write()

    def leave(self, node: Node) -> None:
        """Take its entry out, if it is there."""
        self.nodes.pop(node.name, None)
        self.write()

    def down(self) -> None:
        """The file is not there."""
        self.path.rename(self.path.with_suffix(".away"))

    def up(self) -> None:
        """It is there again."""
        self.path.with_suffix(".away").rename(self.path)

    def close(self) -> None:
        """Nothing runs."""


class Etcd:
    """An etcd on the underlay, which gives out subnets itself."""

    def __init__(self, directory: pathlib.Path, **backend: Any) -> None:
        self.server = EtcdServer(directory, underlay_address(254)).start()
        self.server.put("/coreos.com/network/config", net_conf(**backend))
        self._reserved: set[str] = set()

    def options(self, node: Node) -> list[str]:
        """Its subnets are reserved, so that a test knows them."""
        if node.name not in self._reserved:
            self._reserved.add(node.name)
            self._reserve(node)
        return [f"--etcd-endpoints={self.server.url}", "--iface=eth0", "--ip-masq"]

    def _key(self, node: Node) -> str:
        return "/coreos.com/network/subnets/" + "&".join(
            subnet.replace("/", "-") for subnet in subnets(node.number)
        )

    def _reserve(self, node: Node) -> None:
        addresses = [underlay_address(node.number, ipv6) for ipv6 in (False, True)]
        document = dict(zip(("PublicIP", "PublicIPv6"), addresses, strict=True))
        self.server.put(self._key(node), json.dumps(document), ttl=3600)

    def moved(self, node: Node) -> None:
        """The agent says so itself."""

    def leave(self, node: Node) -> None:
        """Delete its entry."""
        self._reserved.discard(node.name)
        self.server.delete(self._key(node))

    def down(self) -> None:
        """The server goes away; its data stay."""
        self.server.stop()

    def up(self) -> None:
        """It is back."""
        self.server.start()

    def close(self) -> None:
        """The end."""
        self.server.stop()
