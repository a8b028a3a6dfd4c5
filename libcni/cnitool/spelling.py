# SPDX-License-Identifier: Apache-2.0
"""Keys that nobody reads but that look like one that somebody does.

The specification lets configurations carry unknown keys, so a misspelled one is no fault; it is
what an operator searches for longest, though.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from libcni.skel.plugin import package_of

#: Alike enough: isDefaltGateway and isDefaultGateway are 0.97, subnets and subnet 0.92.
_ALIKE = 0.8


def misspelled(document: dict[str, Any], types: list[str], place: str) -> list[str]:
    """A warning for each key of what plugins of these types would read that resembles a known one.

    document: as on a plugin's stdin. place: its path in the file. Types whose keys are not
    known (foreign plugins) silence everything, as any key may be theirs.
    """
    known = _known_to(types)
    return _within(document, known, place) if known else []


def misspelled_argument(name: str, value: Any, types: list[str]) -> list[str]:
    """As `misspelled`, for a key of CAP_ARGS: what is inside of `value`.

    types: of the plugins that get it.
    """
    read = [keys.get("runtimeConfig") or {} for keys in _known_to(types)]
    return _within(value, [keys[name] for keys in read if keys.get(name)], name)


def _known_to(types: list[str]) -> list[dict[str, Any]]:
    """The keys of plugins of these types; [] if one's are not known."""
    known: list[dict[str, Any]] = []
    for type_ in types:
        try:
            known.append(import_module(f"{package_of(type_)}.validator").KEYS)
        except ImportError:
            return []
    return known


def _within(value: Any, known: list[dict[str, Any]], place: str) -> list[str]:
    if isinstance(value, list):
        return [w for i, one in enumerate(value) for w in _within(one, known, f"{place}[{i}]")]
    if not isinstance(value, dict) or not known:
        return []
    names = {name.lower(): name for keys in known for name in keys}
    found = []
    for key, inner in value.items():
        path = f"{place}.{key}" if place else key
        name = names.get(key.lower())
        if name is None:
            alike = difflib.get_close_matches(key.lower(), names, 1, _ALIKE)
            if alike:
                found.append(f"{path} is not a known key; did you mean {names[alike[0]]}?")
            continue
        inside = [keys[name] for keys in known if keys.get(name)]
        found += _within(inner, inside, path)
    return found
