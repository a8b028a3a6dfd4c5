# SPDX-License-Identifier: Apache-2.0
"""Ranges of addresses: what may be given out, in which order.

A range set is a pool: one address is taken from it, from any of its ranges. Addresses are
integers here, as a /64 must not be enumerated: what may be given out is a list of spans.
Semantics: the reference host-local, plus `exclude`, and never a network or broadcast address,
also where rangeStart and rangeEnd name them.
"""

from __future__ import annotations

from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    #: First and last address, inclusive.
    Span = tuple[int, int]


def number(packed: bytes) -> int:
    """A packed address as an integer."""
    return int.from_bytes(packed, "big")


def invalid(msg: str, details: str = "") -> CniError:
    """A CniError 7."""
    return CniError(INVALID_NETWORK_CONFIG, msg, details)


class Range:
    """A part of one subnet: first to last address, inclusive, and the subnet's gateway."""

    __slots__ = ("first", "gateway", "last", "size", "subnet")

    def __init__(self, document: dict[str, Any]) -> None:
        """Read {subnet, rangeStart, rangeEnd, gateway}; "" is unset.

        Raises CniError 7 (and ValueError for text that is no address) naming the culprit.
        """
        subnet = Prefix.parse(document["subnet"])
        size = len(subnet.packed)
        if subnet.length > size * 8 - 2:
            raise invalid(
                f"Network {subnet.text()} too small to allocate from",
                f"a prefix length of at most {size * 8 - 2} is expected",
            )
        network = subnet.network()
        if network.packed != subnet.packed:
            raise invalid(
                f"subnet {subnet.text()}: Network has host bits set. For a subnet mask of length "
                f"{subnet.length} the network address is {ntop(network.packed)}"
            )
        self.subnet = subnet
        #: Bytes of an address: 4 or 16.
        self.size = size
        base = number(subnet.packed)
        end = number(subnet.broadcast())
        text = document.get("gateway")
        self.gateway: bytes = pton(text) if text else (base + 1).to_bytes(size, "big")
        self.first = base + 1
        #: The last address of an IPv4 subnet is its broadcast address.
        self.last = end - 1 if size == 4 else end
        start, stop = document.get("rangeStart"), document.get("rangeEnd")
        if start:
            self.first = self._inside("RangeStart", start, base, end)
        if stop:
            self.last = self._inside("RangeEnd", stop, base, end)
        if self.first > self.last:
            first, last = self.address(self.first), self.address(self.last)
            culprit = f"RangeStart {first}" if start else f"RangeEnd {last}"
            if start and stop:
                what = f"is after RangeEnd {last}"
            elif start:
                what = f"is after the last address, {last},"
            else:
                what = f"is before the first address, {first},"
            raise invalid(
                f"{culprit} {what} in network {subnet.text()}",
                # Which people search for.
                f"the Go plugin says: {culprit} not in network {subnet.text()}",
            )

    def _inside(self, key: str, text: str, low: int, high: int) -> int:
        packed = pton(text)
        value = number(packed)
        if len(packed) != self.size or not low <= value <= high:
            raise invalid(f"{key} {ntop(packed)} not in network {self.subnet.text()}")
        return value

    def address(self, value: int) -> str:
        """The text of an address given as an integer."""
        return ntop(value.to_bytes(self.size, "big"))

    def contains(self, packed: bytes) -> bool:
        """True for an address between the first and the last, both included."""
        return len(packed) == self.size and self.first <= number(packed) <= self.last

    def overlaps(self, other: Range) -> bool:
        """True when any address is in both."""
        return self.size == other.size and self.first <= other.last and other.first <= self.last

    def text(self) -> str:
        """ "10.1.2.1-10.1.2.254"."""
        return f"{self.address(self.first)}-{self.address(self.last)}"


class RangeSet:
    """Disjoint ranges of one family, and the spans of them that may be given out."""

    __slots__ = ("ranges", "spans")

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        """Read a list of ranges. Raises CniError 7, and ValueError as `Range` does."""
        if not documents:
            raise invalid("empty range set")
        self.ranges = [Range(document) for document in documents]
        #: (first, last, index of the range), in the order of the ranges; see `restrict`.
        self.spans: list[tuple[int, int, int]] = []
        for i, one in enumerate(self.ranges):
            if one.size != self.ranges[0].size:
                raise invalid("mixed address families", f"{self.ranges[0].text()}, {one.text()}")
            for other in self.ranges[:i]:
                if one.overlaps(other):
                    raise invalid(f"subnets {other.text()} and {one.text()} overlap")

    @property
    def size(self) -> int:
        """Bytes of an address: 4 or 16."""
        return self.ranges[0].size

    def restrict(self, taboo: list[Span]) -> None:
        """Compute the spans: the ranges without `taboo` and without subnet and broadcast.

        taboo: addresses of this family that are never given out (gateways, `exclude`).
        """
        self.spans = []
        for index, one in enumerate(self.ranges):
            low = max(one.first, number(one.subnet.packed) + 1)
            high = one.last
            if one.size == 4:
                high = min(high, number(one.subnet.broadcast()) - 1)
            for first, last in sorted(taboo):
                if last < low or first > high:
                    continue
                if first > low:
                    self.spans.append((low, first - 1, index))
                low = last + 1
            if low <= high:
                self.spans.append((low, high, index))

    def overlaps(self, other: RangeSet) -> bool:
        """True when a range of one overlaps a range of the other."""
        return any(a.overlaps(b) for a in self.ranges for b in other.ranges)

    def range_of(self, packed: bytes) -> Range | None:
        """The range that holds an address, given out or not."""
        for one in self.ranges:
            if one.contains(packed):
                return one
        return None

    def offers(self, packed: bytes) -> bool:
        """True for an address that may be given out."""
        value = number(packed)
        return len(packed) == self.size and any(a <= value <= b for a, b, _ in self.spans)

    def capacity(self) -> int:
        """How many addresses may be given out in all."""
        return sum(last - first + 1 for first, last, _ in self.spans)

    def from_last(self, packed: bytes | None) -> Iterator[tuple[int, Range]]:
        """Every address that may be given out, once: round robin from `packed` + 1.

        packed: the address given out last; one that is in no range, or None, starts at the
        first range.
        """
        pivot = (-1, -1)
        if packed is not None:
            for index, one in enumerate(self.ranges):
                if one.contains(packed):
                    pivot = (index, number(packed))
        after: list[tuple[int, int, int]] = []
        before: list[tuple[int, int, int]] = []
        for first, last, index in self.spans:
            if (index, first) > pivot:
                after.append((first, last, index))
            elif (index, last) <= pivot:
                before.append((first, last, index))
            else:
                after.append((pivot[1] + 1, last, index))
                before.append((first, pivot[1], index))
        for first, last, index in after + before:
            one = self.ranges[index]
            for value in range(first, last + 1):
                yield value, one

    def text(self) -> str:
        """ "10.1.2.1-10.1.2.254", more ranges after commas."""
        return ",".join(one.text() for one in self.ranges)
