# SPDX-License-Identifier: Apache-2.0
"""What a disk may hold after a power loss: the log of a program's writes, and its prefixes.

The log has every change of files below one directory, in order, as the stepper saw it. What was
written and not synced may be there, be missing, or be zeros of the right length; names (made,
linked, renamed, removed) reach the disk in order, as the journals of ext4 and XFS keep them, up
to any point, and whatever an fsync of a directory has passed. A rename or link of a file whose
content was not synced may be on the disk without that content.
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence

from cni_conformance import trace

from tests.faults.syscalls import names

_AT_FDCWD = -100
_O_TMPFILE = getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY


@dataclasses.dataclass(frozen=True)
class Change:
    """One step. kind: mkdir, name (a file that was made or linked), rename, unlink, write,
    truncate, sync.

    paths: below the directory. file: the inode, which a file keeps under every name. data,
    offset: of a write; offset is the length of a truncate.
    """

    kind: str
    paths: tuple[str, ...] = ()
    file: int = 0
    data: bytes = b""
    offset: int = 0


class Log:
    """A visitor of `trace.follow` (with exits) that collects the changes below `root`."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = str(root)
        self.changes: list[Change] = []

    def __call__(self, stop: trace.Stop) -> None:
        name = names().get(stop.number, "")
        handler = getattr(self, f"_{name}", None)
        if handler is None:
            return
        if stop.result is not None and stop.result >= 0:
            handler(stop)

    # -- reading the tracee ---------------------------------------------------------------------

    def _text(self, pid: int, address: int) -> str:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            found = b""
            while b"\0" not in found:
                # Not past the page, behind which there may be none.
                found += memory.read(4096 - (address + len(found)) % 4096)
            return os.fsdecode(found.split(b"\0")[0])

    def _bytes(self, pid: int, address: int, size: int) -> bytes:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size)

    def _path(self, pid: int, directory: int, address: int) -> str:
        text = self._text(pid, address)
        number = ctypes.c_int(directory & 0xFFFFFFFF).value
        if not text.startswith("/"):
            base = "cwd" if number == _AT_FDCWD else f"fd/{number}"
            text = os.path.join(os.readlink(f"/proc/{pid}/{base}"), text)
        return os.path.normpath(text)

    def _file(self, pid: int, fd: int) -> int | None:
        """The file behind a descriptor, if it is one below the root (or was, or has no name)."""
        place = f"/proc/{pid}/fd/{fd}"
        if not os.readlink(place).startswith(self.root):
            return None
        return os.stat(place).st_ino

    def _note(self, kind: str, *paths: str, **keys: object) -> None:
        if paths and not all(path.startswith(self.root + "/") for path in paths):
            return
        below = tuple(path[len(self.root) + 1 :] for path in paths)
        self.changes.append(Change(kind, below, **keys))  # type: ignore[arg-type]

    # -- the calls ------------------------------------------------------------------------------

    def _openat(self, stop: trace.Stop) -> None:
        flags = stop.args[2]
        if not flags & (os.O_CREAT | os.O_TRUNC | _O_TMPFILE) or stop.result is None:
            return
        file = self._file(stop.pid, stop.result)
        if file is None:
            return
        if flags & os.O_CREAT:
            self._note("name", self._path(stop.pid, stop.args[0], stop.args[1]), file=file)
        if flags & os.O_TRUNC:
            self._note("truncate", file=file, offset=0)

    def _write(self, stop: trace.Stop) -> None:
        file = self._file(stop.pid, stop.args[0])
        if file is not None and stop.result:
            data = self._bytes(stop.pid, stop.args[1], stop.result)
            position = pathlib.Path(f"/proc/{stop.pid}/fdinfo/{stop.args[0]}").read_text()
            offset = int(position.split()[1]) - stop.result
            self._note("write", file=file, data=data, offset=offset)

    def _ftruncate(self, stop: trace.Stop) -> None:
        file = self._file(stop.pid, stop.args[0])
        if file is not None:
            self._note("truncate", file=file, offset=stop.args[1])

    def _fsync(self, stop: trace.Stop) -> None:
        file = self._file(stop.pid, stop.args[0])
        if file is not None:
            self._note("sync", file=file)

    _fdatasync = _fsync

    def _mkdir(self, stop: trace.Stop) -> None:
        self._note("mkdir", self._path(stop.pid, _AT_FDCWD, stop.args[0]))

    def _mkdirat(self, stop: trace.Stop) -> None:
        self._note("mkdir", self._path(stop.pid, stop.args[0], stop.args[1]))

    def _linkat(self, stop: trace.Stop) -> None:
        target = self._path(stop.pid, stop.args[2], stop.args[3])
        if target.startswith(self.root):
            self._note("name", target, file=os.stat(target).st_ino)

    def _rename(self, stop: trace.Stop) -> None:
        paths = (self._path(stop.pid, _AT_FDCWD, stop.args[n]) for n in (0, 1))
        self._note("rename", *paths)

    def _unlink(self, stop: trace.Stop) -> None:
        self._note("unlink", self._path(stop.pid, _AT_FDCWD, stop.args[0]))

    def _unlinkat(self, stop: trace.Stop) -> None:
        self._note("unlink", self._path(stop.pid, stop.args[0], stop.args[1]))


