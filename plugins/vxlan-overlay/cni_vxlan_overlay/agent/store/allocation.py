# SPDX-License-Identifier: Apache-2.0
"""Which subnet a new node gets, where the store gives them out. Pure but for the drawing."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable, Iterator

from cni_vxlan_overlay.agent.model import NetConf
from libcni.inet import Prefix

#: Nodes that come at once should not all want the same one: drawn from so many, as flannel does.
CHOICE = 100


def fits(conf: NetConf, subnets: Iterable[Prefix]) -> bool:
    """True if these are subnets as the configuration has them now: one of each family, of its
    length, within its bounds."""
    found = {_family(subnet): subnet for subnet in subnets}
    return found.keys() == conf.subnet_len.keys() and all(
        subnet.length == conf.subnet_len[family]
        and conf.subnet_min[family].packed <= subnet.packed <= conf.subnet_max[family].packed
        for family, subnet in found.items()
    )


def free(conf: NetConf, family: int, taken: Iterable[Prefix]) -> Iterator[Prefix]:
    """The subnets of a family that overlap with none taken, in ascending order."""
    length, low = conf.subnet_len[family], conf.subnet_min[family]
    size = len(low.packed)
    step = 1 << (size * 8 - length)
    occupied = _merged([subnet for subnet in taken if len(subnet.packed) == size])
    starts = [start for start, _ in occupied]
    number = int.from_bytes(low.packed, "big")
    last = int.from_bytes(conf.subnet_max[family].packed, "big")
    while number <= last:
        place = bisect.bisect_right(starts, number + step - 1) - 1
        if place >= 0 and occupied[place][1] >= number:
            # On behind it, at the next place where a subnet can begin.
            number = max(number + step, -(-(occupied[place][1] + 1) // step) * step)
            continue
        yield Prefix(number.to_bytes(size, "big"), length)
        number += step


def draw(conf: NetConf, taken: Iterable[Prefix]) -> tuple[Prefix, ...] | None:
    """A free subnet of each family, by lot; None when a family has none left."""
    known = list(taken)
    drawn = []
    for family in sorted(conf.subnet_len):
        candidates = [subnet for subnet, _ in zip(free(conf, family, known), range(CHOICE))]  # noqa: B905
        if not candidates:
            return None
        drawn.append(random.choice(candidates))
    return tuple(drawn)


def _merged(prefixes: list[Prefix]) -> list[tuple[int, int]]:
    """First and last address of each run of overlapping or adjacent prefixes, ascending."""
    runs: list[tuple[int, int]] = []
    for first, last in sorted(map(_bounds, prefixes)):
        if runs and first <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], max(runs[-1][1], last))
        else:
            runs.append((first, last))
    return runs


def _bounds(prefix: Prefix) -> tuple[int, int]:
    first = int.from_bytes(prefix.network().packed, "big")
    return first, first | ((1 << (len(prefix.packed) * 8 - prefix.length)) - 1)


def _family(prefix: Prefix) -> int:
    return 4 if len(prefix.packed) == 4 else 6
