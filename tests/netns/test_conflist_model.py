# SPDX-License-Identifier: Apache-2.0
"""Random histories of a host with a whole list of plugins, as a runtime drives it.

bridge, host-local, portmap and firewall through libcni on a real kernel: containers come and go,
plugins are killed at some system call of ADD or DEL, namespaces vanish, the machine boots (which
/var/lib outlives, and nothing else), files are torn, the clock jumps, rules are flushed, the
configuration changes under what is attached. After each step no address is there twice, what the
kernel has is what is attached (and what killed plugins left, until DEL or GC), and in the end
nothing is left.

ADDER_HISTORIES=N runs N histories instead of a few.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from cni_conformance import trace
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from libcni.api import CNIConfig, DefaultExecutor, GCAttachment, RuntimeConf
from libcni.conf import NetworkConfigList, network_conf_from_bytes
from libcni.types.errors import CniError
from tests.rig import isolation
from tests.rig.host import Host, Netns
from tests.rig.plugins import BASE_ENVIRONMENT
from tests.rig.rules import rules

HISTORIES = int(os.environ.get("ADDER_HISTORIES", "5"))
BRIDGE = "pods0"
STORE = pathlib.Path("/var/lib/cni/networks/pods")
RESULTS = pathlib.Path("/var/lib/cni/results")
BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: What identifies an attachment in comments and aliases.
IDENTITY = re.compile(r"cni:pods:(box-\d+):eth0")

SLOTS = 4
choices = st.integers(0, SLOTS - 1)
torn = st.sampled_from([b"", b"\0" * 40, b"{"])
#: When a plugin is killed: after how much of what it does, in hundredths of its system calls.
moments = st.integers(0, 99)


def network(
    masquerade: bool = True, backend: str = "", snat: bool = True, mtu: int = 1500
) -> NetworkConfigList:
    """A configuration of the network."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": masquerade,
        "mtu": mtu,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.90.0.0/26"}]]},
    }
    portmap = {"type": "portmap", "snat": snat, "capabilities": {"portMappings": True}}
    firewall = {"type": "firewall", "backend": backend}
    document = {"cniVersion": "1.1.0", "name": "pods", "plugins": [bridge, portmap, firewall]}
    return network_conf_from_bytes(json.dumps(document).encode())


