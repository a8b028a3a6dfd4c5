# SPDX-License-Identifier: Apache-2.0
"""Whose a program in a runtime's bin directory is, and where somebody else's waits aside.

Both installers go by this, `install-cni` and that of the source tree (`tools.install`): what the
one has put aside, the other brings back.
"""

from __future__ import annotations

import errno
import os
import pathlib
import re
import shutil

from libcni.about import NAME

#: How an executable of ours ends: the name of the directory that it shares with the others.
BUILD = re.compile(rb"(%s-[0-9][0-9a-z.]*-[0-9a-f]{8})\Z" % NAME.encode())
#: Bytes at the end that this is looked for in.
_TAIL = 64
#: What was there under the name of one of ours; no runtime looks for a dot file.
_KEPT = ".{}.before-" + NAME
_KEPT_NAME = re.compile(rf"\.(.+)\.before-{NAME}\Z")


def build_of(path: pathlib.Path) -> str | None:
    """The name of the shared directory of an executable of ours; None for anybody else's.

    Ours are of any build, older or newer. A link is whoever's made it. Raises OSError.
    """
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            found = BUILD.search(file.read())
    except FileNotFoundError:
        return None  # somebody else's, who has just removed it
    return found[1].decode() if found else None


def keep(path: pathlib.Path, temporary: pathlib.Path) -> list[str]:
    """Keep what is about to be replaced aside if it is somebody else's; what was done, in words.

    It stays under its own name too. temporary: a free name on the same file system, which the
    caller's next run clears if this one is killed. Raises OSError.
    """
    if not os.path.lexists(path) or build_of(path) is not None:
        return []
    kept = path.with_name(_KEPT.format(path.name))
    try:
        if not link(path, temporary):
            shutil.copyfile(path, temporary, follow_symlinks=False)
            status = path.lstat()
            os.chown(temporary, status.st_uid, status.st_gid, follow_symlinks=False)
            # After chown(2), which takes set-ID bits and capabilities away.
            shutil.copystat(path, temporary, follow_symlinks=False)
        temporary.replace(kept)
    finally:
        # Also where both are links to one file already: then rename(2) does nothing.
        temporary.unlink(missing_ok=True)
    return [f"kept {path}, which is not ours, as {kept}"]


def restore(directory: pathlib.Path) -> list[str]:
    """Bring back all that is kept aside, in the place of ours; what was done, in words.

    Where its owner has placed a newer one meanwhile, that stays. Idempotent. Raises OSError.
    """
    done = []
    for path in sorted(directory.iterdir()):
        match = _KEPT_NAME.fullmatch(path.name)
        if match is None:
            continue
        name = directory / match[1]
        if os.path.lexists(name) and build_of(name) is None:
            path.unlink()
            done.append(f"removed {path}: {name} is not ours any more")
        else:
            path.rename(name)
            done.append(f"restored {name}")
    return done


def link(existing: pathlib.Path, path: pathlib.Path) -> bool:
    """Make a hard link; False where the file system has none, or no more of them."""
    try:
        os.link(existing, path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP):
            return False
        raise
    return True
