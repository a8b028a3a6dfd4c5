# SPDX-License-Identifier: Apache-2.0
"""cnitool whose output cannot be written: nobody reads it any more, or there is no room."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.rig.plugins import ROOT
from tools import source_launchers

#: A command line for each way in which something is printed.
COMMANDS = {
    "help": ["--help"],
    "help of a verb": ["help", "add"],
    "no verb": [],
    "wrong usage": ["no-such-verb"],
    "version": ["version"],
    "completion": ["completion", "bash"],
    "list": ["list"],
    "list of names": ["list", "-o", "names"],
    "validate": ["validate"],
    "unknown network": ["check", "no-such-network", "/run/netns/x"],
    "conformance": ["conformance", "--help"],
    "conformance cases": ["conformance", "--list"],
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """So many that what is printed about them is more than a pipe holds."""
    directory = tmp_path_factory.mktemp("net.d")
    for number in range(600):
        name = f"{'a-long-name-' * 10}{number}"
        document = {"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "loopback"}]}
        (directory / f"{name}.conflist").write_text(json.dumps(document))
    return directory


@pytest.fixture(scope="module")
def cnitool(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """From source, as the executable starts it."""
    return source_launchers.make(tmp_path_factory.mktemp("bin")) / "cnitool"


def environment(networks: pathlib.Path) -> dict[str, str]:
    # The plugins' packages and the suite's, which this process has by pyproject.toml.
    modules = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "NETCONFPATH": str(networks), "PYTHONPATH": modules}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_reader_that_closes_at_once(
    cnitool: pathlib.Path, networks: pathlib.Path, words: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for command in ([str(cnitool)], [sys.executable, "-m", "libcni.cnitool"]):
        done = subprocess.run(
            [*command, *words],
            env=environment(networks),
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and "Broken" not in done.stderr
        if words not in ([], ["no-such-verb"]) and words[0] != "check":
            assert done.stderr == ""
        # And where the complaints go the same way.
        both = subprocess.run(
            [*command, *words],
            env=environment(networks),
            cwd=ROOT,
            stdout=writing,
            stderr=writing,
            check=False,
        )
        assert both.returncode == 1
    os.close(writing)


@pytest.mark.parametrize("words", ["--help", "list", "validate"])
def test_a_reader_that_has_enough_after_a_line(
    cnitool: pathlib.Path, networks: pathlib.Path, words: str
) -> None:
    """It has the line, and that the rest is not written is no matter to anybody."""
    done = subprocess.run(
        ["bash", "-c", f"{cnitool} {words} | head -1; echo ${{PIPESTATUS[*]}}"],
        env=environment(networks),
        capture_output=True,
        text=True,
        check=False,
    )
    line, statuses = done.stdout.splitlines()
    assert line
    # The help may be written whole before head is gone.
    assert statuses in (("0 0", "1 0") if words == "--help" else ("1 0",))
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["version"], ["list"]])
def test_no_room_is_said(cnitool: pathlib.Path, networks: pathlib.Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [cnitool, *words],
            env=environment(networks),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "Error: not all could be printed: No space left on device\n"


@pytest.mark.parametrize("words", ["--help", "version", "list", "conformance --list"])
def test_no_stdout_at_all(cnitool: pathlib.Path, networks: pathlib.Path, words: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{cnitool} {words} >&-"],
        env=environment(networks),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
