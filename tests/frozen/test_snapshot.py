# SPDX-License-Identifier: Apache-2.0
"""What belongs to a process is its own, though the interpreter was started at build time."""

from __future__ import annotations

import json
import marshal
import os
import pathlib
import select
import subprocess
import sys

import pytest

from libcni.about import NAME
from tests.rig.plugins import ROOT
from tools.freeze import hot, snapshot

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


def picture() -> tuple[bytes, int, int]:
    """An executable with the offset and the size of its picture."""
    program = (BIN / "loopback").read_bytes()
    place = program.index(snapshot.MARK) + len(snapshot.MARK)
    return program, *snapshot.PLACE.unpack_from(program, place)


def extents(program: bytes, offset: int) -> list[tuple[int, int]]:
    """Address and length of each stretch of memory in the picture at `offset`."""
    count = snapshot.HEADER.unpack_from(program, offset)[1]
    start = offset + snapshot.HEADER.size
    return [snapshot.RUN.unpack_from(program, start + i * snapshot.RUN.size) for i in range(count)]


#: From where the kernel places mappings upwards when the stack is unlimited (TASK_UNMAPPED_BASE),
#: in the smallest usual address space of each processor.
LOWEST_MAPPINGS = {
    "x86-64": (1 << 47) // 3,
    "arm64 with 39 bits": (1 << 39) // 4,
    "RISC-V with Sv39": (1 << 38) // 3,
}


@pytest.mark.parametrize("processor", LOWEST_MAPPINGS)
def test_the_fixed_address_is_free_on_other_processors(processor: str) -> None:
    program, offset, _ = picture()
    highest_heap = 0x400000 + (1 << 30) + (1 << 30)  # the program, its heap's offset, its size
    for address, length in extents(program, offset):
        assert highest_heap < address
        assert address + length < LOWEST_MAPPINGS[processor]


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The executable as the build links it, before it has a picture; beside it, what it needs."""
    work = tmp_path_factory.mktemp("work")
    (contents,) = BIN.glob(f"{NAME}-*")
    hot.write_modules(ROOT, work, contents)
    hot.link_launcher(ROOT, work, work / "program")
    return work / "program"


def test_no_number_can_be_taken_for_an_address_when_the_picture_is_taken(
    unfinished: pathlib.Path,
) -> None:
    """The build refuses pointers into the C library's heap, and so must not meet numbers there.

    The kernel puts it below 2^31, somewhere else in each process.
    """
    fifo = unfinished.parent / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen([unfinished, fifo], cwd=unfinished.parent, env={})
    try:
        written = select.poll()
        written.register(reader, select.POLLIN)
        assert written.poll(60_000), "no picture was written"
        # All of its memory has been looked at; it stops when the pipe is full.
        rows = pathlib.Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    finally:
        process.kill()
        process.wait()
        os.close(reader)
    mappings = [(int(row.partition("-")[0], 16), row.split()) for row in rows]
    low = [words for start, words in mappings if start < 1 << 36]
    assert {words[-1] for words in low if words[1] != "---p"} == {str(unfinished), "0"}, low
    assert len(low) < len(mappings)


def test_a_pointer_into_a_library_is_reported_with_the_library(unfinished: pathlib.Path) -> None:
    (library,) = BIN.glob(f"{NAME}-*/python*/lib-dynload/_json.*")
    source = f"""import _imp, sys
module = _imp.create_dynamic(type(sys.__spec__)("_json", None, origin={str(library)!r}))
"""
    module = unfinished.parent / "warm/pointer"
    module.write_bytes(b"\0" + marshal.dumps(compile(source, "pointer", "exec")))

    def take() -> subprocess.CompletedProcess[str]:
        command = [unfinished, unfinished.parent / "picture"]
        return subprocess.run(
            command, cwd=unfinished.parent, env={}, capture_output=True, text=True, check=False
        )

    try:
        done = take()
    finally:
        module.unlink()
    assert done.returncode == 1
    assert f" {library}" in done.stderr
    assert "memory refers to what will not be there" in done.stderr
    done = take()
    assert (done.returncode, done.stderr) == (0, "")


def test_the_build_leaves_no_unfinished_executable() -> None:
    program, offset, size = picture()
    assert 0 < offset < offset + size < len(program)


def test_baking_moves_runs_of_initialised_data_into_the_program() -> None:
    program = bytearray(pathlib.Path(sys.executable).resolve().read_bytes())
    (start, offset, size), *_ = snapshot.writable_segments(program)
    inside, across = b"A" * 16, b"B" * 24
    runs = [(start, inside), (start + size - 8, across)]
    head = b"".join(snapshot.RUN.pack(address, len(data)) for address, data in runs)
    body = head + inside + across
    extents = snapshot.RUN.pack(1 << 37, snapshot.PAGE) + snapshot.RUN.pack(1 << 38, 4)
    at = snapshot.HEADER.size + len(extents) + len(body)
    at += -at % snapshot.PAGE
    image = b"arenas".ljust(snapshot.PAGE) + b"heap"
    header = snapshot.HEADER.pack(2, 2, at, 1 << 20, 4)
    left = snapshot.bake(program, (header + extents + body).ljust(at, b"\0") + image)
    assert program[offset : offset + 16] == inside
    assert program[offset + size - 8 : offset + size] == across[:8]
    count, extent_count, start_of_bytes, *sizes = snapshot.HEADER.unpack_from(left)
    assert (count, extent_count, sizes) == (1, 2, [1 << 20, 4])
    after = snapshot.HEADER.size + len(extents)
    assert left[snapshot.HEADER.size : after] == extents
    assert snapshot.RUN.unpack_from(left, after) == (start + size, 16)
    assert left[start_of_bytes:] == image
    assert start_of_bytes % snapshot.PAGE == 0


def test_pages_without_content_are_not_in_the_file() -> None:
    """Of the interpreter's memory, only stretches of pages that have something in them."""
    program, offset, size = picture()
    _, _, at, arenas, heap = snapshot.HEADER.unpack_from(program, offset)
    found = extents(program, offset)
    assert sum(length for _, length in found) == size - at < arenas + heap
    for page in range(offset + at, offset + size, snapshot.PAGE):
        assert any(program[page : page + snapshot.PAGE])
    ends = [address + length for address, length in found]
    assert all(end < start for end, (start, _) in zip(ends, found[1:], strict=False))
