# SPDX-License-Identifier: Apache-2.0
"""This node among the others: published in the store, and told of everyone by it.

Three loops, which survive whatever the store does: `follow` (join, then watch), `keep_lease`,
`tell_ready`. A store that is away changes nothing but `Health.degraded`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any

from cni_vxlan_overlay.agent.directory import Directory
from cni_vxlan_overlay.agent.health import Health
from cni_vxlan_overlay.agent.metrics import Metrics
from cni_vxlan_overlay.agent.model import NetConf, Node
from cni_vxlan_overlay.agent.part import Casting, words
from cni_vxlan_overlay.agent.selection import NoUnderlay
from cni_vxlan_overlay.agent.store import AWAY, Store, StoreError, Unavailable
from cni_vxlan_overlay.underlay import Underlay
from libcni.types.errors import CniError

log = logging.getLogger(__name__)

#: Seconds between attempts to reach a store: at first, at most; each is drawn from a half to
#: one and a half, so that a cluster's agents do not come back all at once.
_BACK_OFF, _BACK_OFF_MOST = 0.5, 30.0
#: The same for a file: it costs nobody anything, and who mends it is waiting.
_BACK_OFF_FILE = 2.0
#: Seconds that a watch has to last for the next attempt to be the first one again: a store that
#: answers, but refuses to be watched, would else be listed without a pause.
_STEADY = 30.0
#: Seconds after which a listing that lacked nodes is asked for again, and until which
#: another one is no confirmation.
_CONFIRM, _CONFIRM_LEAST = 10.0, 5.0
#: Seconds between two publications of this node that somebody has changed: they double.
_DISPUTE, _DISPUTE_MOST = 5.0, 600.0
#: Seconds between complete listings.
_RELIST = 1800.0


class Membership:
    """own: this node as published, None before. before: as an earlier run knew it.

    joined: called with configuration, underlay and own node after each publication. changed:
    called when other nodes did. noted: called when something is worth writing down.
    """

    def __init__(self, store: Store, casting: Casting, health: Health, metrics: Metrics) -> None:
        self.store = store
        self.directory = Directory(patience=_CONFIRM_LEAST)
        self.own: Node | None = None
        self.before: Node | None = None
        self.is_up = False
        self.joined: Callable[[NetConf, Underlay, Node], None] = lambda conf, underlay, own: None
        self.changed: Callable[[], None] = lambda: None
        self.noted: Callable[[], None] = lambda: None
        self._casting = casting
        self._health = health
        self._metrics = metrics
        self._relist = asyncio.Event()
        self._untold = asyncio.Event()
        #: When this node was last published again, and seconds until it may be once more.
        self._disputed, self._dispute = -_DISPUTE_MOST, 0.0

    def publish_again(self) -> None:
        """Have `follow` begin anew, with a publication. Returns at once."""
        self._relist.set()

    async def follow(self) -> None:
        """Be in the store, and hear of the others; for ever."""
        delay = _BACK_OFF
        most = _BACK_OFF_FILE if self.store.kind == "file" else _BACK_OFF_MOST
        while True:
            joined = math.inf
            try:
                await self._join()
                joined = time.monotonic()
                await self._watch()
                delay = _BACK_OFF
                continue  # time for another listing
            except Unavailable as error:
                self._store_is(False, f"{AWAY}{error}")
            except (StoreError, NoUnderlay, CniError, OSError) as error:
                self._store_is(False, str(error))
            if time.monotonic() - joined > _STEADY:
                delay = _BACK_OFF
            self._metrics.watch_restarted()
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, most)

    async def _join(self) -> None:
        """Read the configuration, publish this node, and have it take its part."""
        self._relist.clear()
        conf = await self.store.netconf()
        self._casting.hints = await self.store.hints()
        while True:
            underlay = self._casting.underlay(conf)
            offer = self._casting.offer(conf, underlay, self.own or self.before)
            own = await self.store.publish(offer)
            if self._casting.underlay(conf) == underlay:
                break  # else it moved while the store was waited for
        if self.own is not None and self.own.peer.subnets != own.peer.subnets:
            log.warning(
                "this node's pods are now in %s, no longer in %s: running pods keep their "
                "addresses, and cannot be reached from other nodes",
                words(own.peer.subnets),
                words(self.own.peer.subnets),
            )
        self.joined(conf, underlay, own)
        self._store_is(True)
        self._untold.set()

    async def _watch(self) -> None:
        """Take in events until another listing is due. Raises Unavailable, StoreError."""
        events = self.store.watch()
        relist = asyncio.create_task(self._relist.wait())
        try:
            async with asyncio.timeout(_RELIST * random.uniform(0.8, 1.2)) as deadline:
                next_event: asyncio.Future[Any] = asyncio.ensure_future(anext(events))
                confirms = False
                while True:
                    done, _ = await asyncio.wait(
                        [next_event, relist], return_when=asyncio.FIRST_COMPLETED
                    )
                    if relist in done:
                        return
                    event = next_event.result()
                    if self.directory.apply(event):
                        self.changed()
                    self._metrics.synced(time.time())
                    self.noted()
                    if self.directory.is_doubtful and not confirms:
                        confirms = True  # whatever else comes meanwhile
                        deadline.reschedule(asyncio.get_running_loop().time() + _CONFIRM)
                    self._keep_place()
                    next_event = asyncio.ensure_future(anext(events))
        except TimeoutError:
            return
        finally:
            relist.cancel()
            next_event.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, StoreError):
                await next_event
            with contextlib.suppress(AttributeError):
                await events.aclose()  # type: ignore[attr-defined]

    def _keep_place(self) -> None:
        """Publish this node again where the store does not have it as it was published.

        At first soon, then ever more rarely: where two agents publish one node, the others are
        not to follow them to and fro.
        """
        own = self.own
        listed = self.directory.nodes.get(own.uid) if own is not None else None
        if own is None or (listed is not None and listed.peer == own.peer):
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._disputed:
            return  # it is going to be
        if now > self._disputed + 2 * self._dispute:
            self._dispute = 0.0
        delay = self._dispute * random.uniform(0.8, 1.2)
        self._dispute = min(max(2 * self._dispute, _DISPUTE), _DISPUTE_MOST)
        self._disputed = now + delay
        has = "no longer has this node" if listed is None else f"has this node as {listed.peer}"
        log.warning(
            "the store %s, but it was published as %s: publishing it again in %.0f s",
            has,
            own.peer,
            delay,
        )
        loop.call_later(delay, self._relist.set)

    def _store_is(self, up: bool, why: str = "") -> None:
        if up != self.is_up or (why and why != self._health.degraded):
            (log.info if up else log.warning)("%s", why or f"the {self.store.kind} store answers")
            self.noted()  # `status` shows it
        self.is_up = up
        self._health.degraded = why
        self._metrics.store_up(up)

    async def keep_lease(self) -> None:
        """Renew what expires; for ever. What was lost is taken anew by `follow`."""
        while True:
            pause = 60.0
            if self.own is not None and self.is_up:
                try:
                    pause = await self.store.renew() or 3600.0
                except Unavailable as error:
                    log.warning("cannot renew this node's lease: %s", error)
                except StoreError as error:
                    log.error("%s: publishing this node again", error)
                    self.publish_again()
            else:
                pause = 1.0
            await asyncio.sleep(pause)

    async def tell_ready(self) -> None:
        """Tell the store that this node is ready, once after each publication; for ever."""
        delay, failure = _BACK_OFF, ""
        while True:
            await self._untold.wait()
            if not (self._health.ready and self.is_up):
                await asyncio.sleep(0.2)
                continue
            self._untold.clear()
            try:
                await self.store.ready()
            except StoreError as error:
                if str(error) != failure:
                    log.warning("cannot tell the store that this node is ready: %s", error)
                failure = str(error)
                self._untold.set()
                await asyncio.sleep(delay * random.uniform(0.5, 1.5))
                delay = min(delay * 2, _BACK_OFF_MOST)
            else:
                delay, failure = _BACK_OFF, ""
