# SPDX-License-Identifier: Apache-2.0
"""How one case went for one plugin and one version, and what all of that adds up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from cni_conformance import wording
from cni_conformance.case import Level

#: holds; the plugin does something else; the case does not apply; another finding is in its way;
#: the suite itself failed.
Status = Literal["pass", "fail", "skip", "unreached", "error"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One case, one plugin, one version.

    expected, came: what a finding says; of a skip or an error, `came` is the reason. calls: the
    calls up to a finding, each with environment, stdin and how it ended. repeat: the shell
    command that runs this alone. about: of a finding, what --explain says of its case: what goes
    wrong for users, or the words of a case that is code. reached: False where what was expected
    only prepares what the case is about. cause: the same text for the same kind of failed call,
    "" where none is known. because: of one that is "unreached", the case whose finding, for the
    same plugin and version, is in its way; `expected` and `came` say what that was.
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
    reached: bool = True
    cause: str = ""
    because: str = ""

    @property
    def is_finding(self) -> bool:
        """True when the plugin (or the suite) did not do what it should."""
        return self.status in ("fail", "error")

    @property
    def headline(self) -> str:
        """The title, which is not what did not hold where the case was not reached."""
        if self.reached:
            return self.title
        return f"Not reached, for its preparation failed: {self.title}"

    @property
    def summary(self) -> str:
        """What a finding is, or what is in the way of the case, in one line."""
        words = f"expected {self.expected}; came {self.came}" if self.expected else self.came
        return wording.shorten(" ".join(words.split()))


#: By plugin, case and version of a finding, what was not reached because of it.
Blocked = dict[tuple[str, str, str], list[Verdict]]


def in_the_way(verdicts: Iterable[Verdict]) -> Blocked:
    """What was not reached, by the finding that is the cause."""
    found: Blocked = {}
    for verdict in verdicts:
        if verdict.status == "unreached":
            key = (verdict.plugin, verdict.because, verdict.version)
            found.setdefault(key, []).append(verdict)
    return found


def hindered(verdicts: Sequence[Verdict]) -> str:
    """The cases that were not reached because of one finding, in a line."""
    names = dict.fromkeys(verdict.case for verdict in verdicts)
    return f"{len(verdicts)} not reached: {', '.join(names)}"


def not_reached(verdicts: Iterable[Verdict]) -> str:
    """How many were not, and because of how many findings: "" when all were."""
    blocked = in_the_way(verdicts)
    if not blocked:
        return ""
    number, causes = sum(map(len, blocked.values())), len(blocked)
    return f"{number} not reached because of {causes} finding{'' if causes == 1 else 's'}"


def conforms(verdicts: Iterable[Verdict]) -> bool:
    """True when every required case holds (and nothing went wrong in the suite itself)."""
    return not any(
        verdict.status == "error" or (verdict.status == "fail" and verdict.level == "required")
        for verdict in verdicts
    )
