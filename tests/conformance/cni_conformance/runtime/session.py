# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios against a runtime, each on a host of its own, and says how they went."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import json
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from cni_conformance import isolate
from cni_conformance.case import Case, Finding, NotApplicable, at_least
from cni_conformance.runtime.cnitool import Cnitool
from cni_conformance.runtime.driver import Runtime
from cni_conformance.runtime.recorder import Recorder
from cni_conformance.runtime.scenario import Scenario, load
from cni_conformance.runtime.stage import Stage
from cni_conformance.verdict import Verdict

#: Where a scenario's files lie on its host, whose /run is empty.
_SCRATCH = pathlib.Path("/run/cni-conformance")
#: Seconds after which a scenario counts as hanging; the slowest takes one.
_SECONDS = 180.0

#: Makes a driver, given a directory to keep everything in.
Factory = Callable[[pathlib.Path], Runtime]


def factory(text: str) -> tuple[Factory, list[pathlib.Path]]:
    """What --runtime names: `cnitool:PATH`, or `package.module:Class` for a driver of one's own.

    Also returns the directories that have to be visible on a scenario's host. Raises ValueError.
    """
    kind, _, rest = text.partition(":")
    if kind == "cnitool" and rest:
        program = pathlib.Path(rest).absolute()
        if not program.is_file():
            raise ValueError(f"{program}: no such file")
        return functools.partial(Cnitool, program), [program.parent, program.resolve().parent]
    if "." in kind and rest:
        try:
            made: Factory = getattr(importlib.import_module(kind), rest)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"--runtime {text}: {error}") from None
        return made, []
    raise ValueError(f"--runtime {text}: cnitool:PATH or package.module:Class is expected")


def as_case(scenario: Scenario) -> Case:
    """A scenario in the form that --list and --explain print."""
    steps = [
        " ".join(
            value
            if key == "do"
            else f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in step.items()
        )
        for step in scenario.document["steps"]
    ]
    needs = [f"needs {', '.join(scenario.needs)}"] if scenario.needs else []
    return Case(
        scenario.id,
        scenario.title,
        scenario.section,
        scenario.level,
        (scenario.version,) if scenario.version else at_least(scenario.since),
        lambda profile: False,
        lambda bench: None,
        "\n".join([scenario.text, *needs, *(f"- {step}" for step in steps)]),
        why=scenario.why,
    )


def select(only: Sequence[str]) -> list[Scenario]:
    """The scenarios that the patterns name, or all. Raises ValueError for one that names none."""
    found = load()
    for pattern in only:
        if not any(fnmatch.fnmatchcase(each.id, pattern) for each in found):
            raise ValueError(f"no scenario {pattern!r}; see --runtime … --list")
    return [
        each
        for each in found
        if not only or any(fnmatch.fnmatchcase(each.id, pattern) for pattern in only)
    ]


def perform(stage: Stage, scenario: Scenario) -> dict[str, Any]:
    """Run one; what came of it, in JSON."""
    version = scenario.version_for(stage.runtime)
    answer: dict[str, Any] = {"runtime": stage.runtime.name, "version": version}
    try:
        stage.run(scenario)
    except Finding as finding:
        calls = [
            {
                "name": call.name,
                "environment": {k: v for k, v in call.environment.items() if k[:4] == "CNI_"},
                "stdin": call.stdin,
            }
            for call in stage.recorder.calls()
        ]
        found = {"expected": finding.expected, "came": finding.came, "calls": calls}
        return answer | {"status": "fail", **found}
    except NotApplicable as reason:
        return answer | {"status": "skip", "came": str(reason)}
    return answer | {"status": "pass"}


def run(
    text: str, scenarios: Sequence[Scenario], jobs: int, progress: Callable[[Verdict], None]
) -> list[Verdict]:
    """Lead the runtime that --runtime names through the scenarios, `jobs` at a time.

    The verdicts come in the order of the scenarios. Raises ValueError for a name that means none.
    """
    make, visible = factory(text)
    return isolate.run_all(
        scenarios,
        jobs,
        lambda scenario: isolate.start(lambda: _on_a_host(make, scenario), visible, _SECONDS),
        lambda scenario, answer, late, seconds: _verdict(text, scenario, answer, late, seconds),
        progress,
    )


def _on_a_host(make: Factory, scenario: Scenario) -> dict[str, Any]:
    _SCRATCH.mkdir()
    runtime = make(_SCRATCH)
    return perform(Stage(runtime, Recorder(runtime.plugin_dirs[0], _SCRATCH / "record")), scenario)


def _verdict(text: str, scenario: Scenario, answer: Any, late: bool, seconds: float) -> Verdict:
    found: dict[str, Any] = answer if isinstance(answer, dict) else {}
    if "traceback" in found:
        found = {"status": "error", "came": found["traceback"]}
    elif "status" not in found:
        came = f"no end within {_SECONDS:.0f} s" if late else "the scenario's process died"
        found = {"status": "error", "came": came}
    return Verdict(
        plugin=found.get("runtime", text),
        case=scenario.id,
        version=found.get("version", scenario.version),
        level=scenario.level,
        section=scenario.section,
        title=scenario.title,
        status=found["status"],
        expected=found.get("expected", ""),
        came=found.get("came", ""),
        repeat=shlex.join(["cni-conformance", "--runtime", text, "--only", scenario.id]),
        seconds=round(seconds, 3),
        calls=tuple(found.get("calls", ())),
        about=scenario.why if found["status"] == "fail" else "",
    )
