# SPDX-License-Identifier: Apache-2.0
"""ADD: reserve one address of each range set."""

from __future__ import annotations

from cni_host_local.config import load
from cni_host_local.index import Entry
from cni_host_local.store import Store, describe, legacy_key, owner_key
from libcni.inet import ntop
from libcni.types.errors import CONFLICT, EXHAUSTED, INVALID_NETWORK_CONFIG, CniError
from libcni.types.result import IPConfig, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_host_local.config import Config
    from cni_host_local.ranges import Range, RangeSet
    from libcni.skel.request import Request

#: Taken addresses in a row after which one listing is cheaper than trying on (11 µs a try).
_TRIES = 8


def add(request: Request) -> Result:
    """Reserve, and return the addresses with gateways, routes and DNS.

    All range sets or none: a failure leaves what was there before. Not idempotent: an owner
    that has an address of a range set is refused (CniError 101), unless it had it in an earlier
    boot, when the reservation is replaced. Raises CniError 100 when a range set is used up.
    """
    config = load(request)
    routes = config.result_routes()
    dns = None
    if config.resolv_conf:
        from cni_host_local.resolvconf import read

        dns = read(config.resolv_conf)
    key = owner_key(request.container_id, request.ifname)
    made: list[str] = []
    request.undo.push(_withdraw, config.directory, key, made)
    store = Store.create(config.directory)
    try:
        store.prepare(key, len(config.range_sets))
        with store:
            try:
                ips = _reserve_all(store, config, request, key, made)
                store.record(key, request.netns_path, made)
            except BaseException:
                _roll_back(store, key, made)
                raise
    finally:
        store.close()
    return Result(ips=ips, routes=routes, dns=dns)


def _roll_back(store: Store, key: bytes, made: list[str]) -> None:
    """Release what was reserved; if that fails too, the undo stack tries again and reports."""
    try:
        store.release_some(key, made)
    except CniError:
        return
    made.clear()


def _withdraw(directory: str, key: bytes, made: list[str]) -> None:
    """Undo: release exactly what this ADD reserved."""
    store = Store.open(directory) if made else None
    if store is not None:
        with store:
            store.release_some(key, made)


def _reserve_all(
    store: Store, config: Config, request: Request, key: bytes, made: list[str]
) -> list[IPConfig]:
    """One address of each range set; `made` names what is reserved at any moment."""
    _refuse_duplicates(store, config, key)
    _refuse_duplicates(store, config, legacy_key(request.container_id))
    wanted = list(config.requested)
    ips = []
    for index, pool in enumerate(config.range_sets):
        requested = next((packed for packed in wanted if pool.range_of(packed)), None)
        try:
            if requested is None:
                address, one = _next_free(store, pool, index, made)
            else:
                wanted.remove(requested)
                address, one = _take(store, config, pool, requested, made)
        except CniError as error:
            raise CniError(
                error.code, f"failed to allocate for range {index}: {error.msg}", error.details
            ) from None
        ips.append(IPConfig(f"{address}/{one.subnet.length}", ntop(one.gateway)))
    if wanted:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"failed to allocate all requested IPs: {' '.join(ntop(packed) for packed in wanted)}",
            f"range sets: {'; '.join(pool.text() for pool in config.range_sets)}; "
            "each gives one address",
        )
    for index, address in enumerate(made):
        store.set_last_reserved(index, address)
    return ips


def _refuse_duplicates(store: Store, config: Config, key: bytes) -> None:
    """Raise CniError 101 when the owner has an address of a range set already.

    Reservations of an earlier boot are released instead: namespaces do not outlive a boot, so
    the same name is a new sandbox.
    """
    held = store.owned(key)
    if not held:
        return
    from libcni.inet import pton

    entry = store.entry(key)
    if entry is not None and _is_of_earlier_boot(entry, store):
        store.release(key)
        return
    for index, pool in enumerate(config.range_sets):
        for address in held:
            if pool.range_of(pton(address)) is not None:
                raise _duplicate(store, index, address, key)


def _is_of_earlier_boot(entry: Entry, store: Store) -> bool:
    return "-" not in (entry.boot, store.index.boot) and entry.boot != store.index.boot


def _duplicate(store: Store, index: int, address: str, key: bytes) -> CniError:
    from time import gmtime, strftime

    reservation = store.read(address)
    since = ""
    if reservation is not None:
        moment = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(reservation[1].st_mtime))
        since = f"reserved since {moment}; "
    container = key.decode("utf-8", "replace").partition("\r\n")[0]
    return CniError(
        CONFLICT,
        f"failed to allocate for range {index}: {address} has been allocated to {container}, "
        "duplicate allocation is not allowed",
        f"{since}call DEL for {describe(key)} first",
    )


def _take(
    store: Store, config: Config, pool: RangeSet, packed: bytes, made: list[str]
) -> tuple[str, Range]:
    """Reserve the address that was asked for. Raises CniError 7 or 101."""
    address = ntop(packed)
    one = pool.range_of(packed)
    assert one is not None
    if packed in config.gateways():
        raise CniError(INVALID_NETWORK_CONFIG, f"requested ip {address} is subnet's gateway")
    if not pool.offers(packed):
        excluded = any(prefix.contains(packed) for prefix in config.exclude)
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"requested ip {address} is never given out",
            "ipam.exclude names it" if excluded else "it is a network or broadcast address",
        )
    if not _reserve(store, address, made):
        from cni_host_local.scan import reclaim_one

        if not (reclaim_one(store, address) and _reserve(store, address, made)):
            reservation = store.read(address)
            owner = reservation[0] if reservation is not None else b""
            raise CniError(
                CONFLICT,
                f"requested IP address {address} is not available in range set {pool.text()}",
                f"it is reserved for {describe(owner)}" if owner else "",
            )
    return address, one


def _next_free(store: Store, pool: RangeSet, index: int, made: list[str]) -> tuple[str, Range]:
    """Reserve the next address, round robin. Raises CniError 100."""
    last = store.last_reserved(index)
    taken: set[str] | None = None
    tries = 0
    for value, one in pool.from_last(last):
        address = one.address(value)
        if taken is not None and address in taken:
            continue
        if _reserve(store, address, made):
            return address, one
        tries += 1
        if tries == _TRIES:
            taken = store.names()
    from cni_host_local.scan import reclaim

    reclaimed = set(reclaim(store, pool))
    for value, one in pool.from_last(last):
        address = one.address(value)
        if address in reclaimed and _reserve(store, address, made):
            return address, one
    capacity = pool.capacity()
    raise CniError(
        EXHAUSTED,
        f"no IP addresses available in range set: {pool.text()}",
        f"all {capacity} are reserved in {store.directory}; those of containers that are gone "
        "are freed by DEL or GC",
    )


def _reserve(store: Store, address: str, made: list[str]) -> bool:
    """Reserve an address and note it."""
    if not store.reserve(address):
        return False
    made.append(address)
    return True
