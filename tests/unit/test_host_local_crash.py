# SPDX-License-Identifier: Apache-2.0
"""host-local killed before and after each system call, and many of it at once."""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from cni_host_local import index, store
from cni_host_local.scan import collect
from libcni.types.errors import CniError
from tests.rig.ipam import Ipam
from tests.rig.killed import killed_at

DUAL = [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]


@pytest.fixture(params=["tmpfs", "disk"])
def directory(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A dataDir."""
    if request.param == "disk":
        yield tmp_path
        return
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield pathlib.Path(name)


def assert_sound(ipam: Ipam) -> None:
    """Every reservation is complete, and none of a file that the store made is left over."""
    for name, content in ipam.reservations().items():
        assert content.endswith(b"\r\neth0"), (name, content)


def test_add_killed_anywhere(directory: pathlib.Path) -> None:
    for step in itertools.count():
        ipam = Ipam(directory / str(step), DUAL)
        ipam.add("other")
        killed = killed_at(step, lambda ipam=ipam: ipam.add("c1"))  # type: ignore[misc]
        assert_sound(ipam)
        held = {name for name, content in ipam.reservations().items() if b"c1" in content}
        assert len(held) in ((0, 1, 2) if killed else (2,))
        # The runtime's DEL of the failed ADD, then its second try.
        assert set(ipam.delete("c1")) == held
        addresses = ipam.add("c1")
        assert len(addresses) == 2
        ipam.check("c1", "eth0", *addresses)
        ipam.check("other")
        assert ipam.go("CHECK", "other").returncode == 0 if step % 10 == 0 else True
        ipam.delete("c1")
        ipam.delete("other")
        assert ipam.reservations() == {}
        assert list((ipam.store / ".owners").iterdir()) == []
        if not killed:
            return


def test_first_add_killed_anywhere(directory: pathlib.Path) -> None:
    for step in itertools.count():
        ipam = Ipam(directory / str(step), DUAL)
        killed = killed_at(step, lambda ipam=ipam: ipam.add("c1"))  # type: ignore[misc]
        assert_sound(ipam)
        if killed:
            ipam.delete("c1")
            assert len(ipam.add("c1")) == 2
        assert len(ipam.reservations()) == 2
        if not killed:
            return


def test_del_killed_anywhere(directory: pathlib.Path) -> None:
    for step in itertools.count():
        ipam = Ipam(directory / str(step), DUAL)
        ipam.add("other")
        ipam.add("c1")
        killed = killed_at(step, lambda ipam=ipam: ipam.delete("c1"))  # type: ignore[misc]
        assert_sound(ipam)
        ipam.delete("c1")
        assert set(ipam.reservations().values()) == {b"other\r\neth0"}
        ipam.check("other")
        assert ipam.delete("other")
        assert list((ipam.store / ".owners").iterdir()) == []
        if not killed:
            return


def test_gc_and_adoption_killed_anywhere(directory: pathlib.Path) -> None:
    for step in itertools.count():
        ipam = Ipam(directory / str(step))
        ipam.add("c1")
        for n in (50, 51, 52):
            (ipam.store / f"10.1.2.{n}").write_text(f"go{n}\r\neth0")
        (ipam.store / "10.1.2.60").write_text("")

        def work(ipam: Ipam = ipam) -> None:
            opened = store.Store.open(str(ipam.store))
            assert opened is not None
            with opened:
                collect(opened, {("c1", "eth0"), ("go51", "eth0")}, time.time() + 60)

        killed = killed_at(step, work)
        ipam.check("c1")
        ipam.check("go51")
        work()
        assert set(ipam.reservations()) == {"10.1.2.2", "10.1.2.51"}
        assert ipam.delete("go51") == ["10.1.2.51"]
        assert ipam.delete("c1") == ["10.1.2.2"]
        assert list((ipam.store / ".owners").iterdir()) == []
        if not killed:
            return


def test_killed_adds_of_an_earlier_boot_do_not_fill_the_range(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """No DEL ever comes: each boot kills ADDs, and the range never runs dry for good."""
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(index, "BOOT_ID", str(boot))
    ipam = Ipam(directory, "10.1.2.0/28")
    for number in range(12):
        boot.write_text(f"boot-{number}")
        for n in range(4):
            killed_at(random.Random(number * 4 + n).randrange(60), lambda n=n: ipam.add(f"k{n}"))  # type: ignore[misc]
        assert len(ipam.add(f"b{number}")) == 1


def worker(
    directory: pathlib.Path, name: str, rounds: int, claims: pathlib.Path, keep: bool
) -> None:
    """ADD and DEL over and over; an address held twice at a time shows in `claims`."""
    chance = random.Random(name)
    ipam = Ipam(directory, [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]])
    for n in range(rounds):
        owner = f"{name}-{n}"
        addresses = [a.partition("/")[0] for a in ipam.add(owner)]
        for address in addresses:
            os.close(os.open(claims / address, os.O_CREAT | os.O_EXCL, 0o600))
        if chance.random() < 0.3:
            time.sleep(0.001)
        ipam.check(owner, "eth0", *(f"{a}/{64 if ':' in a else 24}" for a in addresses))
        if keep and n >= rounds - 5:
            continue
        for address in addresses:
            os.unlink(claims / address)
        assert ipam.delete(owner) == addresses


def in_children(works: list[Callable[[], None]]) -> None:
    """Each in a process of its own, at once; all must end well."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)


def test_sixteen_at_once_never_share_an_address(
    directory: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    claims = tmp_path / "claims"
    claims.mkdir()
    in_children(
        [lambda i=i: worker(directory, f"w{i}", 40, claims, True) for i in range(16)]  # type: ignore[misc]
    )
    ipam = Ipam(directory)
    held = ipam.reservations()
    assert len(held) == 16 * 5 * 2
    assert set(held) == {file.name for file in claims.iterdir()}
    for owner in {content.decode().partition("\r\n")[0] for content in held.values()}:
        assert len(ipam.delete(owner)) == 2
    assert ipam.reservations() == {}


def test_gc_during_a_storm_of_adds_loses_no_live_owner(
    directory: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The runtime's list is taken before GC begins; what is added later is not on it."""
    live = tmp_path / "live"
    live.mkdir()

    def adder(name: str) -> None:
        ipam = Ipam(directory, "10.1.0.0/16")
        for n in range(60):
            owner = f"{name}-{n}"
            (live / owner).touch()
            address = ipam.add(owner)[0]
            ipam.check(owner, "eth0", address)
            time.sleep(0.002)
            ipam.check(owner, "eth0", address)
            if n % 2:
                ipam.delete(owner)
                (live / owner).unlink()

    def collector() -> None:
        ipam = Ipam(directory, "10.1.0.0/16")
        for _ in range(40):
            since = time.time() - 0.01
            valid = {(file.name, "eth0") for file in live.iterdir()}
            opened = store.Store.open(str(ipam.store))
            if opened is not None:
                with opened:
                    assert collect(opened, valid, since) == []
            time.sleep(0.005)

    in_children([lambda i=i: adder(f"w{i}") for i in range(8)] + [collector])
    ipam = Ipam(directory, "10.1.0.0/16")
    assert {c.decode().partition("\r\n")[0] for c in ipam.reservations().values()} == {
        file.name for file in live.iterdir()
    }


def test_a_killed_holder_does_not_hold_the_lock(directory: pathlib.Path) -> None:
    ipam = Ipam(directory)
    ipam.add("c1")

    def hold() -> None:
        opened = store.Store.open(str(ipam.store))
        assert opened is not None
        with opened:
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(10_000, hold)
    try:
        assert ipam.delete("c1") == ["10.1.2.2"]
    except CniError as error:
        raise AssertionError(str(error)) from error
