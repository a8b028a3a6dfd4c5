# SPDX-License-Identifier: Apache-2.0
"""Our plugins pass everything, required and recommended, from source and frozen."""

from __future__ import annotations

import pathlib

import pytest
from cni_conformance import profiles

from tests.rig import conformance, plugins
from tools import source_launchers
from tools.freeze import hot

ROOT = pathlib.Path(__file__).resolve().parents[2]
TYPES = hot.plugin_types(ROOT)
#: Of each older form of results: what reads or writes one.
OLDER = ("add-*@0.2.0", "version-consistent@0.2.0", "delegate-result@0.2.0") + tuple(
    f"{cases}@0.4.0" for cases in ("add-*", "del-*", "check-*", "delegate-result", "chain-*")
)
LIFE = ("add-*", "del-undoes", "del-sandbox-vanished", "check-*", "gc-*", "status-*", "stdout-*")

pytestmark = pytest.mark.root


def test_every_plugin_of_ours_has_a_profile() -> None:
    """In its folder, or in spec/vectors if it is one of the reference's types."""
    assert set(TYPES) == set(conformance.known_profiles(ours=True))


def test_the_frozen_suite_knows_them_all(tmp_path: pathlib.Path) -> None:
    """Those in the plugins' folders too."""
    names = dict(hot.conformance_files(ROOT, tmp_path))
    carried = hot.plugin_profiles(ROOT)
    assert "vxlan-overlay" in carried
    for type in TYPES:
        path = pathlib.Path(names[f"cni_conformance/spec/vectors/profiles/{type}.json"])
        assert profiles.load(path).type == type


@pytest.mark.frozen
@pytest.mark.parametrize("type", TYPES)
def test_frozen(type: str, bin_dir: pathlib.Path) -> None:
    """Every case in the newest version, and what depends on the form of results in older ones."""
    verdicts = conformance.run([bin_dir / type], ("*@1.1.0", *OLDER))
    assert len(verdicts) > 60
    assert conformance.report(verdicts) == ""


@pytest.mark.parametrize("type", TYPES)
def test_from_source(type: str, tmp_path: pathlib.Path) -> None:
    """The life of an attachment in the newest version: frozen or not, the code is the same."""
    launchers = source_launchers.make(tmp_path / "bin")
    verdicts = conformance.run([launchers / type], [f"{case}@1.1.0" for case in LIFE])
    assert len(verdicts) > 10
    assert conformance.report(verdicts) == ""


def test_these_are_the_plugins_under_test(bin_dir: pathlib.Path) -> None:
    """Not, by some slip, those that the expectations for Go's are about."""
    assert bin_dir != plugins.GO_BIN_DIR
