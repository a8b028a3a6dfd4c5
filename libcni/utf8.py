# SPDX-License-Identifier: Apache-2.0
"""UTF-8 text from bytes, without Python's codec machinery.

In the core phase of the interpreter a failing `bytes.decode()` looks for `encodings`, which is
not there, and leaves the codec registry unusable for `libcni.boot.full_boot`. The error handler
"replace" is built in, so this decodes with it and looks whether anything was replaced.
"""

from __future__ import annotations

_REPLACEMENT = "\ufffd"


def decode(data: bytes) -> str:
    """The text. Raises ValueError naming the first byte that is not UTF-8."""
    text = data.decode("utf-8", "replace")
    if _REPLACEMENT in text and text.encode() != data:
        offset = _first_difference(text.encode(), data)
        raise ValueError(f"byte {offset} is {data[offset]:#x}")
    return text


def _first_difference(one: bytes, other: bytes) -> int:
    for offset, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return offset
    return min(len(one), len(other))
