# SPDX-License-Identifier: Apache-2.0
"""Values in findings as whoever wrote the plugin knows them: JSON, or text; never Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import ValidationError

#: How much of a value or a stream a report quotes, in characters.
_QUOTED = 600
#: The same of what a schema has something against.
_CULPRIT = 200
#: Hardware addresses, and words with a digit: names of devices and sandboxes, numbers.
_DIFFERS = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|\w*\d\w*")


def without_names(text: str) -> str:
    """A message without what differs each time, for comparison with another of its kind."""
    return _DIFFERS.sub("#", text)


def shorten(text: str, limit: int = _QUOTED) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def show(value: Any, limit: int = _QUOTED) -> str:
    """A value as JSON in one line, or the beginning of that; bytes as the text that they are."""
    if isinstance(value, bytes):
        value = text(value)
    document = json.dumps(value, ensure_ascii=False, default=str)
    # Half of a surrogate pair stays the escape that it came as: no report could be written else.
    return shorten(document.encode("utf-8", "backslashreplace").decode(), limit)


def text(stream: bytes) -> str:
    """What a stream says; bytes that are no UTF-8 are replaced."""
    return stream.decode("utf-8", "replace")


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, "none" if there are none."""
    return ", ".join(names) or "none"


def complaints(errors: Iterable[ValidationError], limit: int = _CULPRIT) -> list[str]:
    """What a schema has against a document: "path: what", each once, values up to `limit`."""
    found = []
    for error in errors:
        path = ".".join(map(str, error.absolute_path)) or "the document"
        found.append(f"{path}: {_complaint(error, limit)}")
    return list(dict.fromkeys(found))


def _complaint(error: ValidationError, limit: int) -> str:
    """As jsonschema says it, which quotes the value as Python writes it."""
    value = show(error.instance, limit)
    wanted: Any = error.validator_value
    match error.validator:
        case "required" | "additionalProperties":
            return error.message  # which only quotes names
        case "type":
            kinds = wanted if isinstance(wanted, list) else [wanted]
            return f"{value} is not of type {' or '.join(map(show, kinds))}"
        case "enum":
            return f"{value} is not one of {listed(map(show, wanted))}"
        case "const":
            return f"{value} is not {show(wanted)}"
        case "pattern":
            return f"{value} does not match {wanted}"
        case "format":
            return f"{value} is not of the format {wanted}"
        case "minimum":
            return f"{value} is less than {wanted}"
        case "maximum":
            return f"{value} is more than {wanted}"
        case "anyOf" | "oneOf":
            titles = dict.fromkeys(branch.get("title", "") for branch in wanted)
            if all(titles):
                return f"{value} is not as it has to be: {' or '.join(titles)}"
            return f"{value} has none of the forms that are allowed"
    return f"{value} does not fit {show({str(error.validator): wanted})}"
