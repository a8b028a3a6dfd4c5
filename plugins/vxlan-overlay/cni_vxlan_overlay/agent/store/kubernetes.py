# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes store: Node objects, with flannel's annotations that say how to reach each node.

Subnets are the pod CIDRs that kube-controller-manager gives out. Needs get, list and watch on
nodes and patch on nodes/status. Source: flannel's pkg/subnet/kube.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from lightkube.core.async_client import AsyncClient
from lightkube.types import PatchType

from cni_vxlan_overlay.agent.model import NetConf, Node, Offer
from cni_vxlan_overlay.agent.netconf import parse_netconf
from cni_vxlan_overlay.agent.store import Event, Hints, StoreError, Unavailable
from cni_vxlan_overlay.agent.store.annotations import (
    Foreign,
    Keys,
    Unusable,
    given_address,
    mapping,
    publication,
    read_node,
    subnets_of,
    text,
    withdrawal,
)
from cni_vxlan_overlay.agent.store.api_client import (
    Conflict,
    Expired,
    NodeObject,
    NodeStatus,
    NotFound,
    Transport,
    connect,
    load_config,
    relayed,
    translated,
)
from cni_vxlan_overlay.agent.store.node_view import NodeView, Reports

_log = logging.getLogger(__name__)

#: Nodes in one answer of a listing.
_PAGE = 500
#: How often a write is tried when others write to the node at the same time.
_WRITES = 5
#: How often a listing is begun again when the server forgot it half way.
_LISTINGS = 3

#: A listing that expires in less time than this, seconds, twice in a row, is a fault.
_HASTY = 5.0

CONDITION = "NetworkUnavailable"
REASON = "VxlanOverlayIsUp"


