# SPDX-License-Identifier: Apache-2.0
"""A plugin with one fault at a time is caught by exactly the case for it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from broken.notation import expect_none

HERE = pathlib.Path(__file__).resolve().parent
TYPE = "small"
PROFILE: dict[str, Any] = {"type": TYPE, "kind": "interface", "config": {}, "since": "1.1.0"}
#: The cases that look at what CHECK notices, and at what ADD and DEL leave. A plugin whose fault
#: is in CHECK alone is not asked the others, and the other way round, as they take their time.
CHECKS = [
    "check-address-removed", "check-interface-removed", "check-route-removed", "check-link-down",
    "check-mac-changed", "check-mtu-changed", "check-reservation-removed",
]  # fmt: skip
STATES = [
    "killed-add", "terminated-add", "many-at-once", "full-disk-add", "full-disk-del",
    "full-disk-del-succeeds", "read-only-add", "read-only-del",
]  # fmt: skip
FAULTS = {
    "none": set[str](),
    "leaks-when-killed": {"killed-add"},
    "success-when-terminated": {"terminated-add"},
    "no-lock": {"many-at-once"},
    "full-is-silent": {"full-disk-add"},
    "read-only-is-silent": {"read-only-add"},
    "catches-up-when-full": {"full-disk-del"},
    "needs-room-to-remove": {"full-disk-del-succeeds"},
    "dies-when-read-only": {"read-only-del"},
    "blind-to-address": {"check-address-removed"},
    "blind-to-interface": {"check-interface-removed"},
    "blind-to-route": {"check-route-removed"},
    "blind-to-down": {"check-link-down"},
    "blind-to-mac": {"check-mac-changed"},
    "blind-to-mtu": {"check-mtu-changed"},
    "blind-to-reservation": {"check-reservation-removed"},
}


def findings(program: pathlib.Path, scratch: pathlib.Path, cases: list[str]) -> dict[str, str]:
    """Case → what was expected and what came, of those of `cases` that do not hold.

    All of them have to be run.
    """
    profile, report = scratch / "profile.json", scratch / "report.json"
    profile.write_text(json.dumps(PROFILE))
    only = [word for name in cases for word in ("--only", name)]
    options = ["--profile", str(profile), "--json", str(report), *only, str(program)]
    done = subprocess.run(
        [sys.executable, "-m", "cni_conformance", *options],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    verdicts = json.loads(report.read_text())["verdicts"]
    assert {v["case"] for v in verdicts if v["status"] != "skip"} == set(cases), verdicts
    wrong = [v for v in verdicts if v["status"] in ("fail", "error")]
    return {v["case"]: f"{v['expected']}; {v['came']}" for v in wrong}


@pytest.mark.root
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_caught_by_its_case(tmp_path: pathlib.Path, fault: str) -> None:
    first, _, rest = (HERE / "broken/small.sh").read_text().partition("\n")
    program = tmp_path / "bin" / TYPE
    program.parent.mkdir()
    program.write_text(f"{first}\nFAULT={fault}\n{rest}")
    program.chmod(0o755)
    if fault == "none":
        cases = CHECKS + STATES
    else:
        cases = CHECKS if fault.startswith("blind-") else STATES
    found = findings(program, tmp_path, cases)
    assert found.keys() == FAULTS[fault], json.dumps(found, indent=1)
    expect_none("\n".join(found.values()))
