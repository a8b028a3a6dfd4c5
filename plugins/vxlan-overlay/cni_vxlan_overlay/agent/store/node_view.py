# SPDX-License-Identifier: Apache-2.0
"""Node objects as they come from the API, folded into events. Pure but for its own memory and log.

Duplicated, reordered and irrelevant changes (a kubelet reports every few minutes) come out as
nothing, so that what comes out is what a caller has to act on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.store import Changed, Event, Listing, Removed
from cni_vxlan_overlay.agent.store.annotations import (
    Foreign,
    Keys,
    Unusable,
    metadata,
    read_node,
    text,
)
from libcni.inet import Prefix

_log = logging.getLogger(__name__)


class Reports:
    """What was said about each node already, so that it is not said at every heartbeat."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def say(self, uid: str, level: int, message: str) -> None:
        """Log the message, unless it was the last one about this node."""
        if self._said.get(uid) != message:
            self._said[uid] = message
            _log.log(level, "%s", message)

    def forget(self, uid: str) -> None:
        """The node is all right, or gone: should it happen again, it is said again."""
        self._said.pop(uid, None)

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all nodes but these."""
        kept = set(uids)
        self._said = {uid: said for uid, said in self._said.items() if uid in kept}


def _older(version: str, known: str) -> bool:
    """True when `version` is `known` or a version before it.

    A resourceVersion is an integer that grows in any API server with etcd behind it; where it
    is not, nothing can be said, and the event counts as new.
    """
    if version.isascii() and known.isascii() and version.isdigit() and known.isdigit():
        return int(version) <= int(known)
    return version == known


class NodeView:
    """All nodes since one listing: `seed` with each node of it, `listing`, then `change`."""

    def __init__(
        self, keys: Keys, vni: int, networks: tuple[Prefix, ...], reports: Reports
    ) -> None:
        """vni, networks: of our overlay; nodes of another take no part."""
        self._keys = keys
        self._vni = vni
        self._networks = networks
        self._reports = reports
        #: resourceVersion of the listing.
        self._revision = ""
        #: resourceVersion of every node there is, peer or not, by uid; and the uid of each name.
        self._versions: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        #: What the caller believes: peers by uid.
        self._told: dict[str, Node] = {}
        #: Deleted since; a uid is never used again.
        self._gone: set[str] = set()

    def seed(self, node: Mapping[str, Any]) -> None:
        """Take up a node of the listing."""
        meta = metadata(node)
        uid = text(meta.get("uid"))
        self._versions[uid] = text(meta.get("resourceVersion"))
        self._uids[text(meta.get("name"))] = uid
        found = self._convert(node)
        if found is not None:
            self._told[uid] = found

    def listing(self, revision: str) -> Listing:
        """All that was taken up, once the listing is complete. revision: its resourceVersion."""
        self._revision = revision
        self._reports.keep(self._versions)
        return Listing(tuple(self._told.values()), revision)

    def change(self, kind: str, node: Mapping[str, Any]) -> list[Event]:
        """What an event of the watch means: nothing, or what the caller has to be told.

        kind: ADDED, MODIFIED, DELETED; anything else (BOOKMARK) means nothing.
        """
        meta = metadata(node)
        uid, name = text(meta.get("uid")), text(meta.get("name"))
        version = text(meta.get("resourceVersion"))
        if kind == "DELETED":
            return self._delete(uid)
        if kind not in ("ADDED", "MODIFIED") or uid in self._gone:
            return []
        if _older(version, self._versions.get(uid, self._revision)):
            return []  # duplicated or late; of a node the listing has not, it was deleted before
        events: list[Event] = []
        namesake = self._uids.get(name)
        if namesake not in (None, uid):
            # A name is one node's at a time: one of the two is gone, its DELETED late or lost.
            if _older(version, self._versions[namesake]):
                self._gone.add(uid)
                return []
            events += self._delete(namesake)
        self._versions[uid] = version
        self._uids[name] = uid
        found, told = self._convert(node), self._told.get(uid)
        if found is None:
            if told is not None:
                del self._told[uid]
                events.append(Removed(uid))
        else:
            self._told[uid] = found
            if told is None or (found.peer, found.age) != (told.peer, told.age):
                events.append(Changed(found))
        return events

    def _delete(self, uid: str) -> list[Event]:
        self._gone.add(uid)
        self._versions.pop(uid, None)
        self._reports.forget(uid)
        self._uids = {name: other for name, other in self._uids.items() if other != uid}
        return [] if self._told.pop(uid, None) is None else [Removed(uid)]

    def _convert(self, node: Mapping[str, Any]) -> Node | None:
        """The node as a peer, None if it takes no part; says why where somebody should know."""
        uid, name = text(metadata(node).get("uid")), text(metadata(node).get("name"))
        try:
            found = read_node(node, self._keys, self._vni, self._networks)
        except Foreign as reason:
            self._reports.say(uid, logging.WARNING, f"node {name} is left out: {reason}")
            return None
        except Unusable as reason:
            message = f"node {name} is left out until this is mended: {reason}"
            self._reports.say(uid, logging.ERROR, message)
            return None
        self._reports.forget(uid)
        return found
