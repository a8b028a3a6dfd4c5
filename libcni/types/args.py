# SPDX-License-Identifier: Apache-2.0
"""CNI_ARGS: "KEY=value;KEY=value", read with the rules of the reference's LoadArgs."""

from __future__ import annotations

from libcni.types.errors import INVALID_ENVIRONMENT, CniError

_IGNORE_UNKNOWN = "IgnoreUnknown"


def boolean(value: str, name: str) -> bool:
    """1, true, 0 or false in any case. Raises CniError 4."""
    lowered = value.lower()
    if lowered in ("1", "true"):
        return True
    if lowered in ("0", "false"):
        return False
    raise CniError(
        INVALID_ENVIRONMENT,
        f"CNI_ARGS: {name} is {value[:64]!r}",
        "1, true, 0 or false is expected",
    )


def load_args(text: str, known: tuple[str, ...]) -> dict[str, str]:
    """The values of the `known` keys (case-sensitive) that `text` holds; the last one wins.

    Raises CniError 4 for a malformed pair, and for unknown keys unless IgnoreUnknown is true.
    """
    values: dict[str, str] = {}
    if not text:
        return values
    unknown: list[str] = []
    ignore = False
    for pair in text.split(";"):
        parts = pair.split("=")
        if len(parts) != 2:
            raise CniError(
                INVALID_ENVIRONMENT,
                f"CNI_ARGS: ARGS: invalid pair {pair[:64]!r}",
                "each pair has exactly one '='",
            )
        key, value = parts
        if key == _IGNORE_UNKNOWN:
            ignore = boolean(value, key)
        elif key in known:
            values[key] = value
        else:
            unknown.append(pair)
    if unknown and not ignore:
        shown = " ".join(f"{pair[:64]!r}" for pair in unknown[:8])
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_ARGS: ARGS: unknown args [{shown}]",
            f"known are {', '.join((*known, _IGNORE_UNKNOWN))}; IgnoreUnknown=1 allows others",
        )
    return values
