# SPDX-License-Identifier: Apache-2.0
"""What is measured: a function per group of rows, and the explanation of each row."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.hosts import Namespace, uncover
from tests.bench.measure import Call, Sample, at_once, median, once, peak_memory, percentile90
from tests.rig import plugins

#: How many rounds go unrecorded first: page cache, bridge, tables, chains.
WARM_UP = 2
#: Executions of which the largest peak is shown.
MEMORY_RUNS = 3
AT_ONCE = 50
MANY, FEW = 1000, 10


@dataclasses.dataclass
class Row:
    """One line of the table.

    baseline, ours: samples of the same rounds, pairwise. target: ratio at most, or None.
    memory: peak kB of (baseline, ours). columns: what the two sides are called.
    """

    key: str
    title: str
    why: str
    target: float | None = None
    columns: tuple[str, str] = ("Go", "ours")
    baseline: list[Sample] = dataclasses.field(default_factory=list)
    ours: list[Sample] = dataclasses.field(default_factory=list)
    memory: tuple[int, int] = (0, 0)

    def ratio(self) -> float:
        """The median of the rounds' ratios of wall time."""
        pairs = zip(self.baseline, self.ours, strict=True)
        return median([ours.wall / base.wall for base, ours in pairs])

    def as_json(self) -> dict[str, Any]:
        """Everything about the row; times in milliseconds, memory in kB."""
        sides = {}
        for name, samples, memory in zip(
            self.columns, (self.baseline, self.ours), self.memory, strict=True
        ):
            walls = [sample.wall * 1e3 for sample in samples]
            sides[name] = {
                "median_ms": round(median(walls), 3),
                "p90_ms": round(percentile90(walls), 3),
                "min_ms": round(min(walls, default=0), 3),
                "cpu_ms": round(median([sample.cpu * 1e3 for sample in samples]), 3),
                "peak_kb": memory,
                "samples_ms": [round(wall, 3) for wall in walls],
            }
        return {
            "key": self.key,
            "title": self.title,
            "rounds": len(self.ours),
            "ratio": round(self.ratio(), 3),
            "target": self.target,
            "reached": self.target is None or self.ratio() <= self.target,
            "sides": sides,
            "why": self.why,
        }


class Side:
    """One contender on a host of its own.

    devices: /sys shows this host's devices, and not the machine's control groups.
    """

    def __init__(
        self, name: str, bin_dir: pathlib.Path, config: dict[str, Any], devices: bool = False
    ) -> None:
        self.name = name
        self.devices = devices
        self.bin_dir = bin_dir
        self.host = Namespace(lo_up=True)
        self.config = {**config, "name": f"bench-{name}-{next(_networks)}"}
        self._ids = itertools.count()

    def call(
        self, type: str, command: str, netns: str, container: str, previous: Any = None
    ) -> Call:
        """A call for `container`; netns "" as runtimes leave it.

        previous: the result of the ADD, which runtimes hand to DEL as prevResult.
        """
        config = self.config if previous is None else {**self.config, "prevResult": previous}
        return self.call_with(config, type, command, netns, container)

    def call_with(
        self, config: dict[str, Any], type: str, command: str, netns: str, container: str
    ) -> Call:
        """`call`, with another configuration than the side's."""
        environment = plugins.environment(
            command, self.bin_dir, netns, container, "lo" if type == "loopback" else "eth0"
        )
        return Call(self.bin_dir / type, environment, plugins.encode(config))

    def container(self) -> str:
        """A new container ID of the length that runtimes use."""
        return f"{next(self._ids):08d}{self.name:0<56.56}"

    def enter(self) -> None:
        """Be on this side's host."""
        if self.devices:
            self.host.enter_with_devices()
        else:
            self.host.enter()

    def reservations(self) -> int:
        """How many addresses are reserved on this side's network."""
        directory = pathlib.Path("/var/lib/cni/networks") / str(self.config["name"])
        return len(list(directory.glob("10.*"))) if directory.is_dir() else 0

    def close(self) -> None:
        """Free the host."""
        uncover()
        self.host.remove()


_networks = itertools.count()


class Bench:
    """What every group of rows needs: the contenders, the number of rounds, progress."""

    def __init__(
        self, go: pathlib.Path, ours: pathlib.Path, rounds: int, tick: Callable[[], None]
    ) -> None:
        self.go, self.ours = go, ours
        self.rounds = rounds
        self.tick = tick

    def sides(self, config: dict[str, Any]) -> tuple[Side, Side]:
        """Both contenders with a configuration."""
        return Side("go", self.go, config), Side("ours", self.ours, config)

    def alternate(self, *sides: Side) -> Iterator[tuple[bool, Side]]:
        """Every side once a round, in random order: (to be recorded, side)."""
        for number in range(self.rounds + WARM_UP):
            order = list(sides)
            random.shuffle(order)
            for side in order:
                side.enter()
                yield number >= WARM_UP, side
            self.tick()


