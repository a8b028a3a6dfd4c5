# SPDX-License-Identifier: Apache-2.0
"""`make run`: what it draws, and that nothing of it remains."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.rig.plugins import ROOT
from tools import demo

BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))


@pytest.mark.parametrize("name", ["veth0", "vethb0b1ae9b", "fifteen-letters"])
def test_the_frame_holds_whatever_the_interfaces_are_called(name: str) -> None:
    other = name[::-1]
    containers = [
        ("left", "10.98.0.2/24", "fd00:98::2/64", name),
        ("right", "10.98.0.3/24", "fd00:98::3/64", other),
    ]
    lines = demo.draw("demo0", "10.98.0.1, fd00:98::1", containers).splitlines()
    host = lines[6:]
    assert {len(line) for line in host} == {len(lines[0])}
    assert {line[2] + line[-1] for line in host} == {"┌┐", "│\u2502", "└┘"}
    (ports,) = [line for line in host if name in line]
    (joint,) = [line for line in host if "bridge demo0" in line]
    for label, wire in ((name, "└"), (other, "┘")):
        middle = ports.index(label) + len(label) // 2
        assert joint[middle] == wire
    wires = [i for i, character in enumerate(lines[5]) if character == "│"]
    assert [lines[4][i] + lines[6][i] for i in wires] == ["┬┴", "┬┴"]


@pytest.mark.frozen
def test_it_works_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    script = (
        # mount(8) makes /run/mount when it has none.
        "mount -t tmpfs none /var/lib; mount -t tmpfs none /run; mkdir -p /run/mount; "
        f"{sys.executable} -m tools.demo; find /var/lib /run -mindepth 1"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "ADDER_BIN_DIR": str(BIN)}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said, left = done.stdout.rsplit("Done.\n", 1)
    assert left == "/run/mount\n"
    assert list(tmp_path.iterdir()) == []
    for words in (
        "$ export CNI_PATH=",
        " NETCONFPATH=",
        "$CNI_PATH/cnitool add demo",
        '"name": "demo"',
    ):
        assert words in said
    after = said.rsplit("$ ip -brief link\n", 1)[1]
    assert [line.split()[0] for line in after.splitlines()[:2]] == ["lo", "demo0"]
