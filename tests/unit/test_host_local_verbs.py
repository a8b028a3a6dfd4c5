# SPDX-License-Identifier: Apache-2.0
"""host-local in process, on a real directory: each verb and what it says when it refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import posix
import stat
from typing import Any

import pytest

import libcni.fs
from cni_host_local import index, store
from libcni.types.errors import CniError
from tests.rig.ipam import Ipam


@pytest.fixture(params=["disk", "tmpfs"])
def directory(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Any:
    """A dataDir on the disk's file system, and one on tmpfs."""
    if request.param == "disk":
        yield tmp_path / "networks"
        return
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield pathlib.Path(name)


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Any:
    """A function that reboots."""
    file = tmp_path / "boot_id"
    number = 0

    def reboot() -> None:
        nonlocal number
        number += 1
        file.write_text(f"boot-{number}\n")

    reboot()
    monkeypatch.setattr(index, "BOOT_ID", str(file))
    return reboot


def is_complete(ipam: Ipam) -> bool:
    """True when the index bears the stamp."""
    fd = posix.open(str(ipam.store), posix.O_RDONLY)
    try:
        return index.Index(fd).complete
    finally:
        posix.close(fd)


# -- ADD and DEL -------------------------------------------------------------------------------


def test_add_gives_an_address_of_each_range_set_and_writes_gos_files(
    directory: pathlib.Path,
) -> None:
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]])
    assert ipam.add("c1") == ["10.1.2.2/24", "2001:db8:1::2/64"]
    assert ipam.reservations() == {
        "10.1.2.2": b"c1\r\neth0",
        "2001:db8:1::2": b"c1\r\neth0",
    }
    assert (ipam.store / "last_reserved_ip.0").read_text() == "10.1.2.2"
    assert (ipam.store / "last_reserved_ip.1").read_text() == "2001:db8:1::2"
    assert stat.S_IMODE((ipam.store / "10.1.2.2").stat().st_mode) == 0o600
    assert is_complete(ipam)


def test_result_has_gateway_routes_and_dns(tmp_path: pathlib.Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "# a comment\n; another\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
        "domain example.org\nsearch a.example b.example\nsearch c.example\n"
        "options ndots:2 rotate\nlonely\n"
    )
    ipam = Ipam(
        tmp_path,
        [[{"subnet": "10.1.2.0/24", "gateway": "10.1.2.254", "rangeStart": ""}]],
        resolvConf=str(conf),
        routes=[
            {"dst": "0.0.0.0/0"},
            {"dst": "10.9.0.0/16", "gw": "10.1.2.9", "mtu": 1400, "table": 7, "scope": 0},
        ],
    )
    from cni_host_local.add import add

    document = add(ipam.request("ADD", "c1")).to_json("1.1.0")
    assert document["ips"] == [{"address": "10.1.2.1/24", "gateway": "10.1.2.254"}]
    assert document["routes"] == [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.0.0/16", "gw": "10.1.2.9", "mtu": 1400, "table": 7, "scope": 0},
    ]
    assert document["dns"] == {
        "nameservers": ["192.0.2.1", "192.0.2.2"],
        "domain": "example.org",
        "search": ["a.example", "b.example", "c.example"],
        "options": ["ndots:2", "rotate"],
    }
    assert "interfaces" not in document


def test_unreadable_resolv_conf_fails_before_anything_is_made(tmp_path: pathlib.Path) -> None:
    ipam = Ipam(tmp_path, resolvConf=str(tmp_path / "missing"))
    with pytest.raises(CniError, match=r"resolvConf .*missing: No such file") as caught:
        ipam.add("c1")
    assert caught.value.code == 5
    assert not ipam.store.exists()


def test_round_robin_does_not_reuse_an_address_at_once(directory: pathlib.Path) -> None:
    ipam = Ipam(directory, "10.1.2.0/29")
    assert ipam.add("a") == ["10.1.2.2/29"]
    assert ipam.delete("a") == ["10.1.2.2"]
    assert [ipam.add(c)[0] for c in "bcdef"] == [f"10.1.2.{n}/29" for n in (3, 4, 5, 6, 2)]


@pytest.mark.parametrize("garbage", [b"", b"10.1.2.", b"\0\0\0", b"\xff", b"10.9.9.9"])
def test_a_torn_last_reserved_ip_costs_only_the_round_robin(
    directory: pathlib.Path, garbage: bytes
) -> None:
    ipam = Ipam(directory)
    ipam.add("a")
    (ipam.store / "last_reserved_ip.0").write_bytes(garbage)
    assert ipam.add("b") == ["10.1.2.3/24"]


