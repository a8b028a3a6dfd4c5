# SPDX-License-Identifier: Apache-2.0
"""What a pod really gets: loopback, and a list of plugins that build on each other's results.

Executed as a runtime does: one plugin after the other, each with the result of the one before as
prevResult; DEL in reverse order, each with the result of the whole ADD.
"""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from tests.bench.hosts import Namespace
from tests.bench.measure import Call, Steps, all_in_turn, in_turn, once, peak_in_turn, peak_memory
from tests.bench.rows import (
    AT_ONCE,
    FEW,
    MANY,
    MEMORY_RUNS,
    Bench,
    Row,
    Side,
    check_deleted,
    keep,
    network,
    settle,
)
from tests.rig import isolation

_VERSION = "1.0.0"
_FIRST_PORT = 20_000
_GATEWAY = "10.99.0.1"
_LOOPBACK = {"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"}


def plugins_of_a_pod() -> list[dict[str, Any]]:
    """The list, without cniVersion and name: what nodes with containerd have."""
    bridge = {key: value for key, value in network(True).items() if key != "cniVersion"}
    return [
        {**bridge, "hairpinMode": True},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
    ]


@dataclasses.dataclass
class Pod:
    """A pod to attach on `side`, with two published ports that no other pod there has."""

    side: Side
    netns: Namespace
    container: str
    ports: tuple[int, int]

    def add(self) -> Steps:
        """The calls of its ADD; returns the result of the last plugin."""
        yield self._call(_LOOPBACK, "ADD")
        result = None
        for plugin in plugins_of_a_pod():
            result = yield self._call(self._config(plugin, result), "ADD")
        return result

    def delete(self, result: Any) -> Steps:
        """The calls of its DEL."""
        yield self._call(_LOOPBACK, "DEL")
        for plugin in reversed(plugins_of_a_pod()):
            yield self._call(self._config(plugin, result), "DEL")

    def _call(self, config: dict[str, Any], command: str) -> Call:
        type = config["type"]
        return self.side.call_with(config, type, command, self.netns.path, self.container)

    def _config(self, plugin: dict[str, Any], previous: Any) -> dict[str, Any]:
        config = {"cniVersion": _VERSION, "name": self.side.config["name"], **plugin}
        if "capabilities" in plugin:
            # With capitals, as containerd sends it.
            config["runtimeConfig"] = {
                "portMappings": [
                    {"HostPort": host, "ContainerPort": port, "Protocol": "tcp", "HostIP": ""}
                    for host, port in zip(self.ports, (80, 443), strict=True)
                ]
            }
        if previous is not None:
            config["prevResult"] = previous
        return config

    def reach(self) -> None:
        """Fail unless the host reaches the container through its first published port."""
        server = isolation.within(
            self.netns.path, lambda: socket.create_server(("0.0.0.0", 80), backlog=1)
        )
        with server, socket.create_connection((_GATEWAY, self.ports[0]), 5):
            server.settimeout(5)
            server.accept()[0].close()


def new_pod(side: Side) -> Pod:
    """A pod on the side's host, not attached yet."""
    container = side.container()
    # The ID's first eight characters are its number. Numbers come again after 10,000 pods.
    first = _FIRST_PORT + 2 * (int(container[:8]) % 10_000)
    return Pod(side, Namespace(), container, (first, first + 1))


def _sides(bench: Bench) -> tuple[Side, Side]:
    return bench.sides({"cniVersion": _VERSION})


def _check_added(pod: Pod, result: Any) -> None:
    if not result["ips"][0]["address"].startswith("10.99."):
        raise RuntimeError(f"{pod.side.name}: {result}")
    for port in pod.ports:
        if not _is_published(port):
            raise RuntimeError(f"{pod.side.name}: ADD did not publish port {port}")


def _check_deleted(pod: Pod) -> None:
    check_deleted(pod.side, pod.netns)
    for port in pod.ports:
        if _is_published(port):
            raise RuntimeError(f"{pod.side.name}: DEL left port {port}")


