# SPDX-License-Identifier: Apache-2.0
"""Plugins on their way into a runtime's bin directory, and out of it, while pods start.

All is copied into one hidden directory below the target first and run from there; then the
shared directory and, one rename(2) each, the executables take their places. So a name leads to a
complete program that has been seen to work at every instant, and none is ever "busy". What is
killed half way leaves the hidden directory, which the next run clears.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import shutil
import stat
import time
from collections.abc import Iterable, Iterator

from cni_vxlan_overlay.agent import aside
from cni_vxlan_overlay.agent.durability import sync_directory
from cni_vxlan_overlay.agent.trial import UNUSABLE, InstallError, verify
from libcni.about import NAME

#: Where everything is prepared; no runtime looks for a plugin of this name.
STAGING = ".adder-install"
#: Programs of the node agent, of no use to a runtime.
AGENT = ("vxlan-overlayd", "install-cni")
#: Seconds for another installer to finish.
_LOCK_TIMEOUT = 120.0


@dataclasses.dataclass(frozen=True)
class FrozenSet:
    """A directory as the build makes it: executables, and what they share.

    executables: name to the name of the shared directory it needs, which is in `source` too.
    """

    source: pathlib.Path
    executables: dict[str, str]


def find_set(source: pathlib.Path) -> FrozenSet:
    """The set in a directory: the plugins and tools, but not the node agent's own programs.

    Raises InstallError when there is none, or a shared directory is missing; OSError.
    """
    found = {}
    for path in sorted(source.iterdir()) if source.is_dir() else []:
        if path.name in AGENT or path.name.startswith(".") or not path.is_file():
            continue
        build = aside.build_of(path)
        if build is None:
            continue
        if not (source / build).is_dir():
            raise InstallError(
                f"{path} needs the directory {build}, which is not beside it: copy the whole set",
                UNUSABLE,
            )
        found[path.name] = build
    if not found:
        raise InstallError(
            f"there are no plugins in {source}: CNI_SOURCE_DIR (--source-dir) names the "
            f"directory with the executables and their {NAME}-* directory"
        )
    return FrozenSet(source, found)


def place(frozen: FrozenSet, target: pathlib.Path, skip: Iterable[str] = ()) -> list[str]:
    """Put the set into `target`, without the names in `skip`; what was done, in words.

    Idempotent: what is identical keeps inode and times, and nothing is written. Every program is
    run before it takes its place. Somebody else's program under a name of ours is kept aside.
    Raises InstallError and OSError; a failure leaves what was there, and works, as it was.
    """
    left_out = set(skip)
    names = [name for name in frozen.executables if name not in left_out]
    target.mkdir(parents=True, exist_ok=True)
    with locked(target):
        staging = target / STAGING
        _clear(staging)
        changed = [n for n in names if not _same(frozen.source / n, target / n)]
        unchanged = [n for n in names if n not in changed]
        builds = sorted({frozen.executables[n] for n in names})
        absent = [build for build in builds if not (target / build).is_dir()]
        done: list[str] = []
        try:
            for build in builds:
                if build not in absent:
                    done += _mend(frozen.source / build, target / build, staging)
            if absent or changed:
                _stage(frozen, changed, unchanged, target, absent)
            for name in changed:
                verify(staging / name)
            done += [_reveal(build, target) for build in absent]
            for name in changed:
                done += _replace(name, target)
            for name in unchanged:
                verify(target / name)
        finally:
            _clear(staging)
        if done:
            sync_directory(target)
        done += _prune(target, {*frozen.executables.values()})
    return done


def remove(target: pathlib.Path) -> list[str]:
    """Remove every program and directory of ours, of whichever build; what was done, in words.

    What had been there under a name of ours comes back. Foreign files stay. Idempotent. Raises
    InstallError and OSError.
    """
    done: list[str] = []
    if not target.is_dir():
        return done
    with locked(target):
        _clear(target / STAGING)
        done += aside.restore(target)
        for path in sorted(target.iterdir()):
            if aside.build_of(path) is not None:
                path.unlink()
                done.append(f"removed {path}")
        for directory in _shared_directories(target):
            shutil.rmtree(directory)
            done.append(f"removed {directory}")
        sync_directory(target)
    return done


def _mend(source: pathlib.Path, placed: pathlib.Path, staging: pathlib.Path) -> list[str]:
    """Replace the files of a shared directory that differ from those of the same build."""
    done = []
    for directory, _, names in os.walk(source):
        below = placed / pathlib.Path(directory).relative_to(source)
        for name in names:
            original = pathlib.Path(directory, name)
            if not original.is_symlink() and not _same(original, below / name):
                staging.mkdir(exist_ok=True)
                below.mkdir(parents=True, exist_ok=True)
                _copy(original, staging / ".mended")
                (staging / ".mended").rename(below / name)
                sync_directory(below)
                done.append(f"repaired {below / name}")
    return done


def _stage(
    frozen: FrozenSet,
    changed: list[str],
    unchanged: list[str],
    target: pathlib.Path,
    absent: list[str],
) -> None:
    """Prepare the executables that change, to be run there under their own names.

    The shared directories in `absent` are prepared as well, the others linked to. Equal
    executables stay one inode, by which a plugin recognises its siblings as itself.
    """
    staging = target / STAGING
    staging.mkdir(exist_ok=True)
    for build in absent:
        _copy_tree(frozen.source / build, staging / build)
    for build in {frozen.executables[name] for name in changed} - {*absent}:
        (staging / build).symlink_to(pathlib.Path("..", build))
    there = {_digest(target / name): target / name for name in unchanged}
    for name in changed:
        source, staged = frozen.source / name, staging / name
        twin = there.setdefault(_digest(source), staged)
        if twin == staged or not aside.link(twin, staged):
            _copy(source, staged)
            staged.chmod(0o755)


def _reveal(build: str, target: pathlib.Path) -> str:
    """Let a staged shared directory take its place, where it has to be on the disk first."""
    (target / STAGING / build).rename(target / build)
    sync_directory(target)
    return f"placed {target / build}"


def _replace(name: str, target: pathlib.Path) -> list[str]:
    """Let a staged executable take its place; somebody else's goes aside, once."""
    path = target / name
    done = aside.keep(path, target / STAGING / ".aside")
    (target / STAGING / name).rename(path)
    return [*done, f"installed {path}"]


