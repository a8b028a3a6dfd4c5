# SPDX-License-Identifier: Apache-2.0
"""CHECK: what ADD reserved is still reserved, for this owner."""

from __future__ import annotations

from cni_host_local.config import load
from cni_host_local.scan import is_empty
from cni_host_local.store import Store, describe, legacy_key, owner_key
from libcni.inet import Prefix, ntop
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_host_local.config import Config
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Compare prevResult's addresses that lie in our ranges with the reservations.

    Without such addresses the owner must have some reservation. Changes nothing. Raises
    CniError 103 naming the address that is missing, or whose it is.
    """
    config = load(request)
    keys = (
        owner_key(request.container_id, request.ifname),
        legacy_key(request.container_id),
    )
    expected = _expected(request, config)
    store = Store.open(config.directory)
    try:
        if store is None or not expected:
            if store is None or not _owns_any(store, keys):
                raise CniError(
                    CHECK_FAILED,
                    "host-local: Failed to find address added by container "
                    f"{request.container_id}",
                    f"{config.directory} has no reservation for {describe(keys[0])}"
                    + (f"; prevResult has {', '.join(expected)}" if expected else ""),
                )
            return
        # One read each and no lock: a reservation is complete or absent.
        for address in expected:
            _check_reserved(store, address, keys)
    finally:
        if store is not None:
            store.close()


def _expected(request: Request, config: Config) -> list[str]:
    """The addresses of prevResult that our ranges give out."""
    previous = request.prev_result()
    if previous is None:
        return []
    packed = [Prefix.parse(ip.address).packed for ip in previous.ips]
    return [ntop(p) for p in packed if any(pool.range_of(p) for pool in config.range_sets)]


def _owns_any(store: Store, keys: tuple[bytes, bytes]) -> bool:
    with store:
        return any(store.owned(key) for key in keys)


def _check_reserved(store: Store, address: str, keys: tuple[bytes, bytes]) -> None:
    reservation = store.read(address)
    if reservation is not None and reservation[0] in keys:
        return
    if reservation is None:
        found = "it has no reservation, so it may be given out again"
    elif is_empty(reservation[0]):
        found = "its reservation is empty"
    else:
        found = f"it is reserved for {describe(reservation[0])}"
    raise CniError(
        CHECK_FAILED,
        f"host-local: {address} of prevResult is not reserved for {describe(keys[0])}: {found}",
        f"{store.directory}/{address}",
    )
