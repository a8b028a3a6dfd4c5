# SPDX-License-Identifier: Apache-2.0
"""Python's own notation in what a person reads, who may never have seen any Python."""

from __future__ import annotations

import re

#: Bytes, a dictionary or a list of texts, and the three words that JSON spells in another way.
_PYTHON = re.compile(
    r"""(?:^|[\s(\[,=:])b['"]|\{'[^']*':|\['[^']*'[,\]]|\b(?:None|True|False)\b"""
)


def expect_none(text: str) -> None:
    """Raises AssertionError that shows the first place of it."""
    found = _PYTHON.search(text)
    assert not found, f"{found[0]!r} in {text}"
