# SPDX-License-Identifier: Apache-2.0
"""Install a frozen set into a bin directory, or remove it, while plugins may be running.

The shared directory's name holds the build's fingerprint, so a new one is placed beside the old
one, whole, before any executable changes; each executable is then replaced by rename(2). At
every instant a plugin name leads to a complete program, and none is ever "busy". The directory
of the set before stays for what is still running and goes with the next installation.
What somebody else has there under a name of ours is kept aside, as `install-cni` does it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import sys

# `make` has it in PYTHONPATH; without, the tree is enough too.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "plugins/vxlan-overlay"))

from cni_vxlan_overlay.agent import aside
from cni_vxlan_overlay.agent.durability import sync_directory
from libcni.about import NAME

#: What is being written by the process of that number; see `_temporary`.
_UNFINISHED = re.compile(rf"\.{NAME}-.*\.([0-9]+)\Z")


def _sync_tree(path: pathlib.Path) -> None:
    for directory, _, files in os.walk(path):
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                os.fsync(file.fileno())
        sync_directory(pathlib.Path(directory))


def _copy_file(source: pathlib.Path, target: pathlib.Path) -> None:
    """The content, and whether it may be executed; for everybody, whatever the umask.

    Nothing else: an SELinux label or a capability of the build's tree would be wrong in a system
    directory, whose own policy labels what is made in it.
    """
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _copy_tree(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a directory whole, as `_copy_file` does files."""
    target.mkdir()
    target.chmod(0o755)
    for entry in sorted(source.iterdir()):
        copy = _copy_tree if entry.is_dir() else _copy_file
        copy(entry, target / entry.name)


def _executables(directory: pathlib.Path) -> list[pathlib.Path]:
    """Those of the plugins and their tools; not the agents, which no runtime looks for there."""
    return sorted(path for path in directory.iterdir() if aside.build_of(path) is not None)


def _contents(directory: pathlib.Path) -> list[pathlib.Path]:
    """The shared directories of any build, the one placed last at the end."""
    found = [
        p for p in directory.iterdir() if aside.BUILD.fullmatch(p.name.encode()) and p.is_dir()
    ]
    return sorted(found, key=lambda p: p.stat().st_mtime_ns)


def _temporary(target: pathlib.Path, name: str) -> pathlib.Path:
    """Where something is written before it gets its name; no runtime looks for a dot file."""
    return target / f".{NAME}-{name}.{os.getpid()}"


def _remove(path: pathlib.Path) -> None:
    """A file or a directory with all that is in it. Idempotent."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_unfinished(target: pathlib.Path) -> list[str]:
    """What installations left that were killed half way; what was done, in words."""
    done = []
    for path in sorted(target.iterdir()):
        found = _UNFINISHED.fullmatch(path.name)
        if found and not pathlib.Path("/proc", found[1]).exists():
            _remove(path)
            done.append(f"removed {path}")
    return done


def _source_contents(source: pathlib.Path) -> pathlib.Path:
    found = _contents(source)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise FileNotFoundError(f"{source} is not one build: shared directories in it: {names}")
    return found[0]


def install(source: pathlib.Path, target: pathlib.Path) -> list[str]:
    """Place the plugins and tools of `source` (a build/bin) into `target`.

    Returns what was done, in words. Node agents are programs of their own, and stay where they
    are. Somebody else's program under a name of ours is kept aside, until `uninstall` brings it
    back. Idempotent: what is identical is left alone. Raises OSError; a failure leaves the old
    set complete.
    """
    contents = _source_contents(source)
    target.mkdir(parents=True, exist_ok=True)
    removed = _remove_unfinished(target)
    before = _contents(target)
    placed = target / contents.name
    done: list[str] = []
    if not placed.is_dir():
        staging = _temporary(target, contents.name)
        try:
            _copy_tree(contents, staging)
            _sync_tree(staging)
            staging.rename(placed)
        except BaseException:
            _remove(staging)
            raise
        done.append(f"placed {placed}")
    first: pathlib.Path | None = None
    for executable in _executables(source):
        name = target / executable.name
        if _is_copy(name, executable):
            first = first or name
            continue
        temporary = _temporary(target, executable.name)
        try:
            if first is not None:
                # One inode for all, by which a plugin recognises its siblings as itself.
                os.link(first, temporary)
            else:
                _copy_file(executable, temporary)
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            done += aside.keep(name, _temporary(target, f"{executable.name}-aside"))
            temporary.rename(name)
        except BaseException:
            _remove(temporary)
            raise
        first = first or name
        done.append(f"installed {name}")
    if done:
        # The newest, also where it was placed before another one and is installed again.
        os.utime(placed)
    sync_directory(target)
    for old in [p for p in before if p.name != contents.name][:-1]:
        shutil.rmtree(old)
        removed.append(f"removed {old}")
    return done + removed


def _is_copy(path: pathlib.Path, executable: pathlib.Path) -> bool:
    """Whether it is the same program already, and everybody may execute it."""
    if path.is_symlink() or not path.is_file() or path.stat().st_mode & 0o555 != 0o555:
        return False
    return path.read_bytes() == executable.read_bytes()


def uninstall(target: pathlib.Path) -> list[str]:
    """Remove every executable and shared directory of ours from `target`; what was done, in words.

    Whichever build they are of: an executable of ours ends with the name of its directory. What
    somebody else had there under its name comes back, and a newer one of theirs stays.
    Idempotent. Raises OSError.
    """
    if not target.is_dir():
        return []
    done = _remove_unfinished(target)
    done += aside.restore(target)
    for path in [*_executables(target), *_contents(target)]:
        _remove(path)
        done.append(f"removed {path}")
    sync_directory(target)
    return done


def main(argv: list[str]) -> int:
    """The command line; 1 with a message on failure."""
    parser = argparse.ArgumentParser(prog="python -m tools.install", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("install", help="place a build, or what of it has changed")
    verb.add_argument("source", type=pathlib.Path, help="a build/bin")
    verb.add_argument("target", type=pathlib.Path, help="a runtime's bin directory")
    verb = verbs.add_parser("uninstall", help="remove what is ours, of whichever build")
    verb.add_argument("target", type=pathlib.Path, help="a runtime's bin directory")
    options = parser.parse_args(argv)
    try:
        if options.verb == "uninstall":
            done = uninstall(options.target)
        else:
            done = install(options.source, options.target)
    except OSError as error:
        print(f"{options.verb} failed: {error}", file=sys.stderr)
        return 1
    print("\n".join(done) if done else "nothing to do")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
