# SPDX-License-Identifier: Apache-2.0
"""How one case went for one plugin and one version, and what all of that adds up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from cni_conformance.case import Level

#: holds; the plugin does something else; the case does not apply; the suite itself failed.
Status = Literal["pass", "fail", "skip", "error"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One case, one plugin, one version.

    expected, came: what a finding says; of a skip or an error, `came` is the reason. calls: the
    calls up to a finding, each with environment, stdin and how it ended. repeat: the shell
    command that runs this alone. about: of a finding, what --explain says of its case: what goes
    wrong for users, or the words of a case that is code.
    """

    plugin: str
    case: str
    version: str
    level: Level
    section: str
    title: str
    status: Status
    expected: str = ""
    came: str = ""
    repeat: str = ""
    seconds: float = 0.0
    calls: tuple[dict[str, Any], ...] = ()
    about: str = ""

    @property
    def is_finding(self) -> bool:
        """True when the plugin (or the suite) did not do what it should."""
        return self.status in ("fail", "error")


def conforms(verdicts: Iterable[Verdict]) -> bool:
    """True when every required case holds (and nothing went wrong in the suite itself)."""
    return not any(
        verdict.status == "error" or (verdict.status == "fail" and verdict.level == "required")
        for verdict in verdicts
    )