@dataclasses.dataclass
class Content:
    """A file: what an fsync has brought to the disk, and what was written."""

    synced: bytes = b""
    written: bytes = b""

    def variants(self) -> set[bytes]:
        """What may be on the disk: everything, what was synced, or zeros in place of the rest."""
        rest = max(0, len(self.written) - len(self.synced))
        zeros = self.synced + bytes(rest) if self.written != self.synced else self.written
        return {self.written, self.synced, zeros}


class Disk:
    """A directory's files as they are now, to which changes are applied."""

    def __init__(self, root: pathlib.Path) -> None:
        self.folders: set[str] = set()
        self.names: dict[str, int] = {}
        self.contents: dict[int, Content] = {}
        for path in root.rglob("*"):
            below = str(path.relative_to(root))
            if path.is_dir():
                self.folders.add(below)
            else:
                number = path.stat().st_ino
                self.names[below] = number
                data = path.read_bytes()
                self.contents[number] = Content(data, data)

    def apply(self, change: Change) -> None:
        """One step of the log."""
        if change.kind == "mkdir":
            self.folders.add(change.paths[0])
        elif change.kind == "name":
            self.names[change.paths[0]] = change.file
            self.contents.setdefault(change.file, Content())
        elif change.kind == "rename":
            replaced = self.names.get(change.paths[1])
            self.names[change.paths[1]] = self.names.pop(change.paths[0])
            self._forget(replaced)
        elif change.kind == "unlink":
            self._forget(self.names.pop(change.paths[0], None))
        else:
            self._fill(change, self.contents.setdefault(change.file, Content()))

    def _forget(self, number: int | None) -> None:
        """A name is gone: the next file of this number, if it was the last, is another one."""
        if number is not None and number not in self.names.values():
            self.contents.pop(number, None)

    @staticmethod
    def _fill(change: Change, content: Content) -> None:
        if change.kind == "sync":
            content.synced = content.written
        elif change.kind == "truncate":
            content.written = content.written[: change.offset].ljust(change.offset, b"\0")
        else:
            start = content.written[: change.offset].ljust(change.offset, b"\0")
            rest = content.written[change.offset + len(change.data) :]
            content.written = start + change.data + rest

    def states(self) -> Iterator[dict[str, bytes]]:
        """Every combination that may be on the disk: path → content."""
        paths = sorted(self.names)
        choices = [sorted(self.contents[self.names[path]].variants()) for path in paths]
        for combination in itertools.product(*choices):
            yield dict(zip(paths, combination, strict=True))


def states(
    before: Disk, changes: Sequence[Change]
) -> list[tuple[frozenset[str], dict[str, bytes]]]:
    """Every (folders, files) that a power loss at any step may leave, each once."""
    found: dict[object, tuple[frozenset[str], dict[str, bytes]]] = {}
    disk = copy.deepcopy(before)
    for change in [None, *changes]:
        if change is not None:
            disk.apply(change)
        for files in disk.states():
            state = (frozenset(disk.folders), files)
            found[(state[0], tuple(files.items()))] = state
    return list(found.values())


def restore(root: pathlib.Path, folders: frozenset[str], files: Mapping[str, bytes]) -> None:
    """Make a directory hold exactly this."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for folder in sorted(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        (root / path).write_bytes(data)
