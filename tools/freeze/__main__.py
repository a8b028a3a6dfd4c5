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
from tools.freeze import hot


def main() -> int:
    """Run PyInstaller and lay out build/bin/. Removes what an earlier build left there."""
    root = pathlib.Path(__file__).resolve().parents[2]
    build = root / "build"
    contents = f"{NAME}-{VERSION}-{hot.fingerprint(root)}"
    target = build / "bin"
    if (target / contents).is_dir() and "--force" not in sys.argv:
        print(f"build/bin is up to date ({contents})")
        return 0
    environment = dict(os.environ, ADDER_CONTENTS=contents, PYTHONHASHSEED="0")
    environment.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=WARN"]
    command += [f"--distpath={build}/dist", f"--workpath={build}/work", str(root / "build.spec")]
    subprocess.run(command, check=True, env=environment, cwd=root)
    staging = build / "bin.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    frozen = build / "dist/frozen"
    shutil.move(frozen / contents, staging / contents)
    first: pathlib.Path | None = None
    for name in [*hot.plugin_types(root), *TOOLS]:
        if first is None:
            first = staging / name
            shutil.move(frozen / NAME, first)
        else:
            (staging / name).hardlink_to(first)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    print(f"built {', '.join(sorted(p.name for p in target.iterdir()))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
