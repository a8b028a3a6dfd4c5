# SPDX-License-Identifier: Apache-2.0
"""What goes into the frozen directory, and in which form."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import marshal
import pathlib
import py_compile
import sys

#: Never needed by what we bundle; each would add megabytes.
EXCLUDED = ["tkinter", "unittest", "pydoc", "lib2to3", "test", "distutils", "setuptools", "pip"]
#: C extensions that plugins load on their hot paths; found without searching directories.
HOT_EXTENSIONS = ("_json", "_ctypes", "_sha512", "_struct", "_socket", "fcntl", "select")

Entry = tuple[str, str, str]


def plugin_roots(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders under plugins/ that hold a plugin's package."""
    return sorted(p for p in (root / "plugins").iterdir() if any(p.glob("cni_*/__init__.py")))


def plugin_types(root: pathlib.Path) -> list[str]:
    """The plugin types, which are the names of those folders."""
    return [p.name for p in plugin_roots(root)]


def our_modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every module of libcni and of the plugins, by its import name."""
    found: dict[str, pathlib.Path] = {}
    for base in [root, *plugin_roots(root)]:
        pattern = "libcni/**/*.py" if base == root else "cni_*/**/*.py"
        for path in sorted(base.glob(pattern)):
            parts = list(path.relative_to(base).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts)] = path
    return found


def is_ours(module: str) -> bool:
    """True for what modules.bin holds, which the libraries need not hold again."""
    return module.split(".")[0] == "libcni" or module.startswith(("cni_", "tools"))


def cold_imports(root: pathlib.Path) -> list[str]:
    """Modules outside ours that any of ours imports anywhere: they have to be bundled."""
    names: set[str] = set()
    for path in our_modules(root).values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return sorted(n for n in names if not is_ours(n) and n != "__future__")


class _Strip(ast.NodeTransformer):
    """Remove what costs start-up time and does nothing at run time: all about types."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        about_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if about_types and not node.orelse else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        arguments = node.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            argument.annotation = None
        for argument in (arguments.vararg, arguments.kwarg):
            if argument is not None:
                argument.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def compile_module(name: str, path: pathlib.Path) -> bytes:
    """The marshalled code of one module: no docstrings, no asserts, no annotations.

    Cold modules keep their annotations, as dataclasses read them.
    """
    tree = ast.parse(path.read_text(), str(path))
    text = path.read_text()
    if "TYPE_CHECKING = False" in text or "dataclass" not in text:
        tree = ast.fix_missing_locations(_Strip().visit(tree))
    code = compile(tree, name, "exec", dont_inherit=True, optimize=2)
    return marshal.dumps(code)


def write_modules(root: pathlib.Path, work: pathlib.Path, binaries: list[Entry]) -> pathlib.Path:
    """Write modules.bin: ({module: (is package, code)}, {extension module: file})."""
    modules = {
        name: (path.name == "__init__.py", compile_module(name, path))
        for name, path in our_modules(root).items()
    }
    extensions = {
        name.rpartition("/")[2].split(".")[0]: name
        for name, _, kind in binaries
        if kind == "EXTENSION" and name.rpartition("/")[2].split(".")[0] in HOT_EXTENSIONS
    }
    target = work / "modules.bin"
    target.write_bytes(marshal.dumps((modules, extensions)))
    return target


def encodings(work: pathlib.Path) -> list[tuple[str, str]]:
    """The three modules that the interpreter imports before it can run anything."""
    spec = importlib.util.find_spec("encodings")
    assert spec is not None and spec.origin is not None
    library = pathlib.Path(spec.origin).parent
    result = []
    for module in ("__init__", "aliases", "utf_8"):
        target = work / f"encodings.{module}.pyc"
        py_compile.compile(
            str(library / f"{module}.py"),
            cfile=str(target),
            dfile=f"encodings/{module}.py",
            optimize=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        result.append((f"encodings/{module}.pyc", str(target)))
    return result


def data_files(root: pathlib.Path) -> list[tuple[str, str]]:
    """The schemas, which explain a rejection."""
    paths = [*root.glob("spec/schemas/*.json"), *root.glob("plugins/*/schema.json")]
    return [(str(p.relative_to(root)), str(p)) for p in sorted(paths)]


def binaries(found: list[Entry]) -> list[Entry]:
    """The shared libraries and extension modules to ship."""
    return list(found)


def fingerprint(root: pathlib.Path) -> str:
    """Eight hex digits over everything that goes into the frozen directory."""
    digest = hashlib.sha256(sys.version.encode())
    sources = [*our_modules(root).values(), root / "build.spec"]
    sources += sorted((root / "tools/freeze").glob("*.py"))
    sources += [pathlib.Path(path) for _, path in data_files(root)]
    for package in ("pyroute2", "jsonschema", "netaddr", "rich", "PyInstaller"):
        digest.update(importlib.metadata.version(package).encode())
    for path in sources:
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]
