# SPDX-License-Identifier: Apache-2.0
"""The executables, or their sources, with some inputs that go on to act; see `frozen`."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.fuzz.target import ROOT

#: Inputs; each is a call or two, and a look at everything.
_RUNS = 60


@pytest.mark.root
def test_mutated_calls_hold(bin_dir: pathlib.Path) -> None:
    words = [sys.executable, "-m", "tests.fuzz.frozen", "--runs", str(_RUNS)]
    done = subprocess.run(
        [*words, "--bin-dir", bin_dir], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"frozen: {_RUNS} inputs" in done.stdout
    assert "'attached'" in done.stdout
