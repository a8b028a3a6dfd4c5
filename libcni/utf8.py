# SPDX-License-Identifier: Apache-2.0
"""UTF-8 text from bytes, without Python's codec machinery.

In the core phase of the interpreter a failing `bytes.decode()` looks for `encodings`, which is
not there, and leaves the codec registry unusable for `libcni.boot.full_boot`. The error handler
"replace" is built in, so this decodes with it and looks whether anything was replaced.
"""

from __future__ import annotations

_REPLACEMENT = "\ufffd"
_REPLACEMENT_BYTES = b"\xef\xbf\xbd"


def decode(data: bytes) -> str:
    """The text. Raises ValueError naming the first byte that is not UTF-8."""
    text = data.decode("utf-8", "replace")
    if _REPLACEMENT in text and text.encode() != data:
        offset = 0
        for part in text.split(_REPLACEMENT):
            offset += len(part.encode())
            if data[offset : offset + 3] != _REPLACEMENT_BYTES:
                raise ValueError(f"byte {offset} is {data[offset]:#x}")
            offset += 3
    return text
