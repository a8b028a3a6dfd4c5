# SPDX-License-Identifier: Apache-2.0
"""Build build/bin/: one executable hard-linked under every name, and its directory.

Each name is a file of its own in the directory, so copying them with or without following links
gives a working set; the links share one inode, by which a plugin knows that a delegate is
itself.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

from libcni.about import NAME, VERSION
from libcni.boot import TOOLS
from tools.freeze import hot, snapshot

#: Code without the columns of its lines, which only a traceback would show, is a tenth smaller;
#: the compiler takes this from the interpreter's command line alone.
_NO_COLUMNS = "no_debug_ranges"


def main() -> int:
    """Run PyInstaller and lay out build/bin/. Removes what an earlier build left there."""
    root = pathlib.Path(__file__).resolve().parents[2]
    build = root / "build"
    contents = f"{NAME}-{VERSION}-{hot.fingerprint(root)}"
    target = build / "bin"
    if (target / contents).is_dir() and "--force" not in sys.argv:
        print(f"build/bin is up to date ({contents})")
        return 0
    environment = dict(os.environ, PYTHONHASHSEED="0")
    environment.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    if _NO_COLUMNS not in sys._xoptions:
        words = [sys.executable, "-X", _NO_COLUMNS, "-m", "tools.freeze", *sys.argv[1:]]
        os.execv(words[0], words)
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR"]
    command += [f"--distpath={build}/dist", f"--workpath={build}/work", str(root / "build.spec")]
    subprocess.run(command, check=True, env=environment, cwd=root)
    staging = build / "bin.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    shared = staging / contents
    shutil.move(build / "dist/frozen/contents", shared)
    names = [*hot.plugin_types(root), *TOOLS]
    first = staging / names[0]
    hot.write_modules(root, build / "work", shared)
    hot.link_launcher(root, build / "work", first)
    snapshot.add_snapshot(build / "work", first)
    # By these last bytes a plugin recognises a copy of itself (libcni.invoke.installation).
    with first.open("ab") as file:
        file.write(contents.encode())
    for name in names[1:]:
        (staging / name).hardlink_to(first)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    print(f"built {', '.join(sorted(p.name for p in target.iterdir()))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
