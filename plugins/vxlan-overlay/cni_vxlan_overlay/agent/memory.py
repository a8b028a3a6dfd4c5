# SPDX-License-Identifier: Apache-2.0
"""What the agent knows, written down: for its own next start, for the plugin, for operators.

One JSON file. The plugin holds `fabric` against the kernel (CHECK, STATUS); the agent begins
with `self` and `peers` when the store is away; `status` and `check` show all of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import pathlib
import time
from typing import Any

from cni_vxlan_overlay.agent.model import Backend, NetConf, Node
from cni_vxlan_overlay.agent.store import Hints
from cni_vxlan_overlay.fabric import Fabric
from cni_vxlan_overlay.peers import Endpoint, Peer
from libcni.fs import write_atomic
from libcni.inet import Prefix

log = logging.getLogger(__name__)

DEFAULT_FILE = "/var/lib/vxlan-overlay/peers.json"
#: What the lock's name has more than the file's.
_LOCK = ".lock"


def node_document(node: Node, **more: Any) -> dict[str, Any]:
    """One node, as in the file."""
    return {
        "uid": node.uid,
        "name": node.name,
        "age": node.age,
        "subnets": [subnet.text() for subnet in node.peer.subnets],
        "endpoints": [
            {"publicIP": endpoint.public_ip, "vtepMAC": endpoint.mac}
            for endpoint in node.peer.endpoints
        ],
        **more,
    }


def parse_node(document: Any) -> Node:
    """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
    peer = Peer(
        document["name"],
        [Endpoint(entry["publicIP"], entry["vtepMAC"]) for entry in document["endpoints"]],
        [Prefix.parse(text) for text in document["subnets"]],
    )
    return Node(document["uid"], peer, document.get("age", ""))


def conf_document(conf: NetConf) -> dict[str, Any]:
    """The network's configuration, as in the file."""
    backend = conf.backend
    return {
        "networks": [network.text() for network in conf.networks],
        "vni": backend.vni,
        "port": backend.port,
        "mtu": backend.mtu,
        "learning": backend.learning,
        "direct_routing": backend.direct_routing,
        "gbp": backend.gbp,
        "checksum": backend.checksum,
    }


def parse_conf(document: dict[str, Any]) -> NetConf:
    """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
    values = dict(document)
    networks = tuple(Prefix.parse(text) for text in values.pop("networks"))
    return NetConf(networks, backend=Backend(**values))


def hints_document(hints: Hints) -> dict[str, Any]:
    """What the store knows of this node's addresses, as in the file."""
    return dataclasses.asdict(hints)


def parse_hints(document: Any) -> Hints:
    """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
    internal = [str(text) for text in document["internal_ips"]]
    names = ("api_server", "public_ip", "public_ipv6")
    return Hints(tuple(internal), *[str(document[name]) for name in names])


def fabric_document(fabric: Fabric) -> dict[str, list[tuple[str, ...]]]:
    """A fabric, as in the file: sorted lists."""
    return {kind: sorted(getattr(fabric, kind)) for kind in Fabric.__slots__}


def take_lock(path: str, patience: float = 10.0) -> int | None:
    """Be the one agent of this node: hold a lock beside the file until the process ends.

    patience: seconds for an agent that is about to end. Returns the descriptor, None where no
    file can be made (the agent works without). Raises BlockingIOError naming the other's PID.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        fd = os.open(path + _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        log.warning("%s%s: %s; a second agent will not be noticed", path, _LOCK, error.strerror)
        return None
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                other = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(fd)
                raise BlockingIOError(
                    f"another vxlan-overlayd runs on this node, with PID {other}: it has "
                    f"{path}{_LOCK}"
                ) from None
            time.sleep(0.1)
        else:
            with contextlib.suppress(OSError):  # a full disk; it is for the other's message only
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd


def is_locked(path: str) -> bool:
    """True while an agent runs."""
    try:
        fd = os.open(path + _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Memory:
    """The file. since: when each peer was first seen (Unix seconds), by uid.

    hints: what the store last said of this node's addresses, by which its underlay was found.
    """

    def __init__(self, path: str = DEFAULT_FILE) -> None:
        self.path = path
        self.own: Node | None = None
        self.nodes: dict[str, Node] = {}
        self.since: dict[str, float] = {}
        self.conf: dict[str, Any] = {}
        self.hints = Hints()
        #: Each peer as last written, by uid: (node, problem, text). Of thousands, few change.
        self._texts: dict[str, tuple[Node, str, str]] = {}

    def load(self) -> bool:
        """Read what an earlier run wrote; False if there is nothing of use, which is no error."""
        try:
            document = json.loads(pathlib.Path(self.path).read_bytes())
            own = parse_node(document["self"])
            nodes = {}
            for entry in document["peers"]:
                node = parse_node(entry)
                nodes[node.uid] = node
                self.since[node.uid] = float(entry.get("since", 0)) or time.time()
            self.conf = dict(document["conf"])
            if "hints" in document:  # not in a file of an earlier version
                self.hints = parse_hints(document["hints"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cannot use %s, what an earlier run knew: %r", self.path, error)
            return False
        self.own, self.nodes = own, nodes
        return True

    def save(self, document: dict[str, Any], problems: dict[str, str]) -> None:
        """Write own node, nodes and the rest of `document`, whole or not at all.

        problems: why a node is not used, by uid. Raises OSError.
        """
        assert self.own is not None
        now = time.time()
        self.since = {uid: self.since.get(uid, now) for uid in self.nodes}
        self._texts = {
            uid: self._text(uid, node, problems.get(uid, ""))
            for uid, node in sorted(self.nodes.items(), key=lambda item: item[1].name)
            if uid != self.own.uid
        }
        rest = {
            "written": now,
            "self": node_document(self.own),
            "conf": self.conf,
            "hints": hints_document(self.hints),
            **document,
        }
        peers = ", ".join(text for _, _, text in self._texts.values())
        whole = f'{json.dumps(rest)[:-1]}, "peers": [{peers}]}}'
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        write_atomic(self.path, whole.encode(), 0o644)

    def _text(self, uid: str, node: Node, problem: str) -> tuple[Node, str, str]:
        known = self._texts.get(uid)
        if known is not None and known[0] is node and known[1] == problem:
            return known
        document = node_document(node, since=self.since[uid], problem=problem)
        return node, problem, json.dumps(document)

    def forget(self) -> None:
        """Remove the file and its lock. Idempotent. Raises OSError."""
        pathlib.Path(self.path).unlink(missing_ok=True)
        pathlib.Path(self.path + _LOCK).unlink(missing_ok=True)
