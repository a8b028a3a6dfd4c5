# SPDX-License-Identifier: Apache-2.0
"""Why a document is not valid, in jsonschema's words. Cold: loaded only to explain a rejection.

`rejection` is what the plugin kit raises; `validator` gives the tools and the tests the
authority itself.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import jsonschema.exceptions
import referencing
import referencing.jsonschema

from libcni import boot
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

#: Directory with `spec/schemas/*.json` and `plugins/<type>/schema.json`; None means that of the
#: frozen program or, from source, the repository.
SCHEMA_ROOT: pathlib.Path | None = None

#: Longest value, in characters, that a message quotes whole.
_QUOTE_LIMIT = 80
_MORE_LIMIT = 3


def schema_root() -> pathlib.Path:
    """The directory where schemas are looked for; see SCHEMA_ROOT."""
    if SCHEMA_ROOT is not None:
        return SCHEMA_ROOT
    if boot.data_directory is not None:
        return pathlib.Path(boot.data_directory)
    return pathlib.Path(__file__).resolve().parent.parent.parent


def schema_path(name: str) -> str:
    """Path below the root of a schema named by its path, plugin type, or name in spec/schemas.

    Raises FileNotFoundError when there is none.
    """
    root = schema_root()
    candidates = (name, f"plugins/{name}/schema.json", f"spec/schemas/{name}.json")
    for candidate in candidates:
        if candidate.endswith(".json") and (root / candidate).is_file():
            return candidate
    raise FileNotFoundError(f"no schema {name!r} under {root}")


def validator(name: str) -> Validator:
    """jsonschema's validator for a schema (named as for `schema_path`), `$ref`s resolved."""
    root = schema_root()
    path = schema_path(name)
    registry: Any = referencing.Registry(
        retrieve=functools.partial(_retrieve, root)  # type: ignore[call-arg]  # attrs alias
    )
    return _ecma_validator()({"$ref": f"file:///{path}"}, registry=registry)


def _retrieve(root: pathlib.Path, uri: str) -> referencing.Resource[Any]:
    document = json.loads((root / uri.removeprefix("file:///")).read_text(encoding="utf-8"))
    # jsonschema would leave our class for the stock one at a schema that names its draft.
    document.pop("$schema", None)
    return referencing.jsonschema.DRAFT7.create_resource(document)


@functools.cache
def _ecma_validator() -> type[Validator]:
    """Draft 7 with `$` as the standard means it: Python's also matches before a last newline."""
    extend: Any = jsonschema.validators.extend
    keywords = {"pattern": _pattern, "$ref": _ref}
    kind: type[Validator] = extend(jsonschema.Draft7Validator, keywords)
    return kind


