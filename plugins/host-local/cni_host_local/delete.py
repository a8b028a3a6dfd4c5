# SPDX-License-Identifier: Apache-2.0
"""DEL: release what an owner has reserved."""

from __future__ import annotations

from cni_host_local.config import directory_of
from cni_host_local.store import Store, legacy_key, owner_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Release all addresses of (container ID, interface name). Idempotent.

    Needs the network's name and `dataDir` alone, and makes nothing when there is no store.
    Raises CniError 5 when a reservation cannot be removed and 11 when the lock is held.
    """
    release(request)


def release(request: Request) -> list[str]:
    """`delete`, and which addresses it were."""
    store = Store.open(directory_of(request.config, request.network))
    if store is None:
        return []
    with store:
        released = store.release(owner_key(request.container_id, request.ifname))
        if not released:
            # Very old reservations hold no interface name.
            released = store.release(legacy_key(request.container_id))
    return released
