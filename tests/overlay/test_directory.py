# SPDX-License-Identifier: Apache-2.0
"""What the agent makes of listings and events, and of nodes that claim the same: pure."""

from __future__ import annotations

import itertools
import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_vxlan_overlay.agent.conflicts import resolve
from cni_vxlan_overlay.agent.directory import Directory
from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.store import Changed, Listing, Removed
from cni_vxlan_overlay.peers import Endpoint, Peer, vtep_mac
from libcni.inet import Prefix


def node(number: int, address: int = 0, subnet: str = "", age: int | None = None) -> Node:
    """A node; address and subnet are its number's unless given."""
    public = f"192.168.50.{address or number}"
    peer = Peer(
        f"node-{number}",
        [Endpoint(public, vtep_mac(1, public))],
        [Prefix.parse(subnet or f"10.244.{number}.0/24")],
    )
    return Node(f"uid-{number}", peer, f"{number if age is None else age:04}")


def listing(*numbers: int) -> Listing:
    """A complete listing of nodes."""
    return Listing(tuple(node(number) for number in numbers))


def numbers(directory: Directory) -> set[int]:
    """The nodes that it knows."""
    return {int(uid.removeprefix("uid-")) for uid in directory.nodes}


def test_one_short_listing_removes_nobody() -> None:
    directory = Directory()
    assert directory.apply(listing(1, 2, 3, 4))
    assert not directory.apply(listing())
    assert numbers(directory) == {1, 2, 3, 4}
    assert directory.is_doubtful
    assert directory.apply(listing())
    assert numbers(directory) == set()
    assert not directory.is_doubtful


def test_a_second_listing_that_is_longer_saves_the_others() -> None:
    directory = Directory()
    directory.apply(listing(1, 2, 3, 4))
    directory.apply(listing(1))
    directory.apply(listing(1, 2, 3))
    assert numbers(directory) == {1, 2, 3}
    assert not directory.is_doubtful


def test_another_short_listing_confirms_just_what_both_lack() -> None:
    directory = Directory()
    directory.apply(listing(1, 2, 3, 4, 5, 6))
    directory.apply(listing(1, 2))
    directory.apply(listing(5))
    assert numbers(directory) == {1, 2, 3, 4, 5, 6}, "1 and 2 are missing for the first time"
    directory.apply(listing(5))
    assert numbers(directory) == {5}


def test_a_single_one_that_is_missing_stays_too() -> None:
    """In a cluster of two nodes, it is all there is."""
    directory = Directory()
    directory.apply(listing(1, 2, 3))
    directory.apply(listing(1, 2))
    assert numbers(directory) == {1, 2, 3}
    assert directory.is_doubtful
    directory.apply(listing(1, 2))
    assert numbers(directory) == {1, 2}
    assert not directory.is_doubtful


def test_the_first_listing_does_not_say_who_is_gone() -> None:
    directory = Directory()
    assert not directory.is_told
    directory.apply(listing(1))
    assert directory.is_told
    assert not directory.is_sure
    assert directory.is_doubtful
    assert directory.apply(listing(1)), "somebody may be removed now"
    assert directory.is_sure
    assert not directory.is_doubtful
    assert not directory.apply(listing(1))


def test_another_listing_too_soon_confirms_nothing() -> None:
    directory = Directory(patience=3600)
    directory.apply(listing(1))
    directory.apply(listing(1))
    assert not directory.is_sure


def test_what_an_earlier_run_knew_is_enough() -> None:
    directory = Directory()
    directory.recall({"uid-1": node(1), "uid-2": node(2), "uid-3": node(3)})
    assert directory.is_told
    assert directory.is_sure
    directory.apply(listing(1))
    assert numbers(directory) == {1, 2, 3}
    directory.apply(listing(1))
    assert numbers(directory) == {1}


def test_new_nodes_of_a_doubtful_listing_are_used() -> None:
    directory = Directory()
    directory.apply(listing(1, 2, 3))
    assert directory.apply(listing(4))
    assert numbers(directory) == {1, 2, 3, 4}


