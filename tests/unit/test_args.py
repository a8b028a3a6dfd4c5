# SPDX-License-Identifier: Apache-2.0
"""CNI_ARGS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcni.types.args import load_args
from libcni.types.errors import CniError

KUBERNETES = (
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;"
    "K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=1-2-3"
)


def test_known_keys() -> None:
    assert load_args("MAC=0a:58:0a:00:00:01;IP=10.0.0.2", ("MAC", "IP")) == {
        "MAC": "0a:58:0a:00:00:01",
        "IP": "10.0.0.2",
    }
    assert load_args("", ("MAC",)) == {}
    assert load_args("MAC=1;MAC=2", ("MAC",)) == {"MAC": "2"}
    assert load_args("MAC=", ("MAC",)) == {"MAC": ""}


def test_what_kubernetes_sends_is_ignored() -> None:
    assert load_args(KUBERNETES, ("MAC",)) == {}
    assert load_args(KUBERNETES + ";MAC=a", ("MAC",)) == {"MAC": "a"}


@pytest.mark.parametrize("value", ["1", "true", "True", "TRUE"])
def test_ignore_unknown(value: str) -> None:
    assert load_args(f"X=1;IgnoreUnknown={value}", ()) == {}


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("X=1", "X=1"),
        ("X=1;IgnoreUnknown=0", "X=1"),
        ("X=1;IgnoreUnknown=False", "X=1"),
        ("mac=1", "mac=1"),
        ("ignoreunknown=1", "ignoreunknown=1"),
        ("IgnoreUnknown=yes", "yes"),
        ("IgnoreUnknown=", "IgnoreUnknown"),
        ("MAC", "invalid pair 'MAC'"),
        ("MAC=a=b", "invalid pair 'MAC=a=b'"),
        ("MAC=a;", "invalid pair ''"),
        (";", "invalid pair"),
        ("X=a\nb", r"X=a\\nb"),
    ],
)
def test_refused(text: str, culprit: str) -> None:
    with pytest.raises(CniError, match=culprit) as caught:
        load_args(text, ("MAC",))
    assert caught.value.code == 4
    assert "\n" not in caught.value.msg
    assert "CNI_ARGS" in caught.value.msg


@given(st.text())
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        values = load_args(text, ("MAC",))
    except CniError as error:
        assert error.code == 4
        assert len(error.msg) < 1500
    else:
        assert set(values) <= {"MAC"}
