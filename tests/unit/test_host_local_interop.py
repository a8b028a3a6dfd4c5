# SPDX-License-Identifier: Apache-2.0
"""host-local and Debian's Go host-local on one directory, taking turns."""

from __future__ import annotations

import pathlib

import pytest

from libcni.types.errors import CniError
from tests.rig.ipam import GO, Ipam

DUAL = [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]]


@pytest.fixture
def ipam(tmp_path: pathlib.Path) -> Ipam:
    """A dual-stack network."""
    assert GO.exists(), "apt-get install containernetworking-plugins"
    return Ipam(tmp_path, DUAL)


def test_the_files_are_the_same(tmp_path: pathlib.Path) -> None:
    ours, theirs = Ipam(tmp_path / "a", DUAL), Ipam(tmp_path / "b", DUAL)
    for n in range(5):
        assert ours.add(f"c{n}") == theirs.go_add(f"c{n}")
    ours.delete("c1")
    theirs.go("DEL", "c1")

    def files(ipam: Ipam) -> dict[str, bytes]:
        return {f.name: f.read_bytes() for f in ipam.store.iterdir() if f.is_file()}

    assert files(ours) == files(theirs)


def test_our_add_their_check_and_del(ipam: Ipam) -> None:
    ipam.add("c1")
    ipam.add("c2")
    assert ipam.go("CHECK", "c1").returncode == 0
    assert ipam.go("CHECK", "stranger").returncode == 1
    assert ipam.go("DEL", "c1").returncode == 0
    assert set(ipam.reservations().values()) == {b"c2\r\neth0"}
    assert ipam.delete("c1") == []
    with pytest.raises(CniError):
        ipam.check("c1")
    ipam.check("c2")


def test_their_add_our_check_and_del(ipam: Ipam) -> None:
    addresses = ipam.go_add("c1")
    ipam.go_add("c2")
    ipam.check("c1", "eth0", *addresses)
    ipam.check("c1")
    with pytest.raises(CniError, match="duplicate allocation"):
        ipam.add("c1")
    assert set(ipam.delete("c1")) == {a.partition("/")[0] for a in addresses}
    assert ipam.go("CHECK", "c1").returncode == 1
    assert ipam.go("CHECK", "c2").returncode == 0


def test_they_refuse_what_we_gave(ipam: Ipam) -> None:
    ipam.add("c1")
    done = ipam.go("ADD", "c1")
    assert done.returncode == 1
    assert "duplicate allocation is not allowed" in done.stdout


def test_the_round_robin_is_shared(ipam: Ipam) -> None:
    assert ipam.add("a")[0] == "10.1.2.2/24"
    assert ipam.go_add("b")[0] == "10.1.2.3/24"
    assert ipam.add("c")[0] == "10.1.2.4/24"
    ipam.delete("b")
    assert ipam.go_add("d")[0] == "10.1.2.5/24"


def test_the_range_fills_up_together(tmp_path: pathlib.Path) -> None:
    ipam = Ipam(tmp_path, "10.1.2.0/28")
    owners = [ipam.add(f"c{n}") if n % 2 else ipam.go_add(f"c{n}") for n in range(13)]
    assert len({tuple(owner) for owner in owners}) == 13
    with pytest.raises(CniError) as caught:
        ipam.add("more")
    done = ipam.go("ADD", "more")
    assert "no IP addresses available in range set: 10.1.2.1-10.1.2.14" in done.stdout
    assert "no IP addresses available in range set: 10.1.2.1-10.1.2.14" in caught.value.msg
    for n in range(13):
        if n % 2:
            ipam.go("DEL", f"c{n}")
        else:
            assert len(ipam.delete(f"c{n}")) == 1
    assert ipam.reservations() == {}


def test_our_gc_of_theirs(ipam: Ipam) -> None:
    import time

    kept = ipam.go_add("c1")
    ipam.go_add("c2")
    ipam.add("c3")
    time.sleep(0.03)
    ipam.gc(("c1", "eth0"))
    assert set(ipam.reservations()) == {a.partition("/")[0] for a in kept}


def test_ipv4_in_ipv6_is_ipv4_for_both(tmp_path: pathlib.Path) -> None:
    ranges = [[{"subnet": "::ffff:10.1.2.0/120"}]]
    ours, theirs = Ipam(tmp_path / "a", ranges), Ipam(tmp_path / "b", ranges)
    done = theirs.go("ADD", "c1")
    if done.returncode == 0:
        assert ours.add("c1")[0].partition("/")[0] == "10.1.2.2"
    else:
        assert ours.add("c1") == ["10.1.2.2/24"]


@pytest.mark.parametrize(
    "ranges",
    [
        [[{"subnet": "10.1.2.0/31"}]],
        [[{"subnet": "10.1.2.5/24"}]],
        [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.5"}]],
        [[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.5"}]],
        [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.5"}]],
        [[{"subnet": "10.1.2.0/24"}, {"subnet": "2001:db8::/64"}]],
        [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.1.2.128/25"}]],
        [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.0.0/16"}]],
        [[]],
        [],
    ],
)
def test_both_refuse_the_same_ranges_in_like_words(tmp_path: pathlib.Path, ranges: object) -> None:
    import json

    ipam = Ipam(tmp_path, ranges)  # type: ignore[arg-type]
    done = ipam.go("ADD", "c1")
    assert done.returncode == 1
    with pytest.raises(CniError) as caught:
        ipam.add("c1")
    theirs = json.loads(done.stdout)["msg"].rpartition(": ")[2]
    ours = f"{caught.value.msg} {caught.value.details}"
    assert theirs in ours
