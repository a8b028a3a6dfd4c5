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
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Collection

from libcni.version import NEWEST

#: Never needed by what we bundle; each would add megabytes. (pyroute2 does need unittest.)
EXCLUDED = ["tkinter", "pydoc", "lib2to3", "test", "distutils", "setuptools", "pip"]
#: C extensions that plugins load on their hot paths; found without searching directories.
HOT_EXTENSIONS = ("_json",)

#: Modules of these names do what no pod waits for: verbs, and what `cnitool validate` asks.
COLD = ("advice", "check", "gc", "status", "verify", "writable")
#: And these what few pods have: an allow-list, conditions, iptables-legacy, checks of MAC
#: addresses, a bridge's VLAN, masquerade and ports by executing iptables, routing by source,
#: devices of the host.
SELDOM = (
    *("conditional", "gaps", "inheritance", "ipt_ends", "legacy_policy", "re2", "spoofcheck"),
    *("strictest", "vlan_gateway", "libcni.ipmasq.ipt", "libcni.ipmasq.leftovers"),
    *("cni_portmap.ipt", "cni_sbr.add", "cni_sbr.delete", "cni_sbr.move"),
    *(f"cni_host_device.{name}" for name in ("add", "delete", "find", "mark", "move")),
)


def is_named(module: str, names: Collection[str]) -> bool:
    """True for a module that is named, whole or by what follows the last dot."""
    return module in names or module.rpartition(".")[2] in names


#: The conformance suite, a distribution of its own.
CONFORMANCE = "tests/conformance"

Entry = tuple[str, str, str]


