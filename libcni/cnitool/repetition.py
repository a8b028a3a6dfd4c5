# SPDX-License-Identifier: Apache-2.0
"""Keys that a JSON document gives twice: no parser complains, and only the last one counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from libcni.schema.explain import path


def repeated(data: bytes) -> list[str]:
    """The path of each key that its object gives more than once, in the order of the text.

    data: a document that `libcni.jsontext.loads` takes.
    """
    # Objects as tuples of pairs, which keep what a dict would lose; arrays stay lists.
    return list(dict.fromkeys(_walk(json.loads(data, object_pairs_hook=tuple), ())))


def _walk(value: Any, place: tuple[str | int, ...]) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*place, index))
    elif isinstance(value, tuple):
        seen = set()
        for key, inner in value:
            if key in seen:
                yield path((*place, key))
            seen.add(key)
            yield from _walk(inner, (*place, key))
