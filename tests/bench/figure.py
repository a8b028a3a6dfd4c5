# SPDX-License-Identifier: Apache-2.0
"""A number that has to reach a value of its own, rather than beat somebody else's."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class Figure:
    """One line of the second table.

    value, target: in `unit`; target None: reported only. at_least: the target is a lower bound,
    otherwise an upper one. details: what else was measured with it, for the JSON document.
    """

    key: str
    title: str
    why: str
    unit: str
    value: float
    target: float | None = None
    at_least: bool = False
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def reached(self) -> bool:
        """True when the target is, or there is none."""
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        """Everything about it."""
        return {**dataclasses.asdict(self), "reached": self.reached()}
