# SPDX-License-Identifier: Apache-2.0
"""The directory of a host-local network, with files that a crash or somebody else left there.

An input is names and contents: "name", a line feed, content, and a NUL after each file. The name
"@c1 eth0" means the file of that owner in the index.
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

from cni_host_local import index, ranges, scan
from cni_host_local.store import Store, legacy_key, owner_key
from tests.fuzz import properties
from tests.fuzz.target import Target

_KEY = owner_key("c1", "eth0")
_OTHER = owner_key("c2", "eth0")


def run(data: bytes) -> None:
    """Every operation on such a directory: it ends, and no address gets a second owner."""
    index.decode(data)
    # In memory: each reservation is synced.
    root = pathlib.Path(tempfile.mkdtemp(prefix="reservations-", dir="/dev/shm"))
    try:
        directory = root / "net"
        _fill(directory, data)
        for work in (_look, _reserve, _last, _release, _collect):
            _locked(str(directory), work)
    finally:
        shutil.rmtree(root)


def _fill(directory: pathlib.Path, data: bytes) -> None:
    (directory / index.FOLDER).mkdir(parents=True)
    for part in data.split(b"\0")[:20]:
        name, _, content = part.partition(b"\n")
        text = name[:60].decode("utf-8", "replace").strip(".")
        if text.startswith("@"):
            container_id, _, ifname = text[1:].partition(" ")
            text = f"{index.FOLDER}/{index.file_of(owner_key(container_id, ifname))}"
        elif "/" in text or not text:
            continue
        (directory / text).write_bytes(content)


def _locked(directory: str, work: Callable[[Store], None]) -> None:
    store = Store.open(directory)
    assert store is not None
    store.prepare(_KEY, 1)

    def inside() -> None:
        with store:
            work(store)

    properties.coded(inside)


def _look(store: Store) -> None:
    for key in (_KEY, _OTHER, legacy_key("c1")):
        store.owned(key)
    for name in store.names():
        if scan.address_of(name) is not None:
            scan.is_reclaimable(store, name)


def _reserve(store: Store) -> None:
    pool = ranges.RangeSet([{"subnet": "10.1.2.0/29"}])
    scan.reclaim(store, pool)
    before = store.read("10.1.2.3")
    if store.reserve("10.1.2.3"):
        properties.equal(before, None, "a reservation that was there")
        store.record(_KEY, "/run/netns/a", ["10.1.2.3"])
        if "10.1.2.3" not in store.owned(_KEY):
            raise properties.Violation("what was reserved is not owned")


def _last(store: Store) -> None:
    store.last_reserved(0)
    store.set_last_reserved(0, "10.1.2.3")
    properties.equal(store.last_reserved(0), b"\x0a\x01\x02\x03", "the address last reserved")


def _release(store: Store) -> None:
    others = set(store.owned(_OTHER))
    store.release(_KEY)
    properties.equal(store.owned(_KEY), [], "what was released")
    properties.equal(set(store.owned(_OTHER)), others, "what another owns")


def _collect(store: Store) -> None:
    kept = set(store.owned(_OTHER))
    scan.collect(store, {("c2", "eth0")}, since=4e9)
    properties.equal(set(store.owned(_OTHER)), kept, "what GC has to keep")
    for name in store.names():
        if scan.address_of(name) is not None:
            held = store.read(name)
            if held is not None and b"c2" not in held[0]:
                raise properties.Violation(f"GC left {name}: {held[0]!r}")


def seeds() -> Iterator[bytes]:
    """What either suite writes, whole and torn."""
    yield b"10.1.2.2\nc1\r\neth0\0" + b"10.1.2.4\nc2\r\neth0\0" + b"last_reserved_ip.0\n10.1.2.4\0"
    yield b"10.1.2.3\n\0" + b"10.1.2.2\nc1\0" + b"lock\n\0" + b"last_reserved_ip.0\n\0"
    yield b"fd00::2\nc2\neth0\n\0" + b"10.1.2.3\n\0\0\0\0"
    index_file = b"boot\n/run/netns/a\n10.1.2.3 1700000000000000000\n"
    yield b"@c1 eth0\n" + index_file + b"\0" + b"10.1.2.3\nc1\r\neth0\0"


TARGET = Target(run, seeds, budget=150)
