# SPDX-License-Identifier: Apache-2.0
"""Making the kernel's state what is wanted: by difference, at every change of either side.

Wanted is computed from nodes and configuration; what is there is known from dumps (at the start,
when events were lost, when a device changed, and now and then) and kept up by events. Nothing is
ever flushed, so that traffic which has nothing to do with a change does not notice it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable

from pyroute2.netlink.exceptions import NetlinkError

from cni_vxlan_overlay.agent.kernel import Kernel, Refused, trying
from cni_vxlan_overlay.agent.logs import count
from cni_vxlan_overlay.agent.mirror import Mirror
from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.readings import is_vxlan
from cni_vxlan_overlay.fabric import Fabric, Ground, add_peer
from cni_vxlan_overlay.peers import Peer
from cni_vxlan_overlay.vtep import AGENT, Vtep
from libcni.types.errors import CniError

log = logging.getLogger(__name__)

#: Seconds until what failed is tried again: the first time, and at most.
_RETRY, _RETRY_MOST = 1.0, 60.0
#: Seconds between passes that cannot make a device: making it is an event of that device too.
_PAUSE = 0.5
#: Seconds after which a pass does not go on any more.
_STUCK = 60.0
#: What counts as a repair, by kind of object (Metrics.drift).
KINDS = {"forwarding": "forwarding", "neighbours": "neighbour", "routes": "route"}

#: (kind, number of objects): told of every repair of what somebody else had changed.
Drift = Callable[[str, int], None]


class Reconciler:
    """Keeps devices and peers in the kernel. Set what is wanted by `want`; `run` does the rest.

    synced: everything wanted was in the kernel at least once since the last `want`. failures:
    what is not, in words. spares: what an earlier run left stays for now, wanted or not.
    """

    def __init__(self, kernel: Kernel, drift: Drift | None = None) -> None:
        self._kernel = kernel
        self._drift = drift or (lambda kind, count: None)
        self._mirror = Mirror()
        self._vteps: list[Vtep] = []
        self._ground = Ground({})
        self._checksum = "auto"
        #: Before the first `want` nothing is known to be superfluous.
        self._is_told = False
        self.spares = False
        #: What was there at the beginning.
        self._inherited: Fabric | None = None
        #: Events that came while the kernel was being read.
        self._meanwhile: list[object] | None = None
        self._cache: dict[str, tuple[Peer, Fabric]] = {}
        #: What was in the kernel at the end of the last pass: what is missing of it was removed.
        self._settled = Fabric()
        self._read = True
        self._wake = asyncio.Event()
        self._listening = asyncio.Event()
        self._delay = _RETRY
        self._retry: asyncio.TimerHandle | None = None
        #: True while the devices are not known to be as they shall be: others may be in the way.
        self._lacks_devices = False
        #: When the pass that goes on now began; 0 between passes.
        self._began = 0.0
        self.wanted = Fabric()
        self.synced = asyncio.Event()
        self.failures: list[str] = []
        #: Called after each pass with its outcome and its seconds.
        self.finished: Callable[[bool, float], None] = lambda ok, seconds: None

    @property
    def is_stuck(self) -> bool:
        """True while a pass takes longer than any should: the kernel does not answer."""
        return self._began > 0 and time.monotonic() - self._began > _STUCK

    def want(
        self, vteps: list[Vtep], ground: Ground, peers: Iterable[Node], checksum: str = "auto"
    ) -> None:
        """Set what shall be: devices, and the peers to reach through them."""
        same_ground = (ground.devices, ground.direct, ground.on_link) == (
            self._ground.devices,
            self._ground.direct,
            self._ground.on_link,
        )
        if not same_ground:
            self._cache.clear()
        if _fingerprint(vteps) != _fingerprint(self._vteps) or checksum != self._checksum:
            self._read = True
        self._vteps, self._ground, self._checksum = vteps, ground, checksum
        self._is_told = True
        self.wanted = self._fabric(peers)
        self.synced.clear()
        self.wake()

    def _fabric(self, peers: Iterable[Node]) -> Fabric:
        """What reaching the peers takes: what it took before, but for those that changed.

        No two peers have an entry in common, as none have an address, a MAC or a subnet.
        """
        old, self._cache = self._cache, {}
        whole = Fabric(*[getattr(self.wanted, kind) for kind in KINDS]) if old else Fabric()
        new: list[Fabric] = []
        for node in peers:
            known = old.get(node.uid)
            if known is not None and known[0] is node.peer:
                del old[node.uid]
            else:
                known = (node.peer, Fabric())
                add_peer(known[1], node.peer, self._ground)
                new.append(known[1])
            self._cache[node.uid] = known
        for kind in KINDS:
            entries: set[tuple[str, str, str]] = getattr(whole, kind)
            entries.difference_update(*[getattr(part, kind) for _, part in old.values()])
            entries.update(*[getattr(part, kind) for part in new])
        return whole

    def wake(self, read: bool = False) -> None:
        """Have a pass soon; read: with dumps, as what is known may be wrong."""
        self._read |= read
        self._wake.set()

    async def run(self) -> None:
        """Reconcile for ever; from when `follow` listens, so that no change goes unseen."""
        await self._listening.wait()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._is_told:
                continue
            began = self._began = time.monotonic()
            ok = await self.once()
            self._began = 0.0
            self.finished(ok, time.monotonic() - began)
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            if ok:
                self._delay = _RETRY
                continue
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(self._delay, self.wake, True)
            self._delay = min(self._delay * 2, _RETRY_MOST)
            if self._lacks_devices:
                await asyncio.sleep(_PAUSE)

    async def once(self) -> bool:
        """One pass; True when all that was wanted at its start is in the kernel at its end.

        Does nothing before the first `want`.
        """
        if not self._is_told:
            return False
        # Others change these while the kernel is waited for; that is for the next pass.
        vteps, wanted, checksum = self._vteps, self.wanted, self._checksum
        try:
            if self._read:
                self._read = False
                self._lacks_devices = True
                await self._ensure_devices(vteps, checksum)
                self._lacks_devices = False
                await self._read_kernel(wanted)
            failures = await self._apply(wanted)
        except (NetlinkError, OSError, CniError, Refused, TimeoutError) as error:
            self._read = True
            self._report([f"{error}" or "the kernel did not answer in time"])
            return False
        self._report(failures)
        if not failures and wanted is self.wanted:
            self.synced.set()
        return not failures

    async def _read_kernel(self, wanted: Fabric) -> None:
        """Begin a new mirror by dumps, with what happens while they are made."""
        self._meanwhile = []
        try:
            with trying(f"read what is in {' and '.join(self._kernel.devices) or 'no device'}"):
                mirror = Mirror(await self._kernel.read())
            for message in self._meanwhile:
                mirror.take(message, self._kernel, wanted)
        finally:
            self._meanwhile = None
        self._mirror = mirror
        if self._inherited is None:
            there = mirror.fabric()
            self._inherited = Fabric(*[getattr(there, kind) for kind in Fabric.__slots__])

    def _report(self, failures: list[str]) -> None:
        """Say what is wrong when it is new, not at every attempt."""
        for failure in failures:
            if failure not in self.failures:
                log.error("%s", failure)
        for failure in self.failures:
            if failure not in failures:
                log.info("no longer: %s", failure)
        self.failures = failures

    async def _ensure_devices(self, vteps: list[Vtep], checksum: str) -> None:
        for vtep in vteps:
            had = vtep.name in self._kernel.devices
            done = await self._kernel.ensure_device(vtep, checksum)
            for what in done:
                log.info("%s", what)
            if had and done:
                self._drift("address" if done[0].startswith("addresses") else "device", 1)
        with trying("remove devices of ours that are not used any more"):
            removed = await self._kernel.remove_devices([v.name for v in vteps], AGENT)
        for name in removed:
            log.info("device %s removed: it is not used any more", name)

    async def _apply(self, wanted: Fabric) -> list[str]:
        there = self._mirror.fabric()
        added, stale = wanted.difference(there), there.difference(wanted)
        removed = stale
        if self.spares and self._inherited is not None:
            removed = stale.difference(self._inherited.difference(self._settled))
        for kind, name in KINDS.items():
            repaired = len(getattr(added, kind) & getattr(self._settled, kind))
            if repaired:
                were = "was" if repaired == 1 else "were"
                entries = count(repaired, f"{name} entry", f"{name} entries")
                log.warning("%s %s removed by others: put back", entries, were)
                self._drift(name, repaired)
        if not len(added) and not len(removed):
            self._settled = wanted
            return []
        addressed = {entry[:2] for entry in added.neighbours}
        known = {entry[:2] for entry in added.forwarding}
        routed = {entry[0] for entry in added.routes}
        replaced = {entry[0] for entry in stale.routes}
        # What is replaced is not taken away first: there is no moment without it.
        going = Fabric(
            {entry for entry in removed.forwarding if entry[:2] not in known},
            {entry for entry in removed.neighbours if entry[:2] not in addressed},
            {entry for entry in removed.routes if entry[0] not in routed},
        )
        # First here, then there: what others do to it meanwhile comes as events on top of it.
        self._mirror.replace_routes(replaced & routed)
        self._mirror.remove(going)
        self._mirror.add(added)
        errors = await self._kernel.apply(added, going, replaced)
        if errno.EEXIST in errors.values():
            # It may be ours after all, and the news of it still on its way.
            await self._read_kernel(wanted)
            there = self._mirror.fabric()
            errors = {
                key: code for key, code in errors.items() if key[1:] not in getattr(there, key[0])
            }
        failed = _only(added, errors)
        self._mirror.remove(failed)
        self._settled = wanted.difference(failed)
        self._mirror.refused = {entry[0] for entry in failed.routes}
        if errors:
            self._read = True
        if any(code in (errno.ENODEV, errno.ENXIO) for code in errors.values()):
            # A device went meanwhile: the next pass makes it, and everything with it.
            self.wake(read=True)
            return ["a device was removed while entries were being put into it"]
        return [_describe(key, code) for key, code in sorted(errors.items())]

    async def follow(self) -> None:
        """Keep the mirror up by the kernel's events, for ever; `link_event` is for others."""
        while True:
            try:
                async for message in self._kernel.events():
                    if message is None:
                        self._listening.set()
                        self.wake(read=True)
                    else:
                        self._take(message)
            except (NetlinkError, OSError) as error:
                # ENOBUFS: more happened than the socket had room for.
                log.warning("events of the kernel were lost (%s): reading all of it", error)
            self.wake(read=True)
            await asyncio.sleep(0.1)

    #: Called with every event of a link or an address.
    link_event: Callable[[str, int, str], None] = staticmethod(lambda event, index, name: None)

    #: Called with every event of a route that is not on one of our devices.
    route_event: Callable[[], None] = staticmethod(lambda: None)

    def _take(self, message: object) -> None:
        event: str = message["event"]  # type: ignore[index]
        if event.endswith(("LINK", "ADDR")):
            index: int = message["index"]  # type: ignore[index]
            name = message.get("IFLA_IFNAME") or ""  # type: ignore[attr-defined]
            if index in self._kernel.devices.values() or name in {v.name for v in self._vteps}:
                self.wake(read=True)
            else:
                if self._lacks_devices and is_vxlan(message):
                    self.wake(read=True)  # it may have been in the way, and is no longer
                self.link_event(event, index, name)
            return
        if event.endswith("ROUTE"):
            through = message.get("RTA_OIF")  # type: ignore[attr-defined]
            if through not in self._kernel.devices.values():
                self.route_event()
        if self._meanwhile is not None:
            self._meanwhile.append(message)
        if self._mirror.take(message, self._kernel, self.wanted):
            self.wake()


def _fingerprint(vteps: list[Vtep]) -> list[tuple[object, ...]]:
    return [tuple(map(repr, (getattr(v, name) for name in Vtep.__slots__))) for v in vteps]


def _only(fabric: Fabric, errors: dict[tuple[str, ...], int]) -> Fabric:
    """What of a fabric has failed."""
    return Fabric(
        *[
            [entry for entry in getattr(fabric, kind) if (kind, *entry) in errors]
            for kind in Fabric.__slots__
        ]
    )


def _describe(key: tuple[str, ...], code: int) -> str:
    kind, first, second, third = key
    if kind == "routes":
        if code == errno.EEXIST:
            return (
                f"a route to {first} is there already, and not ours: peers behind it cannot be "
                "reached until it goes (`ip route` shows it)"
            )
        if code == errno.EINVAL and third and ":" in first:
            return (
                f"route to {first}: refused, as another route leads to {second} and not through "
                f"{third} (`ip route get {second}` shows it)"
            )
        return f"route to {first} via {second}: {os.strerror(code)}"
    if kind == "neighbours":
        return f"neighbour {second} of {first}: {os.strerror(code)}"
    return f"forwarding entry {second} dst {third} of {first}: {os.strerror(code)}"
