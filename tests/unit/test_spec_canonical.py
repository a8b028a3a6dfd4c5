# SPDX-License-Identifier: Apache-2.0
"""Keys are matched as Go's encoding/json matches them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libcni.schema.canonical import canonical

if TYPE_CHECKING:
    from libcni.schema.canonical import Keys

#: A loaded machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEYS: Keys = {
    "name": None,
    "isGateway": None,
    "mtu": None,
    "runtimeConfig": {"ipRanges": {"subnet": None, "rangeStart": None}},
    "ask": None,
}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"name": "a"}, {"name": "a"}),
        ({"Name": "a", "ISGATEWAY": True}, {"name": "a", "isGateway": True}),
        ({"other": None, "Other": 1}, {"other": None, "Other": 1}),
        ({"mtu": None}, {}),
        ({"MTU": None, "name": "a"}, {"name": "a"}),
        ({"mtu": 1, "MTU": 2}, {"mtu": 2}),
        ({"MTU": 2, "mtu": 1}, {"mtu": 1}),
        ({"mtu": 1, "MTU": None}, {"mtu": 1}),
        ({"mtu": 1500.0}, {"mtu": 1500}),
        ({"mtu": 1500.5}, {"mtu": 1500.5}),
        ({"other": 1500.0}, {"other": 1500.0}),
        (
            {"RuntimeConfig": {"IPRanges": [[{"Subnet": "a", "RangeStart": ""}, None]]}},
            {"runtimeConfig": {"ipRanges": [[{"subnet": "a", "rangeStart": ""}, None]]}},
        ),
        ({"runtimeConfig": {"ipRanges": None, "x": {"Subnet": 1}}}, None),
        ({"runtimeConfig": "text"}, {"runtimeConfig": "text"}),
        ({"A\u017f\u212a": 1}, {"ask": 1}),
        ({"\u0131": 1, "mtü": 2}, {"\u0131": 1, "mtü": 2}),
    ],
)
def test_canonical(document: dict[str, Any], expected: dict[str, Any] | None) -> None:
    if expected is None:
        expected = {"runtimeConfig": {"x": {"Subnet": 1}}}
    result = canonical(document, KEYS)
    assert result == expected
    assert type(result.get("mtu")) is type(expected.get("mtu"))


def test_argument_is_left_alone() -> None:
    document = {"runtimeConfig": {"IPRanges": [[{"Subnet": "a"}]]}, "MTU": None}
    copy = {"runtimeConfig": {"IPRanges": [[{"Subnet": "a"}]]}, "MTU": None}
    canonical(document, KEYS)
    assert document == copy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["mtu", "Mtu", "runtimeConfig", "ipRanges", "IPRANGES", "subnet", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@PATIENT
@given(st.dictionaries(st.sampled_from(["mtu", "MTU", "runtimeconfig", "x"]), JSON))
def test_idempotent(document: dict[str, Any]) -> None:
    once = canonical(document, KEYS)
    assert canonical(once, KEYS) == once
