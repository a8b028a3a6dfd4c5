# SPDX-License-Identifier: Apache-2.0
"""What a case is, how one is declared, and what it finds."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cni_conformance.bench import Bench
    from cni_conformance.profiles import Profile

Level = Literal["required", "recommended"]

#: The versions of the specification, oldest first.
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


class Finding(Exception):
    """The plugin did not do what the specification asks: what was expected, and what came.

    cause: the same text for every call that went wrong in the same way, "" where that is not
    known. reached: False when it came up while a case prepared what it is about.
    """

    def __init__(self, expected: str, came: str, cause: str = "") -> None:
        super().__init__(f"expected {expected}; came {came}")
        self.expected, self.came, self.cause = expected, came, cause
        self.reached = True


class NotApplicable(Exception):
    """Raised by a case that finds that it says nothing about this plugin; says why."""


@contextlib.contextmanager
def preparation() -> Iterator[None]:
    """What is done within is not what the case is about: a Finding says that it is not reached."""
    try:
        yield
    except Finding as finding:
        finding.reached = False
        raise


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that a plugin must or should do.

    id: its name, lower case with hyphens. title: what is right, one sentence without a full stop.
    section: where the specification asks for it. level: as its MUST or SHOULD. versions: those
    that it is run for, oldest first. applies: whether it says anything about a type of plugin.
    run: does it, and raises Finding. text: more about it. seconds: after which it counts as
    hanging. newest_only: run for the newest version alone, as it means the same in all. why: what
    goes wrong for users without it, of cases that are data. is_basis: a plain ADD is all that it
    is about, so what it finds is its own, and stands in the way of all others.
    """

    id: str
    title: str
    section: str
    level: Level
    versions: tuple[str, ...]
    applies: Callable[[Profile], bool]
    run: Callable[[Bench], None]
    text: str = ""
    seconds: float = 60.0
    newest_only: bool = False
    why: str = ""
    is_basis: bool = False

    @property
    def about(self) -> str:
        """What a finding is shown with: the case's `why`; the docstring of one that is code."""
        return self.why or " ".join(self.text.split())

    def versions_of(self, claimed: Collection[str]) -> list[str]:
        """Those of the versions that a plugin claims for which the case is run."""
        found = [version for version in self.versions if version in claimed]
        return found[-1:] if self.newest_only else found


_declared: list[Case] = []


def at_least(version: str) -> tuple[str, ...]:
    """This version of the specification and all later ones."""
    return VERSIONS[VERSIONS.index(version) :]


def case(
    id: str,
    title: str,
    *,
    section: str,
    level: Level = "required",
    since: str = "0.1.0",
    versions: tuple[str, ...] | None = None,
    kinds: Collection[str] = ("interface", "ipam", "chained"),
    applies: Callable[[Profile], bool] = lambda profile: True,
    seconds: float = 60.0,
    newest_only: bool = False,
    is_basis: bool = False,
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Declare the function below as a case; its docstring is what --explain prints.

    since: the first version that asks for it; versions: those it is run for, instead. kinds: the
    kinds of plugin it is for, and `applies` narrows that further.
    """
    asked = at_least(since) if versions is None else versions

    def declare(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
        _declared.append(
            Case(
                id,
                title,
                section,
                level,
                asked,
                lambda profile: profile.kind in kinds and applies(profile),
                function,
                function.__doc__ or "",
                seconds,
                newest_only,
                is_basis=is_basis,
            )
        )
        return function

    return declare


def discover() -> list[Case]:
    """Every case: those of spec/vectors, and those that modules under cases/ declare.

    Raises ValueError when two have one id.
    """
    from cni_conformance import cases, vectors

    # Not by pkgutil, which does not look through the importer of a frozen program.
    files = pathlib.Path(cases.__path__[0]).iterdir()
    for name in sorted({path.stem for path in files if path.suffix in (".py", ".pyc")}):
        if name != "__init__":
            importlib.import_module(f"{cases.__name__}.{name}")
    found = [*vectors.load_cases(), *_declared]
    ids = [case.id for case in found]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        raise ValueError(f"two cases of one name: {', '.join(twice)}")
    return found
