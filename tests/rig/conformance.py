# SPDX-License-Identifier: Apache-2.0
"""Running the suite from its own tests, as the command does."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from cni_conformance import profiles, runner
from cni_conformance.case import discover
from cni_conformance.profiles import Profile
from cni_conformance.verdict import Verdict

from tools.freeze import hot

ROOT = pathlib.Path(__file__).resolve().parents[2]


def known_profiles(root: pathlib.Path = ROOT, ours: bool = False) -> dict[str, Profile]:
    """By type: those that come with the suite, and those in the plugins' folders.

    ours: only of the plugins in this tree.
    """
    known = profiles.well_known()
    for path in hot.plugin_profiles(root).values():
        profile = profiles.load(path)
        known[profile.type] = profile
    types = hot.plugin_types(root) if ours else known
    return {type: profile for type, profile in known.items() if type in types}


def run(programs: Sequence[pathlib.Path], only: Sequence[str], jobs: int = 2) -> list[Verdict]:
    """The verdicts on these plugins; `only`: cases and versions, as on the command line."""
    known = known_profiles()
    subjects = [runner.identify(program, known[program.name]) for program in programs]
    tasks = runner.plan(subjects, discover(), only)
    return runner.run(tasks, jobs, lambda verdict: None, None)


def report(verdicts: Sequence[Verdict]) -> str:
    """The findings, a line each; "" when there are none."""
    return "\n".join(
        f"{v.plugin} {v.case} {v.version}: expected {v.expected}; came {v.came}\n  {v.repeat}"
        for v in verdicts
        if v.is_finding
    )
