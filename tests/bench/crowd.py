# SPDX-License-Identifier: Apache-2.0
"""A cluster for measurements: few real nodes, a store that tells of thousands, and witnesses.

The peers are Node objects in the stand-in for an API server (tests/overlay/api_server.py), as
long as a kubelet's are in a real cluster; machines behind them there are none, which makes no
difference to the agent. What it does is seen from outside: by /proc, and by a netlink socket that
belongs to nobody but the measurement.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.overlay.agents import Agent
from tests.overlay.api_server import Object
from tests.overlay.api_server import node as node_object
from tests.overlay.cluster import Cluster, Node
from tests.overlay.stores import NETWORK6, Kubernetes
from tests.rig import isolation
from tests.rig.host import Host

#: The kernel counts a process's CPU in this, seconds.
TICK = 1 / os.sysconf("SC_CLK_TCK")
_PREFIX = "flannel.alpha.coreos.com"
#: Holds 65,536 subnets; the real nodes' are in 10.244.0.0/16 of it.
_NETWORK = "10.0.0.0/8"

# linux/rtnetlink.h, linux/neighbour.h, asm-generic/socket.h
_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH = 16, 20, 24, 28
#: RTMGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
_AF_BRIDGE, _PERMANENT = 7, 0x80
_SO_RCVBUFFORCE = 33
_HEADER = struct.Struct("=IHHII")
_OUR_ROUTES = 97


class Witness:
    """Listens to what is made in a node's kernel; decodes next to nothing."""

    def __init__(self, node: Node) -> None:
        self._socket = isolation.within(f"/proc/{node.pid}/ns/net", self._open)
        #: Permanent neighbours and forwarding entries, and routes of an agent, made so far.
        self._counts = {"forwarding": 0, "neighbours": 0, "routes": 0}
        #: Links and addresses that were written.
        self._others = 0
        #: When the last message came (time.perf_counter).
        self.last = 0.0
        self._watched: tuple[bytes, int] | None = None
        self._seen = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="witness", daemon=True)
        self._thread.start()

    @staticmethod
    def _open() -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 128 << 20)
        made.bind((0, _GROUPS))
        made.settimeout(0.2)
        return made

    def _listen(self) -> None:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                return  # closed
            self.last = time.perf_counter()
            offset = 0
            while offset + 28 <= len(data):
                size, kind, _, _, _ = _HEADER.unpack_from(data, offset)
                self._take(kind, data[offset : offset + size])
                offset += (max(size, 16) + 3) & ~3

    def _take(self, kind: int, message: bytes) -> None:
        if kind in (_NEWLINK, _NEWADDR):
            self._others += 1
        elif kind == _NEWROUTE:
            if message[21] == _OUR_ROUTES:
                self._counts["routes"] += 1
        elif kind == _NEWNEIGH:
            # Others are learned by the kernel itself: the underlay's.
            if struct.unpack_from("=H", message, 24)[0] & _PERMANENT:
                forwards = message[16] == _AF_BRIDGE
                self._counts["forwarding" if forwards else "neighbours"] += 1
        else:
            return
        watched = self._watched
        if watched is not None and watched[0] in message:
            pattern, left = watched
            self._watched = (pattern, left - 1) if left > 1 else None
            if left == 1:
                self._seen.set()

    def counts(self) -> dict[str, int]:
        """How many of each kind have been made."""
        return dict(self._counts)

    def writes(self) -> int:
        """RTM_NEW* of all that an agent makes, links and addresses too."""
        return self._others + sum(self._counts.values())

    def expect(self, pattern: bytes, times: int) -> None:
        """Look for these bytes in so many messages; see `seen`."""
        self._seen.clear()
        self._watched = (pattern, times)

    def seen(self, seconds: float) -> float:
        """When (time.perf_counter) the last of what is expected came. Raises RuntimeError."""
        if not self._seen.wait(seconds):
            raise RuntimeError(f"the kernel was not changed within {seconds:g} s")
        return self.last

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        self._thread.join()


class Crowd(Kubernetes):
    """The stand-in for an API server, with Node objects without number.

    dual: nodes have pods of both families, and an underlay of both.
    """

    def __init__(self, count: int, dual: bool = False) -> None:
        super().__init__()
        self.count = count
        self.dual = dual
        for number in range(count):
            self.server.add(long_node(number, dual))

    def options(self, node: Node) -> list[str]:
        """As of `Kubernetes`, with a network that has room for the crowd."""
        options = super().options(node)
        conf: dict[str, Any] = {"Network": _NETWORK, "Backend": {"Type": "vxlan"}}
        if self.dual:
            conf |= {"IPv6Network": NETWORK6, "EnableIPv6": True}
        node.write("/etc/cni/net-conf.json", json.dumps(conf))
        return options

    def move(self, number: int, version: int) -> bytes:
        """A peer has another address and another VTEP; returns the new MAC."""
        mac = _mac(number, version)
        self.server.annotate(
            _name(number),
            {
                f"{_PREFIX}/public-ip": _public(number, version),
                f"{_PREFIX}/backend-data": json.dumps({"VNI": 1, "VtepMAC": mac.hex(":")}),
            },
        )
        return mac

    def beat(self, number: int) -> None:
        """A kubelet reports that its node is as it was."""
        now = f"2026-01-01T00:00:{int(time.time() * 1e3) % 60000 / 1e3:06.3f}Z"
        conditions = [{"type": "Ready", "lastHeartbeatTime": now}]
        self.server.change(_name(number), {"status": {"conditions": conditions}})


