# SPDX-License-Identifier: Apache-2.0
"""Calibration on plugins that we did not write: Debian's, in Go.

What they do not do is in expected/go.json, with the reason; the comparison is exact in both
directions, so that a case that begins to find too much or too little is noticed.
"""

from __future__ import annotations

import os
import pathlib

import pytest
from cni_conformance import expected, profiles, runner
from cni_conformance.case import discover

from tests.rig import conformance
from tests.rig.plugins import GO_BIN_DIR

HERE = pathlib.Path(__file__).parent
EXPECTED = HERE / "expected/go.json"
#: Those of the package that need no daemon and no device that the kernel may lack.
TYPES = sorted(
    path.name
    for path in (GO_BIN_DIR.iterdir() if GO_BIN_DIR.is_dir() else ())
    if path.name in profiles.well_known() and path.name not in ("ipvlan", "vlan", "vrf")
)
#: The newest that they speak is 1.0.0; of older ones, what reads or writes results.
ONLY = expected.load(EXPECTED).covers

#: Run at some system calls only (tests/conformance/conftest.py), these find what there is in
#: one run and miss it in the next; they are compared when they are run at every one.
SAMPLED = ("killed-add", "terminated-add")

pytestmark = pytest.mark.root


@pytest.mark.parametrize("type", TYPES)
def test_findings_are_those_that_are_known(type: str, go_bin_dir: pathlib.Path) -> None:
    verdicts = conformance.run([go_bin_dir / type], ONLY, jobs=3)
    assert len(verdicts) > 40
    whole = os.environ["CNI_CONFORMANCE_STRIDE"] == "1"
    sure = [verdict for verdict in verdicts if whole or verdict.case not in SAMPLED]
    assert expected.differences(expected.load(EXPECTED), sure) == []


def test_nothing_is_expected_of_what_is_not_run() -> None:
    """Neither a plugin, nor a case, nor a version."""
    cases = {case.id: case for case in discover()}
    for plugin, entries in expected.load(EXPECTED).findings.items():
        assert plugin in TYPES
        for name, entry in entries.items():
            for version in entry["versions"]:
                assert runner.wanted(ONLY, cases[name], version), (plugin, name, version)
