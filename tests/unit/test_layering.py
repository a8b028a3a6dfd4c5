# SPDX-License-Identifier: Apache-2.0
"""What executing a plugin loads, followed from its verbs; and who may use which library."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence

import pytest

from tests.rig.plugins import ROOT
from tests.unit.test_architecture import AGENTS, RUNTIME, SOURCES, is_cheap, read
from tools.freeze.hot import our_modules, warm_modules

#: Third-party libraries, and the only modules that may use them.
LIBRARIES = {
    "jsonschema": ("libcni.schema.explain", *RUNTIME),
    "referencing": ("libcni.schema.explain", *RUNTIME),
    "rich": ("libcni.cnitool",),
}
#: The kit, which every plugin runs before its verb.
KIT = ("libcni.skel.main", "libcni.skel.request", "libcni.skel.stdin", "libcni.jsontext")
VERBS = [
    name for name in SOURCES if name.startswith("cni_") and name.endswith((".add", ".delete"))
]
#: Never on the way of an ADD or DEL, at whatever distance.
BANNED = {"os", "json", "re", "enum", "typing", "socket", "struct", "ipaddress", "contextlib"}
BANNED |= {"functools", "collections", "subprocess", "logging", "pathlib", "dataclasses", "abc"}
PLUGIN_SIDE = [n for n in SOURCES if not n.startswith(RUNTIME) and n not in AGENTS]


def loaded_by(*start: str) -> set[str]:
    """Every module that importing `start` imports, packages included."""
    found: set[str] = set()
    todo = list(start)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        if "." in name:
            todo.append(name.rpartition(".")[0])
        if name in SOURCES:
            todo += read(name, whole=False)
    return found


def foreign(modules: set[str]) -> set[str]:
    """Those of `modules` that a frozen plugin cannot import before `full_boot`."""
    return {
        name for name in modules if name not in SOURCES and not is_cheap(name) and name != "_adder"
    }


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_loads_nothing_but_ours_and_what_is_built_in(verb: str) -> None:
    loaded = loaded_by(verb, *KIT)
    assert not foreign(loaded)
    assert not loaded & BANNED
    assert not [name for name in loaded if name.startswith(RUNTIME)]
    packages = {name.split(".")[0] for name in loaded if name.startswith("cni_")}
    assert packages == {verb.split(".")[0]}


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in AGENTS])
def test_libraries_stay_where_they_belong(name: str) -> None:
    allowed = {"libcni", "_adder", *sys.stdlib_module_names}
    for used in read(name, whole=True):
        top = used.split(".")[0]
        if top in allowed or top.startswith("cni_"):
            continue
        assert top in LIBRARIES, f"{name} imports {used}"
        assert name.startswith(LIBRARIES[top]), f"{name} imports {used}"


@pytest.mark.parametrize("name", SOURCES)
def test_loading_never_goes_in_circles(name: str) -> None:
    package = name.rpartition(".")[0]
    direct = [used for used in read(name, whole=False) if used in SOURCES and used != name]
    for used in direct:
        circle = used != package and name in {
            other for other in loaded_by(used) if other in SOURCES
        } - set(_packages(used))
        assert not circle, f"{name} imports {used}, which imports {name}"


def _packages(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


@pytest.mark.parametrize("name", PLUGIN_SIDE)
def test_the_standard_library_is_asked_for_before_it_is_used(name: str) -> None:
    """A frozen plugin has no file importer until `full_boot`: the import would fail there only.

    So a function that imports such a module calls full_boot() above it.
    """
    if foreign(loaded_by(name)):
        return  # loaded after full_boot itself: whoever imports it is looked at
    tree = ast.parse(SOURCES[name].read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        boots = [
            node.lineno
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "full_boot"
        ]
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            else:
                continue
            for used in names:
                if not foreign(loaded_by(used)):
                    continue
                assert boots and min(boots) < node.lineno, (
                    f"{name}.{function.name} imports {used} without full_boot()"
                )


@pytest.mark.parametrize("name", PLUGIN_SIDE)
def test_no_constant_needs_a_codec(name: str) -> None:
    """A lone surrogate in frozen code cannot be loaded by an interpreter without `encodings`."""
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value.encode()


@pytest.mark.parametrize("name", warm_modules(ROOT))
def test_nothing_is_asked_of_the_process_when_a_module_is_imported(name: str) -> None:
    """It would get the answer of the build: the picture of the interpreter is taken there."""
    for call in _calls_at_import(ast.parse(our_modules(ROOT)[name].read_text()).body):
        root = ast.unparse(call.func).partition(".")[0]
        assert root not in sys.builtin_module_names, f"{name}:{call.lineno} calls {root}"
        assert root not in {"open", "input", "print"}, f"{name}:{call.lineno} calls {root}"


def _calls_at_import(body: Sequence[ast.AST]) -> Iterator[ast.Call]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield node
        yield from _calls_at_import(list(ast.iter_child_nodes(node)))


def test_the_calls_at_import_are_seen() -> None:
    source = """import posix
def later(): return posix.getpid()
class Thing:
    pid: int = posix.getpid()
if True:
    HOST = str(posix.uname())
"""
    calls = [ast.unparse(call) for call in _calls_at_import(ast.parse(source).body)]
    assert calls == ["posix.getpid()", "str(posix.uname())", "posix.uname()"]


def test_the_tests_see_the_tree() -> None:
    """An empty list of modules would pass everything above."""
    assert {"libcni.skel.main", "libcni.boot", "cni_bridge.add"} <= SOURCES.keys()
    assert len(VERBS) >= 6
    assert loaded_by("libcni.skel.request") > {
        "libcni.skel.undo",
        "libcni.skel",
        "libcni",
        "posix",
    }
