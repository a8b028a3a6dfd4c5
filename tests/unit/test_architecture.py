# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: plugins import libcni, never each other; the runtime side stays apart."""

from __future__ import annotations

import ast
import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
#: The runtime side and the tools: of no use to a plugin, and slow to import.
RUNTIME = ("libcni.conf", "libcni.api", "libcni.cache", "libcni.cnitool")
#: What an executed plugin may import while it is loading: built into the interpreter, or (fcntl,
#: select, _json, _sha512 and their like) one small C library each.
CHEAP = {"__future__", "errno", "fcntl", "posix", "select", "sys", "time"}
#: What generates validators and explains rejections; functions of other modules load it.
COLD = {"libcni.schema.explain", "libcni.schema.patterns"}


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "plugins":
        parts = parts[2:]
    return ".".join(parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path
    for folder in (ROOT / "libcni", *(ROOT / "plugins").glob("*/cni_*"))
    for path in sorted(folder.rglob("*.py"))
}
#: Programs of their own, which may use what they like.
AGENTS = [name for name in SOURCES if name.split(".")[1:2] == ["agent"]]
PLUGIN_SIDE = [
    name
    for name in SOURCES
    if not name.startswith(RUNTIME) and name not in COLD and name not in AGENTS
]


def imports(tree: ast.AST, whole: bool) -> Iterator[str]:
    """Names of imported modules; only those imported while loading unless `whole`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not whole:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            yield str(node.module)
            if node.module and node.module.split(".")[0] == "libcni":
                whole_names = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name for name in whole_names if name in SOURCES)
        yield from imports(node, whole)


def read(name: str, whole: bool) -> list[str]:
    return list(imports(ast.parse(SOURCES[name].read_text()), whole))


@pytest.mark.parametrize("name", PLUGIN_SIDE)
def test_plugins_never_load_the_runtime_side(name: str) -> None:
    assert not [used for used in read(name, whole=True) if used.startswith(RUNTIME)]


@pytest.mark.parametrize("name", PLUGIN_SIDE)
def test_what_plugins_load_is_cheap(name: str) -> None:
    loaded = read(name, whole=False)
    assert not [used for used in loaded if used.split(".")[0] not in OWN and not is_cheap(used)]
    assert not COLD & set(loaded)


@pytest.mark.parametrize("name", [name for name in PLUGIN_SIDE if name.startswith("cni_")])
def test_plugins_never_load_an_agent(name: str) -> None:
    assert not [used for used in read(name, whole=True) if ".agent" in used]


OWN = {name.split(".")[0] for name in SOURCES}


def is_cheap(name: str) -> bool:
    return name in CHEAP or (name.startswith("_") and name in sys.stdlib_module_names)


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("cni_")])
def test_plugins_do_not_import_each_other(name: str) -> None:
    package = name.split(".")[0]
    others = {used.split(".")[0] for used in read(name, whole=True)} - {package}
    assert not [other for other in others if other.startswith("cni_")]


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("libcni")])
def test_libcni_knows_no_plugin(name: str) -> None:
    assert not [used for used in read(name, whole=True) if used.startswith("cni_")]


@pytest.mark.parametrize("name", SOURCES)
def test_processes_are_started_by_spawn_alone(name: str) -> None:
    if name == "libcni.invoke.spawn" or name in AGENTS:
        return
    tree = ast.parse(SOURCES[name].read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & {"posix_spawn", "posix_spawnp", "execv", "execve", "system", "popen"}
    assert not {"subprocess", "multiprocessing"} & set(read(name, whole=True))
