# SPDX-License-Identifier: Apache-2.0
"""Versions of the protocol: which there are, how they compare, which one is spoken.

Source: CNI spec 1.1.0 section 1 and its reference implementation, whose parser takes
"MAJOR[.MINOR[.PATCH]]" and matches a request's version exactly, never by range.
"""

from __future__ import annotations

from libcni.types.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CniError

#: Every version of the protocol, ascending.
SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = "1.1.0"

#: The version from which on a verb may be called.
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def parse(version: str) -> tuple[int, int, int]:
    """The numbers of a version: "" is 0.1.0, "1" is 1.0.0. Raises CniError 6."""
    if not version:
        return 0, 1, 0
    parts = version.split(".")
    numbers = [int(p) for p in parts if p.isascii() and p.isdigit() and len(p) < 10]
    if len(parts) > 3 or len(numbers) != len(parts):
        raise CniError(
            DECODING_FAILURE,
            f"invalid CNI version {version[:64]!r}",
            "one to three decimal numbers parted by dots are expected",
        )
    numbers += (0, 0)
    return numbers[0], numbers[1], numbers[2]


def compare(one: str, other: str) -> int:
    """-1, 0 or 1 as `one` is older than, equal to or newer than `other`. Raises CniError 6."""
    a, b = parse(one), parse(other)
    return (a > b) - (a < b)


def greater_or_equal(one: str, other: str) -> bool:
    """True when `one` is `other` or newer. Raises CniError 6."""
    return parse(one) >= parse(other)


def select(version: str, versions: list[str] | tuple[str, ...]) -> str:
    """The version to speak with a list that names `cniVersion` and `cniVersions`.

    The highest of both that we know; `version` itself when none is. An empty `version` takes no
    part. Raises CniError 6 for a malformed entry.
    """
    newest = parse(NEWEST)
    best = version
    found: tuple[int, int, int] | None = None
    for candidate in (*versions, version) if version else versions:
        numbers = parse(candidate)
        if numbers <= newest and (found is None or numbers > found):
            best, found = candidate, numbers
    return best


def check_negotiated(version: str, supported: tuple[str, ...]) -> None:
    """Raise CniError 1 unless the configuration's version is one of the plugin's, exactly."""
    if version not in supported:
        known = " ".join(f'"{v}"' for v in supported)
        raise CniError(
            INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f'config is "{version[:64]}", plugin supports [{known}]',
        )


def check_verb(command: str, version: str) -> None:
    """Raise CniError 1 when the verb does not exist in the configuration's version."""
    since = _SINCE.get(command)
    if since is not None and parse(version) < parse(since):
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"config version does not allow {command}",
            f'config is "{version}", {command} exists since {since}',
        )
