# SPDX-License-Identifier: Apache-2.0
"""Versions: parsing, order, selection, negotiation."""

from __future__ import annotations

import pytest

from libcni import version
from libcni.types.errors import CniError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", (0, 1, 0)), ("1", (1, 0, 0)), ("1.1", (1, 1, 0)), ("0.3.1", (0, 3, 1)),
     ("10.20.30", (10, 20, 30))],
)  # fmt: skip
def test_parse(text: str, numbers: tuple[int, int, int]) -> None:
    assert version.parse(text) == numbers


@pytest.mark.parametrize(
    "text", ["a", "1.x", "1.0.0.0", "1.", ".1", "1..0", "-1", "+1", " 1", "1\n", "1.0.0-rc1",
             "\u0661.0.0", "\u00b2", "1" * 5000, "v1"]
)  # fmt: skip
def test_parse_refuses(text: str) -> None:
    with pytest.raises(CniError) as caught:
        version.parse(text)
    assert caught.value.code == 6
    assert len(caught.value.msg) < 200


def test_order() -> None:
    assert list(version.SUPPORTED) == sorted(version.SUPPORTED, key=version.parse)
    assert version.SUPPORTED[-1] == version.NEWEST
    assert version.compare("0.3.1", "0.4.0") == -1
    assert version.compare("1.0", "1.0.0") == 0
    assert version.compare("0.10.0", "0.9.0") == 1
    assert version.greater_or_equal("1.0.0", "0.4.0")
    assert not version.greater_or_equal("", "0.2.0")


@pytest.mark.parametrize(
    ("one", "several", "chosen"),
    [
        ("0.4.0", [], "0.4.0"),
        ("0.4.0", ["1.0.0", "0.3.1"], "1.0.0"),
        ("1.0.0", ["0.3.1"], "1.0.0"),
        ("1.0.0", ["9.0.0"], "1.0.0"),
        ("9.0.0", ["1.0.0"], "1.0.0"),
        ("9.0.0", ["9.1.0"], "9.0.0"),
        ("", ["0.2.0", "1.1.0"], "1.1.0"),
        ("", [], ""),
    ],
)
def test_select(one: str, several: list[str], chosen: str) -> None:
    assert version.select(one, several) == chosen


def test_select_refuses_a_malformed_entry() -> None:
    with pytest.raises(CniError, match="banana"):
        version.select("1.0.0", ["banana"])


def test_negotiation_is_by_the_exact_string() -> None:
    version.check_negotiated("0.3.1", version.SUPPORTED)
    for refused in ("0.3", "0.3.2", "1.2.0", "", "1.0.0 "):
        with pytest.raises(CniError) as caught:
            version.check_negotiated(refused, ("0.3.1", "1.0.0"))
        assert caught.value.code == 1
        assert caught.value.msg == "incompatible CNI versions"
        assert caught.value.details == (
            f'config is "{refused}", plugin supports ["0.3.1" "1.0.0"]'
        )


@pytest.mark.parametrize(
    ("verb", "since"), [("ADD", "0.1.0"), ("DEL", "0.1.0"), ("CHECK", "0.4.0"),
                        ("GC", "1.1.0"), ("STATUS", "1.1.0")]
)  # fmt: skip
def test_verbs_by_version(verb: str, since: str) -> None:
    for candidate in version.SUPPORTED:
        if version.greater_or_equal(candidate, since):
            version.check_verb(verb, candidate)
        else:
            with pytest.raises(CniError, match=f"does not allow {verb}") as caught:
                version.check_verb(verb, candidate)
            assert caught.value.code == 1
