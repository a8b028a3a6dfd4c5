# SPDX-License-Identifier: Apache-2.0
"""Run mypy over everything: each import root (the tree, the plugins, the conformance suite)."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from tools.freeze import hot


def main() -> int:
    """The exit status of mypy."""
    root = pathlib.Path(__file__).resolve().parents[1]
    plugins = hot.plugin_roots(root)
    paths = [root / "tools/stubs", root, *plugins, root / "tests/conformance"]
    environment = dict(os.environ, MYPYPATH=":".join(map(str, paths)))
    targets = ["libcni", "tools", "tests"]
    targets += [str(package) for plugin in plugins for package in plugin.glob("cni_*")]
    existing = [target for target in targets if (root / target).exists()]
    command = [sys.executable, "-m", "mypy", "--exclude", "tools/freeze/entry.py", *existing]
    return subprocess.run(command, cwd=root, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main())
