# SPDX-License-Identifier: Apache-2.0
"""host-local's store against a dictionary: random histories.

ADD, DEL, CHECK and GC, each killed at any system call; Go's plugin on the same files; reboots,
torn and lost files, clocks that jump, ranges that change under what is reserved.
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni_host_local import index, scan, store
from libcni.types.errors import CniError
from tests.rig.ipam import Ipam
from tests.rig.killed import killed_at

#: 10.1.2.0/28 less network, broadcast and gateway.
ALL = [f"10.1.2.{n}" for n in range(2, 15)]
#: Configurations: the part of the range that is given out, and what is excluded from it.
CONFIGS = ((1, 14, (9,)), (2, 7, ()), (6, 14, (9, 12)))

owners = st.integers(0, 15).map(lambda n: f"c{n}")


class Model(RuleBasedStateMachine):
    """The oracle: address → (owner, boot in which it was reserved, known to us)."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.boot_file = self.directory / "boot"
        self.boot = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(index, "BOOT_ID", str(self.boot_file))
        #: By how much the clock is wrong.
        self.offset = 0
        for module in (index, scan):
            self.patch.setattr(module, "time", lambda: time.time() + self.offset)
        # However slow the machine: what is empty is new until the clock jumps.
        self.patch.setattr(scan, "_EMPTY_AGE", 1e6)
        self.configure(CONFIGS[0])
        self.held: dict[str, tuple[str, int]] = {}
        self.empty: set[str] = set()
        self.start()

    def teardown(self) -> None:
        """Delete everything: then nothing may be left but the lock and the round robin."""
        for owner in {owner for owner, _ in self.held.values()}:
            self.delete(owner)
        self.gc(set())
        assert self.ipam.reservations() == {}
        folder = self.ipam.store / ".owners"
        assert not folder.exists() or list(folder.iterdir()) == []
        self.patch.undo()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Boot."""
        self.boot_file.write_text(f"boot-{self.boot}")

    def of(self, owner: str) -> set[str]:
        """What an owner holds."""
        return {address for address, (name, _) in self.held.items() if name == owner}

    @rule(config=st.sampled_from(CONFIGS))
    def configure(self, config: tuple[int, int, tuple[int, ...]]) -> None:
        """An administrator changes the range, under what is reserved."""
        first, last, excluded = config
        ends = {"rangeStart": f"10.1.2.{first}", "rangeEnd": f"10.1.2.{last}"}
        self.ipam = Ipam(
            self.directory,
            [[{"subnet": "10.1.2.0/28", **ends}]],
            exclude=[f"10.1.2.{n}" for n in excluded],
        )
        self.range = {f"10.1.2.{n}" for n in range(first, last + 1)}
        self.free = self.range - {"10.1.2.1"} - {f"10.1.2.{n}" for n in excluded}

    def reclaimable(self) -> set[str]:
        """What ADD may take when the range is full: all of owners of earlier boots."""
        stale = {
            owner
            for address, (owner, boot) in self.held.items()
            if boot != self.boot and address in self.free
        }
        # An empty file is left alone while it is new; how new it is, the clock says.
        empty = self.empty & self.free if self.offset else set()
        return {a for a, (owner, _) in self.held.items() if owner in stale} | empty

    @rule(owner=owners)
    def add(self, owner: str) -> None:
        """ADD, with every outcome foreseen."""
        mine = self.of(owner)
        stale = any(self.held[address][1] != self.boot for address in mine)
        if mine & self.range and not stale:
            with pytest.raises(CniError) as caught:
                self.ipam.add(owner)
            assert caught.value.code == 101
            return
        if stale:
            # Its namespace is gone: the same name is a new sandbox.
            for gone in mine:
                del self.held[gone]
        full = self.free <= set(self.held) | self.empty
        if full and not self.reclaimable():
            with pytest.raises(CniError) as caught:
                self.ipam.add(owner)
            assert caught.value.code == 100
            return
        if full:
            for gone in self.reclaimable():
                self.held.pop(gone, None)
                self.empty.discard(gone)
        address = self.ipam.add(owner)[0].partition("/")[0]
        assert address in self.free - set(self.held) - self.empty
        for old in self.of(owner):
            self.held[old] = (owner, self.boot)
        self.held[address] = (owner, self.boot)

    @rule(owner=owners, step=st.integers(0, 80))
    def add_is_killed(self, owner: str, step: int) -> None:
        """One address more, or none: whole, and its owner's."""
        if self.of(owner) or self.free <= set(self.held) | self.empty:
            return
        killed_at(step, lambda: self.ipam.add(owner))
        new = self.ipam.reservations().keys() - self.held.keys() - self.empty
        assert len(new) <= 1 and new <= self.free
        self.held.update(dict.fromkeys(new, (owner, self.boot)))
        # What the index does not know yet is adopted in the boot that first sees it.
        self.ipam.delete("nobody")

    @rule(owner=owners, step=st.integers(0, 40))
    def delete_is_killed(self, owner: str, step: int) -> None:
        """Each of its addresses is whole or gone; no other is touched."""
        mine = self.of(owner)
        killed_at(step, lambda: self.ipam.delete(owner))
        for gone in mine - self.ipam.reservations().keys():
            del self.held[gone]
        self.adopted(owner)
        self.ipam.delete("nobody")

    def adopted(self, owner: str) -> None:
        """What is left of an owner whose entry may be gone: of this boot, the safe side."""
        entry = self.ipam.store / ".owners" / index.file_of(f"{owner}\r\neth0".encode())
        if not entry.exists():
            for address in self.of(owner):
                self.held[address] = (owner, self.boot)

    @rule(kept=st.sets(owners, max_size=8), step=st.integers(0, 60))
    def gc_is_killed(self, kept: set[str], step: int) -> None:
        """Whoever is valid keeps all; of the others, what is there is whole."""
        killed_at(step, lambda: self.collect(kept))
        there = self.ipam.reservations().keys()
        assert {a for a, (owner, _) in self.held.items() if owner in kept} <= there
        self.held = {a: held for a, held in self.held.items() if a in there}
        self.empty &= there
        for owner in {owner for owner, _ in self.held.values()}:
            self.adopted(owner)
        self.ipam.delete("nobody")

    @rule(seconds=st.sampled_from([0, -(10**8), -3600, 10**8]))
    def clock_jumps(self, seconds: int) -> None:
        """Forth, back, or right again: only how old an empty file is depends on it."""
        self.offset = seconds

    @rule(owner=owners)
    def delete(self, owner: str) -> None:
        """DEL."""
        mine = self.of(owner)
        assert set(self.ipam.delete(owner)) == mine
        for gone in mine:
            del self.held[gone]

    @rule(kept=st.sets(owners, max_size=8))
    def gc(self, kept: set[str]) -> None:
        """GC."""
        self.collect(kept)
        self.held = {a: held for a, held in self.held.items() if held[0] in kept}
        self.empty = set()

    def collect(self, kept: set[str]) -> None:
        """GC by a runtime that listed what is valid a minute from now: nothing is too young."""
        opened = store.Store.open(str(self.ipam.store))
        if opened is None:
            return
        with opened:
            pairs = {(owner, "eth0") for owner in kept}
            assert scan.collect(opened, pairs, time.time() + 10**9) == []

    @rule()
    def reboot(self) -> None:
        """A new boot: the namespaces are gone, the files are not."""
        self.boot += 1
        self.start()
        # Adoption happens in the boot that first sees a stranger's reservation.
        self.ipam.delete("nobody")

    @rule(address=st.sampled_from(ALL), owner=owners, reboots=st.booleans())
    def stranger_adds(self, address: str, owner: str, reboots: bool) -> None:
        """Go's plugin reserves; we see it at once, or only after the next boot."""
        if address in self.held or address in self.empty or self.of(owner):
            return
        self.ipam.store.mkdir(exist_ok=True)
        (self.ipam.store / address).write_text(f"{owner}\r\neth0")
        if reboots:
            self.boot += 1
            self.start()
        self.held[address] = (owner, self.boot)
        self.ipam.delete("nobody")

    @rule(owner=owners)
    def stranger_deletes(self, owner: str) -> None:
        """Go's plugin releases."""
        for address in self.of(owner):
            (self.ipam.store / address).unlink()
            del self.held[address]

    @rule(address=st.sampled_from(ALL))
    def stranger_crashes(self, address: str) -> None:
        """Go's plugin dies between making a file and writing it."""
        if address not in self.held and self.ipam.store.exists():
            (self.ipam.store / address).write_text("")
            self.empty.add(address)

    @rule(owner=owners, content=st.sampled_from([b"", b"\0" * 40, b"boot-0\n", b"x\ny\nz\n"]))
    def tear_entry(self, owner: str, content: bytes) -> None:
        """A power loss: what was of the index is torn, and the boot is another."""
        file = self.ipam.store / ".owners" / index.file_of(f"{owner}\r\neth0".encode())
        if file.exists():
            file.write_bytes(content)
            self.boot += 1
            self.start()
            # Adopted anew: nobody knows any more in which boot it was made.
            for address in self.of(owner):
                self.held[address] = (owner, self.boot)
            self.ipam.delete("nobody")

    @rule()
    def lose_index(self) -> None:
        """An administrator removes the index."""
        folder = self.ipam.store / ".owners"
        if folder.exists():
            shutil.rmtree(folder)
            self.held = {a: (owner, self.boot) for a, (owner, _) in self.held.items()}
            self.ipam.delete("nobody")

    @rule(content=st.sampled_from(["", "10.1.2.", "10.1.2.14", "garbage"]))
    def tear_last_reserved(self, content: str) -> None:
        """A torn round robin."""
        if self.ipam.store.exists():
            (self.ipam.store / "last_reserved_ip.0").write_text(content)

    @rule(owner=owners)
    def check(self, owner: str) -> None:
        """CHECK agrees with the oracle."""
        mine = self.of(owner)
        for addresses in ((), tuple(f"{address}/28" for address in mine)):
            try:
                self.ipam.check(owner, "eth0", *addresses)
                assert mine
            except CniError as error:
                assert error.code == 103
                assert not mine

    @invariant()
    def files_are_what_the_oracle_says(self) -> None:
        """No reservation lost, none too many."""
        expected = {a: f"{owner}\r\neth0".encode() for a, (owner, _) in self.held.items()}
        expected.update(dict.fromkeys(self.empty, b""))
        assert self.ipam.reservations() == expected


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = Model.TestCase