class Traced(DefaultExecutor):
    """Runs plugins, and kills the nth of them (none, if it is negative) at a system call.

    counts: (path, verb) to how many calls one makes before it does anything, and in all. What
    is not there yet is counted instead of being killed.
    """

    def __init__(self, nth: int, moment: int, counts: dict[tuple[str, str], range]) -> None:
        self._left, self._moment, self._counts = nth, moment, counts

    def exec_plugin(
        self, path: str, overrides: dict[str, str], stdin: bytes, timeout: float
    ) -> bytes:
        """One call; CniError for the one that is killed."""
        self._left -= 1
        if self._left != -1:
            return super().exec_plugin(path, overrides, stdin, timeout)
        environment = {**BASE_ENVIRONMENT, **overrides}
        calls = self._counts.get((path, overrides["CNI_COMMAND"]))
        if calls is None:
            ended = trace.follow([path], environment, stdin, lambda stop: None)
            idle = trace.calls([path], {**environment, "CNI_COMMAND": "VERSION"}, b"{}")
            self._counts[path, overrides["CNI_COMMAND"]] = range(idle - 10, ended.calls)
        else:
            at = calls[len(calls) * self._moment // 100]
            ended = trace.interrupt_at([path], environment, stdin, at, signal.SIGKILL)
        if ended.status:
            raise CniError(104, f"{path} ended with {ended.status}")
        return ended.stdout


@dataclasses.dataclass
class Box:
    """A container. whole: CHECK has to be content, as nobody has tampered with anything; ruled:
    nobody has with its rules."""

    name: str
    netns: Netns
    conf: NetworkConfigList
    ports: list[dict[str, Any]]
    address: str = ""
    whole: bool = True
    ruled: bool = True

    def rt(self) -> RuntimeConf:
        """As the runtime asks."""
        return RuntimeConf(self.name, self.netns.path, "eth0", [], {"portMappings": self.ports})


class Model(RuleBasedStateMachine):
    """live: attached, by slot. debris: what killed plugins and boots left, until DEL or GC."""

    bin_dir: ClassVar[pathlib.Path]
    boot_file: ClassVar[pathlib.Path]
    counts: ClassVar[dict[tuple[str, str], range]] = {}
    serial: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.host.share(BRIDGE)
        self.live: dict[int, Box] = {}
        self.debris: list[Box] = []
        self.conf = network()
        self.boot()

    def teardown(self) -> None:
        """Delete and collect everything: then nothing is left, whatever has happened."""
        try:
            while self.live:
                self.delete(0, False, False)
            self.clean()
            self.gc()
            assert IDENTITY.findall(rules()) == []
            assert self.reservations() == {}
            assert not RESULTS.exists() or list(RESULTS.iterdir()) == []
            # Torn results are put aside, for whoever wants to know.
            shutil.rmtree(RESULTS.parent / "corrupt", ignore_errors=True)
            # The frames that stay, iptables' among them, are other tests' matter.
            isolation.command("nft", "flush", "ruleset")
            self.host.finish()
        finally:
            self.host.close()

    def cni(self, killer: Traced | None = None) -> CNIConfig:
        """A new one for each operation, as after a restart."""
        return CNIConfig([str(self.bin_dir)], executor=killer)

    def boot(self) -> None:
        """A boot has an identifier of its own."""
        number = next(self.serial)
        self.boot_file.write_text(f"00000000-0000-4000-8000-{number:012d}\n")

    @initialize(mapped=st.lists(st.booleans(), min_size=2, max_size=SLOTS))
    def begin(self, mapped: list[bool]) -> None:
        """A host with some containers."""
        for each in mapped:
            self.add(0, each)

    # ---- what a runtime does

    def occupied(self, choice: int) -> int:
        """One of the slots with a container."""
        return sorted(self.live)[choice % len(self.live)]

    def vacant(self, choice: int) -> int:
        """One of those without."""
        free = sorted(set(range(SLOTS)) - self.live.keys())
        return free[choice % len(free)]

    def box(self, slot: int, mapped: bool) -> Box:
        """A container that is not attached yet. What was left of the last one is cleaned up."""
        self.clean()
        name = f"box-{next(self.serial)}"
        port = {"hostPort": 18000 + slot, "containerPort": 80, "protocol": "tcp"}
        return Box(name, Netns(name), self.conf, [port] if mapped else [])

    @precondition(lambda self: len(self.live) < SLOTS)
    @rule(choice=choices, mapped=st.booleans())
    def add(self, choice: int, mapped: bool) -> None:
        """ADD of the whole list."""
        slot = self.vacant(choice)
        box = self.box(slot, mapped)
        result = self.cni().add_network_list(self.conf, box.rt())
        box.address = result.ips[0].address
        self.live[slot] = box

    @precondition(lambda self: self.live)
    @rule(choice=choices, current=st.booleans(), lost=st.booleans())
    def delete(self, choice: int, current: bool, lost: bool) -> None:
        """DEL, by the configuration of the ADD or by that of now, perhaps without namespace."""
        box = self.live.pop(self.occupied(choice))
        if lost:
            box.netns.delete()
        self.cni().del_network_list(self.conf if current else box.conf, box.rt())
        box.netns.delete()

    @rule()
    def clean(self) -> None:
        """DEL for all that was left."""
        for box in self.debris:
            self.cni().del_network_list(self.conf, box.rt())
            box.netns.delete()
        self.debris = []

    @precondition(lambda self: self.live)
    @rule(choice=choices)
    def check(self, choice: int) -> None:
        """CHECK: content with what is whole, and not with what lost its rules."""
        box = self.live[self.occupied(choice)]
        if box.whole:
            self.cni().check_network_list(box.conf, box.rt())
        else:
            with pytest.raises(CniError):
                self.cni().check_network_list(box.conf, box.rt())

    @rule()
    def gc(self) -> None:
        """GC: what is left of others goes, namespaces apart."""
        valid = [GCAttachment(box.name, "eth0") for box in self.live.values()]
        self.cni().gc_network_list(self.conf, valid)
        for box in self.debris:
            box.netns.delete()
        self.debris = []

    @rule()
    def status(self) -> None:
        """STATUS: there are addresses, and the back ends work."""
        self.cni().get_status_network_list(self.conf)

    # ---- what befalls the host

    @precondition(lambda self: len(self.live) < SLOTS)
    @rule(choice=choices, nth=st.integers(0, 2), moment=moments)
    def add_is_killed(self, choice: int, nth: int, moment: int) -> None:
        """One of the plugins is, and the runtime has not yet run DEL."""
        slot = self.vacant(choice)
        box = self.box(slot, True)
        try:
            killer = Traced(nth, moment, self.counts)
            result = self.cni(killer).add_network_list(self.conf, box.rt())
        except CniError:
            self.debris.append(box)
        else:
            box.address = result.ips[0].address
            self.live[slot] = box

    @precondition(lambda self: self.live)
    @rule(choice=choices, nth=st.integers(0, 2), moment=moments)
    def delete_is_killed(self, choice: int, nth: int, moment: int) -> None:
        """One of the plugins is, and the runtime has not yet run DEL again."""
        box = self.live.pop(self.occupied(choice))
        killer = Traced(nth, moment, self.counts)
        try:
            self.cni(killer).del_network_list(box.conf, box.rt())
        except CniError:
            self.debris.append(box)
        else:
            box.netns.delete()

    @rule()
    def reboot(self) -> None:
        """Namespaces, links, rules and /run are gone; /var/lib is not."""
        for box in self.live.values():
            self.debris.append(box)
        self.live = {}
        for box in self.debris:
            box.netns.delete()
        isolation.base_network()
        isolation.fresh_network()
        self.boot()

    @precondition(lambda self: self.live)
    @rule(choice=choices, content=torn)
    def tear_result(self, choice: int, content: bytes) -> None:
        """What is remembered of a container is not what was written."""
        box = self.live[self.occupied(choice)]
        (RESULTS / f"pods-{box.name}-eth0").write_bytes(content)
        box.whole = False

    @rule(content=torn)
    def tear_reservations(self, content: bytes) -> None:
        """Nor what was reserved for those who are gone, as after a power loss."""
        gone = {f"{box.name}\r\neth0".encode() for box in self.debris}
        for name, owner in self.reservations().items():
            if owner in gone:
                (STORE / name).write_bytes(content)

    @rule(name=st.sampled_from(["lock", "last_reserved_ip.0", ".owners"]), remove=st.booleans())
    def lose(self, name: str, remove: bool) -> None:
        """What is only a help to host-local is damaged or gone."""
        path = STORE / name
        if not path.exists():
            return
        if path.is_dir():
            for entry in path.iterdir():
                if remove:
                    entry.unlink()
                else:
                    entry.write_text("garbage")
        elif remove:
            path.unlink()
        else:
            path.write_text("garbage")

    @rule(seconds=st.sampled_from([-(10**8), -3600, 3600, 10**8]))
    def clock_jumps(self, seconds: int) -> None:
        """What was written before is so much older, or of a time to come."""
        for path in [path for top in (STORE, RESULTS) for path in (top, *top.rglob("*"))]:
            if path.exists():
                before = path.stat().st_mtime
                os.utime(path, (before, before + seconds))

    @rule()
    def flush(self) -> None:
        """An administrator flushes the packet filter."""
        isolation.command("nft", "flush", "ruleset")
        for box in self.live.values():
            box.whole = box.ruled = False

    @rule(
        masquerade=st.booleans(),
        backend=st.sampled_from(["", "nftables", "iptables"]),
        snat=st.booleans(),
        mtu=st.sampled_from([1500, 1400]),
    )
    def configure(self, masquerade: bool, backend: str, snat: bool, mtu: int) -> None:
        """An administrator changes the configuration, under what is attached."""
        self.conf = network(masquerade, backend, snat, mtu)

    # ---- what has to be so

    def reservations(self) -> dict[str, bytes]:
        """Address → content of its file."""
        if not STORE.exists():
            return {}
        return {p.name: p.read_bytes() for p in STORE.iterdir() if p.name[0].isdigit()}

    @invariant()
    def no_address_is_there_twice(self) -> None:
        """Each container has its own, and its own alone."""
        addresses = [box.address for box in self.live.values()]
        assert len(set(addresses)) == len(addresses)
        for box in self.live.values():
            assert box.netns.addresses("eth0") == {box.address}

    @invariant()
    def reservations_are_of_those_who_are_attached(self) -> None:
        """Or of those who were, until DEL or GC; what was torn is nobody's."""
        there = self.reservations()
        for box in self.live.values():
            content = there.pop(box.address.partition("/")[0])
            assert content == f"{box.name}\r\neth0".encode()
        owners = {c.decode().partition("\r\n")[0] for c in there.values() if c.strip(b"\0{")}
        assert owners <= {box.name for box in self.debris}

    @invariant()
    def the_kernel_has_what_is_attached(self) -> None:
        """Links and rules, by the identity that each bears."""
        attached = {box.name for box in self.live.values()}
        left = {box.name for box in self.debris}
        ruled = {box.name for box in self.live.values() if box.ruled}
        links = set(IDENTITY.findall(isolation.command("ip", "-d", "link")))
        assert attached <= links <= attached | left
        assert ruled <= set(IDENTITY.findall(rules())) <= ruled | left

    @invariant()
    def results_are_of_those_who_are_attached(self) -> None:
        """Whole, unless torn; others only until DEL or GC."""
        names = {path.name for path in RESULTS.iterdir()} if RESULTS.exists() else set()
        attached = {f"pods-{box.name}-eth0" for box in self.live.values()}
        assert attached <= names
        assert names <= attached | {f"pods-{box.name}-eth0" for box in self.debris}


def count(model: type[Model]) -> None:
    """Count the system calls of each plugin's ADD and DEL, with all that they make in place."""
    machine = model()
    machine.begin([True])
    for nth in range(3):
        machine.add_is_killed(0, nth, 0)
        machine.delete_is_killed(1, nth, 0)
    assert not machine.debris and len(model.counts) == 6
    machine.teardown()


@pytest.mark.root
def test_random_histories(
    bin_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("CNI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", BASE_ENVIRONMENT["PATH"])
    boot_file = tmp_path / "boot_id"
    boot_file.touch()
    isolation.command("mount", "--bind", str(boot_file), BOOT_ID)

    class Bound(Model):
        pass

    Bound.bin_dir, Bound.boot_file = bin_dir, boot_file
    try:
        count(Bound)
        run_state_machine_as_test(
            Bound,
            settings=settings(
                max_examples=HISTORIES,
                stateful_step_count=25,
                deadline=None,
                # A history takes seconds, and its script is printed: better that than a day.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
    finally:
        isolation.command("umount", BOOT_ID)