class KubernetesStore:
    """`Store` on Kubernetes. To be used in one event loop; several tasks may use it."""

    kind = "kubernetes"

    def __init__(
        self,
        *,
        node_name: str,
        api_url: str = "",
        kubeconfig: str = "",
        annotation_prefix: str = "flannel.alpha.coreos.com",
        netconf_path: str = "/etc/kube-flannel/net-conf.json",
        set_network_unavailable: bool = True,
        timeout: float = 10.0,
        watch_seconds: int = 300,
    ) -> None:
        """Nothing is opened yet.

        node_name: of our Node object. api_url, kubeconfig: see `api_client.load_config`.
        netconf_path: read by `netconf`. set_network_unavailable: `ready` sets the condition.
        timeout: seconds until an answer must begin. watch_seconds: a watch is begun again after
        this time, where it left off. Raises StoreError for an unusable name or prefix.
        """
        if not node_name:
            raise StoreError("the name of this node is not known; set NODE_NAME to it")
        self._name = node_name
        self._api_url = api_url
        self._kubeconfig = kubeconfig
        self._keys = Keys(annotation_prefix)
        self._netconf_path = Path(netconf_path)
        self.source = netconf_path
        self._sets_condition = set_network_unavailable
        self._timeout = timeout
        self._watch_seconds = watch_seconds
        self._connection: tuple[AsyncClient, Transport] | None = None
        self._read: tuple[str, NetConf] | None = None
        self._vni: int | None = None
        self._reports = Reports()

    async def netconf(self) -> NetConf:
        """The network's configuration, from its file. Raises StoreError naming file and key."""
        try:
            content = self._netconf_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{self._netconf_path} cannot be read: {error}; it comes from a ConfigMap with "
                "the key net-conf.json"
            ) from error
        if self._read is None or self._read[0] != content:
            conf = parse_netconf(content, allocates=False, source=self.source)
            self._read = content, conf
        return self._read[1]

    async def publish(self, offer: Offer) -> Node:
        """Write what is offered into this node's annotations, where it differs; return the node.

        Its subnets are its pod CIDRs, whatever the offer prefers. Nothing is written before
        they are there and fit. Raises StoreError, which says what to mend, or Unavailable.
        """
        if not offer.endpoints:
            raise StoreError(f"node {self._name}: there is no underlay address to publish")
        network = await self.netconf()
        node = await self._own()
        try:
            subnets = subnets_of(node, network.networks)
        except Unusable as error:
            raise StoreError(f"node {self._name}: {error}") from None
        if not subnets:
            wanted = " or ".join(prefix.text() for prefix in network.networks)
            raise StoreError(
                f"node {self._name} has no pod CIDR in {wanted} yet: kube-controller-manager "
                "gives them out with --allocate-node-cidrs=true and --cluster-cidr"
            )
        missing = {n.bits for n in network.networks} - {s.bits for s in subnets}
        if missing:
            family = 4 if 32 in missing else 6
            _log.warning("node %s has no IPv%d pod CIDR, only the other", self._name, family)
        changes = publication(node, offer, self._keys)
        if changes:
            node = await self._patch({"metadata": {"annotations": changes}})
        self._vni = offer.vni
        try:
            found = read_node(node, self._keys, offer.vni, network.networks)
        except (Unusable, Foreign) as error:
            raise StoreError(f"node {self._name} as published: {error}") from None
        if found is None or publication(node, offer, self._keys):
            raise StoreError(
                f"node {self._name}: the API server did not keep the annotations; does an "
                "admission webhook remove them, or another agent write them?"
            )
        return found

    async def watch(self) -> AsyncIterator[Event]:
        """Tell of all nodes; see `Store.watch`.

        After 410 Gone a new Listing follows; after anything else that breaks the connection,
        Unavailable.
        """
        loop = asyncio.get_running_loop()
        hasty = False
        while True:
            view, revision = await self._list()
            begun = loop.time()
            yield view.listing(revision)
            client, _ = self._connected()
            changes = client.watch(
                NodeObject, resource_version=revision, server_timeout=self._watch_seconds
            )
            try:
                async with contextlib.aclosing(relayed(changes, "watching nodes")) as events:
                    async for kind, node in events:
                        for event in view.change(kind, node):
                            yield event
            except Expired as error:
                again, hasty = hasty, loop.time() - begun < _HASTY
                if again and hasty:
                    raise Unavailable(f"{error} (twice, right after a listing)") from error
                _log.info("listing nodes again: %s", error)
            else:
                raise Unavailable("watching nodes: the watch ended")

    async def ready(self) -> None:
        """Set the condition NetworkUnavailable=False of this node, where it differs."""
        if not self._sets_condition:
            return
        node = await self._own()
        conditions = mapping(node.get("status")).get("conditions")
        for condition in map(mapping, conditions if isinstance(conditions, list) else ()):
            same = (condition.get("status"), condition.get("reason")) == ("False", REASON)
            if condition.get("type") == CONDITION and same:
                return
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": CONDITION,
            "status": "False",
            "reason": REASON,
            "message": "vxlan-overlayd is running on this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        await self._patch({"status": {"conditions": [condition]}})

    async def renew(self) -> float:
        """Nothing expires: 0."""
        return 0.0

    async def withdraw(self, own: Node | None = None) -> None:
        """Remove what `publish` wrote; a node that is gone, or another backend's, is left be.

        The condition stays: who takes over sets it.
        """
        try:
            changes = withdrawal(await self._get(), self._keys)
            if changes:
                await self._patch({"metadata": {"annotations": changes}})
        except NotFound:
            return

    async def hints(self) -> Hints:
        """What helps to choose the underlay. Raises StoreError naming an unusable annotation."""
        node = await self._own()
        listed = mapping(node.get("status")).get("addresses")
        addresses = [mapping(item) for item in listed] if isinstance(listed, list) else []
        _, transport = self._connected()
        return Hints(
            internal_ips=tuple(
                text(item.get("address")) for item in addresses if item.get("type") == "InternalIP"
            ),
            api_server=transport.server,
            public_ip=given_address(node, self._keys.node_public_ip[4], 4),
            public_ipv6=given_address(node, self._keys.node_public_ip[6], 6),
        )

    async def close(self) -> None:
        """Close connections. Idempotent; they are opened again when needed."""
        if self._connection is not None:
            client, _ = self._connection
            self._connection = None
            await client.close()

    def _connected(self) -> tuple[AsyncClient, Transport]:
        if self._connection is None:
            config = load_config(self._api_url, self._kubeconfig)
            self._connection = connect(config, self._timeout, self._watch_seconds)
        return self._connection

    async def _get(self) -> Mapping[str, Any]:
        """This node's object. Raises NotFound."""
        client, _ = self._connected()
        with translated(f"reading node {self._name}"):
            node: Mapping[str, Any] = await client.get(NodeObject, self._name)
        return node

    async def _own(self) -> Mapping[str, Any]:
        """This node's object. Raises StoreError when there is none."""
        try:
            return await self._get()
        except NotFound as error:
            raise StoreError(
                f"{error}; has the kubelet registered it, and is NODE_NAME its name?"
            ) from None

    async def _patch(self, changes: dict[str, Any]) -> Mapping[str, Any]:
        """Patch nodes/status, which may change annotations too, and return the node as it is now.

        Raises NotFound.
        """
        client, _ = self._connected()
        for attempt in range(1, _WRITES + 1):
            try:
                with translated(f"writing to node {self._name}"):
                    node: Mapping[str, Any] = await client.patch(
                        NodeStatus, self._name, changes, patch_type=PatchType.STRATEGIC
                    )
                return node
            except Conflict:
                if attempt == _WRITES:
                    raise
                await asyncio.sleep(random.uniform(0.01, 0.05) * attempt)
        raise AssertionError("unreachable")

    async def _list(self) -> tuple[NodeView, str]:
        """All nodes, and the version of the listing, from which to watch.

        All pages or none: a listing that broke off is Unavailable.
        """
        network = await self.netconf()
        vni = network.backend.vni if self._vni is None else self._vni
        client, _ = self._connected()
        for attempt in range(1, _LISTINGS + 1):
            view = NodeView(self._keys, vni, network.networks, self._reports)
            nodes = client.list(NodeObject, chunk_size=_PAGE)
            try:
                async with contextlib.aclosing(relayed(nodes, "listing nodes")) as objects:
                    async for node in objects:
                        view.seed(node)
            except Expired:
                if attempt == _LISTINGS:
                    raise
                continue
            with translated("listing nodes"):
                return view, nodes.resourceVersion
        raise AssertionError("unreachable")
