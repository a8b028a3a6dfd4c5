# SPDX-License-Identifier: Apache-2.0
"""Runs cases against plugins: a process and a host of its own for each, several at once."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import pathlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cni_conformance import causes, isolate, kernel
from cni_conformance.bench import Bench, Invocation
from cni_conformance.case import VERSIONS, Case, Finding, NotApplicable
from cni_conformance.outcome import Outcome
from cni_conformance.profiles import Profile
from cni_conformance.verdict import Verdict
from cni_conformance.wording import shorten, show, text

#: What a call costs before the suite asks whether it hangs, in seconds.
_VERSION_SECONDS = 30.0
_TEXT = 4000


class Unusable(Exception):
    """A plugin that cannot be tested at all; says why."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A plugin under test.

    answered: the versions that it says it supports, of those that the suite knows. claimed: those
    of them that its type can be used with. name: what reports call it, unlike any other's.
    obstacle: why it cannot be tested on this kernel, "" when it can; no case applies then.
    """

    program: pathlib.Path
    profile: Profile
    claimed: tuple[str, ...]
    answered: tuple[str, ...]
    name: str
    obstacle: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """One case to be run for one subject and one version."""

    subject: Subject
    case: Case
    version: str


def identify(program: pathlib.Path, profile: Profile) -> Subject:
    """Ask a plugin for its versions. Raises Unusable when VERSION gives none that is known."""

    def work() -> Any:
        environment = {"CNI_COMMAND": "VERSION", "PATH": os.environ.get("PATH", os.defpath)}
        stdin = json.dumps({"cniVersion": VERSIONS[-1]}).encode()
        process = Invocation(str(program), environment, stdin).start()
        streams = process.communicate(stdin, _VERSION_SECONDS)
        return [process.returncode, *map(text, streams)]

    answer = isolate.run(work, [program.parent], _VERSION_SECONDS + 5)
    if not isinstance(answer, list):
        raise Unusable(f"{program}: VERSION did not end properly: {_last_line(answer)}")
    status, stdout, stderr = answer
    try:
        document = json.loads(stdout)
        claimed = tuple(v for v in VERSIONS if v in document["supportedVersions"])
    except (ValueError, TypeError, KeyError):
        raise Unusable(
            f"{program}: VERSION gave no supportedVersions: exit status {status}, "
            f"stdout {show(stdout)}, stderr {show(stderr)}"
        ) from None
    usable = tuple(version for version in claimed if version in profile.versions())
    if not usable:
        raise Unusable(f"{program}: supports none of {', '.join(profile.versions())}")
    kind = profile.link_kind
    obstacle = "" if kind is None or kernel.has(kind) else f"this kernel has no {kind} devices"
    return Subject(program, profile, usable, claimed, profile.type, obstacle)


def told_apart(subjects: Sequence[Subject]) -> list[Subject]:
    """The same, each called by its type, or by its path where several are of that type."""
    types = [subject.profile.type for subject in subjects]
    return [
        subject
        if types.count(subject.profile.type) == 1
        else dataclasses.replace(subject, name=str(subject.program))
        for subject in subjects
    ]


def _last_line(answer: Any) -> str:
    trace = answer.get("traceback", "") if isinstance(answer, dict) else ""
    return trace.strip().rpartition("\n")[2] or "no answer"


def wanted(patterns: Sequence[str], case: Case, version: str) -> bool:
    """True when --only asks for this: "id", "id@version", with * in either; no pattern: all."""
    return not patterns or any(
        fnmatch.fnmatchcase(f"{case.id}@{version}", pattern if "@" in pattern else f"{pattern}@*")
        for pattern in patterns
    )


def versions_wanted(pattern: str) -> list[str]:
    """The versions that a pattern of --only selects, whatever the case: none is a mistake."""
    asked = pattern.partition("@")[2] or "*"
    return [version for version in VERSIONS if fnmatch.fnmatchcase(version, asked)]


def plan(subjects: Sequence[Subject], cases: Sequence[Case], only: Sequence[str]) -> list[Task]:
    """What there is to be run, in order."""
    return [
        Task(subject, case, version)
        for subject in subjects
        for case in cases
        if case.applies(subject.profile)
        for version in case.versions_of(subject.claimed)
        if wanted(only, case, version)
    ]


def repeat_command(task: Task, profile_file: str | None = None) -> str:
    """The shell command that runs this task alone."""
    words = ["cni-conformance"]
    if profile_file:
        words += ["--profile", profile_file]
    words += ["--only", f"{task.case.id}@{task.version}", str(task.subject.program)]
    return shlex.join(words)


def run(
    tasks: Sequence[Task], jobs: int, progress: Callable[[Verdict], None], profile_file: str | None
) -> list[Verdict]:
    """Run all tasks, `jobs` at a time; `progress` is called with each verdict as it comes.

    The verdicts are returned in the order of the tasks. When interrupted, what runs is ended.
    Those on a plugin that cannot be tested here are skips, without a process for each. Which of
    them were not reached because of another's finding shows in what is returned alone.
    """
    skipped: dict[int, Verdict] = {}
    for number, task in enumerate(tasks):
        if task.subject.obstacle:
            answer = {"status": "skip", "came": task.subject.obstacle}
            skipped[number] = _verdict(task, answer, False, 0.0, profile_file)
            progress(skipped[number])
    performed = iter(
        isolate.run_all(
            [task for task in tasks if not task.subject.obstacle],
            jobs,
            lambda task: isolate.start(
                lambda: _perform(task), [task.subject.program.parent], task.case.seconds
            ),
            lambda task, answer, late, seconds: _verdict(
                task, answer, late, seconds, profile_file
            ),
            progress,
        )
    )
    verdicts = [skipped.get(number) or next(performed) for number in range(len(tasks))]
    return causes.attribute(verdicts, {task.case.id for task in tasks if task.case.is_basis})


def _perform(task: Task) -> dict[str, Any]:
    """In the child: run the case; what it found, in JSON."""
    subject = task.subject
    bench = Bench(
        subject.program, subject.profile, task.version, subject.claimed, subject.answered
    )
    try:
        task.case.run(bench)
    except Finding as finding:
        calls = [_describe(*call) for call in bench.calls]
        return {
            "status": "fail",
            "expected": finding.expected,
            "came": finding.came,
            "calls": calls,
            "reached": finding.reached,
            "cause": finding.cause,
        }
    except NotApplicable as reason:
        return {"status": "skip", "came": str(reason)}
    return {"status": "pass"}


def _describe(invocation: Invocation, outcome: Outcome) -> dict[str, Any]:
    return {
        "environment": {k: v for k, v in invocation.environment.items() if k.startswith("CNI_")},
        "stdin": shorten(text(invocation.stdin), _TEXT),
        "status": outcome.status,
        "stdout": shorten(text(outcome.stdout), _TEXT),
        "stderr": shorten(text(outcome.stderr), _TEXT),
    }


def _verdict(
    task: Task, answer: Any, late: bool, seconds: float, profile_file: str | None
) -> Verdict:
    found: dict[str, Any] = answer if isinstance(answer, dict) else {}
    if "traceback" in found:
        found = {"status": "error", "came": found["traceback"]}
    elif "status" not in found:
        came = f"no end within {task.case.seconds:.0f} s" if late else "the case's process died"
        found = {"status": "fail", "expected": "the case to end", "came": came}
    reached: bool = found.get("reached", True)
    return Verdict(
        plugin=task.subject.name,
        case=task.case.id,
        version=task.version,
        level=task.case.level,
        section=task.case.section,
        title=task.case.title,
        status=found["status"],
        expected=found.get("expected", ""),
        came=found.get("came", ""),
        repeat=repeat_command(task, profile_file),
        seconds=round(seconds, 3),
        calls=tuple(found.get("calls", ())),
        about=task.case.about if found["status"] == "fail" and reached else "",
        reached=reached,
        cause=found.get("cause", ""),
    )


def programs(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The executable at `path`, or those in the directory of that path, by name."""
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.is_file() and os.access(entry, os.X_OK) and not entry.name.startswith("."):
                yield entry
    else:
        yield path
