# SPDX-License-Identifier: Apache-2.0
"""STATUS: an ADD would find an address and could remember it."""

from __future__ import annotations

import posix

from cni_host_local.config import load
from cni_host_local.scan import address_of, is_reclaimable
from cni_host_local.store import Store
from libcni.fs import io_error
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_host_local.ranges import RangeSet
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when ADD would fail: store not writable, or a range set used up.

    Takes no address. Raises CniError 7 for invalid ranges.
    """
    config = load(request)
    _check_writable(config.directory)
    store = Store.open(config.directory)
    if store is None:
        packed: list[bytes] = []
    else:
        try:
            packed = [p for p in map(address_of, store.names()) if p is not None]
        finally:
            store.close()
    for pool in config.range_sets:
        used = sum(1 for p in packed if pool.offers(p))
        capacity = pool.capacity()
        if used < capacity or (used and _is_any_reclaimable(config.directory, pool)):
            continue
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"no IP addresses available in range set: {pool.text()}",
            f"{used} of {capacity} addresses are reserved in {config.directory}",
        )


def _is_any_reclaimable(directory: str, pool: RangeSet) -> bool:
    """True when ADD would make room; see `scan.is_reclaimable`."""
    store = Store.open(directory)
    if store is None:
        return True
    with store:
        for name in store.names():
            packed = address_of(name)
            if packed is not None and pool.offers(packed) and is_reclaimable(store, name):
                return True
    return False


def _check_writable(directory: str) -> None:
    """Raise CniError 50 unless a reservation could be made in `directory`."""
    place = directory
    while True:
        try:
            posix.stat(place)
            break
        except FileNotFoundError:
            # Made by the first ADD.
            place = place.rpartition("/")[0] or ("/" if place.startswith("/") else ".")
        except OSError as error:
            failure = io_error(error, "use", directory)
            raise CniError(PLUGIN_NOT_AVAILABLE, f"dataDir: {failure.msg}") from None
    system = posix.statvfs(place)
    reason = ""
    if system.f_flag & posix.ST_RDONLY:
        reason = "Read-only file system"
    elif not posix.access(place, posix.W_OK | posix.X_OK):
        reason = "Permission denied"
    elif system.f_blocks and not system.f_bavail:
        reason = "No space left on device"
    elif system.f_files and not system.f_favail:
        reason = "No space left on device (inodes)"
    if reason:
        raise CniError(PLUGIN_NOT_AVAILABLE, f"dataDir: cannot write {place}: {reason}")