def _is_published(port: int) -> bool:
    words = ["nft", "list", "ruleset"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return f" {port} " in done.stdout


def pod(bench: Bench) -> list[Row]:
    """One pod's ADD and DEL, all plugins."""
    add = Row(
        "chain-add",
        "a whole pod's ADD: loopback, bridge, portmap, firewall",
        "four executions of ours; Go's bridge, portmap and firewall execute host-local once and "
        "iptables some thirty times. With ipMasq, host-local and two published ports",
        0.45,
    )
    delete = Row(
        "chain-del",
        "a whole pod's DEL",
        "each of Go's iptables processes that removes something waits for RCU, so does its veth; "
        "ours leave the waits to children",
        0.40,
    )
    sides = _sides(bench)
    checked: set[str] = set()
    for record, side in bench.alternate(*sides):
        made = new_pod(side)
        added, result = in_turn(made.add())
        first = side.name not in checked
        if first:
            _check_added(made, result)
            made.reach()
        deleted, _ = in_turn(made.delete(result))
        if first:
            _check_deleted(made)
            checked.add(side.name)
        if record:
            keep(add, side is sides[0], added)
            keep(delete, side is sides[0], deleted)
        made.netns.remove()
    peaks = [_peaks(side) for side in sides]
    add.memory = (peaks[0][0], peaks[1][0])
    delete.memory = (peaks[0][1], peaks[1][1])
    for side in sides:
        side.close()
    return [add, delete]


def _peaks(side: Side) -> tuple[int, int]:
    """The largest peak of any plugin of an ADD, and of a DEL."""
    side.enter()
    adds, deletes = [], []
    for _ in range(MEMORY_RUNS):
        made = new_pod(side)
        peak, result = peak_in_turn(made.add())
        adds.append(peak)
        deletes.append(peak_in_turn(made.delete(result))[0])
        made.netns.remove()
    return max(adds), max(deletes)


def burst(bench: Bench) -> list[Row]:
    """Many whole pods at the same moment, as after a node's reboot."""
    add = Row(
        "chain-burst-add",
        f"{AT_ONCE} whole pods' ADDs at once",
        "each pod's plugins one after the other, the pods beside each other: bound by CPU, of "
        "which Go's iptables processes take the most",
        0.50,
    )
    delete = Row(
        "chain-burst-del",
        f"{AT_ONCE} whole pods' DELs at once",
        "the kernel removes veths one after the other; Go adds an RCU wait per iptables process",
        0.50,
    )
    sides = _sides(bench)
    for record, side in bench.alternate(*sides):
        pods = [new_pod(side) for _ in range(AT_ONCE)]
        added, results = all_in_turn([made.add() for made in pods])
        addresses = {result["ips"][0]["address"] for result in results}
        if len(addresses) != AT_ONCE:
            raise RuntimeError(f"{side.name}: {AT_ONCE} ADDs gave {len(addresses)} addresses")
        deletions = [made.delete(result) for made, result in zip(pods, results, strict=True)]
        deleted, _ = all_in_turn(deletions)
        for made in pods:
            _check_deleted(made)
            made.netns.remove()
        if record:
            keep(add, side is sides[0], added)
            keep(delete, side is sides[0], deleted)
    for side in sides:
        side.close()
    return [add, delete]


def crowded(bench: Bench) -> list[Row]:
    """What a whole pod costs on a node that has many already."""
    columns = (f"ours, {FEW}", f"ours, {MANY}")
    add, delete = (
        Row(
            f"chain-crowded-{verb.lower()}",
            f"a whole pod's {verb}, {MANY} others present against {FEW}",
            why,
            1.3,
            columns,
        )
        for verb, why in (
            ("ADD", "the plugins look up what they need by keys; what grows is the kernel's part "
             "of adding a port to a bridge and a rule to a chain (README, Figures)"),
            ("DEL", "as ADD; the kernel walks the bridge's ports when one goes"),
        )
    )  # fmt: skip
    config = {"cniVersion": _VERSION}
    few, many = (Side(f"ours{n}", bench.ours, config, True) for n in (FEW, MANY))
    live: list[Namespace] = []
    for side, count in ((few, FEW), (many, MANY)):
        side.enter()
        for _ in range(count):
            made = new_pod(side)
            in_turn(made.add())
            live.append(made.netns)
    settle()
    for record, side in bench.alternate(few, many):
        made = new_pod(side)
        added, result = in_turn(made.add())
        deleted, _ = in_turn(made.delete(result))
        if record:
            keep(add, side is few, added)
            keep(delete, side is few, deleted)
        made.netns.remove()
    for netns in live:
        netns.remove()
    for side in (few, many):
        side.close()
    return [add, delete]


def firewall(bench: Bench) -> list[Row]:
    """ADD and DEL of the one plugin, each with its default backend."""
    add = Row(
        "firewall-add",
        "firewall ADD",
        "both use iptables: Go executes it for each chain and rule, ours reads by netlink what "
        "is there and executes iptables-restore once",
        0.6,
    )
    delete = Row(
        "firewall-del",
        "firewall DEL",
        "Go waits for RCU in each iptables process; ours removes rules by netlink and leaves the "
        "wait to a child",
        0.6,
    )
    sides = bench.sides({"cniVersion": _VERSION, "type": "firewall"})
    container_address = "10.99.0.2"
    result = {
        "cniVersion": _VERSION,
        "interfaces": [{"name": "bench0"}, {"name": "eth0", "sandbox": "/run/netns/none"}],
        "ips": [{"address": f"{container_address}/16", "interface": 1}],
    }
    pods = [Namespace() for _ in sides]
    peaks = {"ADD": [0, 0], "DEL": [0, 0]}
    for record, side in bench.alternate(*sides):
        index, container = sides.index(side), side.container()
        calls = [
            side.call("firewall", verb, pods[index].path, container, result)
            for verb in ("ADD", "DEL")
        ]
        added, _ = once(calls[0])
        _require(side, container_address, True)
        deleted, _ = once(calls[1])
        _require(side, container_address, False)
        if record:
            keep(add, index == 0, added)
            keep(delete, index == 0, deleted)
            if len(add.ours) <= MEMORY_RUNS:
                for verb, call in zip(peaks, calls, strict=True):
                    peaks[verb][index] = max(peaks[verb][index], peak_memory(call))
    add.memory = (peaks["ADD"][0], peaks["ADD"][1])
    delete.memory = (peaks["DEL"][0], peaks["DEL"][1])
    for side, netns in zip(sides, pods, strict=True):
        netns.remove()
        side.close()
    return [add, delete]


def _require(side: Side, address: str, present: bool) -> None:
    words = ["nft", "list", "ruleset"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    if (address in done.stdout) != present:
        raise RuntimeError(f"{side.name}: after {'ADD' if present else 'DEL'}: {done.stdout}")


GROUPS: dict[str, Callable[[Bench], list[Row]]] = {
    "firewall": firewall,
    "chain": pod,
    "chain-burst": burst,
    "chain-crowded": crowded,
}
