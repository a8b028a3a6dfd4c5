# SPDX-License-Identifier: Apache-2.0
"""Random histories of a cluster, held against a model of it after every few steps.

Nodes join, move to another address, leave; agents are killed, stopped and started; the store
goes away and comes back; what is ours in the kernel is deleted and changed by hand, and things
that are not ours are put beside it. After each settling, the kernel of every node has exactly
what the model says, and what is not ours is as it was. Two pods ping each other all the time.

A failure prints the history as a script. ADDER_MODEL_SCRIPT=FILE runs such a script instead,
ADDER_MODEL_SEED=N another history, and ADDER_MODEL_STEPS=N a longer one (default 24).
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.overlay.agents import AGENT_CONFIG, PEERS_FILE, Agent
from tests.overlay.cluster import Cluster, underlay_address
from tests.overlay.damage import DAMAGE, FOREIGN, add_foreign, damage, show_foreign
from tests.overlay.kernel_state import expected, settled
from tests.overlay.stores import Etcd, File, Kubernetes, StoreRig

STEPS = int(os.environ.get("ADDER_MODEL_STEPS", "24"))
SEED = os.environ.get("ADDER_MODEL_SEED", "")
SCRIPT = os.environ.get("ADDER_MODEL_SCRIPT", "")
#: Nodes 1 and 2 have the pods that ping, so nothing is done to their kernels or addresses.
BYSTANDERS = (1, 2)
NODES = (1, 2, 3, 4)
#: Seconds for the last of the agents to find a store that is back, on a busy machine.
SETTLING = 60.0

Step = tuple[Any, ...]


class Model:
    """A cluster, and what is to be in its kernels.

    published: underlay address, by number, of the nodes that are in the store. views: what each
    agent knows of it. known: those of agents that have a state file of this address.
    """

    def __init__(
        self, cluster: Cluster, store: StoreRig, directory: pathlib.Path, direct: bool
    ) -> None:
        self.cluster = cluster
        self.store = store
        self.direct = direct
        self.directory = directory
        self.agents: dict[int, Agent] = {}
        self.running: set[int] = set()
        self.addresses = {number: underlay_address(number) for number in NODES}
        self.published: dict[int, str] = {}
        self.views: dict[int, dict[int, str]] = {}
        self.memories: dict[int, dict[int, str]] = {}
        self.store_is_up = True
        #: As it was, by node, kind and tag.
        self.foreign: dict[tuple[int, str, int], str] = {}
        self.history: list[Step] = []
        #: Something changed in the store since the last settling.
        self._stirred = False
        #: Nodes that have not yet published what they are now.
        self._pending: set[int] = set()
        self._pings: subprocess.Popen[str] | None = None

    # -- steps ------------------------------------------------------------------------------

    def possible(self, draw: random.Random) -> Step:
        """A step that can be taken now."""
        idle = [n for n in NODES if n not in self.running]
        running = sorted(self.running)
        strangers = [n for n in running if n not in BYSTANDERS]
        choices: list[tuple[int, Callable[[], Step]]] = [
            (
                3,
                lambda: (
                    "foreign",
                    draw.choice(NODES),
                    draw.choice(sorted(FOREIGN)),
                    len(self.foreign) + 150,
                ),
            ),
            (2, lambda: ("outage",) if self.store_is_up else ("return",)),
        ]
        startable = [
            n for n in idle if self.store_is_up or (n in self.memories and n in self.published)
        ]
        if startable:
            choices.append((6, lambda: ("start", draw.choice(startable))))
        if running:
            choices.append((3, lambda: ("kill", draw.choice(running))))
            choices.append((1, lambda: ("stop", draw.choice(running))))
        if strangers:
            choices.append((10, lambda: self._damage(draw, strangers)))
            if self.store_is_up or self.memories.keys() >= set(strangers):
                choices.append((1, lambda: ("reboot", draw.choice(strangers))))
            if self.store_is_up:
                choices.append((2, lambda: ("move", draw.choice(strangers), draw.randint(60, 90))))
                choices.append((2, lambda: ("leave", draw.choice(strangers))))
        if self.store_is_up and isinstance(self.store, Kubernetes):
            choices.append((2, lambda: ("listing", draw.choice(("empty", "short")))))
            choices.append((1, lambda: ("gone",)))
        lost = [n for n in idle if n in self.memories and self.store_is_up]
        if lost:
            choices.append((1, lambda: ("forget", draw.choice(lost))))
        weights = [weight for weight, _ in choices]
        return draw.choices([step for _, step in choices], weights)[0]()

    def _damage(self, draw: random.Random, strangers: list[int]) -> Step:
        number = draw.choice(strangers)
        others = sorted(set(self.published) - {number}) or [number]
        return ("damage", number, draw.choice(sorted(DAMAGE)), draw.choice(others))

    def take(self, step: Step) -> None:
        """Take a step."""
        self.history.append(step)
        verb, *arguments = step
        getattr(self, f"_do_{verb}")(*arguments)

    def _do_start(self, number: int) -> None:
        if number not in self.agents:
            node = self.cluster.node(number)
            self.agents[number] = Agent(
                node, self.directory / f"{node.name}.log", self.store.options(node)
            )
        elif number not in self.published:
            # It comes back as the machine that it was at first.
            self._set_address(number, underlay_address(number))
            self.store.options(self.agents[number].node)
        self.agents[number].start()
        self.running.add(number)
        if number not in self.published:
            self._pending.add(number)
            self._stirred = True
        self.views[number] = dict(self.memories.get(number, {}))

    def _set_address(self, number: int, address: str) -> None:
        if self.addresses[number] == address:
            return
        self.agents[number].node.set_address(address)
        self.addresses[number] = address
        self._look_again(number)

    def _do_kill(self, number: int) -> None:
        self._wait_for(number)
        self.agents[number].kill()
        self._ended(number)

    def _wait_for(self, number: int) -> None:
        """What it is to publish should be published, or nobody knows whether it will be."""
        if number in self._pending:
            self.settle()

    def _ended(self, number: int) -> None:
        self.running.discard(number)
        if self._stirred:  # it may have heard of it, or not
            self.memories.pop(number, None)

    def _do_stop(self, number: int) -> None:
        self._wait_for(number)
        assert self.agents[number].stop() in (0, -signal.SIGTERM)  # it may be starting
        self._ended(number)

    def _do_reboot(self, number: int) -> None:
        self._do_kill(number)
        node = self.agents[number].node
        gone = "ip link delete adder.1; ip link delete adder6.1; nft flush ruleset"
        node.run("sh", "-c", f"{gone}; {DAMAGE['routes']}; rm -fr /run/flannel")
        self._look_again(number)
        self._do_start(number)

    def _do_leave(self, number: int) -> None:
        self._do_stop(number)
        node = self.agents[number].node
        self.store.leave(node)
        self.published.pop(number, None)
        self._stirred = True

    def _do_move(self, number: int, last: int) -> None:
        if isinstance(self.store, Etcd):
            # An entry there is known by its address: who had not yet found his own, or is killed
            # before it could write the new address, gets another subnet.
            self.settle()
        # No two nodes have one address.
        address = f"192.168.50.{last + 40 * (number - 3)}"
        self._set_address(number, address)
        self._stirred = True
        self.memories.pop(number, None)
        self._pending.add(number)
        self.store.moved(self.agents[number].node)
        if isinstance(self.store, Etcd):
            self.settle()

    def _do_outage(self) -> None:
        self.settle()
        self.store.down()
        self.store_is_up = False

    def _do_return(self) -> None:
        self.store.up()
        self.store_is_up = True

    def _do_forget(self, number: int) -> None:
        node = self.agents[number].node
        node.run("sh", "-c", f"echo nonsense > {PEERS_FILE}")
        self.memories.pop(number, None)

    def _do_listing(self, kind: str) -> None:
        assert isinstance(self.store, Kubernetes)
        faults = self.store.server.faults
        keep = 0 if kind == "empty" else 1
        left = [1]

        def once(nodes: list[Any]) -> list[Any]:
            if left:
                left.pop()
                return nodes[:keep]
            return nodes

        faults.listing = once
        self.store.server.send_gone()

    def _do_gone(self) -> None:
        assert isinstance(self.store, Kubernetes)
        self.store.server.compact()
        self.store.server.send_gone()

    def _do_damage(self, number: int, kind: str, peer: int) -> None:
        address = self.published.get(peer, self.addresses[peer])
        damage(self.agents[number].node, kind, self.addresses[number], peer, address)
        if kind == "underlay":
            self._look_again(number)

    def _do_foreign(self, number: int, kind: str, tag: int) -> None:
        add_foreign(self.cluster.node(number), kind, tag)
        self.foreign[number, kind, tag] = self._show(number, kind, tag)
        assert self.foreign[number, kind, tag]

    def _do_settle(self) -> None:
        self.settle()

    def _do_ping(self) -> None:
        """20 pings a second from pod to pod, from now on."""
        here, there = [self.agents[n].node.attach("pod", AGENT_CONFIG) for n in BYSTANDERS]
        here.reaches(there)
        self._pings = subprocess.Popen(
            here.command("ping", "-n", "-i", "0.05", there.addresses()[0]),
            stdout=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> None:
        """None of the pings may have been lost."""
        assert self._pings is not None
        self._pings.send_signal(signal.SIGINT)
        told = self._pings.communicate(timeout=20)[0]
        assert " 0% packet loss" in told, told[-1000:]

    def close(self) -> None:
        """End the pings. Idempotent."""
        if self._pings is not None:
            self._pings.kill()
            self._pings.communicate()

    # -- what is to be ------------------------------------------------------------------------

    def _show(self, number: int, kind: str, tag: int) -> str:
        return show_foreign(self.cluster.node(number), kind, tag)

    def _look_again(self, number: int) -> None:
        """The kernel itself took some of it away, with an address or a link."""
        for what in self.foreign:
            if what[0] == number:
                self.foreign[what] = self._show(*what)

    def settle(self) -> None:
        """Wait until all kernels are as the model says, and look after what is not ours."""
        if self.store_is_up:
            for number in self.running:
                self.published[number] = self.addresses[number]
            for number in self.running:
                self.views[number] = dict(self.published)
            self._pending.clear()
        for number in sorted(self.running):
            self._settled(number)
        for number in sorted(self.running):  # and it stays so
            self._settled(number)
            if self.store_is_up:
                self._remembers(number)
                self.memories[number] = dict(self.views[number])
        self._stirred = False
        for what, before in self.foreign.items():
            assert self._show(*what) == before, f"somebody else's: {what}"

    def _settled(self, number: int) -> None:
        wanted = expected(number, self.addresses[number], self.views[number], self.direct)
        settled(self.agents[number], wanted, f"node {number} as the model says", SETTLING)

    def _remembers(self, number: int) -> None:
        """Its state file is written a moment later: what a kill leaves is what it knew."""
        agent = self.agents[number]
        wanted = {f"node-{peer}": address for peer, address in self.views[number].items()}
        wanted.pop(f"node-{number}", None)

        def remembers() -> bool:
            try:
                found = agent.peers()["peers"]
            except ValueError:  # after "forget", until it is written
                return False
            return {p["name"]: p["endpoints"][0]["publicIP"] for p in found} == wanted

        agent.until(remembers, "the peers file", SETTLING)


@pytest.fixture(params=["kubernetes", "etcd", "file"])
def model(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: pathlib.Path
) -> Iterator[Model]:
    """Each store in turn; that of the file with direct routes."""
    direct = request.param == "file"
    made: dict[str, Callable[[], StoreRig]] = {
        "kubernetes": Kubernetes,
        "etcd": lambda: Etcd(tmp_path / "etcd"),
        "file": lambda: File(tmp_path / "nodes.json", DirectRouting=True),
    }
    store = made[request.param]()
    yield Model(cluster, store, tmp_path, direct)
    store.close()


def _script(history: list[Step]) -> str:
    return "\n".join(json.dumps(step) for step in history)


def _history(model: Model, draw: random.Random) -> Iterator[Step]:
    """All nodes join; then anything happens, and now and then there is a moment of rest."""
    yield from (("start", number) for number in NODES)
    yield ("settle",)
    yield ("ping",)
    for _ in range(STEPS):
        yield model.possible(draw)
        if draw.random() < 0.4:
            yield ("settle",)
    if not model.store_is_up:
        yield ("return",)
    yield from (("start", number) for number in NODES if number not in model.running)
    yield ("settle",)


def test_any_history(model: Model, request: pytest.FixtureRequest) -> None:
    """Kernels are as the model says after each settling, and nobody else is disturbed."""
    seed = SEED or request.node.name
    if SCRIPT:
        lines = pathlib.Path(SCRIPT).read_text().splitlines()
        steps: Iterator[Step] = (tuple(json.loads(line)) for line in lines)
    else:
        steps = _history(model, random.Random(seed))
    try:
        for step in steps:
            model.take(step)
        model.finish()
    except BaseException:
        print(f"seed {seed!r}; as ADDER_MODEL_SCRIPT:\n{_script(model.history)}")
        raise
    finally:
        model.close()
