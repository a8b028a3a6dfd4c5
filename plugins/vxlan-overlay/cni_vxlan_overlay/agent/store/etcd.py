# SPDX-License-Identifier: Apache-2.0
"""The etcd store: flannel's keys, by which nodes also divide the network among themselves.

Each node has one key, whose name is its subnets and which lives as long as its lease. Creating
it only if it is not there is what makes a subnet one node's. Source: flannel's pkg/subnet/etcd.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from cni_vxlan_overlay.agent.model import NetConf, Node, Offer
from cni_vxlan_overlay.agent.netconf import parse_netconf
from cni_vxlan_overlay.agent.store import (
    Changed,
    Event,
    Hints,
    Listing,
    Removed,
    StoreError,
    Unavailable,
    allocation,
)
from cni_vxlan_overlay.agent.store.annotations import Foreign, Unusable
from cni_vxlan_overlay.agent.store.etcd_gateway import Gateway
from cni_vxlan_overlay.agent.store.etcd_registry import Registry, items
from cni_vxlan_overlay.agent.store.lease_entry import (
    Entry,
    is_at,
    key_of,
    name_of,
    read_entry,
    subnets_of,
    value_of,
)
from libcni.inet import Prefix

_log = logging.getLogger(__name__)

#: Seconds that a node may be away before its subnet is given to another: flannel's.
LEASE_SECONDS = 24 * 3600
#: How often another node may be faster before we wait and begin anew.
_RACES = 10


class EtcdStore:
    """`Store` on etcd v3. To be used in one event loop; several tasks may use it."""

    kind = "etcd"

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str = "/coreos.com/network",
        *,
        cafile: str = "",
        certfile: str = "",
        keyfile: str = "",
        username: str = "",
        password: str = "",
        renew_margin: float = 3600.0,
        lease_seconds: int = LEASE_SECONDS,
        timeout: float = 10.0,
    ) -> None:
        """Nothing is opened yet.

        renew_margin: seconds before the end of the lease at which it is renewed. timeout: seconds
        until an endpoint must answer. Raises StoreError for unusable endpoints or certificates.
        """
        self._gateway = Gateway(
            endpoints,
            cafile=cafile,
            certfile=certfile,
            keyfile=keyfile,
            username=username,
            password=password,
            timeout=timeout,
        )
        self._registry = Registry(self._gateway, prefix, lease_seconds)
        self.source = f"etcd's key {self._registry.path('config')}"
        self._margin = min(renew_margin, lease_seconds / 2)
        self._lease_seconds = lease_seconds
        #: What is ours, as last written or found.
        self._own: Entry | None = None
        self._vni = 1
        self._networks: tuple[Prefix, ...] = ()
        self._told: dict[str, int] = {}

    # -- what the agent asks -----------------------------------------------------------------

    async def netconf(self) -> NetConf:
        """The network's configuration. Raises StoreError with a hint if there is none."""
        key = self._registry.path("config")
        content = await self._registry.find_config()
        if content is None:
            raise StoreError(
                f"etcd has no key {key}; the network is described there: etcdctl put {key} "
                '\'{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}\''
            )
        conf = parse_netconf(content.decode(errors="replace"), source=self.source)
        self._vni, self._networks = conf.backend.vni, conf.networks
        return conf

    async def hints(self) -> Hints:
        """None: a node's address here is what it publishes."""
        return Hints()

    async def publish(self, offer: Offer) -> Node:
        """Have a subnet of this node's own, kept, found again, or new; and say where it is.

        Raises StoreError when there is no free subnet, Unavailable.
        """
        conf = await self.netconf()
        value = value_of(offer)
        for _ in range(_RACES):
            entries, _ = await self._registry.entries()
            mine = self._mine(entries, offer)
            own = next((entry for entry in mine if _fits(conf, entry)), None)
            for entry in mine:
                # Other nodes would see two with one address, and keep to the older.
                if entry is not own and (entry.lease or own is None):
                    _log.warning("%s was this node's, and is of no use now", self._path(entry))
                    await self._registry.remove(entry)
            if own is not None:
                written = await self._keep(own, value)
            else:
                written = await self._create(conf, offer.preferred, entries, value)
            if written is not None:
                self._own = written
                self._vni = offer.vni
                return read_entry(written, offer.vni)
        raise Unavailable(f"other nodes were faster at taking a subnet, {_RACES} times")

    async def watch(self) -> AsyncIterator[Event]:
        """Tell of all nodes; see `Store.watch`. A compacted revision is Unavailable too, after
        which the next call begins with a listing."""
        entries, revision = await self._registry.entries()
        nodes = [node for node in map(self._read, entries) if node is not None]
        yield Listing(tuple(nodes), str(revision))
        seen = {entry.key: entry.modified for entry in entries}
        async with contextlib.aclosing(self._registry.changes(revision + 1)) as answers:
            async for answer in answers:
                result = answer.get("result")
                if not isinstance(result, dict):
                    raise Unavailable(f"etcd's watch says {answer!r}")
                if result.get("canceled") or result.get("compact_revision"):
                    why = result.get("cancel_reason") or (
                        f"revision {revision + 1} is compacted, up to "
                        f"{result.get('compact_revision')}"
                    )
                    raise Unavailable(f"watching etcd: {why}")
                for event in items(result, "events"):
                    entry = self._registry.entry(event.get("kv"))
                    if entry.modified < seen.get(entry.key, 0):
                        continue  # of before what is known already
                    seen[entry.key] = entry.modified
                    yield self._event(entry, removed=event.get("type") == "DELETE")

    async def ready(self) -> None:
        """Nobody to tell."""

    async def renew(self) -> float:
        """Renew the lease; returns the seconds until the next time, 0 for a reservation.

        Raises StoreError when the lease or the key is lost: `publish` takes another.
        """
        own = self._own
        if own is None or not own.lease:
            return 0.0
        left = await self._registry.keep_alive(own.lease)
        if left <= 0:
            raise StoreError(f"the lease of {self._path(own)} has expired")
        found = await self._registry.find(own.key)
        if found is None:
            raise StoreError(f"{self._path(own)} was removed from etcd")
        if found.lease != own.lease:
            raise StoreError(f"{self._path(own)} was taken by another node")
        return max(left - self._margin, 1.0)

    async def withdraw(self, own: Node | None) -> None:
        """Remove this node's entry, which bears its name or address. Idempotent."""
        if own is None:
            return
        addresses = [endpoint.public_ip for endpoint in own.peer.endpoints]
        entry = await self._registry.find(own.uid)
        if entry is not None and is_at(entry, addresses):
            await self._registry.remove(entry)
        self._own = None

    async def close(self) -> None:
        """Close connections. Idempotent; they are opened again when needed."""
        await self._gateway.close()

    # -- entries -----------------------------------------------------------------------------

    def _path(self, entry: Entry) -> str:
        return self._registry.entry_path(entry.key)

    def _read(self, entry: Entry) -> Node | None:
        """The node of an entry; None, with a word about it once, for one that is of no use."""
        try:
            node = read_entry(entry, self._vni, self._networks)
        except (Unusable, Foreign) as error:
            if self._told.get(entry.key) != entry.modified:
                self._told[entry.key] = entry.modified
                _log.warning("%s is not used: %s", self._path(entry), error)
            return None
        self._told.pop(entry.key, None)
        return node

    def _event(self, entry: Entry, *, removed: bool) -> Event:
        """What a change of an entry means. Raises StoreError when it is this node's."""
        own = self._own
        if own is not None and entry.key == own.key and entry.modified > own.modified:
            if removed:
                raise StoreError(f"{self._path(own)}, this node's entry, was removed from etcd")
            if entry.value != own.value:
                raise StoreError(f"{self._path(own)}, this node's entry, was changed by another")
        node = None if removed else self._read(entry)
        return Removed(entry.key) if node is None else Changed(node)

    # -- this node's entry -------------------------------------------------------------------

    def _is_own(self, entry: Entry) -> bool:
        own = self._own
        return own is not None and (entry.key, entry.lease) == (own.key, own.lease)

    def _mine(self, entries: Sequence[Entry], offer: Offer) -> list[Entry]:
        """This node's entries: what it has now, whatever address it says; what it had before an
        earlier run ended, and is in its name; others that say its address.

        Raises StoreError for another node's.
        """
        addresses = [endpoint.public_ip for endpoint in offer.endpoints]
        former = key_of(offer.preferred)

        def is_former(entry: Entry) -> bool:
            return entry.key == former and bool(offer.name) and name_of(entry) == offer.name

        mine = [
            entry
            for entry in entries
            if self._is_own(entry) or is_former(entry) or is_at(entry, addresses)
        ]
        self._refuse_namesakes(mine, offer.name)
        mine.sort(key=lambda entry: (not self._is_own(entry), entry.key != former))
        return mine

    def _refuse_namesakes(self, mine: list[Entry], name: str) -> None:
        """Raise StoreError when an entry with our address says that it is another node's.

        Both would take it from each other for ever. Entries of flannel's have no name.
        """
        for entry in mine:
            other = name_of(entry)
            if other and name and other != name and not self._is_own(entry):
                raise StoreError(
                    f"{self._path(entry)} has this node's address and belongs to {other!r}, "
                    f"not to {name!r}: two nodes cannot have one public address (see --iface, "
                    "--public-ip); if that node is gone, or has another name now: "
                    f"etcdctl del '{self._path(entry)}'"
                )

    async def _keep(self, entry: Entry, value: bytes) -> Entry | None:
        """Make an entry that is this node's say `value`; None when another was faster."""
        if entry.value == value and (not entry.lease or await self._has_time(entry.lease)):
            return entry
        return await self._registry.replace(entry, value)

    async def _has_time(self, lease: int) -> bool:
        """True if a lease, which an earlier run of ours took, lives on for long enough."""
        return await self._registry.time_left(lease) > self._margin

    async def _create(
        self, conf: NetConf, preferred: Sequence[Prefix], entries: list[Entry], value: bytes
    ) -> Entry | None:
        taken = [subnet for entry in entries for subnet in _subnets(entry)]
        subnets: tuple[Prefix, ...] | None = tuple(preferred)
        if not allocation.fits(conf, preferred) or _overlap(preferred, taken):
            subnets = allocation.draw(conf, taken)
        if subnets is None:
            networks = " and ".join(network.text() for network in conf.networks)
            raise StoreError(
                f"no free subnet is left in {networks}: {len(entries)} are taken; remove those "
                f"that nobody uses below {self._registry.path('subnets')}, or choose a longer "
                "SubnetLen"
            )
        created = await self._registry.create(key_of(subnets), value)
        if created is None or not await self._is_late(created):
            return created
        await self._registry.remove(created)
        return None

    async def _is_late(self, created: Entry) -> bool:
        """True if an older entry has a subnet of a new one.

        Their keys are different if they have the same subnet of one family only, so that etcd
        lets both be. Of two that come at once the younger sees the older here.
        """
        entries, _ = await self._registry.entries()
        subnets = _subnets(created)
        return any(
            entry.created < created.created and _overlap(subnets, _subnets(entry))
            for entry in entries
        )


def _subnets(entry: Entry) -> tuple[Prefix, ...]:
    """The subnets that a key takes, whatever its value; none for what is no subnet's key."""
    try:
        return subnets_of(entry.key)
    except Unusable:
        return ()


def _fits(conf: NetConf, entry: Entry) -> bool:
    return allocation.fits(conf, _subnets(entry))


def _overlap(subnets: Sequence[Prefix], taken: Sequence[Prefix]) -> bool:
    return any(
        len(one.packed) == len(other.packed)
        and (one.contains(other.packed) or other.contains(one.packed))
        for one in subnets
        for other in taken
    )
