# SPDX-License-Identifier: Apache-2.0
"""One single change to what ADD had made, after which CHECK has to fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding, Level, NotApplicable, case, preparation
from cni_conformance.profiles import merge_patch
from cni_conformance.state import State

#: A change, and in words what it was.
Mutation = tuple[str, Callable[[], object]]
_SECTION = "SPEC 1.1.0, section 2, CHECK: Check container's networking is as expected"


@dataclasses.dataclass(frozen=True)
class Made:
    """What ADD made for `pod`, by comparison of what there was before and is now."""

    pod: Attachment
    #: Of the host, without what the suite made for the container; and of the sandbox.
    host_before: State
    host: State
    inside_before: State
    inside: State
    #: What the host kept of another container after its DEL: what containers share.
    kept: State

    def gained(self, section: str, inside: bool) -> list[str]:
        """Lines of a section that came with ADD, sorted."""
        before, now = self._states(inside)
        return sorted(now.lines(section) - before.lines(section))

    def replaced(self, section: str, inside: bool) -> Iterator[tuple[str, str]]:
        """(before, now): lines of which the first word, up to "=", was there before."""
        before, now = self._states(inside)
        known = {_name(line): line for line in before.lines(section) - now.lines(section)}
        for line in self.gained(section, inside):
            if _name(line) in known:
                yield known[_name(line)], line

    def _states(self, inside: bool) -> tuple[State, State]:
        if inside:
            return self.inside_before, self.inside
        return self.host_before, self.host


Find = Callable[[Made], Iterator[Mutation]]


def _name(line: str) -> str:
    return line.split()[0].partition("=")[0]


def expect_noticed(bench: Bench, find: Find, shared: bool) -> None:
    """For each change that `find` has for a new container: CHECK succeeds before, fails after.

    shared: what ADD makes for the first container alone counts as well. The same for each of the
    profile's variants; one in which the plugin cannot be used is left out.
    """
    tried = 0
    for patch in ({}, *bench.profile.variants):
        tried += _expect_each_noticed(bench, find, shared, patch)
    if not tried:
        raise NotApplicable("its ADD makes nothing of that kind")


def _expect_each_noticed(bench: Bench, find: Find, shared: bool, patch: dict[str, object]) -> int:
    """The number of changes."""
    without = bench.state()
    if not shared:
        warm = _attachment(bench, patch)
        outcome = warm.add()
        if patch and not outcome.succeeded:
            warm.delete()
            return 0
        with preparation():
            outcome.expect_success()
            warm.delete().expect_success()
        warm.discard()
    base = bench.state()
    kept = _gain(without, base)
    tried = 0
    while True:
        empty = bench.state()
        pod = _attachment(bench, patch)
        prepared = bench.state()
        outcome = pod.add()
        if patch and not tried and not outcome.succeeded:
            pod.delete()
            return 0
        with preparation():
            outcome.expect_result(bench.version)
        before = _with_gain(base if shared else prepared, empty, prepared)
        made = Made(pod, before, bench.state(), pod.inside, pod.sandbox.state(), kept)
        mutations = list(find(made))
        if tried >= len(mutations):
            pod.delete().expect_silence()
            pod.discard()
            return tried
        words, change = mutations[tried]
        with preparation():
            pod.check().expect_silence()
        change()
        outcome = pod.check()
        if outcome.succeeded:
            raise Finding(f"CHECK to fail after {words}", outcome.came())
        outcome.expect_error()
        pod.delete().expect_silence()
        pod.discard()
        tried += 1


def _attachment(bench: Bench, patch: dict[str, object]) -> Attachment:
    pod = bench.attachment()
    pod.config = merge_patch(pod.config, patch)
    return pod


def _gain(before: State, after: State) -> State:
    """What came between the two."""
    return State({name: lines - before.lines(name) for name, lines in after.sections.items()})


def _with_gain(state: State, before: State, after: State) -> State:
    """The state and what came between the other two."""
    gained = _gain(before, after)
    return State({name: state.lines(name) | gained.lines(name) for name in gained.sections})


def declare(
    id: str,
    what: str,
    find: Find,
    text: str,
    *,
    level: Level = "recommended",
    kinds: tuple[str, ...] = ("interface",),
    shared: bool = False,
) -> None:
    """Declare a case: after each change that `find` has, CHECK fails; `text` says why.

    All of this is a SHOULD: the result's interfaces, addresses and routes, and other resources.
    """

    def run(bench: Bench) -> None:
        expect_noticed(bench, find, shared)

    run.__doc__ = text
    case(
        id,
        f"CHECK notices {what}",
        section=_SECTION,
        level=level,
        since="0.4.0",
        kinds=kinds,
        newest_only=True,
        seconds=180,
    )(run)
