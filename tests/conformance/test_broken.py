# SPDX-License-Identifier: Apache-2.0
"""Plugins that are broken on purpose, one per case: each is caught, and by its case.

A fault may show in another case as well, if that asks for the same step; which of the
control cases it shows in is in broken/also.json, and compared exactly. The plugins of
test_broken_states are for the cases that look at more than one call.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
import test_broken_states
from broken import plugin
from broken.faults import FAULTS, TYPES
from broken.notation import expect_none
from cni_conformance import data, mutations, runner
from cni_conformance.case import Case, discover

from tests.rig import conformance

HERE = pathlib.Path(__file__).parent
#: Cases that a plugin with another fault should pass.
CONTROL = ("version-answer", "add-del", "env-unknown-command", "check-after-add")
VECTORS: dict[str, Any] = {
    vector["id"]: vector
    for path in sorted(data.VECTORS.glob("*.json"))
    for vector in data.read(path)["cases"]
}
CASES = {case.id: case for case in discover()}

pytestmark = pytest.mark.root


def _covered() -> list[str]:
    names = [*VECTORS, *FAULTS]
    return [name for name in CASES if name in names]


def _type(case: Case) -> str:
    if case.id in TYPES:
        return TYPES[case.id]
    known = conformance.known_profiles()
    return next(type for type in ("bridge", "tuning", "host-local") if case.applies(known[type]))


def test_every_case_has_a_plugin_that_fails_it() -> None:
    """One case alone, as the tests here and in test_broken_states show of each plugin."""
    alone = [cases for cases in test_broken_states.FAULTS.values() if cases]
    assert all(len(cases) == 1 for cases in alone)
    elsewhere = {case for cases in alone for case in cases}
    broken = [*VECTORS, *FAULTS, *elsewhere]
    assert sorted(broken) == sorted(CASES)


def _control(name: str) -> list[str]:
    """What a plugin whose fault is in what CHECK notices passes besides: all else it notices."""
    noticing = [case.id for case in CASES.values() if case.run.__module__ == mutations.__name__]
    return [*CONTROL, *(noticing if name in noticing else ())]


@pytest.mark.parametrize("share", range(6))
def test_each_is_caught_by_its_case(
    share: int, bin_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    known = conformance.known_profiles()
    tasks: list[runner.Task] = []
    for name in _covered()[share::6]:
        type = _type(CASES[name])
        steps = VECTORS[name]["steps"] if name in VECTORS else None
        program = plugin.make(tmp_path / name, bin_dir, type, name, steps)
        subject = runner.identify(program, known[type])
        # By its path: all of them are of few types, and a finding of one explains no other's.
        subject = dataclasses.replace(subject, name=str(program))
        only = [f"{case}@*" for case in (name, *_control(name))]
        found = runner.plan([subject], list(CASES.values()), only)
        newest = {task.case.id: task for task in found}
        tasks += newest.values()
    verdicts = runner.run(tasks, 2, lambda verdict: None, None)
    caught: dict[str, list[str]] = {name: [] for name in _covered()[share::6]}
    for task, verdict in zip(tasks, verdicts, strict=True):
        assert verdict.status != "error", verdict.came
        if verdict.status == "fail":
            expect_none(f"{verdict.expected}\n{verdict.came}")
            caught[task.subject.program.parent.name].append(task.case.id)
    also = json.loads((HERE / "broken/also.json").read_text())
    expected = {name: sorted({name, *also.get(name, ())}) for name in caught}
    assert {name: sorted(cases) for name, cases in caught.items()} == expected
