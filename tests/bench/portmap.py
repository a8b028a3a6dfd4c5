# SPDX-License-Identifier: Apache-2.0
"""portmap: ADD and DEL against Go's, and what 5,000 mappings cost a new connection."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.bench.hosts import Namespace
from tests.bench.measure import Sample, once, peak_memory
from tests.bench.rows import MEMORY_RUNS, Bench, Row, Side, keep
from tests.rig import isolation

#: Connections of one sample; each with its answer from a container, and reset at once.
_CONNECTIONS = 1000
_MANY = 5000
_PORT = 8080
_CONTAINER = "10.99.0.2"


def _config(side: Side, pod: Namespace, mappings: list[dict[str, Any]]) -> None:
    """Give the side these mappings for a container with `_CONTAINER` as its address."""
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": pod.path}],
        "ips": [{"address": f"{_CONTAINER}/24", "interface": 0}],
    }
    side.config["runtimeConfig"] = {"portMappings": mappings}
    side.config["prevResult"] = result


def _mapping(host_port: int, **keys: Any) -> dict[str, Any]:
    return {"hostPort": host_port, "containerPort": 80, "protocol": "tcp", **keys}


def _connect(side: Side) -> Namespace:
    """A container's namespace with a veth to the side's host."""
    pod = Namespace(lo_up=True)
    side.enter()
    name = pod.path.rpartition("/")[2]
    for words in (
        f"ip link add pod0 type veth peer name eth0 netns {name}",
        "ip link set pod0 up",
        "ip address add 10.99.0.1/24 dev pod0",
        "sysctl -qw net.ipv4.ip_forward=1",
    ):
        isolation.command(*words.split())

    def inside() -> None:
        isolation.command("ip", "link", "set", "eth0", "up")
        isolation.command("ip", "address", "add", f"{_CONTAINER}/24", "dev", "eth0")

    isolation.within(pod.path, inside)
    return pod


def mappings(bench: Bench) -> list[Row]:
    """ADD and DEL of a container with two mappings."""
    add = Row(
        "portmap-add",
        "portmap ADD, two mappings",
        "Go executes iptables for every rule and chain; ours looks and commits elements of maps",
        0.35,
    )
    delete = Row(
        "portmap-del",
        "portmap DEL, two mappings",
        "Go waits for RCU once per iptables process; ours leaves its one wait to a child",
        0.35,
    )
    sides = bench.sides({"cniVersion": "1.0.0", "type": "portmap"})
    peaks = {"ADD": [0, 0], "DEL": [0, 0]}
    pods = {side.name: _connect(side) for side in sides}
    for side in sides:
        _config(side, pods[side.name], [_mapping(_PORT), _mapping(8443)])
    for record, side in bench.alternate(*sides):
        pod, container = pods[side.name], side.container()
        added, _ = once(side.call("portmap", "ADD", pod.path, container))
        if not _is_mapped(container):
            raise RuntimeError(f"{side.name}: ADD made no mapping")
        deleted, _ = once(side.call("portmap", "DEL", pod.path, container))
        if _is_mapped(container):
            raise RuntimeError(f"{side.name}: DEL left a mapping")
        if record:
            keep(add, side is sides[0], added)
            keep(delete, side is sides[0], deleted)
            if len(add.ours) <= MEMORY_RUNS:
                for verb, peak in peaks.items():
                    call = side.call("portmap", verb, pod.path, container)
                    index = sides.index(side)
                    peak[index] = max(peak[index], peak_memory(call))
    add.memory = (peaks["ADD"][0], peaks["ADD"][1])
    delete.memory = (peaks["DEL"][0], peaks["DEL"][1])
    for side in sides:
        side.close()
        pods[side.name].remove()
    return [add, delete]


def _is_mapped(container: str) -> bool:
    """True while the rule set has the container's name, or the chain that iptables gives it."""
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    return re.search(rf":{container}:|chain CNI-DN-", done.stdout) is not None


def connections(bench: Bench) -> list[Row]:
    """New connections to a mapped port, and ADD and DEL, beside one and beside many mappings."""
    columns = ("1 mapping", f"{_MANY:,} mappings")
    rate = Row(
        "portmap-rate",
        f"{_CONNECTIONS} connections to a mapped port, {columns[1]} against 1",
        "one look-up in a hash table, whatever is in it; the next row says what is noise",
        1.1,
        columns,
    )
    noise = Row(
        "portmap-rate-noise",
        "the same, 1 mapping on another host against 1",
        "what the same work on two hosts differs by",
        columns=("1 mapping", "1 elsewhere"),
    )
    verbs = Row(
        "portmap-crowded",
        f"portmap ADD + DEL, two mappings, beside {columns[1]} against 1",
        "elements are found by their keys, and DEL's keys in the attachment's record",
        1.1,
        columns,
    )
    counts = {"few": 1, "again": 1, "many": _MANY}
    sides = [Side(name, bench.ours, {"cniVersion": "1.0.0", "type": "portmap"}) for name in counts]
    pods = {side.name: _connect(side) for side in sides}
    servers: dict[str, socket.socket] = {}
    for side, count in zip(sides, counts.values(), strict=True):
        side.enter()
        pod = pods[side.name]
        servers[side.name] = isolation.within(pod.path, _listen)
        _config(side, pod, [_mapping(_PORT)])
        once(side.call("portmap", "ADD", pod.path, side.container()))
        # One attachment for each ten ports, as many containers have them.
        for first in range(10_000, 10_000 + count - 1, 10):
            _config(side, pod, [_mapping(first, hostPortEnd=first + 9)])
            once(side.call("portmap", "ADD", pod.path, side.container()))
        _config(side, pod, [_mapping(9001), _mapping(9002)])
    for record, side in bench.alternate(*sides):
        connected = _connections(servers[side.name])
        container = side.container()
        added, _ = once(side.call("portmap", "ADD", pods[side.name].path, container))
        deleted, _ = once(side.call("portmap", "DEL", pods[side.name].path, container))
        if record:
            for row, other, sample in (
                (rate, "many", connected),
                (noise, "again", connected),
                (verbs, "many", Sample(added.wall + deleted.wall, added.cpu + deleted.cpu)),
            ):
                if side.name in ("few", other):
                    keep(row, side.name == "few", sample)
    for side in sides:
        servers[side.name].close()
        side.close()
        pods[side.name].remove()
    return [rate, noise, verbs]


def _listen() -> socket.socket:
    return socket.create_server(("0.0.0.0", 80), backlog=16)


def _connections(server: socket.socket) -> Sample:
    """Connect from the host, so many times."""
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(_CONNECTIONS):
        client = socket.create_connection(("10.99.0.1", _PORT), 5)
        accepted, _ = server.accept()
        # A reset leaves no port in TIME_WAIT.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        accepted.close()
    return Sample(time.perf_counter() - started, time.process_time() - cpu)


GROUPS: dict[str, Callable[[Bench], list[Row]]] = {
    "portmap": mappings,
    "portmap-crowded": connections,
}
