# SPDX-License-Identifier: Apache-2.0
"""The numbers of the overlay's agent: joining, following, idling."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable

from tests.bench.crowd import TICK, Crowd, Lab, Witness, cpu, crowd, lab, peak, settle, wait
from tests.bench.figure import Figure
from tests.bench.measure import median, percentile90
from tests.bench.rows import Bench
from tests.overlay.agents import Agent
from tests.overlay.cluster import Node

#: To reach: seconds of CPU; kB; seconds; share of a core.
_JOIN_CPU, _MEMORY, _CHANGE, _IDLE = 2.0, 250 * 1024, 0.050, 0.005
#: Peers whose cost may be so many times that of peers in a cluster of a fifth, to be linear.
_LINEAR = 1.25
#: Seconds in which a kubelet of an idle node writes its status again.
_HEARTBEAT = 300.0


@dataclasses.dataclass
class Join:
    """One agent's start with an empty kernel.

    cpu, wall: seconds until the kernel had everything. settled: seconds of CPU until the agent
    had nothing more to do (files written, the kernel's echo heard). peak: kB.
    """

    peers: int
    cpu: float
    wall: float
    settled: float
    peak: int


def join(laboratory: Lab, store: Crowd) -> tuple[Join, Agent, Witness]:
    """A new node joins; the agent goes on, and so does the witness of its kernel.

    Raises RuntimeError when the kernel has not exactly what it shall have.
    """
    node = laboratory.node()
    witness = Witness(node)
    agent = laboratory.agent(node, store)
    families = 2 if store.dual else 1
    started = time.perf_counter()
    agent.start()
    wanted = dict.fromkeys(("forwarding", "neighbours", "routes"), store.count * families)
    wait(lambda: witness.counts() == wanted, f"{wanted}", agent)
    used, wall = cpu(agent), witness.last - started
    agent.ready(60)
    settled = settle(agent)
    found = _programmed(node, families)
    if found != wanted:
        raise RuntimeError(f"the kernel has {found}, not {wanted}")
    return Join(store.count, used, wall, settled, peak(agent)), agent, witness


def _programmed(node: Node, families: int) -> dict[str, int]:
    """What iproute2 finds on a node."""
    devices = ["adder.1", "adder6.1"][:families]
    versions = ["-4", "-6"][:families]
    show = ["route", "show", "proto", "97"]
    permanent = ["neighbour", "show", "nud", "permanent"]
    forwarding = [node.run("bridge", "fdb", "show", "dev", name) for name in devices]
    return {
        "forwarding": sum(text.count(" dst ") for text in forwarding),
        "neighbours": sum(
            len(node.ip(version, *permanent, "dev", name))
            for version, name in zip(versions, devices, strict=True)
        ),
        "routes": sum(len(node.ip(version, *show)) for version in versions),
    }


def joins(laboratory: Lab, count: int, times: int, dual: bool = False) -> list[Join]:
    """So many nodes, one after the other, join a cluster of `count` peers."""
    done = []
    with crowd(count, dual) as store:
        for _ in range(times):
            made, agent, witness = join(laboratory, store)
            witness.close()
            agent.kill()
            store.server.delete(agent.node.name)
            laboratory.cluster.remove(agent.node.number)
            done.append(made)
    return done


def changes(store: Crowd, witness: Witness, times: int, pause: float) -> list[float]:
    """Seconds from each of so many changes of a peer, `pause` apart on average, to the kernel.

    The peer comes back on another machine: another address, another VTEP. The time begins before
    the server puts the event together, and ends with the notification of the second of two
    entries (forwarding, neighbour).
    """
    taken = []
    for version in range(1, times + 1):
        time.sleep(random.uniform(0, 2 * pause))
        number = random.randrange(store.count)
        mac = bytes.fromhex(f"0a77{version:04x}{number:04x}")
        witness.expect(mac, 2)
        began = time.perf_counter()
        store.move(number, version)
        taken.append(witness.seen(30) - began)
    return taken


def joining(bench: Bench, small: int = 1000, large: int = 5000, times: int = 3) -> list[Figure]:
    """A start among many, and what comes after it."""
    with lab(bench.ours) as laboratory:
        return figures_of_joining(laboratory, small, large, times, max(20, bench.rounds))


def figures_of_joining(
    laboratory: Lab, small: int, large: int, times: int, moves: int
) -> list[Figure]:
    """Starts among 1, `small` and `large` peers; then `moves` changes among the large."""
    alone = _least(joins(laboratory, 1, times))
    few = joins(laboratory, small, times)
    both = joins(laboratory, small, 1, dual=True)[0]
    with crowd(large) as store:
        many, agent, witness = join(laboratory, store)
        before = settle(agent)
        taken = changes(store, witness, moves, 0.5)
        each_change = (settle(agent) - before) / moves
        memory = peak(agent)
        witness.close()
        agent.kill()
    least = _least(few)
    each_of_few = max(least.settled - alone.settled, TICK) / (small - 1)
    each_of_many = max(many.settled - alone.settled, TICK) / (large - 1)
    rate_of_cpu = small / max(least.cpu - alone.cpu, TICK)
    named = f"{small:,} peers"
    return [
        Figure(
            "overlay-join-cpu",
            f"joining a store with {named}: CPU",
            f"user and system time until the kernel has all; {alone.cpu:.2f} s of it is the "
            f"start-up, which a store with one peer costs too; with what comes after (the peers "
            f"file, the kernel's echo) {least.settled:.2f} s",
            "s",
            least.cpu,
            _JOIN_CPU,
            details={"runs": [dataclasses.asdict(one) for one in few]},
        ),
        Figure(
            "overlay-join-rate",
            f"joining a store with {named}: peers a second",
            "by wall time from the start of the process; a peer is a route, a neighbour and a "
            f"forwarding entry; {rate_of_cpu:,.0f} a second of CPU "
            "without the start-up",
            "/s",
            max(one.peers / one.wall for one in few),
            details={"wall": [one.wall for one in few]},
        ),
        Figure(
            "overlay-join-dual",
            f"joining a store with {named} of both families: CPU",
            "twice the entries, on two devices",
            "s",
            both.cpu,
            details={"runs": [dataclasses.asdict(both)]},
        ),
        Figure(
            "overlay-many-cpu",
            f"joining a store with {large:,} peers: CPU",
            f"wall time {many.wall:.1f} s, {many.settled:.2f} s of CPU with what comes after",
            "s",
            many.cpu,
            details={"runs": [dataclasses.asdict(many)]},
        ),
        Figure(
            "overlay-linear",
            f"CPU of one of {large:,} peers against one of {small:,}",
            f"{each_of_many * 1e3:.2f} ms against {each_of_few * 1e3:.2f} ms, start-up taken off",
            "x",
            each_of_many / each_of_few,
            _LINEAR,
            details={"start_up_cpu": alone.settled},
        ),
        Figure(
            "overlay-memory",
            f"peak memory with {large:,} peers",
            "VmHWM after joining and the changes",
            "MB",
            memory / 1024,
            _MEMORY / 1024,
        ),
        *_change_figures(taken, large, each_change),
    ]


def _least(runs: list[Join]) -> Join:
    """The run that others disturbed least."""
    return min(runs, key=lambda one: one.cpu)


def _change_figures(taken: list[float], peers: int, each: float) -> list[Figure]:
    why = (
        f"{len(taken)} changes at random times; from before the server makes the event to the "
        "notification of the last entry, heard by a socket that is not the agent's; "
        f"{each * 1e3:.0f} ms of CPU each, with the peers file, which is written afterwards"
    )
    details = {
        "samples_ms": [round(seconds * 1e3, 2) for seconds in taken],
        "cpu_ms_each": each * 1e3,
    }
    return [
        Figure(
            f"overlay-change-{name}",
            f"a peer's change to the kernel, {peers:,} peers: {words}",
            why,
            "ms",
            value * 1e3,
            _CHANGE * 1e3,
            details=details if name == "median" else {},
        )
        for name, words, value in (
            ("median", "median", median(taken)),
            ("p90", "90th percentile", percentile90(taken)),
        )
    ]


def idling(bench: Bench, count: int = 1000, seconds: float = 60.0) -> list[Figure]:
    """An agent that has nothing to do."""
    with lab(bench.ours) as laboratory:
        return figures_of_idling(laboratory, count, seconds)


def figures_of_idling(laboratory: Lab, count: int, seconds: float) -> list[Figure]:
    """So many seconds without events, then as many with the heartbeats of all nodes."""
    with crowd(count) as store:
        _, agent, witness = join(laboratory, store)
        time.sleep(min(5.0, seconds))
        quiet, written = _share(agent, witness, seconds, lambda: None, seconds)
        numbers = iter(range(count))
        pause = _HEARTBEAT / count
        beaten, more = _share(agent, witness, seconds, lambda: store.beat(next(numbers, 0)), pause)
        witness.close()
        agent.kill()
    return [
        Figure(
            "overlay-idle",
            f"an idle agent with {count:,} peers: share of a core",
            f"CPU of {seconds:.0f} s, children included; the health server and the look at the "
            "traffic rules every 5 s are what there is",
            "%",
            quiet * 100,
            _IDLE * 100,
        ),
        Figure(
            "overlay-idle-beats",
            f"the same while {count:,} kubelets report every {_HEARTBEAT / 60:.0f} min",
            f"{1 / pause:.1f} events a second, none of which changes anything",
            "%",
            beaten * 100,
        ),
        Figure(
            "overlay-idle-writes",
            "what was written into the kernel meanwhile",
            f"RTM_NEW* notifications of links, addresses, routes, permanent neighbours and "
            f"forwarding entries in {2 * seconds:.0f} s: there is no periodic rewrite",
            "",
            written + more,
            0,
        ),
    ]


def _share(
    agent: Agent, witness: Witness, seconds: float, event: Callable[[], None], pause: float
) -> tuple[float, int]:
    """Share of a core in so many seconds, with an event every `pause`; RTM_NEW* in that time."""
    before, heard, began = cpu(agent), witness.writes(), time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        event()
    return (cpu(agent) - before) / (time.monotonic() - began), witness.writes() - heard
