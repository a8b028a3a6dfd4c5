# SPDX-License-Identifier: Apache-2.0
"""What the agent counts, for Prometheus. All names begin with vxlan_overlay_."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cni_vxlan_overlay.agent.addresses import Usage
from libcni.about import VERSION

_PREFIX = "vxlan_overlay_"
#: Objects that can be repaired: each is there from the start, as 0.
OBJECTS = ("device", "address", "route", "neighbour", "forwarding", "rules")


class Metrics:
    """One registry. addresses: asked at each scrape how many of this node's are in use."""

    def __init__(self, addresses: Callable[[], Iterable[Usage]] = tuple) -> None:
        self.registry = CollectorRegistry()
        build = self._gauge("build_info", "Version of the agent; always 1.", "version", "python")
        build.labels(VERSION, platform.python_version()).set(1)
        self._peers = self._gauge("peers", "Nodes that are reached through the overlay.")
        self._conflicts = self._gauge(
            "conflicting_nodes", "Nodes that are not used since they claim what another has."
        )
        self._store_up = self._gauge("store_up", "1 while the store answers, else 0.")
        self._synced = self._gauge(
            "last_sync_timestamp_seconds", "When the store last said something (Unix time)."
        )
        self._reconciled = Counter(
            _PREFIX + "reconcile",
            "Passes that made the kernel's state what is wanted.",
            ["result"],
            registry=self.registry,
        )
        for result in ("ok", "failed"):
            self._reconciled.labels(result)
        self._duration = Histogram(
            _PREFIX + "reconcile_duration_seconds",
            "Duration of such a pass.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._drift = Counter(
            _PREFIX + "drift_repaired",
            "Objects that others had changed or removed, and that were put back.",
            ["object"],
            registry=self.registry,
        )
        for kind in OBJECTS:
            self._drift.labels(kind)
        self._restarts = Counter(
            _PREFIX + "store_watch_restarts",
            "Times that the store had to be asked anew after a failure.",
            registry=self.registry,
        )
        self.registry.register(_Addresses(addresses))

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, words, labels, registry=self.registry)

    def peers(self, count: int) -> None:
        """So many nodes are used as peers."""
        self._peers.set(count)

    def conflicts(self, count: int) -> None:
        """So many nodes are not used since another has what they claim."""
        self._conflicts.set(count)

    def reconciled(self, result: str, seconds: float) -> None:
        """A pass ended. result: "ok" or "failed"."""
        self._reconciled.labels(result).inc()
        self._duration.observe(seconds)

    def drift(self, kind: str, count: int) -> None:
        """So many objects of a kind (OBJECTS) had to be put back."""
        self._drift.labels(kind).inc(count)

    def watch_restarted(self) -> None:
        """The store failed and is asked anew."""
        self._restarts.inc()

    def synced(self, when: float) -> None:
        """The store said something at this time, Unix seconds."""
        self._synced.set(when)

    def store_up(self, is_up: bool) -> None:
        """Whether the store answers."""
        self._store_up.set(is_up)

    def text(self) -> bytes:
        """All of it in the format that Prometheus scrapes."""
        return generate_latest(self.registry)


class _Addresses(Collector):
    """Read when asked: plugins change the reservations, and tell nobody."""

    def __init__(self, usage: Callable[[], Iterable[Usage]]) -> None:
        self._usage = usage

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            _PREFIX + "ipam_addresses",
            "Addresses of this node's subnets by state: allocated to pods, or free.",
            labels=["subnet", "state"],
        )
        for usage in self._usage():
            family.add_metric([usage.subnet, "allocated"], usage.allocated)
            family.add_metric([usage.subnet, "free"], usage.free)
        yield family
