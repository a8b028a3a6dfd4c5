# SPDX-License-Identifier: Apache-2.0
"""What the tests of portmap share: a node with a bridge, containers on it, a client outside.

client 10.8.0.2 ---- host 10.8.0.1, 10.9.0.1 ---- br0 ---- containers 10.9.0.2, .3, ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import isolation
from tests.rig.host import Host
from tests.rig.plugins import Reply, Runner
from tests.rig.traffic import is_refused as is_refused
from tests.rig.traffic import listen as listen
from tests.rig.traffic import source_of as source_of
from tests.rig.traffic import within as within

HOST, HOST6 = "10.8.0.1", "fd00:8::1"
TABLE = "adder_portmap"


def mapping(host_port: int, container_port: int = 80, **keys: Any) -> dict[str, Any]:
    """A port mapping as runtimes send it."""
    return {"hostPort": host_port, "containerPort": container_port, "protocol": "tcp", **keys}


class Container:
    """A container on the bridge, and the calls of portmap for its interface eth0."""

    def __init__(self, node: Node, number: int) -> None:
        self.container_id = f"container-{number}"
        self.netns = node.host.netns()
        self.address, self.address6 = f"10.9.0.{number}", f"fd00:9::{number}"
        self._run = node.run_plugin
        run = node.host.run
        port = f"port{number}"
        node.host.keep(port)  # the bridge learns who is behind it, when it hears something
        run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns",
            self.netns.name)  # fmt: skip
        run("ip", "link", "set", port, "master", "br0", "up")
        run("bridge", "link", "set", "dev", port, "hairpin", "on")
        inside = self.netns.run
        inside("ip", "link", "set", "lo", "up")
        # Of what has no link-local address the host learns nothing at a moment of its own choice.
        inside("ip", "link", "set", "eth0", "addrgenmode", "none")
        inside("ip", "link", "set", "eth0", "up")
        inside("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        inside("ip", "address", "add", f"{self.address6}/64", "dev", "eth0", "nodad")
        inside("ip", "route", "add", "default", "via", "10.9.0.1")
        inside("ip", "route", "add", "default", "via", "fd00:9::1")

    def config(self, *mappings: dict[str, Any], **keys: Any) -> dict[str, Any]:
        """The configuration of an ADD; keys replaces and, by None, removes."""
        document = {
            "cniVersion": "1.0.0",
            "name": "podnet",
            "type": "portmap",
            "runtimeConfig": {"portMappings": list(mappings)},
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [
                    {"name": "br0"},
                    {"name": "eth0", "sandbox": self.netns.path},
                ],
                "ips": [
                    {"address": f"{self.address}/24", "interface": 1},
                    {"address": f"{self.address6}/64", "interface": 1},
                ],
            },
            **keys,
        }
        return {key: value for key, value in document.items() if value is not None}

    def call(self, command: str, config: dict[str, Any], **options: Any) -> Reply:
        """Run the plugin."""
        options.setdefault("netns", self.netns)
        return self._run("portmap", command, config, container_id=self.container_id, **options)

    def add(self, *mappings: dict[str, Any], **keys: Any) -> dict[str, Any]:
        """ADD has to succeed; its configuration."""
        config = self.config(*mappings, **keys)
        self.call("ADD", config).result()
        return config

    def delete(self, **options: Any) -> None:
        """DEL by identity: nothing but the name of the network."""
        config = {"cniVersion": "1.0.0", "name": "podnet", "type": "portmap"}
        self.call("DEL", config, **{"netns": "", **options}).succeeded()


class Node:
    """The host with its bridge and the client behind another interface."""

    def __init__(self, host: Host, run_plugin: Runner) -> None:
        self.host, self.run_plugin = host, run_plugin
        self._containers = 0
        host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        host.run("ip", "link", "add", "br0", "type", "bridge")
        host.run("ip", "link", "set", "br0", "up")
        host.run("ip", "address", "add", "10.9.0.1/24", "dev", "br0")
        host.run("ip", "address", "add", "fd00:9::1/64", "dev", "br0", "nodad")
        self.client = host.netns("client")
        host.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns",
                 "client")  # fmt: skip
        host.run("ip", "link", "set", "out0", "up")
        host.run("ip", "address", "add", f"{HOST}/24", "dev", "out0")
        host.run("ip", "address", "add", f"{HOST6}/64", "dev", "out0", "nodad")
        inside = self.client.run
        inside("ip", "link", "set", "eth0", "addrgenmode", "none", "up")
        inside("ip", "address", "add", "10.8.0.2/24", "dev", "eth0")
        inside("ip", "address", "add", "fd00:8::2/64", "dev", "eth0", "nodad")
        inside("ip", "route", "add", "10.9.0.0/24", "via", HOST)
        inside("ip", "route", "add", "fd00:9::/64", "via", HOST6)

    def container(self) -> Container:
        """A new container on the bridge."""
        self._containers += 1
        return Container(self, self._containers + 1)


@pytest.fixture
def node(host: Host, run_plugin: Runner) -> Iterator[Node]:
    """A node; what stays of portmap is compared with what it may leave."""
    made = Node(host, run_plugin)
    host.share("br0", "out0")
    yield made


def elements() -> dict[str, list[str]]:
    """The comments of the elements of each set and map that has any."""
    text = isolation.command("nft", "-j", "list", "ruleset")
    found: dict[str, list[str]] = {}
    for item in json.loads(text)["nftables"]:
        for kind in ("set", "map"):
            made = item.get(kind)
            if made and made["table"] == TABLE and made.get("elem"):
                comments = []
                for element in made["elem"]:
                    key = element[0] if kind == "map" else element
                    comments.append(key.get("elem", {}).get("comment", ""))
                found[made["name"]] = sorted(comments)
    return found