def _ref(
    validator: Validator, ref: str, instance: object, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    """As jsonschema, but examples beside the `$ref` go before those of its target.

    An address in a subnet is for example 10.1.2.3/24, though prefixes are mostly subnets. So does
    the description where the value is not even text: that of the target is of what text may be.
    """
    for error in jsonschema.Draft7Validator.VALIDATORS["$ref"](validator, ref, instance, schema):
        if not error.path and isinstance(error.schema, dict):
            keys = ("examples", "description") if error.validator == "type" else ("examples",)
            own = {key: schema[key] for key in keys if key in schema}
            error.schema = {**error.schema, **own}
        yield error


def _pattern(
    validator: Validator, pattern: str, instance: object, schema: object
) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not re.search(_strict_end(pattern), instance):
        yield jsonschema.exceptions.ValidationError(f"{instance!r} does not match {pattern!r}")


def _strict_end(pattern: str) -> str:
    """`pattern` with every unescaped `$` outside brackets as `\\Z`."""
    return re.sub(
        r"\\.|\[(?:\\.|[^\]])*\]|\$",
        lambda found: r"\Z" if found.group() == "$" else found.group(),
        pattern,
        flags=re.DOTALL,
    )


def explain(name: str, document: Any, place: str = "") -> tuple[str, str]:
    """(msg, details) for a document that the schema `name` rejects, the best error first.

    msg names the key's path, its value and what was expected; details tell what the key is for
    and which other keys are wrong. place: path of the document in what the reader sees, such as
    plugins[0]. ("", "") when the document is valid.
    """
    errors = list(validator(name).iter_errors(document))
    if not errors:
        return "", ""
    # The narrowest statement about each place: the branches of anyOf say more than anyOf itself.
    errors = sorted((_deepest(error) for error in errors), key=_order)
    best = errors[0]
    others = list(dict.fromkeys(_sentence(error, place) for error in errors))[1:]
    details = [_expectation(best)]
    if others:
        details.append("also: " + "; ".join(others[:_MORE_LIMIT]))
    if len(others) > _MORE_LIMIT:
        details.append(f"and {len(others) - _MORE_LIMIT} more")
    return _sentence(best, place), ", ".join(part for part in details if part)


def rejection(type: str, document: Any) -> CniError:
    """The CniError 7 for a configuration that the schema of plugin `type` rejects."""
    msg, details = explain(type, document)
    if not msg:
        # The compiled validator and the schema disagree: a fault of ours, but the caller has
        # been refused and must hear something.
        msg = f"configuration of {type} is not valid"
        details = "the compiled validator rejects it, the schema does not; please report this"
    return CniError(INVALID_NETWORK_CONFIG, msg, details)


def _deepest(error: ValidationError) -> ValidationError:
    while error.context:
        error = max(error.context, key=lambda inner: len(inner.absolute_path))
    return error


def _order(error: ValidationError) -> tuple[bool, int, str]:
    """Wrong values before missing keys, then outer before inner, then by path."""
    place = path(error.absolute_path)
    return (error.validator in ("required", "dependencies"), len(error.absolute_path), place)


def path(parts: Iterable[str | int]) -> str:
    """`ipam.ranges[0][0].subnet`; keys that are no plain words in brackets and quotes."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def within(place: str, inner: str) -> str:
    """The path `inner` of something that is itself at `place`; either may be empty."""
    return f"{place}.{inner}" if place and inner else place or inner


def _sentence(error: ValidationError, place: str) -> str:
    place = within(place, path(error.absolute_path))
    return f"{place}: {_wording(error)}" if place else _wording(error)


def _wording(error: ValidationError) -> str:
    """jsonschema's message, but the schema's title where jsonschema would quote a pattern."""
    value = _quote(error.instance)
    schema = error.schema if isinstance(error.schema, dict) else {}
    expected: Any = error.validator_value
    match error.validator:
        case "pattern":
            return f"{value} is not {schema.get('title', f'like {expected}')}"
        case "type":
            kinds = expected if isinstance(expected, list) else [expected]
            return f"{value} is not of type {', '.join(repr(kind) for kind in kinds)}"
        case "enum":
            return f"{value} is not one of {', '.join(_quote(choice) for choice in expected)}"
        case "minimum":
            return f"{value} is less than the minimum of {expected}"
        case "maximum":
            return f"{value} is greater than the maximum of {expected}"
        case "minItems" if expected == 1:
            return f"{value} should be non-empty"
    return error.message if len(error.message) < 4 * _QUOTE_LIMIT else f"{value} is not valid"


def _expectation(error: ValidationError) -> str:
    """What the schema says about itself: "expected …"; nothing that the sentence said already."""
    schema = error.schema
    if not isinstance(schema, dict):
        return ""
    if error.validator == "required":
        present: Any = error.instance
        missing = next((key for key in schema["required"] if key not in present), "")
        schema = schema.get("properties", {}).get(missing, {})
    parts = []
    if error.validator not in ("enum", "pattern") and ("title" in schema or "type" in schema):
        parts.append("expected " + _kind_of_text(error, schema))
    if "examples" in schema:
        parts.append(f"for example {_quote(schema['examples'][0])}")
    text = ", ".join(parts)
    if "description" in schema:
        text += f" ({schema['description'].rstrip('.')})"
    return text.strip()


def _kind_of_text(error: ValidationError, schema: dict[str, Any]) -> str:
    """What is expected; for a number or true where there has to be text, quotes first of all."""
    title = str(schema.get("title", ""))
    if error.validator != "type" or error.validator_value != "string":
        return title or _kind(schema)
    if isinstance(error.instance, bool | int | float):
        return "a string, in quotes"
    return title or _kind(schema)


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "another value")
    if isinstance(kind, list):
        return " or ".join(kind)
    article = "an" if kind[0] in "aeiou" else "a"
    limits = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "from"), ("maximum", "to"))
        if key in schema
    ]
    return " ".join((article, kind, *limits))


def _quote(value: object) -> str:
    """The value as JSON on one line, cut when it is long."""
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    if len(text) <= _QUOTE_LIMIT:
        return text
    return f"{text[:_QUOTE_LIMIT]}… ({len(text)} characters)"
