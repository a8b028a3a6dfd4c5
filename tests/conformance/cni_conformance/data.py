# SPDX-License-Identifier: Apache-2.0
"""The files of spec/: in the tree, in an installed package, and beside a frozen executable."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import jsonschema
import referencing
import referencing.jsonschema

from cni_conformance import wording

ROOT = pathlib.Path(__file__).resolve().parent / "spec"
SCHEMAS = ROOT / "schemas"
VECTORS = ROOT / "vectors"
PROFILES = VECTORS / "profiles"


def read(path: pathlib.Path) -> Any:
    """A JSON file. Raises ValueError that names the file, also for a key that is there twice."""
    try:
        return json.loads(path.read_text(), object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not JSON: no text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values for a key, json would take the last one without a word."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in made if keys.count(key) > 1)
        raise ValueError(f"the key {json.dumps(twice)} is there twice in one object")
    return made


@functools.cache
def _registry() -> Any:
    found = []
    for path in sorted(SCHEMAS.glob("*.json")):
        resource = referencing.Resource.from_contents(
            read(path), default_specification=referencing.jsonschema.DRAFT7
        )
        found.append((path.name, resource))
    return referencing.Registry().with_resources(found)


@functools.cache
def validator(name: str) -> jsonschema.Draft7Validator:
    """The validator of spec/schemas/<name>.json, such as "result.1.1.0"."""
    schema = read(SCHEMAS / f"{name}.json")
    return jsonschema.Draft7Validator(
        schema,
        registry=_registry(),
        format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER,
    )


def complaints(name: str, document: Any, **options: int) -> list[str]:
    """Why a document is not one of spec/schemas/<name>.json: "path: what"; [] when it is.

    options: as of wording.complaints.
    """
    return wording.complaints(validator(name).iter_errors(document), **options)
