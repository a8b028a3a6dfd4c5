# SPDX-License-Identifier: Apache-2.0
"""Executables that run the plugins from source: `python -m tools.source_launchers DIRECTORY`.

One script, hard-linked under the name of every plugin and tool, like the frozen executable: so a
plugin recognises a delegate as itself in the same way.
"""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

_LAUNCHER = """\
#!{python} -I
import posix
import sys
sys.path[:0] = {roots!r}
from libcni import boot
boot.configure(None, None, {program!r})
name = sys.argv[0].rpartition("/")[2]
if name in boot.TOOLS:
    sys.exit(boot.run_tool(name))
from libcni.skel.main import run
posix._exit(run(name))
"""


def plugin_roots(root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """The folders under plugins/ that hold a plugin's package."""
    return sorted(p.parents[1] for p in (root / "plugins").glob("*/cni_*/__init__.py"))


def make(directory: pathlib.Path, root: pathlib.Path = ROOT) -> pathlib.Path:
    """Put a launcher for every plugin and tool into `directory`, replacing older ones."""
    from libcni.boot import TOOLS

    directory.mkdir(parents=True, exist_ok=True)
    roots = plugin_roots(root)
    names = [path.name for path in roots] + list(TOOLS)
    program = directory / ".adder-launcher"
    program.write_text(
        _LAUNCHER.format(
            python=sys.executable,
            roots=[str(p) for p in (root, root / "tests/conformance", *roots)],
            program=str(program),
        )
    )
    program.chmod(0o755)
    for name in names:
        (directory / name).unlink(missing_ok=True)
        (directory / name).hardlink_to(program)
    return directory


if __name__ == "__main__":
    print(make(pathlib.Path(sys.argv[1]).resolve()))
