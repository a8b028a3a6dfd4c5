# SPDX-License-Identifier: Apache-2.0
"""The report that a person reads in a terminal, and the progress while cases run."""

from __future__ import annotations

import fnmatch
import inspect
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TextIO

from cni_conformance.case import VERSIONS, Case
from cni_conformance.runner import Subject
from cni_conformance.verdict import Verdict, hindered, in_the_way, not_reached

_WIDTH = 99
_LEVELS = {
    "required": "the specification's MUST",
    "recommended": "the specification's SHOULD",
}
_NEWEST = "; the newest alone that the plugin supports"


class Progress:
    """A line that is rewritten on a terminal; a line per plugin elsewhere."""

    def __init__(self, total: int, stream: TextIO = sys.stderr) -> None:
        self._total, self._stream = total, stream
        self._done = 0
        self._causes: set[tuple[str, ...]] = set()
        self._terminal = stream.isatty()

    def __call__(self, verdict: Verdict) -> None:
        """One more is done."""
        self._done += 1
        if verdict.is_finding:
            # What is in the way of many is one finding in the end.
            what = verdict.cause or verdict.case
            self._causes.add((verdict.plugin, verdict.version, what))
        if self._terminal:
            text = (
                f"[{self._done}/{self._total}] {len(self._causes)} findings  "
                f"{verdict.plugin} {verdict.case} {verdict.version}"
            )
            self._stream.write(f"\r\x1b[K{text[: _WIDTH - 1]}")
            self._stream.flush()
        elif self._done == self._total or self._done % 100 == 0:
            print(
                f"{self._done}/{self._total} done, {len(self._causes)} findings", file=self._stream
            )

    def close(self) -> None:
        """End the line."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _group(verdicts: Sequence[Verdict]) -> dict[tuple[str, str, str], list[Verdict]]:
    """The findings of one case about several versions, together; the first speaks for all."""
    found: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.is_finding:
            key = (verdict.plugin, verdict.case, verdict.status)
            found.setdefault(key, []).append(verdict)
    return found


def _indented(label: str, text: str) -> str:
    lead = f"    {label:<9}"
    lines = text.splitlines() or [""]
    wrapped = [
        part
        for line in lines
        # Names of cases have hyphens, and are there to be copied.
        for part in textwrap.wrap(line, _WIDTH - len(lead), break_on_hyphens=False) or [""]
    ]
    return "\n".join([lead + wrapped[0], *[" " * len(lead) + line for line in wrapped[1:]]])


def write(
    verdicts: Sequence[Verdict],
    stream: TextIO | None = None,
    obstacles: Mapping[str, str] | None = None,
) -> None:
    """Findings with what was expected, what came and how to repeat them; then the sums.

    obstacles: why a plugin could not be tested, by its name.
    """
    blocked = in_the_way(verdicts)
    for (plugin, case, status), group in _group(verdicts).items():
        first = group[0]
        versions = ", ".join(verdict.version for verdict in group)
        word = "ERROR" if status == "error" else first.level.upper()
        print(f"{word}  {plugin}  {case}  ({versions})", file=stream)
        print(_indented("", first.headline), file=stream)
        print(_indented("section", first.section), file=stream)
        if first.expected:
            print(_indented("expected", first.expected), file=stream)
        print(_indented("came", first.came), file=stream)
        others = [each for v in group for each in blocked.get((plugin, case, v.version), ())]
        if others:
            print(_indented("hinders", hindered(others)), file=stream)
        # Not wrapped: it is there to be copied.
        print(f"    {'repeat':<9}{first.repeat}\n", file=stream)
    plugins = list(dict.fromkeys(verdict.plugin for verdict in verdicts))
    width = max(map(len, plugins), default=0) + 2
    for plugin in plugins:
        if obstacles and plugin in obstacles:
            print(f"{plugin + ':':<{width}}not testable here: {obstacles[plugin]}", file=stream)
            continue
        mine = [verdict for verdict in verdicts if verdict.plugin == plugin]
        counts = Counter(
            verdict.status if verdict.status != "fail" else verdict.level for verdict in mine
        )
        words = [f"{counts['pass']} hold", f"{counts['required']} required do not"]
        words.append(f"{counts['recommended']} recommended do not")
        words += [not_reached(mine)] if counts["unreached"] else []
        words += [f"{counts['skip']} do not apply"] if counts["skip"] else []
        words += [f"{counts['error']} errors of the suite"] if counts["error"] else []
        print(f"{plugin + ':':<{width}}{', '.join(words)}", file=stream)


def explain(case: Case) -> str:
    """A case in words, for --explain."""
    lines = [
        f"{case.id}: {case.title}",
        "",
        f"level     {case.level}: {_LEVELS[case.level]}",
        _wrapped("section", case.section),
        f"versions  {', '.join(case.versions)}{_NEWEST if case.newest_only else ''}",
        *([_wrapped("why", case.why)] if case.why else []),
    ]
    # Docstrings, and texts of data: paragraphs, and lines that are indented are left alone.
    text = inspect.cleandoc(case.text)
    return "\n".join([*lines, "", *(_filled(line) for line in text.splitlines())]).rstrip()


def _filled(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip(" ")))
    hanging = indent + ("  " if indent else "")
    return textwrap.fill(
        line.strip(),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _wrapped(label: str, text: str) -> str:
    lead = f"{label:<10}"
    return textwrap.fill(text, _WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))


def table(cases: Sequence[Case]) -> str:
    """One line per case, for --list."""
    width = max((len(case.id) for case in cases), default=0)
    return "\n".join(f"{case.id:<{width}}  {case.level:<11}  {case.title}" for case in cases)


def unselected(subjects: Sequence[Subject], cases: Sequence[Case], pattern: str) -> str:
    """Why a pattern of --only that names cases selects none of them for any of the plugins."""
    asked = [case for case in cases if fnmatch.fnmatchcase(case.id, pattern.partition("@")[0])]
    words = []
    for subject in subjects:
        versions = {
            version
            for case in asked
            if case.applies(subject.profile)
            for version in case.versions_of(subject.claimed)
        }
        held = ", ".join(version for version in VERSIONS if version in versions)
        words.append(
            f"for {subject.name} it is run with {held}"
            if held
            else f"it does not apply to {subject.name}"
        )
    return "; ".join(words)
