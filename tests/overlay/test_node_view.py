# SPDX-License-Identifier: Apache-2.0
"""Whatever order events come in, and however often: what was told ends as what there is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.store import Changed, Removed
from cni_vxlan_overlay.agent.store.annotations import Keys, read_node
from cni_vxlan_overlay.agent.store.node_view import NodeView, Reports
from libcni.inet import Prefix

PREFIX = "flannel.alpha.coreos.com/"
KEYS = Keys("flannel.alpha.coreos.com")
NETWORKS = (Prefix.parse("10.244.0.0/16"),)
NAMES = ("a", "b", "c")
#: What a node looks like: an address, or no part in the overlay.
LOOKS = st.none() | st.integers(1, 3)
#: (name, look), or (name, "gone"): deletes the node.
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), LOOKS | st.just("gone")), max_size=12)


class Cluster:
    """Nodes by name, as an API server has them, and the events since."""

    def __init__(self) -> None:
        self.version = 0
        self.born = 0
        self.nodes: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []

    def step(self, name: str, look: int | str | None) -> None:
        old = self.nodes.get(name)
        if look == "gone" and old is None:
            return
        self.version += 1
        if old is None:
            self.born += 1
        uid = f"uid{self.born}" if old is None else old["metadata"]["uid"]
        version = {"resourceVersion": str(self.version)}
        if look == "gone" and old is not None:
            del self.nodes[name]
            last = old | {"metadata": old["metadata"] | version}
            self.events.append(("DELETED", last))
            return
        annotations = {
            PREFIX + "kube-subnet-manager": "true",
            PREFIX + "backend-type": "vxlan",
            PREFIX + "backend-data": '{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"}',
            PREFIX + "public-ip": f"192.0.2.{look}",
        }
        meta = {"name": name, "uid": uid, "annotations": annotations if look else {}} | version
        self.nodes[name] = {"metadata": meta, "spec": {"podCIDRs": ["10.244.1.0/24"]}}
        self.events.append(("ADDED" if old is None else "MODIFIED", self.nodes[name]))

    def peers(self) -> dict[str, Node]:
        """The nodes that take part, by uid."""
        read = (read_node(node, KEYS, 1, NETWORKS) for node in self.nodes.values())
        return {found.uid: found for found in read if found is not None}


@given(STEPS, STEPS, st.data())
def test_the_end_does_not_depend_on_order_or_repetition(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]], data: st.DataObject
) -> None:
    cluster = Cluster()
    for name, look in before:
        cluster.step(name, look)
    past = list(cluster.events)
    view = NodeView(KEYS, 1, NETWORKS, Reports())
    for node in cluster.nodes.values():
        view.seed(node)
    told = {node.uid: node for node in view.listing(str(cluster.version)).nodes}
    assert told == cluster.peers()

    cluster.events.clear()
    for name, look in after:
        cluster.step(name, look)
    repeated = (
        data.draw(st.lists(st.sampled_from(cluster.events + past), max_size=5))
        if (cluster.events + past)
        else []
    )
    for kind, node in data.draw(st.permutations(cluster.events + repeated)):
        for event in view.change(kind, node):
            if isinstance(event, Changed):
                # Never told twice what is known, nor of two nodes under one name.
                known = told.get(event.node.uid)
                assert known is None or known.peer != event.node.peer
                assert all(
                    uid == event.node.uid or other.name != event.node.name
                    for uid, other in told.items()
                )
                told[event.node.uid] = event.node
            else:
                assert isinstance(event, Removed)
                del told[event.uid]
    assert {uid: n.peer for uid, n in told.items()} == {
        uid: n.peer for uid, n in cluster.peers().items()
    }
