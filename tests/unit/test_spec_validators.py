# SPDX-License-Identifier: Apache-2.0
"""The compiled validators give jsonschema's verdict on every document."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import pathlib
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libcni.schema import explain
from libcni.schema.canonical import canonical
from tests.rig import examples
from tools import generate_validators

ROOT = pathlib.Path(__file__).resolve().parents[2]
TYPES = sorted(path.parent.name for path in ROOT.glob("plugins/*/schema.json"))
EXAMPLES = {
    type: [
        json.loads(path.read_text())
        for path in examples.paths("valid", type) + examples.paths("invalid", type)
    ]
    for type in TYPES
}
THOROUGH = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: Values that sit where a reader might err: of wrong type, at the bounds, nearly right.
VALUES = st.sampled_from(
    [None, True, False, 0, 1, -1, 1.0, 1.5, 1e300, 68, 4094, 4095, 65535, 65536, 2**32, 2**64]
    + [
        "",
        "x",
        "true",
        "1",
        "nftables",
        "10.1.2.3",
        "10.1.2.3/24",
        "10.1.2.3/33",
        "::1",
        "::1/128",
    ]
    + ["0a:58:0a:00:00:01", "0a58.0a00.0001", "cni0\n", "10.1.2.3\n", "..", "a" * 15, "a" * 16]
    + [[], {}, [[]], [{}], [None], [[{"subnet": "10.1.2.0/24"}]], [{"dst": "::/0"}], [{"id": 1}]]
    + [{"minID": 1}, {"mac": ""}, {"cni": {}}, {"type": ""}, ["10.1.2.3"]]
)


def validator(type: str) -> Any:
    return importlib.import_module(f"cni_{type.replace('-', '_')}.validator")


@functools.cache
def authority(type: str) -> Any:
    return explain.validator(type)


def agree(type: str, document: Any) -> None:
    expected = authority(type).is_valid(document)
    assert validator(type).validate(document) is expected, json.dumps(document, default=repr)


def inlined(type: str) -> dict[str, Any]:
    """The schema with its references replaced, for a library that does not follow them."""
    files = generate_validators.Files(ROOT)

    def expand(schema: Any, base: str) -> Any:
        if isinstance(schema, list):
            return [expand(item, base) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if isinstance(schema.get("$ref"), str):
            file, _, target = files.follow(schema["$ref"], base)
            return expand(target, file)
        return {
            key: expand(value, base)
            for key, value in schema.items()
            if key not in ("definitions", "$schema", "default", "examples")
        }

    path = f"plugins/{type}/schema.json"
    expanded: dict[str, Any] = expand(files.load(path), path)
    return expanded


def documents(schema: dict[str, Any], wrong: bool) -> st.SearchStrategy[Any]:
    """Documents by the schema, each part of which is now and then a value of VALUES if `wrong`.

    hypothesis-jsonschema would do for the right ones, but its last release (0.23.1) does not
    work with hypothesis since 6.170.
    """
    strategy: st.SearchStrategy[Any]
    match schema.get("type"):
        case "object":
            keys: dict[str, Any] = {}
            needed: set[str] = set()
            for part in (*schema.get("allOf", ()), schema):
                keys |= part.get("properties", {})
                needed |= set(part.get("required", ()))
            values = {key: documents(inner, wrong) for key, inner in keys.items()}
            fixed = {key: values[key] for key in values if key in needed and not wrong}
            free = {key: values[key] for key in values if key not in fixed}
            extra = schema.get("additionalProperties")
            unknown = documents(extra, wrong) if extra else VALUES
            more = st.dictionaries(st.text(max_size=4), unknown, max_size=1)
            strategy = st.builds(
                lambda known, others: others | known,
                st.fixed_dictionaries(fixed, optional=free),
                more,
            )
            for key, others in schema.get("dependencies", {}).items():
                if not wrong:
                    strategy = strategy.filter(functools.partial(complete, key, others))
        case "array":
            inner = documents(schema.get("items", {"type": "string"}), wrong)
            strategy = st.lists(inner, min_size=schema.get("minItems", 0), max_size=3)
        case "string" if "enum" in schema:
            strategy = st.sampled_from(schema["enum"])
        case "string" if "pattern" in schema:
            strategy = st.from_regex(schema["pattern"])
        case "string":
            strategy = st.text(max_size=8)
        case "integer":
            strategy = st.integers(schema.get("minimum"), schema.get("maximum"))
            strategy |= strategy.filter(lambda n: n < 2**53).map(float)
        case "boolean":
            strategy = st.booleans()
        case _:
            raise NotImplementedError(schema)
    return strategy | VALUES if wrong else strategy


def complete(key: str, others: list[str], document: dict[str, Any]) -> bool:
    """`document` honours a dependency."""
    return key not in document or all(other in document for other in others)


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
@pytest.mark.parametrize("type", TYPES)
def test_generated_from_the_schema(type: str, wrong: bool) -> None:
    @THOROUGH
    @given(documents(inlined(type), wrong))
    def check(document: Any) -> None:
        agree(type, document)
        verdicts.add(validator(type).validate(document))

    verdicts: set[bool] = set()
    check()
    # Both kinds have to come up, or the comparison shows nothing.
    assert (not wrong) in verdicts


@pytest.mark.parametrize("type", TYPES)
def test_mutated_examples(type: str) -> None:
    def places(value: Any) -> list[tuple[Any, Any]]:
        items: list[tuple[Any, Any]] = []
        if isinstance(value, dict):
            items = [(value, key) for key in value]
        elif isinstance(value, list):
            items = [(value, index) for index in range(len(value))]
        return items + [place for holder, key in items for place in places(holder[key])]

    @THOROUGH
    @given(st.sampled_from(EXAMPLES[type]), st.randoms(use_true_random=False), VALUES)
    def check(example: Any, rng: random.Random, value: Any) -> None:
        document = copy.deepcopy(example)
        found = places(document)
        if found:
            holder, key = rng.choice(found)
            match rng.randrange(3):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, dict):
                    holder[rng.choice(names)] = value
                case _:
                    holder[key] = value
        agree(type, document)
        if isinstance(document, dict):
            agree(type, canonical(document, validator(type).KEYS))

    names = sorted(known(validator(type).KEYS))
    check()


def known(keys: dict[str, Any]) -> set[str]:
    names = set(keys)
    for inside in keys.values():
        names |= known(inside) if inside else set()
    return names


@pytest.mark.parametrize("type", TYPES)
def test_every_known_key_with_every_odd_value(type: str) -> None:
    base = {"name": "n", "type": type, "ipam": {}}
    odd: list[Any] = [None, True, 0, 1.0, 1.5, -1, "", "x", [], {}, [[]], [{}], {"mac": 1}]
    for value in odd:
        for path in paths(validator(type).KEYS):
            document: Any = copy.deepcopy(base)
            holder = document
            for key in path[:-1]:
                holder = holder.setdefault(key, {})
            holder[path[-1]] = value
            agree(type, document)


def paths(keys: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, inside in keys.items():
        found.append((*above, key))
        found += paths(inside, (*above, key)) if inside else []
    return found


@pytest.mark.parametrize("type", TYPES)
def test_examples(type: str) -> None:
    for document in EXAMPLES[type]:
        agree(type, document)


def test_checked_in_files_are_current() -> None:
    for path, text in generate_validators.generate(ROOT).items():
        assert path.read_text() == text, f"{path} is stale: run make generate"


def compile_schema(tmp_path: pathlib.Path, schema: dict[str, Any]) -> str:
    folder = tmp_path / "plugins/odd"
    folder.mkdir(parents=True)
    (folder / "schema.json").write_text(json.dumps(schema))
    (text,) = generate_validators.generate(tmp_path).values()
    return text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^odd$"}}},
        {"type": "object", "properties": {"a": {"type": "number"}}},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "patternProperties": {}},
        {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
        {"type": "object", "properties": {"a": {"$ref": "#", "type": "string"}}},
        {"type": "object", "additionalProperties": False},
        {
            "type": "object",
            "allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}],
            "properties": {"a": {"type": "string"}},
        },
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_generator_refuses_what_it_does_not_know(
    tmp_path: pathlib.Path, schema: dict[str, Any]
) -> None:
    with pytest.raises(generate_validators.Unsupported):
        compile_schema(tmp_path, schema)


def test_generator_compiles_the_rest(tmp_path: pathlib.Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "enum": ["one"], "maxLength": 5},
            "b": {"type": "array", "maxItems": 2, "items": {"type": "integer", "maximum": 3}},
            "class": {"type": "object", "dependencies": {"x": ["y", "z"]}},
        },
    }
    scope: dict[str, Any] = {}
    exec(compile_schema(tmp_path, schema), scope)
    validate = scope["validate"]
    assert validate({"a": "one", "b": [1, 2], "class": {"x": 1, "y": 1, "z": 1}})
    for bad in ({"a": "two"}, {"b": [1, 2, 3]}, {"b": [4]}, {"class": {"x": 1, "y": 1}}):
        assert not validate(bad)


def test_recursive_schema_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(generate_validators.Unsupported):
        compile_schema(tmp_path, {"type": "object", "properties": {"a": {"$ref": "#"}}})


def test_hot_modules_import_nothing_heavy() -> None:
    """Validators are imported by every plugin: no module beyond the allowed ones."""
    roots = [str(ROOT), *(str(ROOT / "plugins" / type) for type in TYPES)]
    modules = [f"cni_{type.replace('-', '_')}.validator" for type in TYPES]
    code = (
        f"import sys; sys.path[:0] = {roots!r}; before = set(sys.modules)\n"
        f"import libcni.schema.canonical, {', '.join(modules)}\n"
        "print(*(m for m in set(sys.modules) - before if not m.startswith(('libcni', 'cni_'))))"
    )
    command = [sys.executable, "-S", "-E", "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(output.split()) <= {"__future__", "_socket"}
