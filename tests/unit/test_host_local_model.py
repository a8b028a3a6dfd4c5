# SPDX-License-Identifier: Apache-2.0
"""host-local's store against a dictionary: random histories, strangers and reboots included."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni_host_local import index, store
from cni_host_local.scan import collect
from libcni.types.errors import CniError
from tests.rig.ipam import Ipam

#: 10.1.2.0/28 less network, broadcast, gateway and the excluded .9.
FREE = [f"10.1.2.{n}" for n in range(2, 15) if n != 9]

owners = st.integers(0, 15).map(lambda n: f"c{n}")


class Model(RuleBasedStateMachine):
    """The oracle: address → (owner, boot in which it was reserved, known to us)."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.boot_file = self.directory / "boot"
        self.boot = 0
        self.saved = index.BOOT_ID
        index.BOOT_ID = str(self.boot_file)
        self.ipam = Ipam(self.directory, "10.1.2.0/28", exclude=["10.1.2.9"])
        self.held: dict[str, tuple[str, int]] = {}
        self.empty: set[str] = set()
        self.start()

    def teardown(self) -> None:
        """Remove the directory."""
        index.BOOT_ID = self.saved
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Boot."""
        self.boot_file.write_text(f"boot-{self.boot}")

    def of(self, owner: str) -> set[str]:
        """What an owner holds."""
        return {address for address, (name, _) in self.held.items() if name == owner}

    @rule(owner=owners)
    def add(self, owner: str) -> None:
        """ADD, with every outcome foreseen."""
        mine = self.of(owner)
        stale = {a for a, (_, boot) in self.held.items() if boot != self.boot}
        try:
            address = self.ipam.add(owner)[0].partition("/")[0]
        except CniError as error:
            if error.code == 101:
                assert mine and not mine & stale
            else:
                assert error.code == 100
                assert not mine
                assert set(self.held) | self.empty == set(FREE)
                assert not stale
            return
        assert not mine or mine & stale
        assert address in FREE
        assert address not in self.empty
        for gone in mine:
            del self.held[gone]
        if address in self.held or len(self.ipam.reservations()) != len(self.held) + 1 + len(
            self.empty
        ):
            # The range was full: everything of an earlier boot went.
            for gone in stale:
                self.held.pop(gone, None)
        assert address not in self.held
        self.held[address] = (owner, self.boot)

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
        opened = store.Store.open(str(self.ipam.store))
        if opened is None:
            return
        with opened:
            assert collect(opened, {(owner, "eth0") for owner in kept}, time.time() + 60) == []
        self.held = {a: held for a, held in self.held.items() if held[0] in kept}
        self.empty = set()

    @rule()
    def reboot(self) -> None:
        """A new boot: the namespaces are gone, the files are not."""
        self.boot += 1
        self.start()
        # Adoption happens in the boot that first sees a stranger's reservation.
        self.ipam.delete("nobody")

    @rule(address=st.sampled_from(FREE), owner=owners)
    def stranger_adds(self, address: str, owner: str) -> None:
        """Go's plugin reserves."""
        if address in self.held or address in self.empty or self.of(owner):
            return
        self.ipam.store.mkdir(exist_ok=True)
        (self.ipam.store / address).write_text(f"{owner}\r\neth0")
        self.held[address] = (owner, self.boot)

    @rule(owner=owners)
    def stranger_deletes(self, owner: str) -> None:
        """Go's plugin releases."""
        for address in self.of(owner):
            (self.ipam.store / address).unlink()
            del self.held[address]

    @rule(address=st.sampled_from(FREE))
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