def test_last_reserved_ip_gets_shorter(directory: pathlib.Path) -> None:
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9"}]])
    ipam.add("a", runtimeConfig={"ips": ["10.1.2.200"]})
    ipam.add("b", runtimeConfig={"ips": ["10.1.2.9"]})
    assert (ipam.store / "last_reserved_ip.0").read_text() == "10.1.2.9"


def test_each_interface_has_its_own_address(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    assert ipam.add("c1", "eth0") != ipam.add("c1", "eth1")
    assert ipam.delete("c1", "eth0") == ["10.1.2.2"]
    assert list(ipam.reservations()) == ["10.1.2.3"]


def test_del_is_idempotent_and_knows_strangers(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    assert ipam.delete("c2") == []
    assert ipam.delete("c1") == ["10.1.2.2"]
    assert ipam.delete("c1") == []
    assert list((ipam.store / ".owners").iterdir()) == []
    assert is_complete(ipam)


def test_del_without_a_store_makes_none(tmp_path: pathlib.Path) -> None:
    ipam = Ipam(tmp_path / "never")
    assert ipam.delete("c1") == []
    assert not (tmp_path / "never").exists()
    (tmp_path / "never").write_text("a file")
    assert ipam.delete("c1") == []


def test_del_needs_no_valid_ranges(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    for ipam_config in (
        {"dataDir": str(directory), "ranges": [[{"subnet": "nonsense"}]]},
        {"dataDir": str(directory), "ranges": 7, "routes": "x", "resolvConf": []},
    ):
        ipam.config["ipam"] = ipam_config
        ipam.delete("c1")
        assert ipam.reservations() == {}


def test_duplicate_add_is_refused_with_owner_and_hint(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    before = ipam.reservations()
    request = ipam.request("ADD", "c1")
    from cni_host_local.add import add

    with pytest.raises(CniError) as caught:
        add(request)
    request.undo.run_nested()
    assert caught.value.code == 101
    assert (
        "10.1.2.2 has been allocated to c1, duplicate allocation is not allowed"
        in caught.value.msg
    )
    assert "call DEL for container c1 interface eth0 first" in caught.value.details
    assert ipam.reservations() == before


def test_the_undo_stack_releases_what_this_add_made_and_nothing_else(
    directory: pathlib.Path,
) -> None:
    from cni_host_local.add import add

    ipam = Ipam(directory)
    ipam.add("c1", "eth1")
    request = ipam.request("ADD", "c1")
    add(request)
    request.undo.run_nested()
    assert list(ipam.reservations()) == ["10.1.2.2"]
    assert is_complete(ipam)


def test_a_range_set_that_fails_releases_those_before_it(directory: pathlib.Path) -> None:
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/30"}]])
    ipam.add("a")
    before = ipam.reservations()
    with pytest.raises(CniError) as caught:
        ipam.add("b")
    assert caught.value.code == 100
    assert caught.value.msg == (
        "failed to allocate for range 1: no IP addresses available in range set: 10.1.3.1-10.1.3.2"
    )
    assert "all 1 are reserved" in caught.value.details
    assert ipam.reservations() == before
    assert is_complete(ipam)


@pytest.mark.parametrize("overwritten", ["10.1.2.2", "2001:db8:1::2"])
def test_who_overwrites_one_reservation_does_not_take_the_other(
    directory: pathlib.Path, overwritten: str
) -> None:
    """In place, so that the directory tells nothing; DEL releases what is still the owner's."""
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]])
    ipam.add("c1")
    (ipam.store / overwritten).write_bytes(b"c2\r\neth0")
    [other] = set(ipam.reservations()) - {overwritten}
    assert ipam.delete("c1") == [other]
    assert ipam.reservations() == {overwritten: b"c2\r\neth0"}


def test_one_reservation_for_all_interfaces_of_very_old_files(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("other")
    (ipam.store / "10.1.2.7").write_text("c1")
    (ipam.store / "10.1.2.8").write_text(" c1 \n")
    ipam.check("c1", "eth5", "10.1.2.7/24")
    with pytest.raises(CniError, match="duplicate allocation"):
        ipam.add("c1")
    assert sorted(ipam.delete("c1")) == ["10.1.2.7", "10.1.2.8"]


def test_del_prefers_the_interface_to_the_bare_container(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    (ipam.store / "10.1.2.9").write_text("c1")
    assert ipam.delete("c1") == ["10.1.2.2"]
    assert ipam.delete("c1") == ["10.1.2.9"]


# -- requested addresses -----------------------------------------------------------------------


def test_requested_addresses_of_all_sources_accumulate(directory: pathlib.Path) -> None:
    ipam = Ipam(
        directory,
        [
            [{"subnet": "10.1.2.0/24"}],
            [{"subnet": "10.1.3.0/24"}],
            [{"subnet": "2001:db8::/64"}],
        ],
    )
    addresses = ipam.add(
        "c1",
        args="IP=10.1.2.88;IgnoreUnknown=1;K8S_POD_NAME=x",
        runtimeConfig={"ips": ["2001:db8::88/64", "10.1.3.88"]},
    )
    assert addresses == ["10.1.2.88/24", "10.1.3.88/24", "2001:db8::88/64"]


def test_args_cni_ips(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.config["args"] = {"cni": {"ips": ["10.1.2.77"]}}
    assert ipam.add("c1") == ["10.1.2.77/24"]


@pytest.mark.parametrize(
    ("wanted", "code", "text"),
    [
        ("10.1.2.1", 7, "requested ip 10.1.2.1 is subnet's gateway"),
        ("10.1.2.2", 101, "requested IP address 10.1.2.2 is not available in range set"),
        ("10.1.2.50", 7, "requested ip 10.1.2.50 is never given out; ipam.exclude names it"),
        ("10.9.9.9", 7, "failed to allocate all requested IPs: 10.9.9.9"),
        ("10.1.2.300", 7, r"runtimeConfig.ips\[0\]: cannot understand ip"),
    ],
)
def test_requested_address_refused(
    directory: pathlib.Path, wanted: str, code: int, text: str
) -> None:
    ipam = Ipam(directory, exclude=["10.1.2.48/29"])
    ipam.add("owner")
    before = ipam.reservations()
    with pytest.raises(CniError, match=text) as caught:
        ipam.add("c1", runtimeConfig={"ips": [wanted]})
    assert caught.value.code == code
    assert ipam.reservations() == before
    if code == 101:
        assert "container owner interface eth0" in caught.value.details


def test_bad_ip_in_cni_args_is_code_4(directory: pathlib.Path) -> None:
    with pytest.raises(CniError, match=r"CNI_ARGS: IP: .*10.1.2.x") as caught:
        Ipam(directory).add("c1", args="IP=10.1.2.x")
    assert caught.value.code == 4
    assert not directory.exists() or not list(directory.iterdir())


# -- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ([], "no IP ranges specified"),
        ([[]], "invalid range set 0: empty range set"),
        ([[{"subnet": "10.1.2.0/31"}]], "Network 10.1.2.0/31 too small to allocate from"),
        ([[{"subnet": "2001:db8::/127"}]], "too small"),
        (
            [[{"subnet": "10.1.2.5/24"}]],
            "Network has host bits set. For a subnet mask of length 24 the network address is "
            "10.1.2.0",
        ),
        (
            [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.5"}]],
            "RangeStart 10.1.3.5 not in network 10.1.2.0/24",
        ),
        (
            [[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.5"}]],
            "RangeEnd 10.1.3.5 not in network 10.1.2.0/24",
        ),
        (
            [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.50", "rangeEnd": "10.1.2.40"}]],
            "RangeStart 10.1.2.50 is after RangeEnd 10.1.2.40 in network 10.1.2.0/24",
        ),
        (
            [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.255"}]],
            "RangeStart 10.1.2.255 is after the last address, 10.1.2.254, in network 10.1.2.0/24",
        ),
        (
            [[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.0"}]],
            "RangeEnd 10.1.2.0 is before the first address, 10.1.2.1, in network 10.1.2.0/24",
        ),
        ([[{"subnet": "10.1.2.0/24"}, {"subnet": "2001:db8::/64"}]], "mixed address families"),
        (
            [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.1.2.128/25"}]],
            "subnets 10.1.2.1-10.1.2.254 and 10.1.2.129-10.1.2.254 overlap",
        ),
        (
            [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.0.0/16"}]],
            "range set 0 overlaps with 1",
        ),
        ([[{"subnet": "10.1.2.0/24", "gateway": "x"}]], "invalid IP address 'x'"),
    ],
)
def test_bad_ranges(tmp_path: pathlib.Path, ranges: Any, text: str) -> None:
    ipam = Ipam(tmp_path, ranges)
    for call in (lambda: ipam.add("c1"), ipam.status, lambda: ipam.check("c1")):
        with pytest.raises(CniError) as caught:
            call()
        assert caught.value.code == 7
        assert text in str(caught.value)
    assert not ipam.store.exists()


def test_runtime_ranges_come_first_then_the_old_style(tmp_path: pathlib.Path) -> None:
    ipam = Ipam(tmp_path, "10.1.2.0/24", subnet="10.1.3.0/24", rangeStart="10.1.3.77")
    addresses = ipam.add("c1", runtimeConfig={"ipRanges": [[{"subnet": "10.1.4.0/24"}]]})
    assert addresses == ["10.1.4.2/24", "10.1.3.77/24", "10.1.2.2/24"]


def test_old_versions_take_one_address_per_family(tmp_path: pathlib.Path) -> None:
    ipam = Ipam(
        tmp_path,
        [
            [{"subnet": "10.1.2.0/24"}],
            [{"subnet": "2001:db8::/64"}],
            [{"subnet": "10.1.3.0/24"}],
        ],
    )
    with pytest.raises(CniError, match=r"CNI version 0.2.0 does not support more than 1 address"):
        ipam.add("c1", version="0.2.0")
    ipam.config["ipam"]["ranges"].pop()
    assert len(ipam.add("c1", version="0.2.0")) == 2


def test_network_and_broadcast_are_not_given_out_though_named(tmp_path: pathlib.Path) -> None:
    whole = {"subnet": "10.1.2.0/30", "rangeStart": "10.1.2.0", "rangeEnd": "10.1.2.3"}
    ipam = Ipam(tmp_path, [[whole]])
    assert ipam.add("a") == ["10.1.2.2/30"]
    with pytest.raises(CniError, match="no IP addresses"):
        ipam.add("b")


def test_a_gateway_of_any_range_is_skipped(tmp_path: pathlib.Path) -> None:
    ipam = Ipam(
        tmp_path,
        [
            [{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10", "rangeEnd": "10.1.2.12"}],
            [
                {
                    "subnet": "10.1.2.0/24",
                    "rangeStart": "10.1.2.20",
                    "rangeEnd": "10.1.2.21",
                    "gateway": "10.1.2.10",
                }
            ],
        ],
    )
    assert ipam.add("a") == ["10.1.2.11/24", "10.1.2.20/24"]


# -- CHECK -------------------------------------------------------------------------------------


def test_check(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    with pytest.raises(CniError, match="Failed to find address added by container c1"):
        ipam.check("c1")
    ipam.add("c1")
    ipam.add("c2")
    ipam.check("c1")
    ipam.check("c1", "eth0", "10.1.2.2/24", "192.0.2.1/32")
    with pytest.raises(CniError, match=r"10.1.2.2 of prevResult .* container c2 interface eth0"):
        ipam.check("c2", "eth0", "10.1.2.3/24", "10.1.2.2/24")
    with pytest.raises(CniError, match="has no reservation"):
        ipam.check("c1", "eth0", "10.1.2.200/24")
    (ipam.store / "10.1.2.2").write_bytes(b"")
    with pytest.raises(CniError, match="reservation is empty") as caught:
        ipam.check("c1", "eth0", "10.1.2.2/24")
    assert caught.value.code == 103
    with pytest.raises(CniError, match="Failed to find"):
        ipam.check("c1")


# -- STATUS ------------------------------------------------------------------------------------


def test_status(directory: pathlib.Path) -> None:
    ipam = Ipam(directory, [[{"subnet": "2001:db8::/64"}], [{"subnet": "10.1.2.0/30"}]])
    ipam.status()
    assert not ipam.store.exists()
    ipam.add("c1")
    with pytest.raises(CniError) as caught:
        ipam.status()
    assert caught.value.code == 50
    assert "range set: 10.1.3.1" not in caught.value.msg
    assert "no IP addresses available in range set: 10.1.2.1-10.1.2.2" in caught.value.msg
    assert "1 of 1 addresses are reserved" in caught.value.details
    ipam.delete("c1")
    ipam.status()


def test_status_of_a_datadir_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CniError, match=r"dataDir: .*Not a directory") as caught:
        Ipam(tmp_path / "file").status()
    assert caught.value.code == 50


# -- GC ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_keeps_what_is_listed(directory: pathlib.Path, key: str) -> None:
    ipam = Ipam(directory)
    for owner in ("c1", "c2", "c3"):
        ipam.add(owner)
    ipam.add("c1", "eth1")
    (ipam.store / "10.1.2.100").write_text("c1")
    (ipam.store / "10.1.2.101").write_text("c9")
    (ipam.store / "10.1.2.102").write_bytes(b"")
    (ipam.store / "10.1.2.103").write_bytes(b"\0\0\0\0")
    (ipam.store / "notes").write_text("c9\r\neth0")
    (ipam.store / ".owners" / "junk").write_text("x")
    settle(ipam)
    ipam.gc(("c1", "eth0"), ("c3", "eth0"), ("c7", "eth0"), key=key)
    assert sorted(ipam.reservations()) == ["10.1.2.100", "10.1.2.2", "10.1.2.4", "notes"]
    assert len(list((ipam.store / ".owners").iterdir())) == 3
    assert is_complete(ipam)
    ipam.gc()
    assert list(ipam.reservations()) == ["notes"]
    assert (ipam.store / "last_reserved_ip.0").exists()


def settle(ipam: Ipam) -> None:
    """Wait until GC takes what there is for older than itself (its tolerance is 10 ms)."""
    import time

    time.sleep(0.03)


def test_gc_without_the_key_removes_nothing(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    settle(ipam)
    from cni_host_local.gc import gc

    with pytest.raises(CniError, match=r"cni.dev/valid-attachments is missing") as caught:
        gc(ipam.request("GC"))
    assert caught.value.code == 7
    with pytest.raises(CniError):
        malformed: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": 3}]}
        gc(ipam.request("GC", **malformed))
    assert len(ipam.reservations()) == 1


def test_gc_without_a_store(tmp_path: pathlib.Path) -> None:
    Ipam(tmp_path / "never").gc()
    assert not (tmp_path / "never").exists()


def test_gc_goes_on_after_an_error_and_reports(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipam = Ipam(directory)
    for owner in ("c1", "c2", "c3"):
        ipam.add(owner)
    settle(ipam)
    unlink = posix.unlink

    def stubborn(path: str, *, dir_fd: int | None = None) -> None:
        if path == "10.1.2.3":
            raise OSError(errno.EPERM, "")
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(posix, "unlink", stubborn)
    with pytest.raises(CniError, match=r"1 reservations could not be removed.*10.1.2.3: ") as e:
        ipam.gc()
    assert e.value.code == 5
    assert list(ipam.reservations()) == ["10.1.2.3"]
    monkeypatch.undo()
    assert ipam.delete("c2") == ["10.1.2.3"]


def test_gc_leaves_what_was_reserved_after_it_began(directory: pathlib.Path) -> None:
    import time

    from cni_host_local.scan import collect

    ipam = Ipam(directory)
    ipam.add("old")
    settle(ipam)
    since = time.time()
    time.sleep(0.03)
    ipam.add("new")
    opened = store.Store.open(str(ipam.store))
    assert opened is not None
    with opened:
        assert collect(opened, set(), since) == []
    assert list(ipam.reservations().values()) == [b"new\r\neth0"]


# -- boots and crashes -------------------------------------------------------------------------


def fill(ipam: Ipam, prefix: str) -> int:
    """ADD until the range is used up; how many there were."""
    count = 0
    while True:
        try:
            ipam.add(f"{prefix}{count}")
        except CniError as error:
            assert error.code == 100
            return count
        count += 1


def test_reservations_of_an_earlier_boot_are_reclaimed_when_full(
    directory: pathlib.Path, boot: Any, capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    ipam = Ipam(directory, "10.1.2.0/29")
    ipam.netns = "/run/netns/gone-for-ever"
    assert fill(ipam, "a") == 5
    with pytest.raises(CniError):
        ipam.status()
    boot()
    ipam.status()
    assert ipam.add("new")[0].endswith("/29")
    assert "reserved in an earlier boot" in capfd.readouterr().err
    assert set(ipam.reservations().values()) == {b"new\r\neth0"}


def test_not_while_the_namespace_is_there(
    directory: pathlib.Path, boot: Any, tmp_path: pathlib.Path
) -> None:
    ipam = Ipam(directory, "10.1.2.0/29")
    ipam.netns = str(tmp_path)
    fill(ipam, "a")
    boot()
    with pytest.raises(CniError, match="no IP addresses available"):
        ipam.add("new")
    with pytest.raises(CniError, match="is not available"):
        ipam.add("new", runtimeConfig={"ips": ["10.1.2.3"]})


def test_never_within_the_same_boot(directory: pathlib.Path, boot: Any) -> None:
    ipam = Ipam(directory, "10.1.2.0/29")
    ipam.netns = "/run/netns/gone-for-ever"
    fill(ipam, "a")
    with pytest.raises(CniError) as caught:
        ipam.add("new")
    assert caught.value.code == 100
    assert len(ipam.reservations()) == 5


def test_a_process_of_that_number_does_not_make_a_namespace_alive(
    directory: pathlib.Path, boot: Any
) -> None:
    ipam = Ipam(directory, "10.1.2.0/30")
    ipam.netns = f"/proc/{os.getpid()}/ns/net"
    fill(ipam, "a")
    boot()
    ipam.add("new")


def test_what_go_reserved_in_this_boot_is_safe_until_the_next(
    directory: pathlib.Path, boot: Any
) -> None:
    ipam = Ipam(directory, "10.1.2.0/30")
    ipam.store.mkdir(parents=True)
    (ipam.store / "10.1.2.2").write_text("c1\r\neth0")
    for _ in range(2):
        with pytest.raises(CniError, match="no IP addresses available"):
            ipam.add("new")
    boot()
    ipam.add("new")


def test_a_reservation_made_again_by_go_is_of_this_boot(
    directory: pathlib.Path, boot: Any
) -> None:
    ipam = Ipam(directory, "10.1.2.0/30")
    ipam.add("c1")
    boot()
    (ipam.store / "10.1.2.2").unlink()
    (ipam.store / "10.1.2.2").write_text("c1\r\neth0")
    with pytest.raises(CniError, match="no IP addresses available"):
        ipam.add("new")


def test_both_addresses_of_a_dead_owner_are_reclaimed(directory: pathlib.Path, boot: Any) -> None:
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/30"}], [{"subnet": "2001:db8::/64"}]])
    ipam.add("c1")
    boot()
    ipam.add("c2")
    assert set(ipam.reservations().values()) == {b"c2\r\neth0"}


def test_the_same_owner_after_a_boot_replaces_its_reservation(
    directory: pathlib.Path, boot: Any
) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    boot()
    assert ipam.add("c1") == ["10.1.2.3/24"]
    assert list(ipam.reservations()) == ["10.1.2.3"]
    with pytest.raises(CniError, match="duplicate allocation"):
        ipam.add("c1")


def test_a_requested_address_of_an_earlier_boot_is_taken_over(
    directory: pathlib.Path, boot: Any
) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    boot()
    assert ipam.add("c2", runtimeConfig={"ips": ["10.1.2.2"]}) == ["10.1.2.2/24"]


def test_empty_reservations_are_reclaimed_when_full_and_old(directory: pathlib.Path) -> None:
    ipam = Ipam(directory, "10.1.2.0/30")
    ipam.store.mkdir(parents=True)
    empty = ipam.store / "10.1.2.2"
    empty.write_bytes(b"")
    with pytest.raises(CniError, match="no IP addresses available"):
        ipam.add("c1")
    os.utime(empty, (1, 1))
    ipam.status()
    assert ipam.add("c1") == ["10.1.2.2/30"]


def test_without_a_boot_id_nothing_is_of_an_earlier_boot(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, boot: Any
) -> None:
    ipam = Ipam(directory, "10.1.2.0/30")
    ipam.add("c1")
    monkeypatch.setattr(index, "BOOT_ID", "/nowhere")
    with pytest.raises(CniError, match="no IP addresses available"):
        ipam.add("c2")
    assert ipam.delete("c1") == ["10.1.2.2"]


# -- the index is a hint -----------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["remove", "empty", "garbage", "all", "one", "stranger"])
def test_whatever_happens_to_the_index_del_finds_its_reservation(
    directory: pathlib.Path, damage: str
) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    ipam.add("c2")
    folder = ipam.store / ".owners"
    mine = folder / index.file_of(b"c1\r\neth0")
    other = folder / index.file_of(b"c2\r\neth0")
    if damage == "remove":
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    elif damage == "all":
        for file in folder.iterdir():
            file.unlink()
    elif damage == "one":
        mine.unlink()
    elif damage == "stranger":
        other.rename(mine)
    else:
        mine.write_bytes(b"" if damage == "empty" else b"\xff\0\n\n x\n")
    assert ipam.delete("c1") == ["10.1.2.2"]
    assert ipam.delete("c2") == ["10.1.2.3"]
    assert ipam.reservations() == {}
    assert list(folder.iterdir()) == []


def test_del_does_not_say_released_of_what_it_could_not_read(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    ipam.add("c2")
    opening = posix.open

    def failing(path: str, *args: Any, **keywords: Any) -> int:
        if path.endswith("10.1.2.2"):
            raise OSError(errno.EIO, "")
        return opening(path, *args, **keywords)

    monkeypatch.setattr(posix, "open", failing)
    with pytest.raises(CniError, match=r"cannot read .*10.1.2.2: Input/output error"):
        ipam.delete("c1")
    os.utime(ipam.store)
    assert ipam.delete("c2") == ["10.1.2.3"]
    assert not is_complete(ipam)
    monkeypatch.undo()
    assert ipam.delete("c1") == ["10.1.2.2"]


def test_a_copied_tree_has_no_stamp(tmp_path: pathlib.Path) -> None:
    import subprocess

    ipam = Ipam(tmp_path / "one")
    ipam.add("c1")
    subprocess.run(["cp", "-a", tmp_path / "one", tmp_path / "two"], check=True)
    copy = Ipam(tmp_path / "two")
    assert not is_complete(copy)
    assert copy.delete("c1") == ["10.1.2.2"]


def test_another_boot_takes_the_stamp_off(directory: pathlib.Path, boot: Any) -> None:
    """A power loss may have cost files of the index while the times of directories are kept."""
    ipam = Ipam(directory)
    ipam.add("c1")
    folder = ipam.store / ".owners"
    stamp = folder.stat().st_mtime_ns
    (folder / index.file_of(b"c1\r\neth0")).unlink()
    os.utime(folder, ns=(stamp, stamp))
    assert is_complete(ipam)
    boot()
    assert not is_complete(ipam)
    assert ipam.delete("c1") == ["10.1.2.2"]


def test_changes_by_others_take_the_stamp_off(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    assert is_complete(ipam)
    (ipam.store / "10.1.2.9").write_text("c9\r\neth0")
    assert not is_complete(ipam)
    assert ipam.delete("c9") == ["10.1.2.9"]
    assert is_complete(ipam)


def test_no_scan_while_the_stamp_holds(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cni_host_local import scan

    ipam = Ipam(directory)
    ipam.add("c1")

    def never(store: Any) -> None:
        raise AssertionError("scanned")

    monkeypatch.setattr(scan, "rebuild", never)
    ipam.add("c2")
    ipam.delete("c1")
    ipam.check("c2")
    ipam.delete("c1")
    with pytest.raises(CniError):
        ipam.add("c2")
    ipam.delete("c2")


def test_files_that_are_no_reservations_disturb_nobody(directory: pathlib.Path) -> None:
    ipam = Ipam(directory, "10.1.2.0/29")
    ipam.store.mkdir(parents=True)
    os.mkfifo(ipam.store / "10.1.2.2")
    (ipam.store / "10.1.2.3").mkdir()
    (ipam.store / "10.1.2.4").symlink_to("/etc/passwd")
    (ipam.store / "README").write_text("c1\r\neth0")
    assert ipam.add("c1") == ["10.1.2.5/29"]
    assert ipam.delete("c1") == ["10.1.2.5"]
    settle(ipam)
    ipam.gc()
    assert (ipam.store / "README").exists()


# -- trouble -----------------------------------------------------------------------------------


def test_lock_held_is_code_11_within_the_bound(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    before = ipam.reservations()
    monkeypatch.setattr(libcni.fs.Lock.__init__, "__defaults__", (0.2,))
    fd = os.open(ipam.store / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        for call in (ipam.add, ipam.delete):
            with pytest.raises(CniError, match=r"lock .*/net/lock is held") as caught:
                call("c2")
            assert caught.value.code == 11
    finally:
        os.close(fd)
    assert ipam.reservations() == before


@pytest.mark.parametrize("without", ["O_TMPFILE", "proc"])
def test_file_systems_that_know_no_files_without_a_name(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    """As on older overlay file systems, or without /proc."""
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/29"}], [{"subnet": "2001:db8:1::/64"}]])
    if without == "O_TMPFILE":
        opening = posix.open

        def refusing(path: str, flags: int, *args: Any, **keywords: Any) -> int:
            if flags & posix.O_TMPFILE == posix.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "")
            return opening(path, flags, *args, **keywords)

        monkeypatch.setattr(posix, "open", refusing)
    else:
        link = posix.link

        def blind(source: str, target: str, **keywords: Any) -> None:
            if source.startswith("/proc"):
                raise OSError(errno.ENOENT, "")
            link(source, target, **keywords)

        monkeypatch.setattr(posix, "link", blind)
    assert ipam.add("c1") == ["10.1.2.2/29", "2001:db8:1::2/64"]
    assert ipam.add("c2") == ["10.1.2.3/29", "2001:db8:1::3/64"]
    assert ipam.reservations()["10.1.2.2"] == b"c1\r\neth0"
    assert is_complete(ipam)
    assert len(list((ipam.store / ".owners").iterdir())) == 2
    # What is recorded is each file's own time: both addresses are known to be of this boot.
    times = {name: (ipam.store / name).stat().st_mtime_ns for name in ipam.reservations()}
    for owner in (b"c1\r\neth0", b"c2\r\neth0"):
        entry = index.decode((ipam.store / ".owners" / index.file_of(owner)).read_bytes())
        assert entry is not None and len(entry.addresses) == 2
        assert all(times[address] == mtime for address, mtime in entry.addresses.items())
    assert ipam.delete("c1") == ["10.1.2.2", "2001:db8:1::2"]


@pytest.mark.parametrize("name", ["open", "write", "fsync", "link", "ftruncate", "listdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_any_failing_call_of_add_is_code_5_and_undone(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """The k-th call of each kind fails, for every k until ADD gets through."""
    real = getattr(posix, name)
    for nth in range(40):
        ipam = Ipam(
            directory / str(nth), [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]
        )
        ipam.add("other")
        before = ipam.reservations()
        calls = 0

        def failing(*args: Any, _nth: int = nth, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == _nth + 1:
                raise OSError(number, posix.strerror(number))
            return real(*args, **keywords)

        monkeypatch.setattr(posix, name, failing)
        request = ipam.request("ADD", "c1")
        from cni_host_local.add import add

        try:
            add(request)
            outcome = None
        except CniError as error:
            outcome = error
            request.undo.run_nested()
        monkeypatch.setattr(posix, name, real)
        if outcome is None:
            assert len(ipam.reservations()) == 4
        else:
            assert outcome.code == 5
            assert posix.strerror(number) in outcome.msg
            assert str(directory) in outcome.msg
            assert ipam.reservations() == before
        assert len(ipam.add("c2")) == 2
        assert len(ipam.delete("other")) == 2
        if calls <= nth:
            return
    raise AssertionError("never got through")


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Any:
    """A file system of 20 inodes, and how to make it read-only."""
    import subprocess

    def mount(*words: str) -> None:
        subprocess.run([*words, tmp_path], check=True)

    mount("mount", "-t", "tmpfs", "-o", "nr_inodes=20,size=1m", "small")
    try:
        yield tmp_path, lambda: mount("mount", "-o", "remount,ro")
    finally:
        mount("umount")


@pytest.mark.root
def test_full_file_system(small_disk: Any) -> None:
    directory, _ = small_disk
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]])
    ipam.status()
    count = 0
    with pytest.raises(CniError) as caught:
        for count in range(30):
            before = ipam.reservations()
            ipam.add(f"c{count}")
    assert caught.value.code == 5
    assert "No space left on device" in caught.value.msg
    assert str(directory) in caught.value.msg
    assert ipam.reservations() == before
    assert count > 3
    # A stranger's reservation cannot be indexed now, and is found all the same.
    with pytest.raises(OSError):
        for n in range(30):
            (ipam.store / f"10.1.2.{200 + n}").write_text("go\r\neth0")
    with pytest.raises(CniError, match=r"^ipam.dataDir: cannot write .*No space left") as caught:
        ipam.status()
    assert caught.value.code == 50
    ipam.check("c0")
    ipam.delete("go")
    for n in range(count):
        assert len(ipam.delete(f"c{n}")) == 2
    assert ipam.reservations() == {}
    ipam.status()


@pytest.mark.root
def test_read_only_file_system(small_disk: Any) -> None:
    directory, make_read_only = small_disk
    ipam = Ipam(directory)
    address = ipam.add("c1")[0]
    before = ipam.reservations()
    make_read_only()
    for call in (ipam.add, ipam.delete):
        with pytest.raises(CniError, match=r"/net.*: Read-only file system") as caught:
            call("c1")
        assert caught.value.code == 5
    ipam.check("c1", "eth0", address)
    with pytest.raises(CniError, match="Read-only file system") as caught:
        ipam.status()
    assert caught.value.code == 50
    assert ipam.reservations() == before
    # Nothing was there, so nothing is to be removed.
    assert Ipam(directory, network="other").delete("c1") == []
    with pytest.raises(CniError, match=r"cannot make .*Read-only file system"):
        Ipam(directory, network="other").add("c1")


def calls_of(work: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many system calls `work` makes through posix."""
    count = 0

    def counting(real: Any) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            return real(*args, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "read", "write", "stat", "link", "unlink", "listdir", "utime"):
            patch.setattr(posix, name, counting(getattr(posix, name)))
        work()
    return count


def test_cost_does_not_grow_with_the_store(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests.bench.ipam_scale measures it; this counts."""
    costs = []
    ipam = Ipam(tmp_path, "10.1.0.0/16")
    for size in (10, 300):
        while len(ipam.reservations()) < size:
            ipam.add(f"c{len(ipam.reservations())}")
        costs.append(
            [
                calls_of(lambda: ipam.add("new"), monkeypatch),
                calls_of(lambda: ipam.check("new"), monkeypatch),
                calls_of(lambda: ipam.delete("new"), monkeypatch),
                calls_of(lambda: ipam.delete("new"), monkeypatch),
            ]
        )
    assert costs[0] == costs[1]
    assert costs[0][2] < 25


def test_undo_does_not_release_what_has_become_anothers(directory: pathlib.Path) -> None:
    from cni_host_local.add import add

    ipam = Ipam(directory)
    request = ipam.request("ADD", "c1")
    add(request)
    ipam.delete("c1")
    ipam.add("c2", runtimeConfig={"ips": ["10.1.2.2"]})
    request.undo.run_nested()
    assert ipam.reservations() == {"10.1.2.2": b"c2\r\neth0"}
    assert ipam.delete("c2") == ["10.1.2.2"]


def test_content_is_on_disk_before_it_has_a_name_and_before_the_lock(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")
    events: list[str] = []

    def watch(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **keywords: Any) -> Any:
            events.append(name)
            return real(*args, **keywords)

        monkeypatch.setattr(module, name, call)

    watch(posix, "fsync")
    watch(posix, "link")
    watch(fcntl, "flock")
    ipam.add("c2")
    assert events == ["fsync", "flock", "link"]
