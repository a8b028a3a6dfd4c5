# SPDX-License-Identifier: Apache-2.0
"""The file that lists the other nodes, of an administrator or of the agent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from cni_vxlan_overlay import agent_state
from cni_vxlan_overlay.config import Config
from cni_vxlan_overlay.fabric import Fabric
from cni_vxlan_overlay.peer_list import load_peers, others, reachable
from tests.fuzz import mutation, properties
from tests.fuzz.target import Target

_CONFIG = {
    "name": "net",
    "network": "10.244.0.0/16",
    "subnet": "10.244.1.0/24",
    "ipv6Network": "fd00:10:244::/48",
    "ipv6Subnet": "fd00:10:244:1::/64",
}


def run(data: bytes) -> None:
    """Read it as both, with the peers worked out as far as that goes without a kernel."""
    fd = os.memfd_create("peers")
    try:
        os.write(fd, data)
        path = f"/proc/self/fd/{fd}"
        config = Config({**_CONFIG, "peersFile": path})
        peers = properties.coded(load_peers, config)
        if peers is not None and config.lease is not None:
            addresses = {False: "192.168.50.1", True: "2001:db8:50::1"}
            ours = others(peers, set(addresses.values()))
            properties.coded(reachable, ours, config.lease, addresses, "eth0")
        document = properties.coded(agent_state._load, path)
        if document is not None:
            Fabric(*[map(tuple, document["fabric"][kind]) for kind in Fabric.__slots__])
    finally:
        os.close(fd)


def seeds() -> Iterator[bytes]:
    """Lists of both spellings, and the agent's."""
    peer = {
        "name": "node-2",
        "publicIP": "192.168.50.2",
        "publicIPv6": "2001:db8:50::2",
        "subnet": "10.244.2.0/24",
        "ipv6Subnet": "fd00:10:244:2::/64",
        "vtepMAC": "0a:1b:2c:3d:4e:5f",
    }
    other = {"publicIP": "192.168.50.3", "subnet": "10.244.3.0/24"}
    yield json.dumps([peer, other]).encode()
    yield json.dumps({"nodes": [peer]}).encode()
    yield json.dumps({"peers": [other]}).encode()
    entry = ["adder.1", "0a:1b:2c:3d:4e:5f", "192.168.50.2"]
    fabric = {kind: [entry] for kind in Fabric.__slots__}
    yield json.dumps({"devices": {"adder.1": "x"}, "conf": {"vni": 1}, "fabric": fabric}).encode()


TARGET = Target(run, seeds, mutation.of_json)
