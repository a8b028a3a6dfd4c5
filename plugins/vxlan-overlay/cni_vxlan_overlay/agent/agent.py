# SPDX-License-Identifier: Apache-2.0
"""The agent: what the store says of the nodes becomes what the kernel does with packets.

    store ── Membership ── Directory ── Resolver ──┐
               Casting ──────── Part ──────────────┴── Reconciler ── kernel
    underlay ── UnderlayWatch ──┘ └── subnet file, peers file, traffic rules

Each loop survives the failure of what it talks to. Whatever ends the agent, the data path stays
as it is; the next start finds it and changes what differs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal

from cni_vxlan_overlay.agent.addresses import Usage, usage
from cni_vxlan_overlay.agent.conflicts import Resolver
from cni_vxlan_overlay.agent.health import Health
from cni_vxlan_overlay.agent.kernel import Kernel
from cni_vxlan_overlay.agent.logs import count
from cni_vxlan_overlay.agent.membership import Membership
from cni_vxlan_overlay.agent.memory import Memory, conf_document, fabric_document, parse_conf
from cni_vxlan_overlay.agent.metrics import Metrics
from cni_vxlan_overlay.agent.model import NetConf, Node
from cni_vxlan_overlay.agent.notify import notify
from cni_vxlan_overlay.agent.part import Casting, Part
from cni_vxlan_overlay.agent.reconciler import Reconciler
from cni_vxlan_overlay.agent.selection import NoUnderlay
from cni_vxlan_overlay.agent.settings import Settings
from cni_vxlan_overlay.agent.store import Store
from cni_vxlan_overlay.agent.subnet_file import SubnetFile
from cni_vxlan_overlay.agent.traffic import Traffic
from cni_vxlan_overlay.agent.underlay_watch import UnderlayWatch
from cni_vxlan_overlay.underlay import Underlay
from libcni import sysctl
from libcni.types.errors import CniError

log = logging.getLogger(__name__)

#: Seconds between complete readings of the kernel.
_REREAD = 600.0
#: Seconds between attempts to begin with what an earlier run knew.
_BEGIN = 1.0
#: Seconds between looks at the traffic rules and the subnet file.
_LOOK = 5.0
#: Seconds for which changes of the peers file are gathered.
_SAVE = 0.2


class Agent:
    """One node's agent. `run` returns when it was told to stop."""

    def __init__(self, settings: Settings, store: Store, health: Health, metrics: Metrics) -> None:
        self.settings = settings
        self.health = health
        self.metrics = metrics
        self.part: Part | None = None
        self.problems: dict[str, str] = {}
        self._memory = Memory(settings.state_file)
        self._subnet_file = SubnetFile(settings.subnet_file)
        self._casting = Casting(settings)
        self._kernel = Kernel()
        self._traffic = Traffic()
        self._resolver = Resolver()
        self._underlay = UnderlayWatch(self._casting, lambda: self.part, settings.iface)
        self._underlay.touched = lambda: self._reconciler.wake(read=True)
        self._underlay.moved = self._move
        self._reconciler = Reconciler(self._kernel, metrics.drift)
        self._reconciler.link_event = self._underlay.link_event
        self._reconciler.route_event = self._underlay.route_event
        self._reconciler.finished = self._finished
        self._unsaved = asyncio.Event()
        self._members = Membership(store, self._casting, health, metrics)
        self._members.joined = self._take_part
        self._members.changed = self._reconcile
        self._members.noted = self._unsaved.set
        self._rules_failure = self._save_failure = ""
        #: Why what an earlier run knew is of no use yet.
        self._obstacle = ""
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Leaves kernel and files for the next run."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        self._load()
        loops = (
            self._reconciler.run(),
            self._reconciler.follow(),
            self._members.follow(),
            self._members.keep_lease(),
            self._members.tell_ready(),
            self._recall(),
            self._underlay.follow(),
            self._look_after(),
            self._save(),
            self._reread(),
            self._announce(),
        )
        tasks = [asyncio.create_task(work) for work in loops]
        stop = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # none of them ends but by a fault of ours, which is to be seen
        finally:
            notify("STOPPING=1")
            for task in [stop, *tasks]:
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)
            await self._members.store.close()
            await self._kernel.close()

    def _told_to_stop(self, number: signal.Signals) -> None:
        log.info("stopping on %s; the overlay stays on this node as it is", number.name)
        self._stop.set()

    def usage(self) -> list[Usage]:
        """How many addresses of this node's subnets are in use. Called from another thread."""
        part = self.part
        return usage([subnet.text() for subnet in part.own.peer.subnets]) if part else []

    # -- this node's part -----------------------------------------------------------------------

    def _load(self) -> None:
        """Begin with what an earlier run knew, so that a store that is away does no harm."""
        memory = self._memory
        if not memory.load() or memory.own is None:
            return
        self._members.before = memory.own
        self._members.directory.recall(memory.nodes)
        self._casting.hints = memory.hints
        self._obstacle = self._begin()

    def _begin(self) -> str:
        """Take the part that an earlier run had; why that cannot be now, "" when it is done."""
        memory, own = self._memory, self._members.before
        if own is None or self.part is not None:
            return ""
        try:
            conf = parse_conf(memory.conf)
            underlay = self._casting.underlay(conf)
        except (NoUnderlay, CniError, OSError, ValueError, KeyError, TypeError) as error:
            obstacle = f"cannot begin with what is known from before: {error}"
        else:
            if self._casting.is_at(own, conf, underlay):
                self._take_part(conf, underlay, own)
                peers = count(len(memory.nodes), "peer")
                log.info("beginning with %s known from before", peers)
                return ""
            obstacle = "this node had another address before: waiting for the store"
        if obstacle != self._obstacle:
            log.warning("%s", obstacle)
        return obstacle

    async def _recall(self) -> None:
        """Begin as soon as the underlay is there, unless the store was faster; for ever."""
        while True:
            await asyncio.sleep(_BEGIN)
            self._obstacle = self._begin()

    def _take_part(self, conf: NetConf, underlay: Underlay, own: Node) -> None:
        """This is the network, this carries it, and this is who we are in it."""
        self.part = self._casting.part(conf, underlay, own, self._memory.path)
        self._members.own = own
        self._members.directory.own = own.uid
        self._kernel.networks = list(conf.networks)
        self._memory.conf = conf_document(conf)
        _forward(conf)
        self._ensure_rules()
        self._reconcile()

    def _move(self, underlay: Underlay) -> None:
        """Something else carries the overlay now; the store hears of what is published."""
        part = self.part
        assert part is not None
        self._take_part(part.conf, underlay, part.own)
        if underlay.addresses != part.underlay.addresses:
            self._members.publish_again()

    # -- the kernel -----------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Have the reconciler make what is known now."""
        part, directory = self.part, self._members.directory
        if part is None or not directory.is_told:
            return
        nodes = directory.nodes
        peers, problems = self._resolver.resolve(nodes, part.own)
        for uid, problem in problems.items():
            if self.problems.get(uid) != problem:
                log.error("node %s is not used as a peer: %s", nodes[uid].name, problem)
        for uid in self.problems.keys() - problems.keys():
            log.info("node %s is no longer in conflict", nodes[uid].name if uid in nodes else uid)
        self.problems = problems
        self.metrics.conflicts(len(problems))
        self.metrics.peers(len(peers))
        self._reconciler.spares = not directory.is_sure
        self._reconciler.want(part.vteps, part.ground(), peers, part.conf.backend.checksum)
        self._unsaved.set()

    def _finished(self, ok: bool, seconds: float) -> None:
        self.metrics.reconciled("ok" if ok else "failed", seconds)
        self.health.beat()
        failure = "" if ok else "; ".join(self._reconciler.failures)
        self.health.passed(failure)
        if not ok and not self.health.ready:
            self.health.reason = failure

    async def _reread(self) -> None:
        """Now and then the kernel is read completely, whatever its events said."""
        while True:
            await asyncio.sleep(_REREAD * random.uniform(0.9, 1.1))
            self._reconciler.wake(read=True)

    def _ensure_rules(self) -> None:
        if self.part is None:
            return
        try:
            if self._traffic.ensure(self.part.rules(self.settings)):
                log.warning("traffic rules were changed by others: put back")
                self.metrics.drift("rules", 1)
            self._rules_failure = ""
        except (CniError, OSError) as error:
            if str(error) != self._rules_failure:
                log.error("traffic rules: %s", error)
            self._rules_failure = str(error)

    async def _look_after(self) -> None:
        """Look after what nobody tells of: the rules, and the subnet file."""
        while True:
            await asyncio.sleep(_LOOK)
            self._ensure_rules()
            self._subnet_file.look_after()
            if not self._reconciler.is_stuck:
                self.health.beat()
                notify("WATCHDOG=1")

    # -- files ----------------------------------------------------------------------------------

    async def _announce(self) -> None:
        """Write the subnet file once the data path is up, and whenever it says something else."""
        failure = ""
        while True:
            await self._reconciler.synced.wait()
            part = self.part
            if part is None or not part.lease.subnets or self._subnet_file.has(part.lease):
                await asyncio.sleep(0.2)
                continue
            self._save_now()
            try:
                self._subnet_file.write(part.lease)
            except OSError as error:
                words = f"cannot write {self._subnet_file.path}"
                if f"{words}: {error.strerror}" != failure:
                    failure = f"{words}: {error.strerror}"
                    log.error("%s", failure)
                if not self.health.ready:
                    self.health.reason = words
                await asyncio.sleep(1.0)
                continue
            failure = ""
            log.info("this node has %s", part.subnets)
            self.health.ready, self.health.reason = True, ""
            notify(f"READY=1\nSTATUS=this node has {part.subnets}")

    async def _save(self) -> None:
        """The peers file, a moment after the last change."""
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(_SAVE)
            self._unsaved.clear()
            self._save_now()

    def _save_now(self) -> None:
        part, members, memory = self.part, self._members, self._memory
        if part is None or not members.directory.is_told:
            return
        memory.own = part.own
        memory.nodes = dict(members.directory.nodes)
        memory.hints = self._casting.hints
        try:
            memory.save(
                {
                    "store": members.store.kind,
                    "store_up": members.is_up,
                    "store_problem": self.health.degraded,
                    "source": members.store.source,
                    "revision": members.directory.revision,
                    "devices": {vtep.name: vtep.mac for vtep in part.vteps},
                    "underlay": {
                        "interface": part.underlay.name,
                        "local": {vtep.name: vtep.local for vtep in part.vteps},
                    },
                    "mtu": part.lease.mtu,
                    "fabric": fabric_document(self._reconciler.wanted),
                },
                self.problems,
            )
            self._save_failure = ""
        except OSError as error:
            words = f"cannot write {memory.path}: {error.strerror}"
            if words != self._save_failure:
                log.error("%s", words)
            self._save_failure = words


def _forward(conf: NetConf) -> None:
    """Let the kernel forward; a container's /proc/sys is often read-only, so this may fail."""
    for network in conf.networks:
        ipv6 = len(network.packed) == 16
        name = "ipv6/conf/all/forwarding" if ipv6 else "ipv4/ip_forward"
        try:
            on = sysctl.read(name) != "0"
        except OSError:
            continue  # no such family in this kernel
        if not on and not sysctl.try_write(name, "1"):
            log.error("net.%s is 0 and cannot be set: pods will not be reached", name)
