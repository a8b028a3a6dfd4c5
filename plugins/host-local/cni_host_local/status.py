# SPDX-License-Identifier: Apache-2.0
"""STATUS: an ADD would find an address and could remember it."""

from __future__ import annotations

from cni_host_local.config import load
from cni_host_local.scan import address_of, is_reclaimable
from cni_host_local.store import Store
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError
from libcni.writable import require_writable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_host_local.ranges import RangeSet
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 when ADD would fail: store not writable, or a range set used up.

    Takes no address. Raises CniError 7 for invalid ranges.
    """
    config = load(request)
    require_writable(config.directory, "ipam.dataDir")
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
