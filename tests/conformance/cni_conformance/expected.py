# SPDX-License-Identifier: Apache-2.0
"""Findings that are known: compared exactly, in both directions."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import jsonschema

from cni_conformance import data, wording
from cni_conformance.verdict import Verdict

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "plugin → case → the versions for which it does not hold, and why",
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

Expected = dict[str, dict[str, dict[str, Any]]]


def load(path: pathlib.Path) -> Expected:
    """A file of expected findings. Raises OSError, or ValueError that says what is wrong."""
    document = data.read(path)
    for wrong in wording.complaints(jsonschema.Draft7Validator(_SCHEMA).iter_errors(document)):
        raise ValueError(f"{path}: {wrong}")
    found: Expected = document
    return found


def differences(expected: Expected, verdicts: Sequence[Verdict]) -> list[str]:
    """How the findings differ from the expected ones, a line each; [] when they do not.

    What was not run (another plugin, a case left out by --only) is not missed.
    """
    found = []
    for verdict in verdicts:
        entry = expected.get(verdict.plugin, {}).get(verdict.case)
        known = entry is not None and verdict.version in entry["versions"]
        name = f"{verdict.plugin} {verdict.case} {verdict.version}"
        if verdict.is_finding and not known:
            found.append(
                f"not expected: {name}: expected {verdict.expected}; came {verdict.came}"
                f"\n  repeat: {verdict.repeat}"
            )
        elif known and not verdict.is_finding:
            found.append(f"expected, but it {_WORDS[verdict.status]}: {name}")
    return found


_WORDS = {"pass": "holds", "skip": "does not apply"}
