# SPDX-License-Identifier: Apache-2.0
"""Stores: where nodes find each other. One interface; `kubernetes`, `etcd` and `file` behind it.

A store is asked three things: what the network is, to publish this node and say which subnets
are its own, and to tell of all nodes for ever after. It never touches the kernel, and an outage
is an exception (`Unavailable`) that the caller retries: partial knowledge is never passed off as
a listing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Protocol

from cni_vxlan_overlay.agent.model import NetConf, Node, Offer

#: What an outage's text begins with where it is told.
AWAY = "the store is away: "


class StoreError(Exception):
    """The store answered, and what it says cannot be used; the text says what to mend."""


class Unavailable(StoreError):
    """The store is away, slow, or refuses for now: nothing is known, try again later."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """All nodes there are now, this one included; replaces all that was known.

    revision: of the store, for messages and logs.
    """

    nodes: tuple[Node, ...]
    revision: str = ""


@dataclasses.dataclass(frozen=True)
class Changed:
    """A node was added or changed; `node` is its new state."""

    node: Node


@dataclasses.dataclass(frozen=True)
class Removed:
    """The node with this uid is no longer there, or takes no part any more."""

    uid: str


Event = Listing | Changed | Removed


@dataclasses.dataclass(frozen=True)
class Hints:
    """What the store knows that helps to choose the underlay.

    internal_ips: the node's InternalIP addresses, in its order. api_server: address of the API
    server. public_ip, public_ipv6: what an administrator chose by the annotations
    node-public-ip and node-public-ipv6, "" if nothing.
    """

    internal_ips: tuple[str, ...] = ()
    api_server: str = ""
    public_ip: str = ""
    public_ipv6: str = ""


class Store(Protocol):
    """A store. All methods raise Unavailable when it is away, StoreError for unusable data."""

    #: "kubernetes", "etcd" or "file".
    kind: str
    #: What the network's configuration is read from, as messages name it.
    source: str

    async def netconf(self) -> NetConf:
        """The network's configuration."""
        ...

    async def hints(self) -> Hints:
        """What it knows of this node's addresses; nothing, where nodes are all it knows."""
        ...

    async def publish(self, offer: Offer) -> Node:
        """Publish this node and return it as the store has it now, with its subnets.

        Idempotent; called again whenever the offer changes, and after an outage. Writes nothing
        when the store has it all already.
        """
        ...

    def watch(self) -> AsyncIterator[Event]:
        """Tell of all nodes: a Listing, then what changes after it, for ever.

        Bookmarks, duplicated and reordered events, "410 Gone" and compaction are dealt with
        inside (a new Listing follows where something may have been missed). Raises Unavailable
        when the connection is lost; the caller calls again, and gets a Listing first.
        """
        ...

    async def ready(self) -> None:
        """Called once the data path is up (Kubernetes: NetworkUnavailable=False)."""
        ...

    async def renew(self) -> float:
        """Keep what `publish` took, where it expires; returns the seconds until the next call.

        0 when nothing expires. Raises StoreError when it was lost to another node.
        """
        ...

    async def withdraw(self, own: Node | None) -> None:
        """Take this node out of the store (`cleanup`). Idempotent.

        own: the node as an earlier run knew it, None when it knew nothing.
        """
        ...

    async def close(self) -> None:
        """Close connections. Idempotent."""
        ...
