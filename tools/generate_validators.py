# SPDX-License-Identifier: Apache-2.0
"""Compile each plugin's `schema.json` to plain functions: `cni_<type>/validator.py`.

    python -m tools.generate_validators [--check]

jsonschema is the authority on what is valid, but its import costs a plugin 90 ms. The generated
module decides the same in a few microseconds; only when it says no is jsonschema loaded to say
why. The generator knows the part of draft-07 that our schemas use and fails on anything else.
"""

from __future__ import annotations

import argparse
import json
import keyword
import pathlib
import posixpath
import re
import sys
from typing import Any

from libcni.schema.patterns import PREDICATES

ROOT = pathlib.Path(__file__).resolve().parent.parent

Schema = dict[str, Any]

#: Say something to a reader, nothing to a validator.
ANNOTATIONS = frozenset(
    ("$comment", "$id", "$schema", "default", "definitions", "description", "examples", "title")
)
#: Keywords understood beside each type; every schema but a pure allOf or $ref names its type.
KEYWORDS: dict[str, frozenset[str]] = {
    "object": frozenset(
        ("additionalProperties", "allOf", "dependencies", "properties", "required")
    ),
    "array": frozenset(("items", "maxItems", "minItems")),
    "string": frozenset(("enum", "maxLength", "minLength", "pattern")),
    "integer": frozenset(("maximum", "minimum")),
    "boolean": frozenset(),
}
TYPES = {"object": "mapping", "array": "array"} | {
    name: name for name in ("string", "integer", "boolean")
}

CHECKS = "dict[str, Callable[[Any], bool]]"

HEADER = '''\
# SPDX-License-Identifier: Apache-2.0
"""Decide whether a configuration is valid. Generated from ../schema.json: do not edit.

Made by `tools/generate_validators.py`, which says why.
"""

from __future__ import annotations

from libcni.schema.predicates import {imports}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from libcni.schema.canonical import Keys

#: The known keys and, for each that holds an object or a list of objects, those inside.
KEYS: Keys = {keys}
'''


class Unsupported(Exception):
    """The schema uses something that the generator does not know; the text says where."""


