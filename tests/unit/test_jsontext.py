# SPDX-License-Identifier: Apache-2.0
"""JSON text: the standard library is the oracle, RFC 8259 and Go the exceptions to it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcni import jsontext
from libcni.types.errors import CniError

#: Every character that has a UTF-8 form.
text = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=25,
)
#: Pieces that make documents, most of them broken.
tokens = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", ":", ",", '"', '"a"', "1", "-", "-0", "1.5", "1e5", "01", "true"]
        + ["false", "null", "nul", " ", "\t", "\n", "\x00", "\x0b", "\u00a0", "\\", '"\\u12"']
        + ['"\\ud800"', "NaN", "Infinity", "-Infinity", "é", "٣", '"\\x"', "//", "'a'", "\ufeff"]
    ),
    max_size=8,
).map("".join)


def refusal(data: bytes) -> CniError:
    with pytest.raises(CniError) as caught:
        jsontext.loads(data)
    assert caught.value.code == 6
    return caught.value


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down (1 is not True, 1 is not 1.0)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(
            key == key2 and same(value, value2) for (key, value), (key2, value2) in pairs
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


# ---- reading


@given(values, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_reads_what_the_standard_library_wrote(value: Any, plain: bool, indent: Any) -> None:
    document = json.dumps(value, ensure_ascii=plain, indent=indent)
    assert same(jsontext.loads(document.encode()), json.loads(document))
    assert same(jsontext.loads(f" \t\r\n{document}\n ".encode()), value)


@given(tokens)
def test_accepts_and_refuses_the_same_text(document: str) -> None:
    def strict(name: str) -> None:
        raise ValueError(name)

    try:
        expected = json.loads(document, parse_constant=strict)
    except ValueError:
        refusal(document.encode())
        return
    mended = json.loads(json.dumps(expected).replace("\\ud800", "\\ufffd"))
    assert same(jsontext.loads(document.encode()), mended)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("form", ["{}", "[1, {}]", '{{"a": {{"b": {}}}}}'])
def test_refuses_what_is_no_number(constant: str, form: str) -> None:
    error = refusal(form.format(constant).encode())
    assert constant in error.details


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400 + ".0"])
def test_refuses_numbers_that_would_be_infinite(number: str) -> None:
    assert number[:60] in refusal(f'{{"a": {number}}}'.encode()).details


def test_tiny_numbers_are_zero() -> None:
    assert same(jsontext.loads(b"[1e-999, -0.0, -0]"), [0.0, -0.0, 0])


@pytest.mark.parametrize("digits", [19, 20, 400, 4300])
def test_integers_of_any_size_are_exact(digits: int) -> None:
    assert jsontext.loads(b"9" * digits) == 10**digits - 1
    assert jsontext.loads(b"-" + b"9" * digits) == 1 - 10**digits


def test_integers_that_would_take_long_are_refused() -> None:
    assert "integer" in refusal(b'{"mtu": ' + b"9" * 500_000 + b"}").details


def test_of_duplicate_keys_the_last_wins() -> None:
    assert jsontext.loads(b'{"a": 1, "b": 2, "a": {"c": 3, "c": 4}}') == {"a": {"c": 4}, "b": 2}


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}"), ('[{"b":[', "]}]")])
def test_depth_is_bounded(pair: tuple[str, str]) -> None:
    levels = pair[0].count("[") + pair[0].count("{")

    def nested(times: int) -> bytes:
        return (pair[0] * times + "1" + pair[1] * times).encode()

    deepest = jsontext.MAX_DEPTH // levels
    assert same(jsontext.loads(nested(deepest)), json.loads(nested(deepest)))
    assert str(jsontext.MAX_DEPTH) in refusal(nested(deepest + 1)).msg
    refusal(nested(200_000))


def test_brackets_count_where_they_nest() -> None:
    flat = json.dumps([[]] * 1000)
    assert jsontext.loads(flat.encode()) == [[]] * 1000
    quoted = json.dumps({"a": "[" * 1000, 'b\\"': "{" * 1000})
    assert jsontext.loads(quoted.encode()) == json.loads(quoted)


@pytest.mark.parametrize("prefix", [b"[" * 199, b'"' + b"[" * 300, b'"\\"' + b"{" * 300, b"]" * 9])
def test_unfinished_documents_are_refused(prefix: bytes) -> None:
    refusal(prefix)


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ('"\\ud800"', "\ufffd"),
        ('"\\uDFFF x"', "\ufffd x"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ude00\\ud83d"', "\ufffd\ufffd"),
        ('"\\ud83d\\ud83d\\ude00"', "\ufffd\U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ('{"\\udc00": ["\\udc00"], "a": 1}', {"\ufffd": ["\ufffd"], "a": 1}),
    ],
)
def test_lone_surrogates_become_the_replacement_character(document: str, value: Any) -> None:
    """Go's encoding/json does so; they would have no form on the way out."""
    found = jsontext.loads(document.encode())
    assert found == value
    assert json.loads(jsontext.dumps(found).encode()) == value


@pytest.mark.parametrize(
    "data",
    [b"\xff", b'{"a": "\xc3"}', b'"\xed\xa0\x80"', b'"\xc0\xaf"', "{}".encode("utf-16")],
)
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    refusal(data)


def test_not_utf8_names_the_byte() -> None:
    assert refusal(b'{"a": "\xff"}').details == "byte 7 is 0xff"
    assert refusal('{"äé": "ü'.encode() + b"\xc3").details == "byte 12 is 0xc3"


@given(st.binary(max_size=8).map(lambda data: b'"' + data + b'"'))
def test_utf8_is_that_of_the_standard_library(data: bytes) -> None:
    try:
        expected = json.loads(data.decode())
    except ValueError:
        refusal(data)
    else:
        assert jsontext.loads(data) == expected or "\\ud" in ascii(data)


@pytest.mark.parametrize("data", [b"", b" \n\t\r"])
def test_emptiness_is_named(data: bytes) -> None:
    assert refusal(data).msg == "network configuration is empty"


def test_errors_name_document_and_place() -> None:
    with pytest.raises(CniError) as caught:
        jsontext.loads(b'{\n "mtu": 1500,\n "bridge" "cni0"}', "the result")
    assert caught.value.msg == "the result is not valid JSON"
    assert "line 3 column 11" in caught.value.details
    assert '"cni0"' in caught.value.details


# ---- writing


@given(values)
def test_compact_text_reads_back(value: Any) -> None:
    written = jsontext.dumps(value)
    assert written == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert same(json.loads(written), value)
    assert same(jsontext.loads(written.encode()), value)


@given(values)
def test_indented_text_is_of_four_spaces(value: Any) -> None:
    """json.dumps(indent=4) has the form of Go's MarshalIndent with four spaces."""
    written = jsontext.dumps_indented(value)
    assert written == json.dumps(value, ensure_ascii=False, indent=4)
    assert same(json.loads(written), value)


def test_indented_text_literally() -> None:
    value: dict[str, Any] = {
        "ips": [{"address": "10.1.2.3/24"}],
        "dns": {},
        "routes": [],
        "ä": None,
    }
    assert jsontext.dumps_indented(value) == (
        '{\n    "ips": [\n        {\n            "address": "10.1.2.3/24"\n        }\n    ],\n'
        '    "dns": {},\n    "routes": [],\n    "ä": null\n}'
    )


@pytest.mark.parametrize("write", [jsontext.dumps, jsontext.dumps_indented])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_never_writes_what_is_no_json(write: Any, value: float) -> None:
    with pytest.raises(ValueError, match=re.escape("not JSON compliant")):
        write({"a": [value]})
