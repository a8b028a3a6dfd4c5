# SPDX-License-Identifier: Apache-2.0
"""Ranges of host-local, with netaddr as the oracle."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import netaddr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_host_local.config import Config, _restrict
from cni_host_local.ranges import RangeSet
from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import CniError
from tests.rig.ipam import Ipam


@st.composite
def subnets(draw: st.DrawFn, size: int = 4) -> netaddr.IPNetwork:
    """A subnet of at most 256 addresses."""
    if size == 4:
        length, bits, base = draw(st.integers(24, 30)), 32, 0x0A000000
    else:
        length, bits, base = draw(st.integers(120, 126)), 128, 0x20010DB8 << 96
    value = base + (draw(st.integers(0, 3)) << 8) + draw(st.integers(0, 255))
    network = netaddr.IPNetwork(
        f"{netaddr.IPAddress(value, 4 if bits == 32 else 6)}/{length}"
    ).cidr
    return network


@st.composite
def ranges(draw: st.DrawFn, size: int = 4) -> dict[str, str]:
    """A range, with each key given or not."""
    subnet = draw(subnets(size))
    document = {"subnet": str(subnet)}
    low, high = subnet.first, subnet.last
    if draw(st.booleans()):
        low = draw(st.integers(low, high))
        document["rangeStart"] = str(netaddr.IPAddress(low, subnet.version))
    if draw(st.booleans()):
        high = draw(st.integers(low, high))
        document["rangeEnd"] = str(netaddr.IPAddress(high, subnet.version))
    if draw(st.booleans()):
        gateway = draw(st.integers(subnet.first, subnet.last))
        document["gateway"] = str(netaddr.IPAddress(gateway, subnet.version))
    return document


def members(document: dict[str, str]) -> netaddr.IPSet:
    """The range as the reference defines it, the oracle's way."""
    subnet = netaddr.IPNetwork(document["subnet"])
    last = subnet.last - 1 if subnet.version == 4 else subnet.last
    start = document.get("rangeStart", str(netaddr.IPAddress(subnet.first + 1, subnet.version)))
    end = document.get("rangeEnd", str(netaddr.IPAddress(last, subnet.version)))
    if int(netaddr.IPAddress(start)) > int(netaddr.IPAddress(end)):
        return netaddr.IPSet()
    return netaddr.IPSet(netaddr.IPRange(start, end))


def usable(documents: list[dict[str, str]], exclude: list[str]) -> netaddr.IPSet:
    """What may be given out, the oracle's way."""
    found = netaddr.IPSet()
    for document in documents:
        subnet = netaddr.IPNetwork(document["subnet"])
        one = members(document)
        one.remove(netaddr.IPAddress(subnet.first, subnet.version))
        if subnet.version == 4:
            one.remove(netaddr.IPAddress(subnet.last, 4))
        found |= one
    for document in documents:
        subnet = netaddr.IPNetwork(document["subnet"])
        default = str(netaddr.IPAddress(subnet.first + 1, subnet.version))
        found.remove(netaddr.IPAddress(document.get("gateway", default)))
    for text in exclude:
        found.remove(netaddr.IPNetwork(text))
    return found


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[dict[str, str]], list[str]]:
    """A range set and an exclude list of one family."""
    size = draw(st.sampled_from([4, 16]))
    documents = draw(st.lists(ranges(size), min_size=1, max_size=3))
    exclude = [
        f"{n.network}/{n.prefixlen + draw(st.integers(0, 4))}"
        for n in draw(st.lists(subnets(size), max_size=3))
        if n.prefixlen + 4 <= size * 8
    ]
    return documents, exclude


def build(documents: list[dict[str, str]], exclude: list[str]) -> RangeSet:
    """A restricted range set, as `config.load` makes it."""
    pool = RangeSet(documents)
    prefixes = [Prefix.parse(text).network() for text in exclude]
    _restrict(Config("", [pool], prefixes, [], [], ""))
    return pool


@given(pools())
@settings(max_examples=300, deadline=None)
def test_spans_are_what_netaddr_says(case: tuple[list[dict[str, str]], list[str]]) -> None:
    documents, exclude = case
    sets = [members(document) for document in documents]
    disjoint = all(a.isdisjoint(b) for i, a in enumerate(sets) for b in sets[:i]) and all(
        s.size for s in sets
    )
    try:
        pool = build(documents, exclude)
    except CniError as error:
        assert not disjoint, error
        return
    assert disjoint
    expected = {str(ip) for ip in usable(documents, exclude)}
    given_out = [one.address(value) for value, one in pool.from_last(None)]
    assert len(given_out) == len(set(given_out)) == pool.capacity()
    assert set(given_out) == expected
    assert all(pool.offers(pton(text)) for text in expected)
    for value, one in pool.from_last(None):
        assert one.contains(value.to_bytes(one.size, "big"))


