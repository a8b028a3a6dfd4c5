# SPDX-License-Identifier: Apache-2.0
"""Build the agents into build/bin/: programs that run for long, each with libraries of its own.

    python -m tools.freeze.agents [--force]

A plugin's folder has an agent where its package has `agent/__main__.py`; `agent/__init__.py`
names the PROGRAMS, which are one executable that looks at the name it is called by. Start-up
does not matter here, so this is PyInstaller as it comes, one directory beside the executable.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys

from libcni.about import VERSION
from tools.freeze import hot

#: What is imported by name only, or found by entry points.
HIDDEN = ("anyio._backends._asyncio",)


def agents(root: pathlib.Path) -> dict[pathlib.Path, tuple[str, ...]]:
    """The agent packages, each with the names of its programs; the first names its directory."""
    found = {}
    for plugin in hot.plugin_roots(root):
        for main in plugin.glob("cni_*/agent/__main__.py"):
            tree = ast.parse((main.parent / "__init__.py").read_text())
            for node in tree.body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROGRAMS":
                    found[main.parent] = tuple(ast.literal_eval(node.value))
    return found


def fingerprint(root: pathlib.Path, package: pathlib.Path) -> str:
    """Eight hex digits over everything that goes into the agent."""
    digest = hashlib.sha256(sys.version.encode())
    sources = [
        *(root / "libcni").rglob("*.py"),
        *package.parent.rglob("*.py"),
        pathlib.Path(__file__),
        *[pathlib.Path(path) for _, path in hot.data_files(root)],
    ]
    for distribution in importlib.metadata.distributions():
        digest.update(f"{distribution.name} {distribution.version}\n".encode())
    for path in sorted(sources):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]


def directory(root: pathlib.Path, package: pathlib.Path, program: str) -> str:
    """Name of the directory beside the executable."""
    return f"{program}-{VERSION}-{fingerprint(root, package)}"


def build(root: pathlib.Path, package: pathlib.Path, programs: tuple[str, ...]) -> None:
    """Freeze one agent into build/bin/. Raises CalledProcessError."""
    contents = directory(root, package, programs[0])
    target = root / "build/bin"
    environment = dict(os.environ, PYTHONHASHSEED="0")
    environment.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(root), *[str(plugin) for plugin in hot.plugin_roots(root)]]
    )
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR"]
    command += ["--onedir", "--name", programs[0], "--contents-directory", contents]
    command += [f"--distpath={root}/build/dist", f"--workpath={root}/build/work"]
    command += [f"--specpath={root}/build/work", "--strip", "--optimize=1"]
    for name in HIDDEN:
        command += ["--hidden-import", name]
    command += ["--collect-submodules", package.parent.name]
    # install-cni validates configurations as the plugins would.
    for plugin in hot.plugin_roots(root):
        for own in plugin.glob("cni_*"):
            command += ["--hidden-import", f"{own.name}.validator"]
            if (own / "config.py").exists():
                command += ["--hidden-import", f"{own.name}.config"]
    for name in hot.EXCLUDED:
        command += ["--exclude-module", name]
    for name, path in hot.data_files(root):
        command += ["--add-data", f"{path}{os.pathsep}data/{os.path.dirname(name)}"]
    command += ["--collect-data", "jsonschema_specifications"]
    command.append(str(package / "__main__.py"))
    subprocess.run(command, check=True, env=environment, cwd=root)
    made = root / "build/dist" / programs[0]
    for old in target.glob(f"{programs[0]}-*"):
        shutil.rmtree(old)
    for name in programs:
        (target / name).unlink(missing_ok=True)
    shutil.move(made / contents, target / contents)
    shutil.move(made / programs[0], target / programs[0])
    for name in programs[1:]:
        (target / name).hardlink_to(target / programs[0])
    shutil.rmtree(made)
    print(f"built {', '.join(programs)} ({contents})")


def main() -> int:
    """Build what is missing or out of date; the plugins are there already (tools.freeze)."""
    root = pathlib.Path(__file__).resolve().parents[2]
    for package, programs in agents(root).items():
        contents = directory(root, package, programs[0])
        if (root / "build/bin" / contents).is_dir() and "--force" not in sys.argv:
            print(f"{programs[0]} is up to date ({contents})")
        else:
            build(root, package, programs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
