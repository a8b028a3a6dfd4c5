# SPDX-License-Identifier: Apache-2.0
"""cni-conformance beside the plugins: all its cases, all its data, and nothing left behind."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest
from cni_conformance import case, report_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))

pytestmark = pytest.mark.frozen


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env={}, capture_output=True, text=True, check=False)


def test_it_has_every_case() -> None:
    done = run(str(BIN / "cni-conformance"), "--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == report_text.table(case.discover()) + "\n"


def test_cnitool_runs_the_same() -> None:
    alone = run(str(BIN / "cni-conformance"), "--explain", "add-twice")
    through = run(str(BIN / "cnitool"), "conformance", "--explain", "add-twice")
    assert alone.returncode == through.returncode == 0
    assert alone.stdout == through.stdout
    assert alone.stdout.startswith("add-twice: ")


@pytest.mark.root
def test_it_runs_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    before = (pathlib.Path("/proc/mounts").read_text(), sorted(os.listdir("/run")))
    page = tmp_path / "page.html"
    words = ("--only", "add-del", "--only", "delegate-garbage", "--html", str(page))
    done = run(str(BIN / "cni-conformance"), *words, str(BIN / "bridge"), str(BIN / "loopback"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bridge:   8 hold, 0 required do not" in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    assert before == (pathlib.Path("/proc/mounts").read_text(), sorted(os.listdir("/run")))