def _prune(target: pathlib.Path, current: set[str]) -> list[str]:
    """Remove shared directories that no executable needs, but for the newest: it may be running.

    It goes with the next installation.
    """
    needed = {*current, *(aside.build_of(path) for path in target.iterdir())}
    old = [path for path in _shared_directories(target) if path.name not in needed]
    done = []
    for path in old[:-1]:
        shutil.rmtree(path)
        done.append(f"removed {path}")
    return done


def _shared_directories(target: pathlib.Path) -> list[pathlib.Path]:
    """Shared directories of any build, that of the newest build last."""
    found = [p for p in target.iterdir() if aside.BUILD.fullmatch(p.name.encode()) and p.is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _same(source: pathlib.Path, target: pathlib.Path) -> bool:
    """True when the target has the content and may be executed where the source may."""
    if target.is_symlink() or not target.is_file():
        return False
    mine, theirs = source.stat(), target.stat()
    if mine.st_size != theirs.st_size or (mine.st_mode & ~theirs.st_mode & 0o111):
        return False
    return _digest(source) == _digest(target)


def _digest(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _copy(source: pathlib.Path, path: pathlib.Path) -> None:
    """Copy a file with mode and times, and have it on the disk."""
    shutil.copyfile(source, path)
    _copy_mode_and_times(source, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copy_tree(source: pathlib.Path, path: pathlib.Path) -> None:
    """Copy a directory whole, and have it on the disk. Raises OSError naming the file."""
    path.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.is_symlink():
            (path / entry.name).symlink_to(entry.readlink())
        elif entry.is_dir():
            _copy_tree(entry, path / entry.name)
        else:
            _copy(entry, path / entry.name)
    _copy_mode_and_times(source, path)
    sync_directory(path)


def _copy_mode_and_times(source: pathlib.Path, path: pathlib.Path) -> None:
    """What copystat does but for extended attributes: the container's label is not the host's."""
    status = source.stat()
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _clear(staging: pathlib.Path) -> None:
    if staging.is_dir():
        shutil.rmtree(staging)


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Keep other installers out of a directory, which has to exist; leaves nothing in it.

    Raises InstallError when one does not finish, OSError.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InstallError(
                        f"another installation into {directory} has not finished within "
                        f"{_LOCK_TIMEOUT:g} s; `fuser {directory}` names it"
                    ) from None
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)
