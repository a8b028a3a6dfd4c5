# SPDX-License-Identifier: Apache-2.0
"""How long calls took: counts in buckets that double, and percentiles."""

from __future__ import annotations

import bisect
import math
from typing import Any

#: Upper bounds of the buckets, ms; the last is open.
BOUNDS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_BAR = 40


class Histogram:
    """Durations of one kind of call."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        """One more call."""
        bisect.insort(self._seconds, seconds)

    @property
    def count(self) -> int:
        """How many calls there were."""
        return len(self._seconds)

    def percentile(self, share: float) -> float:
        """The duration in ms that this share of the calls did not exceed (nearest rank)."""
        if not self._seconds:
            return 0.0
        rank = max(1, math.ceil(share * len(self._seconds)))
        return self._seconds[rank - 1] * 1e3

    def buckets(self) -> list[int]:
        """How many calls each bucket has; one more than there are bounds."""
        counts = [0] * (len(BOUNDS) + 1)
        for seconds in self._seconds:
            counts[bisect.bisect_left(BOUNDS, seconds * 1e3)] += 1
        return counts

    def as_json(self) -> dict[str, Any]:
        """Count, percentiles in ms, and the buckets as [upper bound in ms or null, count]."""
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "longest": 1.0}
        bounds = (*BOUNDS, None)
        return {
            "count": len(self._seconds),
            **{f"{name}_ms": round(self.percentile(s), 1) for name, s in shares.items()},
            "buckets": [list(pair) for pair in zip(bounds, self.buckets(), strict=True)],
        }

    def text(self, title: str) -> str:
        """A bar a bucket, without the empty ones at both ends."""
        counts = self.buckets()
        lines = [
            f"{title}: {len(self._seconds):,} calls, median {self.percentile(0.5):.1f} ms, "
            f"90 % {self.percentile(0.9):.1f}, 99 % {self.percentile(0.99):.1f}, "
            f"longest {self.percentile(1.0):.1f}"
        ]
        filled = [index for index, count in enumerate(counts) if count]
        for index in range(min(filled, default=0), max(filled, default=-1) + 1):
            bound = f"to {BOUNDS[index]}" if index < len(BOUNDS) else "more"
            bar = "#" * math.ceil(_BAR * counts[index] / max(counts))
            lines.append(f"  {bound:>8} ms {counts[index]:7,} {bar}")
        return "\n".join(lines)
