# SPDX-License-Identifier: Apache-2.0
"""Install a frozen set into a bin directory, or remove it, while plugins may be running.

The shared directory's name holds the build's fingerprint, so a new one is placed beside the old
one, whole, before any executable changes; each executable is then replaced by rename(2). At
every instant a plugin name leads to a complete program, and none is ever "busy". The directory
of the set before stays for what is still running and goes with the next installation.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import sys

from libcni.about import NAME

#: How an executable of ours ends (tools/freeze/__main__.py), and the longest that can be.
_BUILD = re.compile(rb"(%s-[0-9][0-9a-z.]*-[0-9a-f]{8})\Z" % NAME.encode())
_TAIL = 64


def _sync_directory(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_tree(path: pathlib.Path) -> None:
    for directory, _, files in os.walk(path):
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_directory(pathlib.Path(directory))


def _executables(source: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in source.iterdir() if p.is_file())


def _contents(directory: pathlib.Path) -> list[pathlib.Path]:
    found = [p for p in directory.glob(f"{NAME}-*") if p.is_dir()]
    return sorted(found, key=lambda p: p.stat().st_mtime_ns)


def install(source: pathlib.Path, target: pathlib.Path) -> list[str]:
    """Place everything of `source` (a build/bin) into `target`; what was done, in words.

    Idempotent: what is identical is left alone. Raises OSError; a failure leaves the old set
    complete.
    """
    done: list[str] = []
    target.mkdir(parents=True, exist_ok=True)
    (contents,) = _contents(source)
    before = _contents(target)
    placed = target / contents.name
    if not placed.is_dir():
        staging = target / f".{contents.name}.{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            shutil.copytree(contents, staging)
            _sync_tree(staging)
            staging.rename(placed)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        done.append(f"placed {placed}")
    first: pathlib.Path | None = None
    for executable in _executables(source):
        name = target / executable.name
        if name.is_file() and name.read_bytes() == executable.read_bytes():
            first = first or name
            continue
        temporary = target / f".{executable.name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            if first is not None:
                # One inode for all, by which a plugin recognises its siblings as itself.
                os.link(first, temporary)
            else:
                shutil.copy2(executable, temporary)
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            temporary.rename(name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        first = first or name
        done.append(f"installed {name}")
    _sync_directory(target)
    for old in [p for p in before if p.name != contents.name][:-1]:
        shutil.rmtree(old)
        done.append(f"removed {old}")
    return done


def uninstall(target: pathlib.Path) -> list[str]:
    """Remove every executable and shared directory of ours from `target`; what was done, in words.

    Whichever build they are of: an executable of ours ends with the name of its directory. A
    plugin of the same name from somebody else stays. Idempotent. Raises OSError.
    """
    done: list[str] = []
    if not target.is_dir():
        return done
    for path in _executables(target):
        if _build_of(path) is not None:
            path.unlink()
            done.append(f"removed {path}")
    for directory in _contents(target):
        if _BUILD.fullmatch(directory.name.encode()):
            shutil.rmtree(directory)
            done.append(f"removed {directory}")
    return done


def _build_of(path: pathlib.Path) -> str | None:
    """The name of the shared directory that an executable of ours belongs to."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        found = _BUILD.search(file.read())
    return found[1].decode() if found else None


def main(argv: list[str]) -> int:
    """`install SOURCE TARGET` or `uninstall TARGET`; 1 with a message on failure."""
    verb, *paths = argv
    try:
        if verb == "uninstall":
            done = uninstall(pathlib.Path(paths[0]))
        else:
            done = install(pathlib.Path(paths[0]), pathlib.Path(paths[1]))
    except OSError as error:
        print(f"{verb} failed: {error}", file=sys.stderr)
        return 1
    print("\n".join(done) if done else "nothing to do")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
