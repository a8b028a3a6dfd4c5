# SPDX-License-Identifier: Apache-2.0
"""Which plugins there are, and what the name of one that is not leads to."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest

from libcni.skel.plugin import UnknownPluginError, load, types
from libcni.types.errors import INVALID_NETWORK_CONFIG
from tests.rig.plugins import ROOT
from tools import source_launchers
from tools.freeze.hot import plugin_types


def test_every_folder_is_a_type() -> None:
    assert types() == plugin_types(ROOT)
    for type_ in types():
        assert load(type_).type == type_


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownPluginError) as caught:
        load("brigde")
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert "'brigde'" in caught.value.msg
    assert caught.value.details.endswith(", ".join(plugin_types(ROOT)))


def test_a_package_of_such_a_name_need_not_be_a_plugin(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cni_library").mkdir()
    (tmp_path / "cni_library/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownPluginError, match="'library'"):
        load("library")
    assert types() == plugin_types(ROOT)


def test_a_fault_inside_a_plugin_is_not_an_unknown_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cni_broken").mkdir()
    (tmp_path / "cni_broken/__init__.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="nowhere_at_all"):
        load("broken")


def test_a_renamed_executable_says_which_names_it_has(tmp_path: pathlib.Path) -> None:
    launchers = source_launchers.make(tmp_path / "bin")
    (launchers / "bridge").rename(launchers / "bridge.old")
    done = subprocess.run(
        [launchers / "bridge.old"], env={"CNI_COMMAND": "ADD"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"")
    error = json.loads(done.stdout)
    assert error["code"] == INVALID_NETWORK_CONFIG
    assert "'bridge.old'" in error["msg"] and "bridge, firewall" in error["details"]
