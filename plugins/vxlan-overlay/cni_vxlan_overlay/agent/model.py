# SPDX-License-Identifier: Apache-2.0
"""What a store knows: the network's configuration and its nodes. Plain values, no behaviour."""

from __future__ import annotations

import dataclasses

from cni_vxlan_overlay.peers import Endpoint, Peer
from libcni.inet import Prefix


@dataclasses.dataclass(frozen=True)
class Backend:
    """The VXLAN backend's options, as in flannel's net-conf.json (`Backend`).

    port: UDP. mtu: bytes of the underlay, 0 for the interface's own. checksum: "auto", "on" or
    "off", for tx-checksum offload of the device.
    """

    vni: int = 1
    port: int = 8472
    mtu: int = 0
    learning: bool = False
    direct_routing: bool = False
    gbp: bool = False
    checksum: str = "auto"


@dataclasses.dataclass(frozen=True)
class NetConf:
    """net-conf.json: the cluster's networks, how they are split, and the backend.

    networks: at most one of each family. subnet_len: prefix lengths of a node's subnet (etcd
    allocates), min/max: first and last subnet that may be given; all by family (4 or 6).
    """

    networks: tuple[Prefix, ...]
    subnet_len: dict[int, int] = dataclasses.field(default_factory=dict, hash=False)
    subnet_min: dict[int, Prefix] = dataclasses.field(default_factory=dict, hash=False)
    subnet_max: dict[int, Prefix] = dataclasses.field(default_factory=dict, hash=False)
    backend: Backend = Backend()


@dataclasses.dataclass(frozen=True)
class Node:
    """One node as the store shows it.

    uid: identity in the store that outlives changes of name and address. age: sorts nodes, the
    older first (creation time or revision, as text or number padded by the store). version:
    what the store says of the state of this entry (resourceVersion, revision), for messages.
    """

    uid: str
    peer: Peer
    age: str = ""
    version: str = ""

    @property
    def name(self) -> str:
        """The node's name, for people."""
        return self.peer.name


@dataclasses.dataclass(frozen=True)
class Offer:
    """What this node publishes: endpoints of the underlay; the store adds the subnets.

    preferred: the subnets this node had before, which it would like to keep.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    vni: int
    preferred: tuple[Prefix, ...] = ()