class Files:
    """The schema files, and `$ref` between them."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self._documents: dict[str, Schema] = {}

    def load(self, path: str) -> Schema:
        """The schema file at `path` relative to the root."""
        if path not in self._documents:
            self._documents[path] = json.loads((self.root / path).read_text())
        return self._documents[path]

    def follow(self, reference: str, base: str) -> tuple[str, str, Schema]:
        """File, pointer and schema of a `$ref` that stands in the file `base`."""
        file, _, pointer = reference.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(base), file)) if file else base
        schema: Any = self.load(path)
        for part in pointer.split("/")[1:]:
            schema = schema[part.replace("~1", "/").replace("~0", "~")]
        return path, pointer, schema


class Compiler:
    """One plugin's schema on its way to a module."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.imports: set[str] = set()
        #: Name of each generated object to its text, in the order they have to be defined in.
        self.parts: dict[str, str] = {}
        self._open: set[tuple[str, str]] = set()
        self._names: set[str] = set()
        self._by_tests: dict[tuple[str, ...], str] = {}
        self._by_reference: dict[tuple[str, str], str] = {}

    def compile(self, path: str) -> str:
        """The text of the validator of the schema file `path`."""
        schema = self.files.load(path)
        self._open.add((path, ""))
        name = self._check(schema, path, "document")
        keys = self._keys(schema, path) or {}
        imports = ", ".join(sorted(self.imports))
        if len(imports) + len("from libcni.schema.predicates import ") > 99:
            lines = "".join(f"    {name},\n" for name in sorted(self.imports))
            imports = f"(\n{lines})"
        text = HEADER.format(imports=imports, keys=_literal(keys, ""))
        text += "".join(self.parts.values())
        text += "\n\ndef validate(document: Any) -> bool:\n"
        text += '    """True when the schema accepts `document`, whose keys are canonical."""\n'
        return text + f"    return {name}(document)\n"

    def _predicate(self, name: str) -> str:
        self.imports.add(name)
        return name

    def _check(self, schema: Schema, base: str, name: str) -> str:
        """The name of a function that decides about `schema`; generates it where needed."""
        if "$ref" in schema:
            extra = schema.keys() - ANNOTATIONS - {"$ref"}
            if extra:
                raise Unsupported(f"{base}: {name}: {sorted(extra)} beside $ref mean nothing")
            file, pointer, target = self.files.follow(schema["$ref"], base)
            if (file, pointer) in self._open:
                raise Unsupported(f"{base}: {name}: {schema['$ref']} refers to itself")
            if (file, pointer) not in self._by_reference:
                self._open.add((file, pointer))
                found = self._check(target, file, pointer.rpartition("/")[2] or name)
                self._open.remove((file, pointer))
                self._by_reference[file, pointer] = found
            return self._by_reference[file, pointer]
        kind = schema.get("type")
        if kind not in KEYWORDS:
            raise Unsupported(f"{base}: {name}: type {kind!r}; one of {sorted(KEYWORDS)} it is")
        used = schema.keys() - ANNOTATIONS - {"type"}
        unknown = used - KEYWORDS[kind]
        if unknown:
            raise Unsupported(f"{base}: {name}: {sorted(unknown)} are not known for {kind}")
        if "pattern" in schema and schema["pattern"] not in PREDICATES:
            raise Unsupported(
                f"{base}: {name}: no predicate for the pattern {schema['pattern']!r} "
                "in libcni/schema/patterns.py"
            )
        if used == {"pattern"}:
            return self._predicate(PREDICATES[schema["pattern"]].__name__)
        if not used:
            return self._predicate(TYPES[kind])
        function = self._name(name)
        tests = getattr(self, f"_{kind}")(schema, base, name, function)
        return self._define(function, [f"{self._predicate(TYPES[kind])}(value)", *tests])

    def _object(self, schema: Schema, base: str, name: str, function: str) -> list[str]:
        tests: list[str] = []
        checks: dict[str, str] = {}
        for part, file in self._flatten(schema, base):
            tests += [f"{json.dumps(key)} in value" for key in part.get("required", ())]
            for key, needed in part.get("dependencies", {}).items():
                for other in needed:
                    tests.append(
                        f"({json.dumps(key)} not in value or {json.dumps(other)} in value)"
                    )
            for key, inner in part.get("properties", {}).items():
                if key in checks:
                    raise Unsupported(f"{base}: {name}: {key} is in two schemas of allOf")
                inner_name = key if name == "document" else f"{name}_{key}"
                checks[key] = self._check(inner, file, inner_name)
        if checks:
            table = function.upper()
            lines = "".join(f"    {json.dumps(key)}: {checks[key]},\n" for key in sorted(checks))
            self.parts[table] = f"\n\n{table}: {CHECKS} = {{\n{lines}}}\n"
            tests.append(f"{self._predicate('members')}(value, {table})")
        extra = schema.get("additionalProperties", True)
        if extra is not True:
            if checks or not isinstance(extra, dict):
                raise Unsupported(f"{base}: {name}: additionalProperties beside properties")
            inner = self._check(extra, base, f"{name}_value")
            tests.append(f"{self._predicate('each')}(value.values(), {inner})")
        return tests

    def _flatten(self, schema: Schema, base: str) -> list[tuple[Schema, str]]:
        """An object's schema and those of its allOf, each with the file it is in."""
        parts = []
        for part in schema.get("allOf", ()):
            file = base
            while "$ref" in part:
                file, _, part = self.files.follow(part["$ref"], file)
            if part.get("type") != "object" or "additionalProperties" in part:
                raise Unsupported(f"{base}: allOf is understood for properties of objects only")
            parts += self._flatten(part, file)
        return [*parts, (schema, base)]

    def _array(self, schema: Schema, base: str, name: str, function: str) -> list[str]:
        tests = _bounds("len(value)", schema.get("minItems"), schema.get("maxItems"))
        if "items" in schema:
            inner = self._check(schema["items"], base, f"{name}_item")
            tests.append(f"{self._predicate('each')}(value, {inner})")
        return tests

    def _string(self, schema: Schema, base: str, name: str, function: str) -> list[str]:
        tests = _bounds("len(value)", schema.get("minLength"), schema.get("maxLength"))
        if "enum" in schema:
            values = [json.dumps(value) for value in schema["enum"]]
            tests.append(f"value in ({', '.join(values)}{',' if len(values) == 1 else ''})")
        if "pattern" in schema:
            tests.append(f"{self._predicate(PREDICATES[schema['pattern']].__name__)}(value)")
        return tests

    def _integer(self, schema: Schema, base: str, name: str, function: str) -> list[str]:
        return _bounds("value", schema.get("minimum"), schema.get("maximum"))

    def _boolean(self, schema: Schema, base: str, name: str, function: str) -> list[str]:
        return []

    def _name(self, name: str) -> str:
        """A free private name in snake case."""
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"[^A-Za-z0-9]+", "_", name))
        result = "_" + snake.strip("_").lower()
        if keyword.iskeyword(result):
            result += "_"
        candidate, number = result, 2
        while candidate in self._names:
            candidate, number = f"{result}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def _define(self, function: str, tests: list[str]) -> str:
        """Add a function for the conjunction of `tests`, unless there is one; its name."""
        known = self._by_tests.setdefault(tuple(tests), function)
        if known != function:
            return known
        line = f"    return {' and '.join(tests)}\n"
        if len(line) > 100:
            inner = "".join(
                f"        {'and ' if number else ''}{test}\n" for number, test in enumerate(tests)
            )
            line = f"    return (\n{inner}    )\n"
        self.parts[function] = f"\n\ndef {function}(value: Any) -> bool:\n{line}"
        return function

    def _keys(self, schema: Schema, base: str) -> dict[str, Any] | None:
        """The tree of known property names in `schema`, through lists."""
        while "$ref" in schema:
            base, _, schema = self.files.follow(schema["$ref"], base)
        if schema.get("type") == "array":
            return self._keys(schema.get("items", {}), base)
        keys: dict[str, Any] = {}
        for part in schema.get("allOf", ()):
            _merge(keys, self._keys(part, base) or {})
        for key, inner in schema.get("properties", {}).items():
            _merge(keys, {key: self._keys(inner, base)})
        return keys or None


