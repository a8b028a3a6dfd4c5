# SPDX-License-Identifier: Apache-2.0
"""Every package that is asked for has one version, which is the one that is being tested."""

from __future__ import annotations

import importlib.metadata
import pathlib
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[2]
PINNED = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]


@pytest.mark.parametrize("wanted", ASKED, ids=lambda wanted: wanted.name)
def test_it_is_pinned_to_what_would_do(wanted: Requirement) -> None:
    assert wanted.specifier.contains(PINNED[canonicalize_name(wanted.name)])


def test_the_tested_are_the_pinned() -> None:
    """Of those that are installed: fuzzing has an extra of its own."""
    installed = {
        canonicalize_name(each.metadata["Name"]): each.version
        for each in importlib.metadata.distributions()
    }
    found = {name: installed[name] for name in PINNED if name in installed}
    assert found == {name: PINNED[name] for name in found}
    assert {"pyroute2", "pytest"} <= found.keys()
