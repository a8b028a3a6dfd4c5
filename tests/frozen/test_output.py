# SPDX-License-Identifier: Apache-2.0
"""The tools' executables when nobody reads what they print: they end without a traceback."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))
COMMANDS = [
    "cnitool --help",
    "cnitool add --help",
    "cnitool help list",
    "cnitool version",
    "cnitool list",
    "cnitool completion bash",
    "cnitool conformance --list",
    "cni-conformance --help",
    "cni-conformance --version",
    "cni-conformance --list",
    "cni-conformance --explain add-twice",
]

pytestmark = pytest.mark.frozen


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_closes_at_once(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program, *words = command.split()
    for stderr in (subprocess.PIPE, writing):
        done = subprocess.run(
            [BIN / program, *words], env={}, stdout=writing, stderr=stderr, check=False
        )
        assert (done.returncode, done.stderr or b"") == (1, b"")
    os.close(writing)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_stdout_at_all(command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{BIN}/{command} >&-"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_head(tmp_path: pathlib.Path) -> None:
    """What is printed is more than a pipe holds, so head is gone before the end."""
    for number in range(600):
        name = f"{'a-long-name-' * 10}{number}"
        text = f'{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{{"type": "tap"}}]}}'
        (tmp_path / f"{number}.conflist").write_text(text)
    done = subprocess.run(
        ["bash", "-c", f"{BIN}/cnitool list | head -1; echo ${{PIPESTATUS[*]}}"],
        env={"NETCONFPATH": str(tmp_path), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    first, statuses = done.stdout.splitlines()
    assert first == f"Networks in {tmp_path}"
    assert (statuses, done.stderr) == ("1 0", "")