@given(pools(), st.data())
@settings(max_examples=300, deadline=None)
def test_round_robin_visits_all_and_starts_after_the_last(
    case: tuple[list[dict[str, str]], list[str]], data: st.DataObject
) -> None:
    documents, exclude = case
    try:
        pool = build(documents, exclude)
    except CniError:
        return
    everything = [one.address(value) for value, one in pool.from_last(None)]
    inside = [ntop(pton(str(ip))) for document in documents for ip in members(document)]
    last = data.draw(st.sampled_from([*inside, "192.0.2.1", "::1"]))
    order = [one.address(value) for value, one in pool.from_last(pton(last))]
    assert sorted(order) == sorted(everything)
    if last in everything:
        start = everything.index(last) + 1
        assert order == everything[start:] + everything[:start]


@given(pools(), st.data())
@settings(max_examples=60, deadline=None)
def test_an_empty_store_gives_out_exactly_these_before_it_is_exhausted(
    case: tuple[list[dict[str, str]], list[str]], data: st.DataObject
) -> None:
    documents, exclude = case
    try:
        build(documents, exclude)
    except CniError:
        return
    expected = {str(ip) for ip in usable(documents, exclude)}
    if len(expected) > 24:
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        ipam = Ipam(pathlib.Path(directory), [documents], exclude=exclude)
        found = [ipam.add(f"c{n}")[0].partition("/")[0] for n in range(len(expected))]
        assert set(found) == expected
        if not expected:
            for call in (lambda: ipam.add("one"), ipam.status):
                with pytest.raises(CniError, match=r"ipam\.ranges\[0\]: .* no address") as caught:
                    call()
                assert caught.value.code == 7
            return
        with pytest.raises(CniError, match="no IP addresses available") as caught:
            ipam.add("more")
        assert caught.value.code == 100
        assert f"all {len(expected)} are reserved" in caught.value.details
        victim = data.draw(st.integers(0, len(expected) - 1))
        ipam.delete(f"c{victim}")
        assert ipam.add("again")[0].partition("/")[0] == found[victim]


@pytest.mark.parametrize("subnet", ["2001:db8::/64", "10.0.0.0/8", "::/0", "fd00::/8"])
def test_huge_ranges_are_not_enumerated(tmp_path: pathlib.Path, subnet: str) -> None:
    ipam = Ipam(tmp_path, subnet)
    ipam.status()
    base = Prefix.parse(subnet).packed
    for n in (2, 3, 4):
        expected = ntop((int.from_bytes(base, "big") + n).to_bytes(len(base), "big"))
        assert ipam.add(f"c{n}")[0].partition("/")[0] == expected
    # Behind a run of taken ones the listing takes over.
    for n in range(5, 40):
        name = ntop((int.from_bytes(base, "big") + n).to_bytes(len(base), "big"))
        (ipam.store / name).write_text("x\r\neth0")
    expected = ntop((int.from_bytes(base, "big") + 40).to_bytes(len(base), "big"))
    assert ipam.add("next")[0].partition("/")[0] == expected
    ipam.status()


@given(
    st.one_of(
        st.integers(0, 2**32 - 1).map(lambda n: str(netaddr.IPAddress(n, 4))),
        # Not the deprecated ::a.b.c.d, which libc and Go write differently.
        st.integers(2**64, 2**128 - 1).map(lambda n: str(netaddr.IPAddress(n, 6))),
    )
)
def test_file_names_are_the_text_that_go_writes(text: str) -> None:
    from cni_host_local.scan import address_of

    assert ntop(pton(text)) == text
    assert address_of(text) == pton(text)


@pytest.mark.parametrize(
    "name", ["lock", "last_reserved_ip.0", ".owners", "10.1.2", "abcdef", "10.1.2.3x", "1.2.3.04"]
)
def test_other_names_are_no_addresses(name: str) -> None:
    from cni_host_local.scan import address_of

    assert address_of(name) is None


def test_several_ranges_in_one_pool_wrap_around(tmp_path: pathlib.Path) -> None:
    pool: Any = [{"subnet": "10.1.2.0/30"}, {"subnet": "10.9.2.0/30"}, {"subnet": "10.5.2.0/30"}]
    ipam = Ipam(tmp_path, [pool])
    assert [ipam.add(c)[0] for c in "abc"] == ["10.1.2.2/30", "10.9.2.2/30", "10.5.2.2/30"]
    ipam.delete("b")
    ipam.delete("a")
    assert ipam.add("d") == ["10.1.2.2/30"]
    assert ipam.add("e") == ["10.9.2.2/30"]