def keep(row: Row, baseline: bool, sample: Sample) -> None:
    """Note a sample on the right side of the row."""
    (row.baseline if baseline else row.ours).append(sample)


def network(masquerade: bool, subnet: str = "10.99.0.0/16") -> dict[str, Any]:
    """The network of a node as its pods get it."""
    return {
        "cniVersion": "1.0.0",
        "type": "bridge",
        "bridge": "bench0",
        "isDefaultGateway": True,
        "ipMasq": masquerade,
        "ipam": {"type": "host-local", "subnet": subnet},
    }


def check_added(answer: Any, netns: Namespace | None = None) -> None:
    """Fail unless the result has an address, and the namespace too where one is given."""
    address = answer["ips"][0]["address"]
    if netns is not None:
        words = ["nsenter", f"--net={netns.path}", "ip", "address", "show", "eth0"]
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        if address not in shown:
            raise RuntimeError(f"{address} is not on eth0: {shown}")


def check_deleted(side: Side, netns: Namespace) -> None:
    """Fail if the container's interface, the address or the masquerade is still there."""
    words = ["nsenter", f"--net={netns.path}", "ip", "-o", "link"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "eth0" in shown or side.reservations():
        raise RuntimeError(f"{side.name}: DEL left something: {shown} {side.reservations()}")
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    # A host's address; the network's own sets and rules stay, and name 10.99.0.0/16.
    if re.search(r"10\.99\.\d+\.[1-9]", rules.stdout):
        raise RuntimeError(f"{side.name}: DEL left masquerade rules: {rules.stdout}")


def bridge(bench: Bench, masquerade: bool) -> list[Row]:
    """ADD and DEL of the usual pod network."""
    suffix, words = ("masq", "with ipMasq") if masquerade else ("plain", "no masquerade")
    add = Row(
        f"bridge-add-{suffix}",
        f"bridge + host-local ADD, {words}",
        "Go executes host-local and iptables (5 times); ours calls host-local in process and "
        "sends one nftables transaction"
        if masquerade
        else "the kernel's veth, and Go's second process",
        0.50 if masquerade else 1.10,
    )
    delete = Row(
        f"bridge-del-{suffix}",
        f"bridge + host-local DEL, {words}",
        "Go waits for RCU once per iptables process and for the veth; ours removes the "
        "nftables element first and leaves the veth's wait to a detached child"
        if masquerade
        else "removing a veth waits 11-19 ms for RCU; ours returns when it is gone from view",
        0.25 if masquerade else 0.60,
    )
    sides = bench.sides(network(masquerade))
    checked: set[str] = set()
    for record, side in bench.alternate(*sides):
        pod, container = Namespace(), side.container()
        added, answer = once(side.call("bridge", "ADD", pod.path, container))
        check_added(answer, None if side.name in checked else pod)
        deleted, _ = once(side.call("bridge", "DEL", pod.path, container, answer))
        if side.name not in checked:
            check_deleted(side, pod)
            checked.add(side.name)
        if record:
            keep(add, side is sides[0], added)
            keep(delete, side is sides[0], deleted)
        pod.remove()
    peaks = {"ADD": [0, 0], "DEL": [0, 0]}
    for index, side in enumerate(sides):
        side.enter()
        for _ in range(MEMORY_RUNS):
            pod, container = Namespace(), side.container()
            for command, peak in peaks.items():
                call = side.call("bridge", command, pod.path, container)
                peak[index] = max(peak[index], peak_memory(call))
            pod.remove()
        side.close()
    add.memory = (peaks["ADD"][0], peaks["ADD"][1])
    delete.memory = (peaks["DEL"][0], peaks["DEL"][1])
    return [add, delete]


#: As the node agent writes it when masquerading is left to the plugins.
SUBNET = """FLANNEL_NETWORK=10.99.0.0/16
FLANNEL_SUBNET=10.99.7.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""


def overlay(bench: Bench) -> list[Row]:
    """ADD of vxlan-overlay beside a node agent, against what it delegates to."""
    pathlib.Path("/run/bench-subnet.env").write_text(SUBNET)
    delegate = {"bridge": "bench0", "isDefaultGateway": True}
    version = {"cniVersion": "1.0.0"}
    through = {**version, "subnetFile": "/run/bench-subnet.env", "delegate": delegate}
    # What both the flannel plugin and ours hand down, but for whose the masquerade is.
    rendered = {
        **version,
        **delegate,
        "type": "bridge",
        "isGateway": True,
        "ipMasq": True,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.99.7.0/24"}]],
            "routes": [{"dst": "10.99.0.0/16"}],
        },
    }
    alone = Row(
        "overlay-add-bridge",
        "vxlan-overlay ADD, against our bridge alone, both with ipMasq",
        "the delegate is called in process; added are reading the subnet file, and writing down "
        "for DEL what the delegate was given",
        1.2,
        ("bridge", "vxlan-overlay"),
    )
    flannel = Row(
        "overlay-add-flannel",
        "vxlan-overlay ADD, against Go's bridge as flannel calls it, both with ipMasq",
        "Go's bridge executes host-local and iptables (5 times); the flannel plugin that would "
        "execute the bridge is not counted, as Debian has none",
        0.55,
    )
    sides = (
        (Side("go", bench.go, rendered), "bridge"),
        (Side("bridge", bench.ours, rendered), "bridge"),
        (Side("ours", bench.ours, through), "vxlan-overlay"),
    )
    types = {side.name: type for side, type in sides}
    checked: set[str] = set()
    for record, side in bench.alternate(*[side for side, _ in sides]):
        pod, container, type = Namespace(), side.container(), types[side.name]
        sample, answer = once(side.call(type, "ADD", pod.path, container))
        check_added(answer, None if side.name in checked else pod)
        once(side.call(type, "DEL", pod.path, container, answer))
        if side.name not in checked:
            check_deleted(side, pod)
            checked.add(side.name)
        if record:
            if side.name != "go":
                keep(alone, side.name == "bridge", sample)
            if side.name != "bridge":
                keep(flannel, side.name == "go", sample)
        pod.remove()
    peaks = []
    for side, type in sides:
        side.enter()
        pod, container = Namespace(), side.container()
        peaks.append(peak_memory(side.call(type, "ADD", pod.path, container)))
        once(side.call(type, "DEL", pod.path, container))
        pod.remove()
        side.close()
    flannel.memory = (peaks[0], peaks[2])
    alone.memory = (peaks[1], peaks[2])
    pathlib.Path("/run/bench-subnet.env").unlink()
    return [alone, flannel]


def burst(bench: Bench) -> list[Row]:
    """Many pods at the same moment, as after a node's reboot."""
    add = Row(
        "burst-add",
        f"{AT_ONCE} ADDs at once with ipMasq",
        "bound by CPU and by locks: Go's iptables processes queue for the xtables lock",
        0.50,
    )
    delete = Row(
        "burst-del",
        f"{AT_ONCE} DELs at once with ipMasq",
        "the kernel removes veths one after the other; Go adds an RCU wait per iptables process",
        0.25,
    )
    sides = bench.sides(network(True))
    for record, side in bench.alternate(*sides):
        pods = [(Namespace(), side.container()) for _ in range(AT_ONCE)]
        added, answers = at_once([side.call("bridge", "ADD", p.path, c) for p, c in pods])
        addresses = {answer["ips"][0]["address"] for answer in answers}
        if len(addresses) != AT_ONCE:
            raise RuntimeError(f"{side.name}: {AT_ONCE} ADDs gave {len(addresses)} addresses")
        deletions = [
            side.call("bridge", "DEL", pod.path, container, answer)
            for (pod, container), answer in zip(pods, answers, strict=True)
        ]
        deleted, _ = at_once(deletions)
        if side.reservations():
            raise RuntimeError(f"{side.name}: DELs left {side.reservations()} reservations")
        if record:
            keep(add, side is sides[0], added)
            keep(delete, side is sides[0], deleted)
        for pod, _ in pods:
            pod.remove()
    for side in sides:
        side.close()
    return [add, delete]


def crowded(bench: Bench) -> list[Row]:
    """What an ADD and DEL cost on a node that has many pods already."""
    row = Row(
        "crowded",
        f"ADD + DEL with ipMasq, {MANY} live attachments against {FEW}",
        "the plugin does the same for the 1,000th, and another CPU delivers its ARP announcement; "
        "what grows is the kernel's part: the bridge walks its ports whenever one changes "
        "(profile in README, Figures)",
        1.3,
        (f"ours, {FEW}", f"ours, {MANY}"),
    )
    few, many = (Side(f"ours{n}", bench.ours, network(True), True) for n in (FEW, MANY))
    live: list[Namespace] = []
    for side, count in ((few, FEW), (many, MANY)):
        side.enter()
        for _ in range(count):
            pod = Namespace()
            once(side.call("bridge", "ADD", pod.path, side.container()))
            live.append(pod)
    settle()
    for record, side in bench.alternate(few, many):
        pod, container = Namespace(), side.container()
        added, answer = once(side.call("bridge", "ADD", pod.path, container))
        check_added(answer)
        deleted, _ = once(side.call("bridge", "DEL", pod.path, container, answer))
        if record:
            sample = Sample(added.wall + deleted.wall, added.cpu + deleted.cpu)
            keep(row, side is few, sample)
        pod.remove()
    for pod in live:
        pod.remove()
    for side in (few, many):
        side.close()
    return [row]


def settle(quiet: float = 400, patience: float = 60) -> None:
    """Wait, `patience` seconds at most, until fewer than `quiet` packets a second arrive.

    A thousand new containers solicit IPv6 routers for 12 s, each time heard by a thousand.
    """
    deadline = time.monotonic() + patience
    before = _received()
    while time.monotonic() < deadline:
        time.sleep(2)
        now = _received()
        if now - before < 2 * quiet:
            return
        before = now


def _received() -> int:
    """NET_RX softirqs of all processors since boot."""
    lines = pathlib.Path("/proc/softirqs").read_text().splitlines()
    return sum(int(n) for line in lines if "NET_RX:" in line for n in line.split()[1:])


def loopback(bench: Bench) -> list[Row]:
    """The plugin that every pod runs, besides its network."""
    row = Row(
        "loopback-add",
        "loopback ADD",
        "one netlink message: what is left is the interpreter's start (see README, Frozen)",
        3.2,
    )
    sides = bench.sides({"cniVersion": "0.3.1", "type": "loopback"})
    return [_single(bench, row, sides, "loopback", undo=False)]


def host_local(bench: Bench) -> list[Row]:
    """IPAM alone, as a foreign main plugin would execute it."""
    row = Row(
        "host-local-add",
        "host-local ADD",
        "a lock and two small files: what is left is the interpreter's start",
        3.2,
    )
    sides = bench.sides(
        {**network(False), "ipam": {"type": "host-local", "subnet": "10.99.0.0/16"}}
    )
    return [_single(bench, row, sides, "host-local", undo=True)]


def _single(bench: Bench, row: Row, sides: tuple[Side, Side], type: str, undo: bool) -> Row:
    """ADD of one plugin; with `undo` a DEL follows, unmeasured."""
    peaks = [0, 0]
    for record, side in bench.alternate(*sides):
        pod, container = Namespace(), side.container()
        call = side.call(type, "ADD", pod.path, container)
        sample, answer = once(call)
        if undo:
            check_added(answer)
            once(side.call(type, "DEL", pod.path, container))
        elif answer["interfaces"][0]["name"] != "lo":
            raise RuntimeError(f"{side.name}: {answer}")
        if record:
            keep(row, side is sides[0], sample)
            if len(row.ours) <= MEMORY_RUNS:
                index = sides.index(side)
                peaks[index] = max(peaks[index], peak_memory(call))
                if undo:
                    once(side.call(type, "DEL", pod.path, container))
        pod.remove()
    for side in sides:
        side.close()
    row.memory = (peaks[0], peaks[1])
    return row


def version(bench: Bench) -> list[Row]:
    """What podman asks of every plugin at nearly every command."""
    row = Row("version", "VERSION", "the interpreter's start and nothing else", 3.2)
    sides = bench.sides({"cniVersion": "1.0.0"})
    calls = [
        Call(
            side.bin_dir / "bridge",
            plugins.environment("VERSION", "dummy", "dummy", "", "dummy"),
            b'{"cniVersion":"1.0.0"}',
        )
        for side in sides
    ]
    for record, side in bench.alternate(*sides):
        sample, answer = once(calls[sides.index(side)])
        if "1.0.0" not in answer["supportedVersions"]:
            raise RuntimeError(f"{side.name}: {answer}")
        if record:
            keep(row, side is sides[0], sample)
    base, ours = (max(peak_memory(call) for _ in range(MEMORY_RUNS)) for call in calls)
    row.memory = (base, ours)
    for side in sides:
        side.close()
    return [row]


GROUPS: dict[str, Callable[[Bench], list[Row]]] = {
    "masq": lambda bench: bridge(bench, True),
    "plain": lambda bench: bridge(bench, False),
    "overlay": overlay,
    "burst": burst,
    "crowded": crowded,
    "loopback": loopback,
    "host-local": host_local,
    "version": version,
}


def load() -> float:
    """The machine's load average of the last minute."""
    return os.getloadavg()[0]
