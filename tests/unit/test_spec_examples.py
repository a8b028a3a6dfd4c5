# SPDX-License-Identifier: Apache-2.0
"""The contract in spec/: its schemas, and examples that are what their folder says."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jsonschema
import pytest

from libcni import version as versions
from libcni.schema import explain
from libcni.types.errors import CniError
from tests.rig import examples

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA_FILES = sorted([*ROOT.glob("spec/schemas/*.json"), *ROOT.glob("plugins/*/schema.json")])
NAMES = {path.parent.name if path.name == "schema.json" else path.stem for path in SCHEMA_FILES}


def schema_of(example: pathlib.Path) -> str:
    """The schema an example belongs to: the longest name that its file name begins with."""
    return max((n for n in NAMES if example.name.startswith(f"{n}.")), key=len)


@pytest.mark.parametrize("path", SCHEMA_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_schema_is_draft_07(path: pathlib.Path) -> None:
    schema = json.loads(path.read_text())
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("path", examples.paths("valid"), ids=lambda p: p.stem)
def test_valid(path: pathlib.Path) -> None:
    assert explain.explain(schema_of(path), json.loads(path.read_text())) == ("", "")


@pytest.mark.parametrize("path", examples.paths("invalid"), ids=lambda p: p.stem)
def test_invalid(path: pathlib.Path) -> None:
    document = json.loads(path.read_text())
    msg, _ = explain.explain(schema_of(path), document)
    assert msg
    assert len(msg) < 400


def test_every_schema_has_examples_of_both_kinds() -> None:
    for found in (examples.paths("valid"), examples.paths("invalid")):
        assert {schema_of(path) for path in found} == NAMES - {"definitions"}


def test_a_plugin_s_folder_has_examples_of_its_own_schema() -> None:
    carried = [path for path in examples.paths("valid") if "plugins" in path.parts]
    assert carried
    for path in carried:
        assert schema_of(path) == path.parents[2].name


def test_documented_examples_and_defaults_satisfy_their_schema() -> None:
    for path in SCHEMA_FILES:
        name = path.relative_to(ROOT).as_posix()
        validator = explain.validator(name)
        for place, schema in walk(json.loads(path.read_text())):
            values = list(schema.get("examples", ()))
            values += [schema["default"]] if "default" in schema else []
            for value in values:
                # `$ref` hides its siblings in draft-07; everything else is tested as it stands.
                resolver = validator.evolve(schema={"$ref": f"file:///{name}#{place}"})
                assert resolver.is_valid(value), f"{name}#{place}: {value!r}"


def walk(schema: object, place: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every subschema with its JSON pointer."""
    found: list[tuple[str, dict[str, Any]]] = []
    if not isinstance(schema, dict):
        return found
    found.append((place, schema))
    for key in ("properties", "definitions"):
        for name, inner in schema.get(key, {}).items():
            escaped = name.replace("~", "~0").replace("/", "~1")
            found += walk(inner, f"{place}/{key}/{escaped}")
    for key in ("items", "additionalProperties"):
        found += walk(schema.get(key), f"{place}/{key}")
    return found


def test_every_property_is_described() -> None:
    for path in ROOT.glob("plugins/*/schema.json"):
        for place, schema in walk(json.loads(path.read_text())):
            if place.rpartition("/")[0].endswith("/properties"):
                assert schema.get("description"), f"{path}#{place} has no description"
                assert str(schema["description"]).endswith("."), place
                if schema.get("type") != "object":
                    assert schema.get("examples"), f"{path}#{place} has no example"
                    if place.count("/") == 2:
                        # Some keys leave things as they are, which no value says.
                        says_so = "when not given" in schema["description"]
                        assert "default" in schema or says_so, f"{path}#{place} has no default"


def test_versions_agree_with_the_code() -> None:
    contract = json.loads((ROOT / "spec/versions.json").read_text())
    entries = contract["versions"]
    assert tuple(entry["version"] for entry in entries) == versions.SUPPORTED
    assert contract["newest"] == versions.NEWEST
    assert versions.compare("", contract["whenMissing"]) == 0
    for entry in entries:
        assert (ROOT / "spec" / entry["result"]).is_file()
        for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
            try:
                versions.check_verb(verb, entry["version"])
                allowed = True
            except CniError:
                allowed = False
            assert allowed == (verb in entry["verbs"]), (verb, entry["version"])
