# SPDX-License-Identifier: Apache-2.0
"""Keys as Go's encoding/json reads them.

Go matches a key to a field without regard to case, and runtimes written in Go rely on it:
containerd sends `HostPort` and `Subnet`. null leaves a field unset.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    #: Known names of an object's keys, each with those of the objects inside (also when these
    #: are in a list, or in lists of lists), or None where nothing inside is known.
    Keys: TypeAlias = "dict[str, Keys | None]"


def canonical(document: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """`document` with its known keys in their own spelling, at every level of `keys`.

    Of several spellings of one key the last in the document wins. Known keys with null are
    left out, whole floats become ints (draft-07 calls 1.0 an integer), unknown keys and their
    values stay as they are. Values without known keys inside are shared, not copied.
    """
    result: dict[str, Any] = {}
    for key, value in document.items():
        name = key if key in keys else _known(key, keys)
        if name is None:
            result[key] = value
        elif value is not None:
            inside = keys[name]
            kind = type(value)
            if inside is not None and (kind is dict or kind is list):
                value = canonical(value, inside) if kind is dict else _each(value, inside)
            elif kind is float and value.is_integer():
                value = int(value)
            result[name] = value
    return result


def _each(values: list[Any], keys: Keys) -> list[Any]:
    return [
        canonical(value, keys)
        if type(value) is dict
        else _each(value, keys)
        if type(value) is list
        else value
        for value in values
    ]


def _known(key: str, keys: Keys) -> str | None:
    """The known name that Go would take `key` for: simple folding, long s and Kelvin included."""
    folded = key.lower()
    if not folded.isascii():
        folded = folded.replace("\u017f", "s")
    for name in keys:
        if name.lower() == folded:
            return name
    return None
