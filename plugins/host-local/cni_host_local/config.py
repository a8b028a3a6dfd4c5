# SPDX-License-Identifier: Apache-2.0
"""The configuration of host-local, typed once at the edge.

The document has passed the schema when ADD, CHECK and STATUS come here; what is checked below
is what a schema cannot say, in Go's words where operators search for them. DEL and GC are not
validated and need `directory_of` alone: ranges that have become invalid since ADD do not keep
them from cleaning up.
"""

from __future__ import annotations

from cni_host_local.ranges import RangeSet, invalid, number
from libcni.fs import usable_path
from libcni.inet import Prefix, pton
from libcni.types.errors import INVALID_ENVIRONMENT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_host_local.ranges import Span
    from libcni.skel.request import Request
    from libcni.types.result import Route

#: Where a range set stands that is written in the short form.
_SHORT = "ipam.subnet"
DEFAULT_DATA_DIR = "/var/lib/cni/networks"


class Config:
    """What to give out and where it is remembered.

    directory: of this network's reservations. requested: packed addresses to take instead of
    the next free ones, each once. resolv_conf: a path or "".
    """

    __slots__ = ("directory", "exclude", "range_sets", "requested", "resolv_conf", "routes")

    def __init__(
        self,
        directory: str,
        range_sets: list[RangeSet],
        exclude: list[Prefix],
        requested: list[bytes],
        routes: list[dict[str, Any]],
        resolv_conf: str,
    ) -> None:
        self.directory = directory
        self.range_sets = range_sets
        self.exclude = exclude
        self.requested = requested
        self.routes = routes
        self.resolv_conf = resolv_conf

    def gateways(self) -> set[bytes]:
        """The gateways of all ranges, which are never given out."""
        return {one.gateway for pool in self.range_sets for one in pool.ranges}

    def result_routes(self) -> list[Route]:
        """The routes for the result. Raises CniError 7 for one that is none."""
        if not self.routes:
            return []
        from libcni.types.routes import read_routes

        return read_routes(self.routes)


def directory_of(document: dict[str, Any], network: str) -> str:
    """The directory of a network's reservations, from a document that may be in disorder.

    Raises CniError 7 for a `dataDir` that can be no path.
    """
    ipam = document.get("ipam")
    data_dir = ipam.get("dataDir") if isinstance(ipam, dict) else None
    if not isinstance(data_dir, str) or not data_dir:
        data_dir = DEFAULT_DATA_DIR
    return f"{usable_path(data_dir, 'ipam.dataDir').rstrip('/')}/{network}"


def load(request: Request) -> Config:
    """The configuration of an ADD, CHECK or STATUS.

    Raises CniError 7 naming the key, or 4 when CNI_ARGS is wrong. A range set that has no address
    to give out is refused, but not by a CHECK, which needs none.
    """
    document = request.config
    ipam = document.get("ipam")
    if not ipam:
        raise invalid("IPAM config missing 'ipam' key")
    runtime = document.get("runtimeConfig") or {}
    places, documents = _documents(ipam, runtime)
    config = Config(
        directory_of(document, request.network),
        _range_sets(places, documents, request.version),
        _exclude(ipam),
        _requested(request, runtime),
        ipam.get("routes") or [],
        ipam.get("resolvConf") or "",
    )
    _restrict(config)
    if request.command != "CHECK":
        _refuse_empty(config, places)
    return config


def _documents(
    ipam: dict[str, Any], runtime: dict[str, Any]
) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """The range sets: where each stands, and what is there. Those of the runtime, then the
    old-style single range, then `ranges`. Raises CniError 7 when there are none."""
    given, ranges = runtime.get("ipRanges") or (), ipam.get("ranges") or ()
    places = [f"runtimeConfig.ipRanges[{index}]" for index in range(len(given))]
    documents = [*given]
    if ipam.get("subnet"):
        places.append(_SHORT)
        documents.append([ipam])
    places += [f"ipam.ranges[{index}]" for index in range(len(ranges))]
    documents += ranges
    if not documents:
        raise invalid(
            "no IP ranges specified", "set ipam.ranges, ipam.subnet or runtimeConfig.ipRanges"
        )
    return places, documents


