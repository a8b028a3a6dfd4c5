# SPDX-License-Identifier: Apache-2.0
"""UTF-8 without codecs: against Python's own decoder."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libcni.utf8 import decode

_PIECES = [
    b"a",
    b"\xc3\xa9",
    b"\xef\xbf\xbd",
    b"\xef",
    b"\xef\xbf",
    b"\xff",
    b"\xe2\x82",
    b"\xf0\x9f",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=8).map(b"".join) | st.binary(max_size=40))
@example(b"\xef")
@example(b"\xef\xbf")
@example(b"\xef\xbf\xbd\xefA")
def test_same_as_python(data: bytes) -> None:
    try:
        expected = data.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(ValueError) as caught:
            decode(data)
        assert str(caught.value) == f"byte {error.start} is {data[error.start]:#x}"
    else:
        assert decode(data) == expected
