# SPDX-License-Identifier: Apache-2.0
"""The nodes that the store told of, and the rule that one short listing removes nobody.

An API server that starts, or a cache that is not full yet, answers "200 OK" with fewer nodes
than there are. So every node that a listing lacks has to be missed by another listing too; and
where nobody remembers who there was, the first listing says who is there, and only another one
who is not. A removal that the store tells of by itself is believed at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping

from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.store import Changed, Event, Listing, Removed

log = logging.getLogger(__name__)

#: Names of nodes in one line of the log.
_NAMED = 50


class Directory:
    """All nodes by uid.

    own: uid of this node, which is no news. patience: seconds after which another listing is a
    confirmation, and not the same mistake.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self.nodes: dict[str, Node] = {}
        self.own = ""
        self._patience = patience
        self._since = 0.0
        self.revision = ""
        #: Somebody said who there is: an earlier run, or a complete listing.
        self.is_told = False
        #: What is not in `nodes` is not there: an earlier run or two listings say so.
        self.is_sure = False
        self._missing: frozenset[str] = frozenset()

    @property
    def is_doubtful(self) -> bool:
        """True while a listing awaits its confirmation; ask for another soon."""
        return bool(self._missing) or (self.is_told and not self.is_sure)

    def recall(self, nodes: Mapping[str, Node]) -> None:
        """Begin with what an earlier run knew."""
        self.nodes = dict(nodes)
        self.is_told = self.is_sure = True

    def apply(self, event: Event) -> bool:
        """Take in what the store said; True if any node, or `is_sure`, is different now."""
        if isinstance(event, Listing):
            return self._list(event)
        if isinstance(event, Changed):
            node = event.node
            self._missing -= {node.uid}
            if node.uid not in self.nodes:
                self._tell("new", [node])
            changed = self.nodes.get(node.uid) != node
            self.nodes[node.uid] = node
            return changed
        assert isinstance(event, Removed)
        self._missing -= {event.uid}
        gone = self.nodes.pop(event.uid, None)
        if gone is not None:
            self._tell("gone", [gone])
        return gone is not None

    def _list(self, listing: Listing) -> bool:
        listed = {node.uid: node for node in listing.nodes}
        missing = frozenset(self.nodes.keys() - listed.keys())
        self.revision = listing.revision
        kept: dict[str, Node] = {}
        now = time.monotonic()
        if not missing <= self._missing:
            log.warning(
                "a listing lacks %d of %d nodes: they are kept until another one confirms it",
                len(missing),
                len(self.nodes),
            )
            kept = {uid: self.nodes[uid] for uid in missing}
            self._since = now
        elif missing and now - self._since < self._patience:
            kept = {uid: self.nodes[uid] for uid in missing}
        elif missing:
            self._tell("gone", [self.nodes[uid] for uid in missing])
        self._tell("new", [node for uid, node in listed.items() if uid not in self.nodes])
        was_sure = self.is_sure
        if not self.is_told:
            self.is_told, self._since = True, now
        elif not kept and now - self._since >= self._patience:
            self.is_sure = True
        self._missing = frozenset(kept)
        after = {**listed, **kept}
        changed = after != self.nodes or self.is_sure != was_sure
        self.nodes = after
        return changed

    def _tell(self, what: str, nodes: Collection[Node]) -> None:
        """Of nodes that are new or gone, but not of this one."""
        names = sorted(node.name for node in nodes if node.uid != self.own)
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            log.info("nodes %s: %s%s", what, ", ".join(names[:_NAMED]), more)
