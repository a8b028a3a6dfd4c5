# SPDX-License-Identifier: Apache-2.0
"""What belongs to a process is its own, though the interpreter was started at build time."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.rig.plugins import ROOT
from tools.freeze import snapshot

BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))

pytestmark = pytest.mark.frozen


def answer(stdin: str, **environment: str) -> dict[str, object]:
    result = subprocess.run(
        [BIN / "host-local"],
        env={"CNI_COMMAND": "ADD", **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    document: dict[str, object] = json.loads(result.stdout)
    return document


def test_the_environment_is_that_of_the_process() -> None:
    missing = answer("{}")
    assert missing["code"] == 4
    assert "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH" in str(missing["msg"])
    complete = {"CNI_NETNS": "/dev/null", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}
    wrong = answer("{}", CNI_CONTAINERID="-bad", **complete)
    assert "-bad" in str(wrong["msg"])


def test_the_first_of_two_variables_of_a_name_wins(tmp_path: pathlib.Path) -> None:
    # As in C, and as CPython starts; only execve by hand can pass two.
    program = f"""import ctypes, os
libc = ctypes.CDLL(None)
strings = (ctypes.c_char_p * 3)(b"CNI_COMMAND=VERSION", b"CNI_COMMAND=NOTHING", None)
path = {str(BIN / "loopback")!r}.encode()
libc.execve(path, (ctypes.c_char_p * 2)(path, None), strings)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert "supportedVersions" in json.loads(done.stdout)


def test_an_empty_environment_is_empty() -> None:
    done = subprocess.run([BIN / "loopback"], env={}, capture_output=True, check=True, text=True)
    assert done.stderr.startswith("CNI loopback plugin")


def test_a_tool_has_the_whole_standard_library() -> None:
    # The whole standard library, on an interpreter that was started elsewhere.
    done = subprocess.run(
        [BIN / "cnitool", "list", "--help"],
        env={"TZ": "Asia/Tokyo", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "list" in done.stdout
    assert done.stderr == ""


def test_a_cold_explanation_has_the_words_of_jsonschema() -> None:
    config = {"cniVersion": "1.0.0", "name": "x", "type": "host-local", "ipam": {"type": 3}}
    rejected = answer(
        json.dumps(config),
        CNI_CONTAINERID="x",
        CNI_NETNS="/dev/null",
        CNI_IFNAME="eth0",
        CNI_PATH="/nowhere",
    )
    assert rejected["code"] == 7
    assert "3 is not of type 'string'" in str(rejected["msg"])


@pytest.mark.parametrize(
    "limits",
    ["ulimit -s unlimited", "ulimit -s 256", "ulimit -v 100000", "exec setarch -R"],
    ids=["bottom-up layout", "small stack", "little address space", "no randomisation"],
)
def test_the_fixed_address_is_free(limits: str) -> None:
    # The first makes the kernel place mappings from below, the last always at the same addresses.
    start = limits if limits.startswith("exec") else f"{limits}; exec"
    done = subprocess.run(
        ["sh", "-c", f'{start} "$0"', BIN / "loopback"],
        env={"CNI_COMMAND": "VERSION", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert "supportedVersions" in json.loads(done.stdout)


def test_an_executable_that_was_cut_off_says_so(tmp_path: pathlib.Path) -> None:
    cut = tmp_path / "loopback"
    cut.write_bytes((BIN / "loopback").read_bytes()[:-70_000])
    cut.chmod(0o755)
    done = subprocess.run([cut], env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=False)
    assert done.returncode > 0
    assert b"the executable is not whole" in done.stderr
    assert done.stdout == b""


def test_the_build_leaves_no_unfinished_executable() -> None:
    program = (BIN / "loopback").read_bytes()
    place = program.index(snapshot.MARK) + len(snapshot.MARK)
    offset, size = snapshot.PLACE.unpack_from(program, place)
    assert 0 < offset < offset + size < len(program)


def test_baking_moves_runs_of_initialised_data_into_the_program() -> None:
    program = bytearray(pathlib.Path(sys.executable).resolve().read_bytes())
    (start, offset, size), *_ = snapshot.writable_segments(program)
    inside, across = b"A" * 16, b"B" * 24
    runs = [(start, inside), (start + size - 8, across)]
    head = b"".join(snapshot.RUN.pack(address, len(data)) for address, data in runs)
    body = head + inside + across
    at = snapshot.HEADER.size + len(body)
    at += -at % snapshot.PAGE
    image = b"arenas".ljust(snapshot.PAGE) + b"heap"
    header = snapshot.HEADER.pack(2, at, snapshot.PAGE, 1 << 20, at + snapshot.PAGE, 4)
    left = snapshot.bake(program, (header + body).ljust(at, b"\0") + image)
    assert program[offset : offset + 16] == inside
    assert program[offset + size - 8 : offset + size] == across[:8]
    count, arenas, _, _, heap, _ = snapshot.HEADER.unpack_from(left)
    assert count == 1
    assert snapshot.RUN.unpack_from(left, snapshot.HEADER.size) == (start + size, 16)
    assert left[arenas:].startswith(b"arenas")
    assert left[heap:] == b"heap"
    assert arenas % snapshot.PAGE == heap % snapshot.PAGE == 0
