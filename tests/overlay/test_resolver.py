# SPDX-License-Identifier: Apache-2.0
"""What is done by difference, among thousands of peers, comes to what is done from the start."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random

import pytest

from cni_vxlan_overlay.agent.conflicts import Resolver, resolve
from cni_vxlan_overlay.agent.kernel import Kernel
from cni_vxlan_overlay.agent.memory import Memory
from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.reconciler import Reconciler
from cni_vxlan_overlay.fabric import Ground, fabric_of
from cni_vxlan_overlay.peers import Endpoint, Peer
from libcni.inet import Prefix
from tests.rig.host import Host


def node(uid: int, address: int, mac: int, subnet: str, age: int = 0) -> Node:
    endpoints = [Endpoint(f"172.16.0.{address}", f"0a:00:00:00:00:{mac:02x}")]
    peer = Peer(f"node-{uid}", endpoints, [Prefix.parse(subnet)])
    return Node(f"uid-{uid}", peer, f"{age:04d}")


def drawn(draw: random.Random, uid: int) -> Node:
    """Of few values, so that conflicts come and go."""
    subnet = draw.choice(
        [f"10.0.{draw.randrange(40)}.0/24", f"10.0.{draw.randrange(10) * 4}.0/22"]
    )
    return node(uid, draw.randrange(1, 90), draw.randrange(90), subnet, draw.randrange(5))


@pytest.mark.parametrize("seed", range(10))
def test_by_difference_as_from_the_start(seed: int) -> None:
    draw = random.Random(seed)
    resolver = Resolver()
    own = node(0, 200, 200, "10.0.250.0/24")
    nodes: dict[str, Node] = {own.uid: own}
    without_conflict = 0
    for step in range(300):
        if draw.random() < 0.02:
            own = node(0, 200 + step % 3, 200, f"10.0.{draw.choice([250, 251, 1])}.0/24")
        for _ in range(draw.randrange(3)):
            made = drawn(draw, draw.randrange(1, 9))
            if draw.random() < 0.5:
                nodes[made.uid] = made
            else:
                nodes.pop(made.uid, None)
        peers, problems = resolver.resolve(nodes, own)
        expected, reasons = resolve(nodes.values(), own)
        assert {peer.uid: peer for peer in peers} == {peer.uid: peer for peer in expected}
        assert problems == reasons
        without_conflict += not problems
    assert 20 < without_conflict < 280, "both ways are to be tried"


def test_whose_the_conflict_is() -> None:
    """Only where this node itself has what an older one claims, it has to get another."""
    own = node(1, 1, 1, "10.0.1.0/24", age=9)
    first = node(10, 10, 10, "10.0.10.0/24", age=1)
    second = node(2, 2, 2, "10.0.10.0/24", age=2)
    third = node(3, 3, 3, "10.0.1.0/24", age=3)
    _, problems = resolve([first, second, third], own)
    assert problems == {
        "uid-2": "pod CIDR 10.0.10.0/24 overlaps with that of node-10",
        "uid-3": "pod CIDR 10.0.1.0/24 overlaps with that of node-1; it is older than this node, "
        "which has to get another",
    }


def test_what_is_wanted_follows_the_peers(host: Host) -> None:
    """Peers that come, go, change, and take what another had; another device for all of them."""
    draw = random.Random(1)

    async def follow() -> None:
        kernel = Kernel()
        try:
            reconciler = Reconciler(kernel)
            peers: dict[str, Node] = {}
            for step in range(200):
                for _ in range(draw.randrange(4)):
                    made = drawn(draw, draw.randrange(1, 30))
                    peers.pop(made.uid, None)
                    if draw.random() < 0.8:
                        peers[made.uid] = made
                used, _ = resolve(peers.values(), None)
                if step == 150:
                    used = []
                ground = Ground({False: f"adder.{step // 50}"})
                reconciler.want([], ground, used)
                assert reconciler.wanted == fabric_of([peer.peer for peer in used], ground)
        finally:
            await kernel.close()

    asyncio.run(follow())


def test_the_file_has_the_last_of_each(tmp_path: pathlib.Path) -> None:
    """Texts of earlier writings are used again for what is the same, and for nothing else."""
    memory = Memory(str(tmp_path / "peers.json"))
    memory.own = node(0, 200, 200, "10.0.250.0/24")
    first, second = node(1, 1, 1, "10.0.1.0/24"), node(2, 2, 2, "10.0.2.0/24")
    memory.nodes = {first.uid: first, second.uid: second, memory.own.uid: memory.own}

    def written(problems: dict[str, str]) -> dict[str, dict[str, str]]:
        memory.save({"store": "file"}, problems)
        document = json.loads((tmp_path / "peers.json").read_bytes())
        assert document["store"] == "file"
        return {peer["uid"]: peer for peer in document["peers"]}

    before = written({})
    assert list(before) == [first.uid, second.uid]
    assert written({}) == before
    assert written({second.uid: "why"}) == {
        **before,
        second.uid: {**before[second.uid], "problem": "why"},
    }
    moved = node(1, 3, 1, "10.0.1.0/24")
    memory.nodes[moved.uid] = moved
    after = written({})
    assert after[second.uid] == before[second.uid]
    assert (
        "172.16.0.3" in str(after[moved.uid])
        and after[moved.uid]["since"] == before[moved.uid]["since"]
    )
    del memory.nodes[second.uid]
    assert list(written({})) == [first.uid]
    again = Memory(str(tmp_path / "peers.json"))
    assert again.load() and again.nodes == {moved.uid: moved} and again.own == memory.own
