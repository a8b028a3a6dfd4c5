# SPDX-License-Identifier: Apache-2.0
"""What needs a look at every reservation: making the index anew, reclaiming, GC.

All of it is under the store's lock, so that no reservation is half made: Go's plugin too writes
the content of its files under that lock.
"""

from __future__ import annotations

import posix
from time import time

from cni_host_local.index import FOLDER, Entry, file_of
from cni_host_local.store import describe
from libcni.inet import pton
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_host_local.ranges import RangeSet
    from cni_host_local.store import Store

#: Seconds that an empty reservation must be old for ADD to take it. The lock alone would do;
#: this covers whoever writes reservations without it.
_EMPTY_AGE = 10.0


def address_of(name: str) -> bytes | None:
    """The packed address that a file name reserves, or None for another file."""
    if not (name[:1].isdigit() or ":" in name):
        return None
    try:
        return pton(name)
    except ValueError:
        return None


def is_empty(content: bytes) -> bool:
    """True for what a crash leaves of a reservation: nothing, or blocks never written."""
    return not content.strip(b"\0 \t\r\n")


def rebuild(store: Store) -> None:
    """Read all reservations and make the index complete.

    Keeps what is recorded of reservations that are still the same files; others, made by Go's
    plugin or by an ADD of ours that was killed, are taken to be of this boot: the safe side.
    When the index cannot be written (full or read-only file system) it serves this operation
    from memory and the next one scans again.
    """
    index = store.index
    index.known = None
    found: dict[bytes, dict[str, int]] = {}
    readable = True
    for name in store.names():
        if address_of(name) is None:
            continue
        try:
            reservation = store.read(name)
        except CniError:
            readable = False
            continue
        if reservation is not None and not is_empty(reservation[0]):
            found.setdefault(reservation[0], {})[name] = reservation[1].st_mtime_ns
    files = _index_files(store.fd)
    writable = files is not None
    known: dict[bytes, Entry] = {}
    for key, addresses in found.items():
        old = index.get(key)
        if old is None:
            entry = Entry(index.boot, "", addresses)
        elif all(old.addresses.get(a) == mtime for a, mtime in addresses.items()):
            entry = Entry(old.boot, old.netns, addresses)
        else:
            entry = Entry(index.boot, old.netns, addresses)
        known[key] = entry
        if writable and (old is None or old.addresses != addresses or old.boot != entry.boot):
            try:
                index.put(key, entry)
            except OSError:
                writable = False
    for name in (files or set()) - {file_of(key) for key in known}:
        try:
            posix.unlink(f"{FOLDER}/{name}", dir_fd=store.fd)
        except OSError:
            continue
    index.known = known
    index.complete = writable and readable
    index.changed = True


def _index_files(fd: int) -> set[str] | None:
    """The names in the index, which is made when absent; None when it cannot be."""
    try:
        try:
            posix.mkdir(FOLDER, 0o700, dir_fd=fd)
        except FileExistsError:
            pass
        flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW
        folder = posix.open(FOLDER, flags, dir_fd=fd)
    except OSError:
        return None
    try:
        return set(posix.listdir(folder))
    except OSError:
        return None
    finally:
        posix.close(folder)


def is_reclaimable(store: Store, address: str) -> bool:
    """True when a reservation provably serves nobody.

    Empty for some time, or recorded in an earlier boot for a namespace that is not there: no
    namespace outlives a boot. Never one of this boot, whose container may be alive.
    """
    reservation = store.read(address)
    if reservation is None:
        return False
    content, status = reservation
    if is_empty(content):
        return not 0 <= time() - status.st_mtime < _EMPTY_AGE
    entry = store.entry(content)
    boot = store.index.boot
    if entry is None or "-" in (entry.boot, boot) or entry.boot == boot:
        return False
    if entry.addresses.get(address) != status.st_mtime_ns:
        return False
    return not _exists(entry.netns)


def _exists(netns: str) -> bool:
    """True when something is at the path; process numbers are used again after a boot."""
    if not netns or netns.startswith("/proc/"):
        return False
    try:
        posix.stat(netns)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def reclaim_one(store: Store, address: str) -> bool:
    """Free an address if its reservation serves nobody, and all others of that owner.

    Reports on stderr. True when the address is free now.
    """
    if not is_reclaimable(store, address):
        return False
    reservation = store.read(address)
    content = reservation[0] if reservation is not None else b""
    if is_empty(content):
        store.free(address)
        _report(f"reclaimed {address}: its reservation was empty")
    else:
        freed = store.release(content)
        _report(f"reclaimed {' '.join(freed)} of {describe(content)}: reserved in an earlier boot")
    return True


def reclaim(store: Store, pool: RangeSet) -> list[str]:
    """`reclaim_one` for every address of a range set; those that are free now."""
    names = []
    for name in store.names():
        packed = address_of(name)
        if packed is not None and pool.offers(packed) and reclaim_one(store, name):
            names.append(name)
    return names


def collect(store: Store, valid: set[tuple[str, str]], since: float) -> list[str]:
    """GC: remove the reservations of whoever is not in `valid`; what went wrong is returned.

    valid: (container ID, interface name) pairs. since: when the caller knew of `valid`, in
    seconds of the epoch; what was linked into place later is not judged by it. Reservations
    that name no owner are removed; those with a container ID alone count for all its interfaces.
    """
    rebuild(store)
    containers = {container for container, _ in valid}
    # Reservations first and complete, then the removals.
    doomed: dict[bytes, list[str]] = {}
    problems: list[str] = []
    now = time()
    for name in sorted(store.names()):
        try:
            reservation = store.read(name) if address_of(name) is not None else None
        except CniError as error:
            problems.append(error.msg)
            continue
        if reservation is None:
            continue
        content, status = reservation
        text = content.decode("utf-8", "replace").replace("\r\n", "\n")
        container, separator, ifname = text.partition("\n")
        alive = (container, ifname) in valid if separator else container in containers
        if not alive and not since <= status.st_ctime <= now:
            doomed.setdefault(content, []).append(name)
    for content, names in doomed.items():
        for name in names:
            try:
                store.free(name)
            except CniError as error:
                problems.append(error.msg)
        # Verified on every use, so the entry may go even if a reservation has to stay.
        if not is_empty(content):
            try:
                store.index.remove(content)
            except OSError:
                store.index.complete = False
    if problems:
        store.index.complete = False
    return problems


def _report(text: str) -> None:
    """Say it on stderr, which runtimes log."""
    try:
        posix.write(2, f"host-local: {text}\n".encode("utf-8", "replace"))
    except OSError:
        return
