# SPDX-License-Identifier: Apache-2.0
"""flannel's keys in etcd, read and written, each write under a condition and a lease.

Source: flannel's pkg/subnet/etcd (registry); etcd's documentation, "API reference".
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from cni_vxlan_overlay.agent.store import StoreError, Unavailable
from cni_vxlan_overlay.agent.store.etcd_gateway import (
    NOT_FOUND,
    OUT_OF_RANGE,
    Gateway,
    Refused,
    decoded,
    encoded,
    number,
)
from cni_vxlan_overlay.agent.store.lease_entry import Entry

_log = logging.getLogger(__name__)


class Registry:
    """The configuration and the entries of one network. Raises Unavailable and Refused."""

    def __init__(self, gateway: Gateway, prefix: str, lease_seconds: int) -> None:
        """prefix: of all keys, joined as flannel does. lease_seconds: of what is created."""
        self._gateway = gateway
        self._prefix = posixpath.normpath(prefix) if prefix else ""
        if self._prefix.startswith("//"):
            self._prefix = self._prefix[1:]  # which POSIX, unlike Go, keeps
        self._lease_seconds = lease_seconds
        self._subnets = self.path("subnets") + "/"

    def path(self, *names: str) -> str:
        """A key of the network."""
        return posixpath.join(self._prefix, *names)

    def entry_path(self, key: str) -> str:
        """The key of an entry."""
        return self._subnets + key

    async def find_config(self) -> bytes | None:
        """net-conf.json; None if there is none."""
        answer = await self._gateway.call("kv/range", {"key": encoded(self.path("config"))})
        for kv in items(answer, "kvs"):
            return self.entry(kv).value
        return None

    async def find(self, key: str) -> Entry | None:
        """The entry as it is now; None if there is none."""
        answer = await self._gateway.call("kv/range", {"key": encoded(self.entry_path(key))})
        for kv in items(answer, "kvs"):
            return self.entry(kv)
        return None

    async def entries(self) -> tuple[list[Entry], int]:
        """All entries, and the revision of the store at which they are so."""
        answer = await self._gateway.call("kv/range", self._all())
        return [self.entry(kv) for kv in items(answer, "kvs")], _revision(answer)

    def changes(self, revision: int) -> AsyncGenerator[dict[str, Any], None]:
        """What etcd's watch says of all entries, from this revision on; see `Gateway.stream`."""
        request = {**self._all(), "start_revision": str(revision), "progress_notify": True}
        return self._gateway.stream("watch", {"create_request": request})

    def entry(self, kv: Any) -> Entry:
        """An entry from the gateway's form of it. Raises Unavailable for what is none."""
        if not isinstance(kv, dict):
            raise Unavailable(f"etcd's answer has {kv!r} where a key belongs")
        key = decoded(kv.get("key")).decode(errors="replace")
        return Entry(
            key.removeprefix(self._subnets),
            decoded(kv.get("value")),
            number(kv.get("lease")),
            number(kv.get("create_revision")),
            number(kv.get("mod_revision")),
        )

    async def create(self, key: str, value: bytes) -> Entry | None:
        """A new entry under a lease of its own; None when there is one already."""
        lease = await self._grant()
        condition = {"target": "CREATE", "create_revision": "0"}
        revision = await self._put(condition, key, value, lease)
        return None if revision is None else Entry(key, value, lease, revision, revision)

    async def replace(self, entry: Entry, value: bytes) -> Entry | None:
        """Have an entry say `value`, under a new lease; None when another has written it since.

        An entry without a lease, which an administrator made, stays one.
        """
        lease = await self._grant() if entry.lease else 0
        revision = await self._put(_unchanged(entry), entry.key, value, lease)
        await self._release(entry.lease)
        return (
            None if revision is None else Entry(entry.key, value, lease, entry.created, revision)
        )

    async def remove(self, entry: Entry) -> None:
        """Remove an entry, unless another has written it since; and its lease. Idempotent."""
        key = encoded(self.entry_path(entry.key))
        await self._gateway.call(
            "kv/txn",
            {
                "compare": [{"key": key, "result": "EQUAL", **_unchanged(entry)}],
                "success": [{"request_delete_range": {"key": key}}],
            },
        )
        await self._release(entry.lease)

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease; the seconds for which it lives now, 0 when it has ended."""
        answer = await self._gateway.call("lease/keepalive", {"ID": str(lease)})
        result = answer.get("result")
        return number(result.get("TTL")) if isinstance(result, dict) else 0

    async def time_left(self, lease: int) -> int:
        """Seconds for which a lease lives on, 0 when it has ended."""
        return max(0, number((await self._look_at(lease)).get("TTL")))

    def _all(self) -> dict[str, str]:
        end = self._subnets[:-1] + chr(ord(self._subnets[-1]) + 1)
        return {"key": encoded(self._subnets), "range_end": encoded(end)}

    async def _put(
        self, condition: dict[str, str], key: str, value: bytes, lease: int
    ) -> int | None:
        """Write if the condition holds; the revision, None when it did not hold."""
        path = encoded(self.entry_path(key))
        put = {"key": path, "value": encoded(value), "lease": str(lease)}
        try:
            answer = await self._gateway.call(
                "kv/txn",
                {
                    "compare": [{"key": path, "result": "EQUAL", **condition}],
                    "success": [{"request_put": put}],
                },
            )
        except Refused:
            await self._release(lease)
            raise
        if not answer.get("succeeded"):
            await self._release(lease)
            return None
        return _revision(answer)

    async def _grant(self) -> int:
        answer = await self._gateway.call("lease/grant", {"TTL": str(self._lease_seconds)})
        lease = number(answer.get("ID"))
        if not lease:
            raise Unavailable("etcd granted a lease without ID")
        return lease

    async def _release(self, lease: int) -> None:
        """Give back a lease that no key is under; 0 is none.

        Others' keys may be: an administrator can put several under one. And so may our own: a
        write whose answer was lost is tried again at the next endpoint, and fails there, as the
        first had done it.
        """
        if not lease:
            return
        try:
            left = await self._look_at(lease, keys=True)
            if left and not left.get("keys"):
                await self._gateway.call("lease/revoke", {"ID": str(lease)})
        except StoreError as error:
            # What matters is written already, and the lease ends by itself.
            _log.debug("cannot give back a lease: %s", error)

    async def _look_at(self, lease: int, *, keys: bool = False) -> dict[str, Any]:
        """What etcd says of a lease, and of the keys under it; nothing when it has ended."""
        try:
            return await self._gateway.call("lease/timetolive", {"ID": str(lease), "keys": keys})
        except Refused as error:
            if error.code in (NOT_FOUND, OUT_OF_RANGE):
                return {}
            raise


def _unchanged(entry: Entry) -> dict[str, str]:
    return {"target": "MOD", "mod_revision": str(entry.modified)}


def _revision(answer: dict[str, Any]) -> int:
    header = answer.get("header")
    return number(header.get("revision")) if isinstance(header, dict) else 0


def items(answer: dict[str, Any], name: str) -> Iterable[dict[str, Any]]:
    """The objects of a list in an answer. Raises Unavailable when it is none of objects."""
    found = answer.get(name) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unavailable(f"etcd's answer has {name} {found!r}, where a list of objects belongs")
    return found