def _merge(keys: dict[str, Any], more: dict[str, Any]) -> None:
    for key, inside in more.items():
        if isinstance(keys.get(key), dict) and isinstance(inside, dict):
            _merge(keys[key], inside)
        elif inside is not None or key not in keys:
            keys[key] = inside


def _literal(keys: dict[str, Any], margin: str) -> str:
    """A dict literal as ruff formats it."""
    if not keys:
        return "{}"
    inner = margin + "    "
    lines = [
        f"{inner}{json.dumps(key)}: {_literal(inside, inner) if inside else None},\n"
        for key, inside in keys.items()
    ]
    return "{\n" + "".join(lines) + margin + "}"


def _bounds(what: str, low: int | None, high: int | None) -> list[str]:
    if low is not None and high is not None:
        return [f"{low} <= {what} <= {high}"]
    if low is not None:
        return [f"{what} >= {low}"]
    return [f"{what} <= {high}"] if high is not None else []


def generate(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """Text of every generated file by its path; plugins are the folders with a schema."""
    files = Files(root)
    texts: dict[pathlib.Path, str] = {}
    for schema in sorted((root / "plugins").glob("*/schema.json")):
        type = schema.parent.name
        target = schema.parent / f"cni_{type.replace('-', '_')}" / "validator.py"
        texts[target] = Compiler(files).compile(schema.relative_to(root).as_posix())
    return texts


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check say which are stale (exit status 1)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when stale")
    check = parser.parse_args(arguments).check
    stale = 0
    for path, text in generate().items():
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
