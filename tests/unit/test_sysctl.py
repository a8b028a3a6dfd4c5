# SPDX-License-Identifier: Apache-2.0
"""Sysctl names: slashes part them, dots belong to interfaces, nothing leaves /proc/sys/net."""

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcni import sysctl
from libcni.types.errors import CniError

ESCAPES = [
    *("", "/", "..", ".", "../kernel/core_pattern", "ipv4/../../kernel/core_pattern"),
    *("ipv4/conf/../../../kernel/core_pattern", "/proc/sys/kernel/core_pattern", "/etc/passwd"),
    *("ipv4//ip_forward", "ipv4/./ip_forward", "ipv4/ip_forward/", "ipv4/ip_forward/.."),
    *("ipv4/ip_forward\0", "ipv4/ip_forward\0/../../../etc/passwd", "ipv4/.."),
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("function", ["path_of", "read", "write", "write_if_differs"])
def test_names_that_would_escape_are_refused(function: str, name: str) -> None:
    arguments = (name,) if function in ("path_of", "read") else (name, "1")
    with pytest.raises(CniError) as caught:
        getattr(sysctl, function)(*arguments)
    assert caught.value.code == 102
    assert repr(name) in caught.value.msg


@pytest.mark.parametrize("name", ESCAPES)
def test_trying_to_escape_fails_quietly(name: str) -> None:
    assert sysctl.try_write(name, "1") is False


@given(
    st.text("ab./\0", max_size=12) | st.lists(st.sampled_from(["..", ".", "a", ""])).map("/".join)
)
def test_no_name_leaves_the_root(name: str) -> None:
    try:
        path = sysctl.path_of(name)
    except CniError:
        return
    assert os.path.normpath(path) == path
    assert path.startswith("/proc/sys/net/")


@pytest.mark.parametrize("interface", ["eth0.100", "a..b", "...", "eth0", "é"])
def test_interface_names_may_have_dots(interface: str) -> None:
    name = f"ipv6/conf/{interface}/accept_ra"
    assert sysctl.path_of(name) == f"/proc/sys/net/ipv6/conf/{interface}/accept_ra"


def test_reads_without_the_newline() -> None:
    assert sysctl.read("ipv4/ip_default_ttl") == str(
        int(pathlib.Path("/proc/sys/net/ipv4/ip_default_ttl").read_text())
    )


def test_what_is_absent() -> None:
    with pytest.raises(OSError):
        sysctl.read("ipv4/conf/nonexistent/forwarding")
    with pytest.raises(CniError, match=r"cannot set sysctl net/ipv4/nonexistent to 7: No such"):
        sysctl.write("ipv4/nonexistent", "7")
    assert sysctl.try_write("ipv4/nonexistent", "7") is False


@pytest.mark.root
def test_writes_and_tells_whether_it_did() -> None:
    """In the network namespace that the test process has for itself."""
    before = sysctl.read("ipv4/ip_default_ttl")
    try:
        assert sysctl.write_if_differs("ipv4/ip_default_ttl", "77") is True
        assert sysctl.write_if_differs("ipv4/ip_default_ttl", "77") is False
        assert sysctl.read("ipv4/ip_default_ttl") == "77"
        with pytest.raises(CniError, match="cannot set sysctl net/ipv4/ip_default_ttl to word"):
            sysctl.write("ipv4/ip_default_ttl", "word")
    finally:
        sysctl.write("ipv4/ip_default_ttl", before)


def test_a_read_only_sysctl_with_the_right_value_is_good_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str, value: str) -> None:
        raise CniError(102, "read-only")

    monkeypatch.setattr(sysctl, "write", refuse)
    value = sysctl.read("ipv4/ip_default_ttl")
    assert sysctl.write_if_differs("ipv4/ip_default_ttl", value) is False
    with pytest.raises(CniError, match="read-only"):
        sysctl.write_if_differs("ipv4/ip_default_ttl", "1")
    assert sysctl.try_write("ipv4/ip_default_ttl", "1") is False
