# SPDX-License-Identifier: Apache-2.0
"""Each predicate decides as its pattern does, and as netaddr and Go's rules do."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libcni.schema import patterns, predicates

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAIRS = sorted(patterns.PREDICATES.items(), key=lambda pair: pair[1].__name__)

#: A loaded machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: Pieces of addresses, and what could be taken for them by a careless reader.
PIECES = st.sampled_from(
    [*"0123456789abcdefABCDEFgG:./-% ", "::", "255", "256", "25", "00", "ffff", "10000"]
    + ["10.1.2.3", "2001:db8::1", "/24", "/32", "/33", "/128", "/129", "/08", "eth0", ".."]
    + [
        "\n",
        "\r",
        "\t",
        "\0",
        "\x7f",
        "\x1f",
        "\u00a0",
        "\u0663",
        "\uff12",
        "\u00b2",
        "é",
        "\ud800",
    ]
)
TEXT = st.lists(PIECES, max_size=12).map("".join)


@pytest.mark.parametrize(("pattern", "predicate"), PAIRS, ids=lambda p: getattr(p, "__name__", ""))
def test_predicate_equals_pattern(pattern: str, predicate: Callable[[object], bool]) -> None:
    compiled = re.compile(pattern)

    @PATIENT
    @given(st.one_of(TEXT, st.text(max_size=40), st.from_regex(compiled)))
    @example("10.1.2.3\n")
    @example("1:2:3:4:5:6:7::")
    @example("::2:3:4:5:6:7:8")
    @example("1::3:4:5:6:7:8")
    @example("::ffff:1.2.3.4/128")
    @example("1:2:3:4:5:6:7:1.2.3.4")
    @example("::1.2.3.04")
    @example("0a:58:0a:00:00:01\n")
    @example("")
    def check(text: str) -> None:
        assert predicate(text) == (compiled.fullmatch(text) is not None)

    check()


@PATIENT
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.text())))
def test_predicates_refuse_what_is_no_string(value: object) -> None:
    for predicate in patterns.PREDICATES.values():
        assert not predicate(value)


@PATIENT
@given(st.ip_addresses(), st.integers(0, 128))
def test_addresses_and_prefixes_are_recognised(address: object, length: int) -> None:
    text = str(address)
    assert predicates.address(text)
    assert not predicates.prefix(text)
    assert predicates.prefix(f"{text}/{length}") == (length <= (128 if ":" in text else 32))


def test_schemas_use_known_patterns_only() -> None:
    texts = {
        value
        for name, value in vars(patterns).items()
        if name[0] != "_" and name.isupper() and isinstance(value, str)
    }
    definitions = json.loads((ROOT / "spec/schemas/definitions.json").read_text())["definitions"]
    used = {schema["pattern"] for schema in definitions.values() if "pattern" in schema}
    assert used == texts
    for path in ROOT.glob("plugins/*/schema.json"):
        assert '"pattern"' not in path.read_text(), f"{path}: patterns belong in definitions.json"


@PATIENT
@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text()))
def test_integer_is_that_of_jsonschema(value: object) -> None:
    import jsonschema

    expected = jsonschema.Draft7Validator({"type": "integer"}).is_valid(value)
    assert predicates.integer(value) == expected
