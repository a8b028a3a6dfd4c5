# SPDX-License-Identifier: Apache-2.0
"""What the tests of the bridge plugin share: a configuration, and calls for one attachment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.pods import changed as changed
from tests.netns.pods import reserved as reserved
from tests.rig.host import Host, Netns
from tests.rig.plugins import Reply, Runner

BRIDGE = "br-test"
SUBNET, SUBNET6 = "10.71.0.0/24", "fd00:71::/64"

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "podnet",
    "type": "bridge",
    "bridge": BRIDGE,
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}], [{"subnet": SUBNET6}]]},
}
LAYER2: dict[str, Any] = {k: v for k, v in CONFIG.items() if k not in ("ipam", "isDefaultGateway")}


class Pod:
    """A container namespace and the calls for its attachment `eth0`."""

    def __init__(self, runner: Runner, netns: Netns, number: int) -> None:
        self.netns = netns
        self.container_id = f"pod-{number}"
        self._runner = runner
        self.result: dict[str, Any] = {}
        self.config: dict[str, Any] = {}

    def call(self, command: str, config: dict[str, Any], **options: Any) -> Reply:
        """Run the bridge plugin for this pod."""
        options.setdefault("netns", self.netns)
        return self._runner("bridge", command, config, container_id=self.container_id, **options)

    def add(self, config: dict[str, Any], **options: Any) -> dict[str, Any]:
        """ADD has to succeed; the result is kept for CHECK and DEL."""
        self.config = config
        self.result = self.call("ADD", config, **options).result()
        return self.result

    def with_result(self) -> dict[str, Any]:
        """The configuration of the last ADD with its result as prevResult."""
        return changed(self.config, prevResult=self.result)

    def check(self, **options: Any) -> Reply:
        """CHECK with the last result."""
        return self.call("CHECK", self.with_result(), **options)

    def delete(self, **options: Any) -> Reply:
        """DEL with the last result."""
        return self.call("DEL", self.with_result(), **options).succeeded()

    def address(self, position: int = 0) -> str:
        """An address of the result without its prefix length."""
        return str(self.result["ips"][position]["address"]).split("/")[0]

    @property
    def veth(self) -> str:
        """Name of the host's end."""
        return str(self.result["interfaces"][1]["name"])


PodFactory = Callable[[], Pod]


@pytest.fixture
def pod(host: Host, netns: Callable[..., Netns], run_plugin: Runner) -> PodFactory:
    """Factory of pods; the bridge may outlive them."""
    made: list[Pod] = []

    def make() -> Pod:
        made.append(Pod(run_plugin, netns(), len(made)))
        return made[-1]

    return make


def port(host: Host, name: str) -> dict[str, Any]:
    """What `ip -d link` says of one of the host's links."""
    link: dict[str, Any] = host.ip("-d", "link", "show", "dev", name)[0]
    return link


def vlans(host: Host, name: str) -> dict[int, set[str]]:
    """VLANs of a bridge port and their flags."""
    import json

    text = host.run("bridge", "-j", "vlan", "show", "dev", name)
    found: dict[int, set[str]] = {}
    for entry in json.loads(text) if text.strip() else ():
        for vlan in entry["vlans"]:
            for number in range(vlan["vlan"], vlan.get("vlanEnd", vlan["vlan"]) + 1):
                found[number] = set(vlan.get("flags", ()))
    return found