def test_removals_are_believed() -> None:
    directory = Directory()
    directory.apply(listing(1, 2))
    directory.apply(Removed("uid-1"))
    directory.apply(Removed("uid-2"))
    assert not directory.apply(Removed("uid-2"))
    assert numbers(directory) == set()


def test_a_change_is_told_from_a_repetition() -> None:
    directory = Directory()
    directory.apply(listing(1))
    assert not directory.apply(Changed(node(1)))
    assert directory.apply(Changed(node(1, address=7)))


def test_the_older_keeps_an_address() -> None:
    peers, problems = resolve([node(3, address=9), node(2, address=9)], None)
    assert [peer.name for peer in peers] == ["node-2"]
    assert problems == {"uid-3": "public address 192.168.50.9 is that of node-2 already"}


def test_the_older_keeps_its_pods() -> None:
    wide, narrow = node(2, subnet="10.244.0.0/20"), node(3, subnet="10.244.15.0/24")
    assert list(resolve([narrow, wide], None)[1]) == ["uid-3"]
    wide, narrow = node(3, subnet="10.244.0.0/20"), node(2, subnet="10.244.15.0/24")
    assert list(resolve([narrow, wide], None)[1]) == ["uid-3"]


def test_what_is_ours_is_never_given_up() -> None:
    own = node(5)
    peers, problems = resolve([own, node(1, subnet="10.244.5.0/24"), node(2)], own)
    assert [peer.name for peer in peers] == ["node-2"]
    assert "older than this node" in problems["uid-1"]


CLUSTERS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 7), st.integers(20, 26)), max_size=8
)


@settings(deadline=None)
@given(CLUSTERS, st.randoms(use_true_random=False))
def test_all_come_to_the_same_view(
    drawn: list[tuple[int, int, int]], shuffler: random.Random
) -> None:
    """No two peers claim the same; the order of hearing changes nothing; the oldest is in."""
    nodes = []
    for number, (address, block, length) in enumerate(drawn, 1):
        subnet = Prefix.parse(f"10.244.{block * 4}.0/{length}").network().text()
        nodes.append(node(number, address=address, subnet=subnet))
    peers, problems = resolve(nodes, None)
    assert {peer.uid for peer in peers} | problems.keys() == {each.uid for each in nodes}
    assert not {peer.uid for peer in peers} & problems.keys()
    for one, other in itertools.combinations(peers, 2):
        assert one.peer.endpoints[0].public_ip != other.peer.endpoints[0].public_ip
        mine, its = one.peer.subnets[0], other.peer.subnets[0]
        assert not mine.contains(its.packed) and not its.contains(mine.packed)
    if nodes:
        assert "uid-1" not in problems
    shuffler.shuffle(nodes)
    assert resolve(nodes, None) == (peers, problems)


def test_who_comes_and_goes_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """By events and by listings; of this node itself nothing."""
    caplog.set_level(logging.INFO)
    directory = Directory()
    directory.own = "uid-1"
    directory.apply(listing(1, 3, 2))
    directory.apply(Changed(node(4)))
    directory.apply(Changed(node(4, address=9)))
    directory.apply(listing(1, 2, 3, 4, 5, 6))
    directory.apply(Removed("uid-5"))
    directory.apply(Removed("uid-5"))
    for _ in range(2):
        directory.apply(listing(1, 2, 3, 4))
    assert caplog.messages == [
        "nodes new: node-2, node-3",
        "nodes new: node-4",
        "nodes new: node-5, node-6",
        "nodes gone: node-5",
        "a listing lacks 1 of 5 nodes: they are kept until another one confirms it",
        "nodes gone: node-6",
    ]
    caplog.clear()
    Directory().apply(listing(*range(10, 90)))
    (line,) = caplog.messages
    assert line.count("node-") == 50 and line.endswith(" and 30 more")