def _range_sets(
    places: list[str], documents: list[list[dict[str, Any]]], version: str
) -> list[RangeSet]:
    """See `_documents`. Raises CniError 7 for one that cannot be."""
    pools: list[RangeSet] = []
    families = []
    for index, (place, entry) in enumerate(zip(places, documents, strict=True)):
        # Go numbers them; whoever wrote the short form knows of no sets.
        where = place if place == _SHORT else f"{place}: invalid range set {index}"
        try:
            pool = RangeSet(entry)
        except CniError as error:
            raise invalid(f"{where}: {error.msg}", error.details) from None
        except (KeyError, ValueError) as error:
            raise invalid(f"{where}: {error}") from None
        for other, earlier in enumerate(pools):
            if earlier.overlaps(pool):
                raise invalid(
                    f"{place}: range set {other} overlaps with {index}",
                    f"{places[other]} is {earlier.text()}, {place} is {pool.text()}",
                )
        if version in ("0.1.0", "0.2.0") and pool.size in families:
            raise invalid(
                f"CNI version {version} does not support more than 1 address per family",
                f"{place} is {pool.text()}",
            )
        families.append(pool.size)
        pools.append(pool)
    return pools


def _exclude(ipam: dict[str, Any]) -> list[Prefix]:
    """`exclude`: a single address is a prefix of its full length."""
    found = []
    for index, text in enumerate(ipam.get("exclude") or ()):
        try:
            if "/" in text:
                found.append(Prefix.parse(text).network())
            else:
                packed = pton(text)
                found.append(Prefix(packed, len(packed) * 8))
        except ValueError as error:
            raise invalid(f"ipam.exclude[{index}]: {error}") from None
    return found


def _requested(request: Request, runtime: dict[str, Any]) -> list[bytes]:
    """CNI_ARGS IP, args.cni.ips and runtimeConfig.ips, accumulated as Go does, each once."""
    found: dict[bytes, None] = {}
    if request.args:
        from libcni.types.args import load_args

        text = load_args(request.args, ("IP",)).get("IP")
        if text:
            try:
                found[_address(text)] = None
            except ValueError as error:
                raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: IP: {error}") from None
    arguments = (request.config.get("args") or {}).get("cni") or {}
    for key, document in (("args.cni.ips", arguments), ("runtimeConfig.ips", runtime)):
        for index, text in enumerate(document.get("ips") or ()):
            try:
                found[_address(text)] = None
            except ValueError as error:
                raise invalid(f"{key}[{index}]: cannot understand ip: {error}") from None
    return list(found)


def _address(text: str) -> bytes:
    """The address of "ip" or "ip/len"; the length is checked and ignored."""
    return Prefix.parse(text).packed if "/" in text else pton(text)


def _restrict(config: Config) -> None:
    """Keep gateways and excluded addresses out of what the range sets give out."""
    taboo: dict[int, list[Span]] = {4: [], 16: []}
    for gateway in config.gateways():
        taboo[len(gateway)].append((number(gateway), number(gateway)))
    for prefix in config.exclude:
        taboo[len(prefix.packed)].append((number(prefix.packed), number(prefix.broadcast())))
    for pool in config.range_sets:
        pool.restrict(taboo[pool.size])


def _refuse_empty(config: Config, places: list[str]) -> None:
    """Raise CniError 7 for a range set that is left without any address."""
    for pool, place in zip(config.range_sets, places, strict=True):
        if not pool.spans:
            raise invalid(
                f"{place}: {pool.text()} has no address that may be given out",
                "gateways, ipam.exclude, the subnet's own and its broadcast address leave none",
            )
