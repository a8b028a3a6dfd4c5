# SPDX-License-Identifier: Apache-2.0
"""Findings that are known: compared exactly, in both directions."""

from __future__ import annotations

import dataclasses
import fnmatch
import pathlib
from collections.abc import Sequence
from typing import Any

import jsonschema

from cni_conformance import data, wording
from cni_conformance.verdict import Verdict

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "plugin → case → the versions for which it does not hold, and why",
    "properties": {
        "$covers": {
            "type": "array",
            "description": "the cases and versions that it is about, CASE@VERSION; all without it",
            "minItems": 1,
            "items": {"type": "string", "pattern": "^[^@]+@[^@]+$"},
        },
    },
    "additionalProperties": {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "required": ["versions", "reason"],
            "additionalProperties": False,
            "properties": {
                "versions": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                "reason": {"type": "string", "minLength": 1},
            },
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a file says.

    findings: by plugin and case, the `versions` for which it does not hold and the `reason`.
    covers: patterns of the cases and versions that this is about, as --only takes them; none: all.
    """

    findings: dict[str, dict[str, dict[str, Any]]]
    covers: tuple[str, ...] = ()

    def covered(self, case: str, version: str) -> bool:
        """True for a case and a version that the file is about."""
        name = f"{case}@{version}"
        return not self.covers or any(fnmatch.fnmatchcase(name, each) for each in self.covers)

    def knows(self, plugin: str, case: str, version: str) -> bool:
        """True for a finding that is expected."""
        entry = self.findings.get(plugin, {}).get(case)
        return entry is not None and version in entry["versions"]


def load(path: pathlib.Path) -> Expected:
    """A file of expected findings. Raises OSError, or ValueError that says what is wrong."""
    document = data.read(path)
    for wrong in wording.complaints(jsonschema.Draft7Validator(_SCHEMA).iter_errors(document)):
        raise ValueError(f"{path}: {wrong}")
    found = Expected(covers=tuple(document.pop("$covers", ())), findings=document)
    for plugin, entries in found.findings.items():
        for case, entry in entries.items():
            for version in entry["versions"]:
                if not found.covered(case, version):
                    raise ValueError(f"{path}: {plugin}.{case}: $covers leaves out {version}")
    return found


def differences(expected: Expected, verdicts: Sequence[Verdict]) -> list[str]:
    """How the findings differ from the expected ones, a line each; [] when they do not.

    What was not run (another plugin, a case left out by --only) or not reached is not missed, and
    what the file does not cover is not compared.
    """
    found = []
    for verdict in verdicts:
        if not expected.covered(verdict.case, verdict.version):
            continue
        known = expected.knows(verdict.plugin, verdict.case, verdict.version)
        name = f"{verdict.plugin} {verdict.case} {verdict.version}"
        if verdict.is_finding and not known:
            found.append(
                f"not expected: {name}: expected {verdict.expected}; came {verdict.came}"
                f"\n  repeat: {verdict.repeat}"
            )
        elif verdict.status == "unreached":
            # Known or not, it says nothing new, as long as what is in its way is compared.
            if not known and not expected.covered(verdict.because, verdict.version):
                found.append(f"not expected: {name}: not reached because of {verdict.because}")
        elif known and not verdict.is_finding:
            found.append(f"expected, but it {_WORDS[verdict.status]}: {name}")
    return found


def not_compared(expected: Expected, verdicts: Sequence[Verdict]) -> int:
    """How many findings are of cases and versions that the file does not cover."""
    return sum(
        verdict.is_finding and not expected.covered(verdict.case, verdict.version)
        for verdict in verdicts
    )


_WORDS = {"pass": "holds", "skip": "does not apply"}