def _name(number: int) -> str:
    return f"ip-10-{number >> 8}-{number & 255}-17.eu-central-1.compute.internal"


def _public(number: int, version: int = 0) -> str:
    return f"172.{16 + version % 8}.{number >> 8}.{number & 255}"


def _mac(number: int, version: int = 0) -> bytes:
    return struct.pack(">BBHH", 0x0A, 0x77, version, number)


def long_node(number: int, dual: bool) -> Object:
    """A Node object of a peer, with what kubelets write into it besides: about 8 KiB."""
    mac = _mac(number).hex(":")
    annotations = {
        f"{_PREFIX}/kube-subnet-manager": "true",
        f"{_PREFIX}/backend-type": "vxlan",
        f"{_PREFIX}/public-ip": _public(number),
        f"{_PREFIX}/backend-data": json.dumps({"VNI": 1, "VtepMAC": mac}),
    }
    pod_cidrs = [f"10.{number >> 8}.{number & 255}.0/24"]
    if dual:
        annotations[f"{_PREFIX}/public-ipv6"] = f"2001:db8:77::{number + 1:x}"
        annotations[f"{_PREFIX}/backend-v6-data"] = annotations[f"{_PREFIX}/backend-data"]
        pod_cidrs.append(f"fd00:10:244:{0x1000 + number:x}::/64")
    made = node_object(
        _name(number), *pod_cidrs, annotations=annotations, internal_ips=(_public(number),)
    )
    status = made["status"]
    for kind in ("MemoryPressure", "DiskPressure", "PIDPressure"):
        status["conditions"].append(
            {
                "type": kind,
                "status": "False",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                "lastTransitionTime": "2025-12-01T00:00:00Z",
                "reason": f"KubeletHasSufficient{kind.removesuffix('Pressure')}",
                "message": "kubelet has sufficient resources available",
            }
        )
    for name in ("capacity", "allocatable"):
        status[name] = {
            "cpu": "16",
            "ephemeral-storage": "162420480Ki",
            "hugepages-2Mi": "0",
            "memory": "65051016Ki",
            "pods": "110",
        }
    # A kubelet lists 50 images at most.
    status["images"] = [
        {
            "names": [
                f"registry.example.com/team-{image}/service@sha256:{image:064x}",
                f"registry.example.com/team-{image}/service:v1.{image}.0",
            ],
            "sizeBytes": 50_000_000 + image,
        }
        for image in range(30)
    ]
    return made


class Lab:
    """Nodes on an underlay, in namespaces that go with it."""

    def __init__(self, cluster: Cluster, scratch: pathlib.Path) -> None:
        self.cluster = cluster
        self.scratch = scratch
        self._numbers = iter(range(1, 250))

    def node(self) -> Node:
        """A new machine."""
        return self.cluster.node(next(self._numbers))

    def agent(self, node: Node, store: Kubernetes) -> Agent:
        """The agent of a node, not started yet."""
        return Agent(node, self.scratch / f"{node.name}.log", store.options(node))


@contextlib.contextmanager
def lab(bin_dir: pathlib.Path) -> Iterator[Lab]:
    """A lab in a network namespace of its own, which this process is in until it ends."""
    cluster = Cluster(Host(), bin_dir)
    try:
        with tempfile.TemporaryDirectory(prefix="adder-bench-", dir="/run") as scratch:
            yield Lab(cluster, pathlib.Path(scratch))
    finally:
        cluster.close()


@contextlib.contextmanager
def crowd(count: int, dual: bool = False) -> Iterator[Crowd]:
    """A store with so many peers."""
    store = Crowd(count, dual)
    try:
        yield store
    finally:
        store.close()


def cpu(agent: Agent) -> float:
    """Seconds of user and system time of an agent, and of the programs it has run."""
    assert agent.process is not None
    text = pathlib.Path(f"/proc/{agent.process.pid}/stat").read_text()
    return sum(map(int, text.rpartition(")")[2].split()[11:15])) * TICK


def peak(agent: Agent) -> int:
    """Its peak resident memory, kB (VmHWM)."""
    assert agent.process is not None
    text = pathlib.Path(f"/proc/{agent.process.pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


def settle(agent: Agent, quiet: float = 1.0, patience: float = 120.0) -> float:
    """Wait until the agent does nothing for `quiet` seconds; its CPU time then.

    Raises RuntimeError when it goes on for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    before = cpu(agent)
    while time.monotonic() < deadline:
        time.sleep(quiet)
        now = cpu(agent)
        if now - before < 0.02 * quiet + 1.5 * TICK:
            return now
        before = now
    raise RuntimeError(f"the agent is still busy after {patience:g} s: {agent.text()[-2000:]}")


def wait(condition: Callable[[], bool], what: str, agent: Agent, seconds: float = 120.0) -> None:
    """Wait for a condition, looking often. Raises RuntimeError with the agent's log."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = agent.process is None or agent.process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}\n{agent.text()[-4000:]}")
        time.sleep(0.005)
