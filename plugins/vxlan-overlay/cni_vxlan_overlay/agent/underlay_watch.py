# SPDX-License-Identifier: Apache-2.0
"""The underlay as it changes: another address, MTU or interface, or a link that was down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from cni_vxlan_overlay.agent.part import Casting, Part
from cni_vxlan_overlay.agent.selection import NoUnderlay
from cni_vxlan_overlay.underlay import Underlay, is_address
from libcni.types.errors import CniError

log = logging.getLogger(__name__)

#: Seconds for which changes are gathered.
_SETTLE = 0.3


class UnderlayWatch:
    """part: asked for this node's part now. moved: called with an underlay that is another.

    touched: called when the underlay's link or address came or went, and with them, without a
    word, the routes on it. interfaces: what the operator named; if that is names, nothing but
    interfaces of these names matters.
    """

    def __init__(
        self, casting: Casting, part: Callable[[], Part | None], interfaces: Collection[str]
    ) -> None:
        self.moved: Callable[[Underlay], None] = lambda underlay: None
        self.touched: Callable[[], None] = lambda: None
        self._casting = casting
        self._part = part
        self._names = frozenset() if any(map(is_address, interfaces)) else frozenset(interfaces)
        #: Interfaces of these names, as they came up: events of addresses tell no name.
        self._named: set[int] = set()
        self._changed = asyncio.Event()
        self._was_touched = False

    def link_event(self, event: str, index: int, name: str) -> None:
        """The kernel tells of a link or an address."""
        part = self._part()
        if name in self._names or (part is not None and name == part.underlay.name):
            self._named.add(index)
        if part is None or index == part.underlay.index or index in self._named:
            self._was_touched = True
            self._changed.set()
        elif event == "RTM_NEWADDR" and not self._names:
            self._changed.set()

    def route_event(self) -> None:
        """The kernel tells of a route that may lead to the API server, or anywhere."""
        if not self._names:
            self._changed.set()

    async def follow(self) -> None:
        """Look what the underlay is now, after each change; for ever."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE)
            self._changed.clear()
            part = self._part()
            if part is None:
                continue
            if self._was_touched and part.conf.backend.direct_routing:
                self._was_touched = False
                self.touched()
            try:
                underlay = self._casting.underlay(part.conf)
            except (NoUnderlay, CniError, OSError) as error:
                # It may be on its way to another address: what is there serves until then.
                log.warning("%s", error)
                continue
            if underlay != part.underlay:
                log.info("the underlay is now %r", underlay)
                self.moved(underlay)
