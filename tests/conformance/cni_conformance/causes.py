# SPDX-License-Identifier: Apache-2.0
"""One cause, one finding: which verdicts say no more than that another one's is in the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from cni_conformance.verdict import Verdict


def attribute(verdicts: Sequence[Verdict], bases: Collection[str] = ()) -> list[Verdict]:
    """The same verdicts, in their order, each cause as the finding of the case that is about it.

    A case that failed before it was reached becomes "unreached", `because` of the one whose
    finding has the same cause, for the same plugin and version. bases: cases that are about a
    plain ADD alone; what they find is in the way of whatever else fails of the same cause.
    Nothing gets lost: a cause that no case shows as its own stays the finding of one that it
    kept from being reached, and a recommended case never stands for a required one.
    """
    groups: dict[tuple[str, str, str], list[int]] = {}
    for number, verdict in enumerate(verdicts):
        if verdict.status == "fail" and verdict.cause:
            key = (verdict.plugin, verdict.version, verdict.cause)
            groups.setdefault(key, []).append(number)
    found = list(verdicts)
    for numbers in groups.values():
        head, others = _divide(numbers, verdicts, bases)
        for number in others:
            found[number] = dataclasses.replace(
                verdicts[number], status="unreached", because=verdicts[head].case
            )
    return found


def _divide(
    numbers: Sequence[int], verdicts: Sequence[Verdict], bases: Collection[str]
) -> tuple[int, list[int]]:
    """Which one stands for others, and these."""
    own = [number for number in numbers if verdicts[number].reached]
    basic = [number for number in own if verdicts[number].case in bases]
    hidden = [number for number in numbers if number not in (basic or own)]
    required = [number for number in hidden if verdicts[number].level == "required"]
    candidates = sorted(basic or own, key=lambda number: verdicts[number].level != "required")
    if not candidates or (required and verdicts[candidates[0]].level != "required"):
        candidates = required or hidden
    return candidates[0], [number for number in hidden if number != candidates[0]]
