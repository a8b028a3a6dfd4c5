# SPDX-License-Identifier: Apache-2.0
"""A runtime with one fault is found out by the scenario for that fault, and by no other."""

from __future__ import annotations

import pathlib

import pytest
from broken.notation import expect_none
from cni_conformance.case import Finding
from cni_conformance.runtime import scenario
from cni_conformance.runtime.stage import Stage
from runtimes.small import SmallRuntime

SCENARIOS = scenario.load()


def findings(scratch: pathlib.Path, broken: str = "") -> dict[str, Finding]:
    """What each scenario finds; none may fail to apply."""
    runtime = SmallRuntime(scratch, broken)
    stage = Stage(runtime, runtime.recorder)
    found = {}
    for each in SCENARIOS:
        try:
            stage.run(each)
        except Finding as finding:
            found[each.id] = finding
    return found


def test_a_runtime_without_fault_passes_every_scenario(tmp_path: pathlib.Path) -> None:
    assert findings(tmp_path) == {}


@pytest.mark.parametrize("fault", [each.id for each in SCENARIOS])
def test_each_fault_is_found_by_exactly_its_scenario(tmp_path: pathlib.Path, fault: str) -> None:
    found = findings(tmp_path, fault)
    assert list(found) == [fault], {id: str(finding) for id, finding in found.items()}
    assert found[fault].expected and found[fault].came
    expect_none(str(found[fault]))