def plugin_roots(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders under plugins/ that hold a plugin's package."""
    return sorted(p for p in (root / "plugins").iterdir() if any(p.glob("cni_*/__init__.py")))


def plugin_types(root: pathlib.Path) -> list[str]:
    """The plugin types, which are the names of those folders."""
    return [p.name for p in plugin_roots(root)]


def plugin_profiles(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """By type: the plugins' profiles for the conformance suite, of those that carry one."""
    files = {p.name: p / "conformance.json" for p in plugin_roots(root)}
    return {type: path for type, path in files.items() if path.exists()}


def our_modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every module of libcni and of the plugins, by its import name; not those of agents."""
    found: dict[str, pathlib.Path] = {}
    for base in [root, *plugin_roots(root)]:
        pattern = "libcni/**/*.py" if base == root else "cni_*/**/*.py"
        for path in sorted(base.glob(pattern)):
            parts = list(path.relative_to(base).with_suffix("").parts)
            if parts[1:2] == ["agent"]:
                continue
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts)] = path
    return found


def is_ours(module: str) -> bool:
    """True for what is frozen into the executable, which the libraries need not hold again."""
    return module.split(".")[0] in ("libcni", "tools", "collect") or module.startswith("cni_")


def cold_imports(root: pathlib.Path) -> list[str]:
    """Modules outside ours that any of ours imports anywhere: they have to be bundled."""
    names: set[str] = set()
    for path in our_modules(root).values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return sorted(n for n in names if not is_ours(n) and n not in ("__future__", "_adder"))


def _imported_at_start(body: list[ast.stmt], ours: set[str]) -> set[str]:
    """The modules that importing a module of this body imports."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update({f"{node.module}.{alias.name}" for alias in node.names} & ours)
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            names |= _imported_at_start(node.body + node.orelse, ours)
        elif isinstance(node, ast.Try):
            names |= _imported_at_start(node.body, ours)
    return names - {"__future__"}


def warm_modules(root: pathlib.Path) -> list[str]:
    """Those of our modules that need nothing but each other and the interpreter to be imported.

    They are in the snapshot; all others are for cold paths or tools. So are those that are COLD
    or SELDOM used: each page of the snapshot is memory of every plugin that runs, and on disk.
    """
    modules = our_modules(root)
    needs = {
        name: _imported_at_start(ast.parse(path.read_text()).body, set(modules))
        for name, path in modules.items()
    }
    warm = {name for name in modules if not is_named(name, COLD + SELDOM)}
    while True:
        cold = {
            name
            for name in warm
            if any(n not in warm and n not in sys.builtin_module_names for n in needs[name])
        }
        if not cold:
            return sorted(warm)
        warm -= cold


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
        for variadic in (arguments.vararg, arguments.kwarg):
            if variadic is not None:
                variadic.annotation = None
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


def extension_files(contents: pathlib.Path) -> dict[str, str]:
    """The file of each C extension of HOT_EXTENSIONS that is not built into the interpreter."""
    found = {path.name.split(".")[0]: path for path in contents.rglob("*.cpython-*.so")}
    return {
        name: str(found[name].relative_to(contents)) for name in HOT_EXTENSIONS if name in found
    }


def write_modules(root: pathlib.Path, work: pathlib.Path, contents: pathlib.Path) -> None:
    """Write our modules: warm/, and the others as frozen ones in modules.bin and modules.h.

    Warm ones are needed once, when the picture is taken. work: where to write. contents: the
    collected directory; its name goes into the executable.
    """
    entry = root / "tools/freeze/entry.py"
    ours = our_modules(root)
    warm = {name: ours[name].name == "__init__.py" for name in warm_modules(root)}
    build = f"EXTENSIONS = {extension_files(contents)!r}"
    modules = [
        ("adder_entry", False, compile_module("adder_entry", entry)),
        ("adder_build", False, marshal.dumps(compile(build, "adder_build", "exec"))),
    ]
    shutil.rmtree(work / "warm", ignore_errors=True)
    (work / "warm").mkdir()
    for name, is_package in warm.items():
        code = compile_module(name, ours[name])
        (work / "warm" / name).write_bytes(bytes([is_package]) + code)
    for name, path in ours.items():
        if name not in warm:
            modules.append((name, path.name == "__init__.py", compile_module(name, path)))
    blob = b""
    rows = []
    for name, is_package, code in modules:
        package = int(is_package)
        rows.append(f'    {{"{name}", adder_blob + {len(blob)}, {len(code)}, {package}, NULL}},')
        blob += code + b"\0" * (-len(code) % 16)
    (work / "modules.bin").write_bytes(blob)
    table = "\n".join(rows)
    (work / "modules.h").write_text(
        f"""/* Generated by tools/freeze. */
#define ADDER_CONTENTS "{contents.name}"
__asm__(".section .rodata\\n.balign 16\\nadder_blob:\\n.incbin \\"modules.bin\\"\\n.previous");
extern const unsigned char adder_blob[];
static const struct _frozen adder_modules[] = {{
{table}
    {{NULL, NULL, 0, 0, NULL}},
}};
"""
    )


def link_launcher(root: pathlib.Path, work: pathlib.Path, target: pathlib.Path) -> None:
    """Compile launcher.c and its like against the static libpython of this interpreter."""
    library = sysconfig.get_config_var("LIBPL")
    version = sysconfig.get_config_var("LDVERSION")
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-std=gnu11", f"-I{work}"]
    command += [f'-DADDER_CNI_VERSION="{NEWEST}"']
    command += [f"-I{sysconfig.get_path('include')}", "-Wa,-I" + str(work)]
    command += ["-o", str(target)]
    command += [str(path) for path in sorted((root / "tools/freeze").glob("*.c"))]
    command += [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc", "free")]
    # Not position independent and bound at once: fewer relocations and page faults at start.
    command += ["-no-pie", "-rdynamic", "-Wl,-z,now", f"{library}/libpython{version}.a"]
    command += ["-Wl,-Bstatic", "-lz", "-lexpat", "-Wl,-Bdynamic", "-ldl", "-lm", "-lpthread"]
    subprocess.run(command, check=True)
    subprocess.run(["strip", "--strip-all", str(target)], check=True)


def conformance_modules(root: pathlib.Path) -> list[pathlib.Path]:
    """The modules of the conformance suite."""
    return sorted((root / CONFORMANCE / "cni_conformance").rglob("*.py"))


def conformance_names(root: pathlib.Path) -> list[str]:
    """The import names of those modules."""
    base = root / CONFORMANCE
    names = [path.relative_to(base).with_suffix("").parts for path in conformance_modules(root)]
    return [".".join(parts).removesuffix(".__init__") for parts in names]


def conformance_files(root: pathlib.Path, work: pathlib.Path) -> list[tuple[str, str]]:
    """The conformance suite, compiled in `work`, with its data: (name, path) each.

    It goes into the directory as files: no plugin's executable gets any larger by it, and it
    finds its cases by looking.
    """
    base = root / CONFORMANCE
    found = []
    for path in conformance_modules(root):
        name = path.relative_to(base).with_suffix(".pyc")
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        py_compile.compile(
            str(path),
            str(target),
            str(name),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        found.append((str(name), str(target)))
    for folder in ("schemas", "vectors"):
        for path in sorted((root / "spec" / folder).rglob("*.json")):
            name = pathlib.Path("cni_conformance/spec", path.relative_to(root / "spec"))
            found.append((str(name), str(path)))
    for type, path in plugin_profiles(root).items():
        found.append((f"cni_conformance/spec/vectors/profiles/{type}.json", str(path)))
    return found


def data_files(root: pathlib.Path) -> list[tuple[str, str]]:
    """The schemas, which explain a rejection."""
    paths = [*root.glob("spec/schemas/*.json"), *root.glob("plugins/*/schema.json")]
    return [(str(p.relative_to(root)), str(p)) for p in sorted(paths)]


def binaries(found: list[Entry]) -> list[Entry]:
    """The shared libraries and extension modules to ship; libpython is in the executable."""
    return [entry for entry in found if not entry[0].startswith("libpython")]


def fingerprint(root: pathlib.Path) -> str:
    """Eight hex digits over everything that goes into the frozen directory."""
    digest = hashlib.sha256(sys.version.encode())
    sources = [*our_modules(root).values(), root / "build.spec"]
    sources += sorted((root / "tools/freeze").glob("*.[pch]*"))
    sources += [pathlib.Path(path) for _, path in data_files(root)]
    sources += [*conformance_modules(root), *sorted((root / "spec/vectors").rglob("*.json"))]
    sources += plugin_profiles(root).values()
    for package in ("pyroute2", "jsonschema", "netaddr", "rich", "PyInstaller"):
        digest.update(importlib.metadata.version(package).encode())
    for path in sources:
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]
