# SPDX-License-Identifier: Apache-2.0
"""Putting the picture of the started interpreter into the executable (see snapshot.c)."""

from __future__ import annotations

import pathlib
import struct
import subprocess

#: Where the executable keeps the place of its picture.
MARK = b"Addersnapshot\x01\x02\x03"
PLACE = struct.Struct("<QQ")
#: struct header of snapshot.c: numbers of runs and of extents, where the extents' bytes begin,
#: sizes of arenas and heap.
HEADER = struct.Struct("<5Q")
#: struct run and struct extent: address and length.
RUN = struct.Struct("<QQ")
PAGE = 65536
#: ELF64 (elf.h): e_phoff, then e_phentsize and e_phnum; a program header's first six fields.
_PROGRAM_HEADERS = struct.Struct("<32xQ14xHH")
_SEGMENT = struct.Struct("<IIQQQQ")
_PT_LOAD, _PF_W = 1, 2


def add_snapshot(work: pathlib.Path, target: pathlib.Path) -> None:
    """Run the linked executable `target` to take the picture, and put that into it.

    work: where to write what lies between. Raises CalledProcessError when no picture can be
    taken; the executable's stderr says why, with the word and the mapping it points into.
    """
    picture = work / "snapshot.bin"
    subprocess.run([str(target), str(picture)], check=True, env={}, cwd=work)
    program = bytearray(target.read_bytes())
    data = bake(program, picture.read_bytes())
    place = program.index(MARK) + len(MARK)
    if program.find(MARK, place) >= 0:
        raise SystemExit("the mark of the snapshot's place is not unique")
    program += bytes(-len(program) % PAGE)
    PLACE.pack_into(program, place, len(program), len(data))
    target.write_bytes(program + data)


def bake(program: bytearray, picture: bytes) -> bytes:
    """Write the runs of initialised data into the program itself; the picture without them.

    Those pages are then read when they are needed, and not written at each start.
    """
    count, extents, bytes_offset, *sizes = HEADER.unpack_from(picture)
    at = HEADER.size + extents * RUN.size
    head = picture[HEADER.size : at]
    runs = [RUN.unpack_from(picture, at + i * RUN.size) for i in range(count)]
    at += count * RUN.size
    segments = writable_segments(program)
    left = []
    for address, length in runs:
        content = picture[at : at + length]
        at += length
        for start, offset, size in segments:
            inside = max(0, min(length, start + size - address)) if address >= start else 0
            if inside:
                begin = offset + address - start
                program[begin : begin + inside] = content[:inside]
                address, content, length = address + inside, content[inside:], length - inside
        if content:
            left.append((address, content))
    head += b"".join(RUN.pack(address, len(content)) for address, content in left)
    head += b"".join(content for _, content in left)
    shift = -(HEADER.size + len(head)) % PAGE
    start = HEADER.size + len(head) + shift
    header = HEADER.pack(len(left), extents, start, *sizes)
    return header + head + bytes(shift) + picture[bytes_offset:]


def writable_segments(program: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Address, file offset and size in the file of each writable segment that is loaded."""
    table, size, count = _PROGRAM_HEADERS.unpack_from(program)
    segments = []
    for index in range(count):
        kind, flags, offset, address, _, length = _SEGMENT.unpack_from(
            program, table + index * size
        )
        if kind == _PT_LOAD and flags & _PF_W:
            segments.append((address, offset, length))
    return segments
