# SPDX-License-Identifier: Apache-2.0
"""What the CNI_* variables may hold, by table and by property."""

from __future__ import annotations

import posix
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcni.skel import env, main, stdin
from libcni.types.errors import CniError

ALL = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
#: Spec 1.1.0 section 2: what each verb may not go without.
REQUIRED = {
    "ADD": ALL,
    "CHECK": ALL,
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}
HOSTILE = {
    "empty": "",
    "traversal": "../../etc/passwd",
    "parent": "..",
    "slash": "a/b",
    "absolute": "/etc/passwd",
    "newline": "a\nb",
    "newline at the end": "a\n",
    "carriage return": "a\r",
    "space": "a b",
    "space first": " a",
    "tab": "a\tb",
    "NUL": "a\0b",
    "colon": "a:b",
    "backslash": "a\\b",
    "shell": "$(id)",
    "semicolon": "a;b",
    "quote": 'a"b',
    "dash first": "-a",
    "dot first": ".a",
    "underscore first": "_a",
    "plus": "a+b",
    "at": "a@b",
    "arabic digits": "a\u0661\u0662",
    "superscript": "a\u00b2",
    "fullwidth digit first": "\uff11a",
    "letter with accent": "é",
    "line separator": "a\u2028b",
    "right to left": "a\u202eb",
    "10 kB": "a" * 10_000,
    "10 kB of colons": ":" * 10_000,
}
GOOD_IDENTIFIERS = ["a", "0", "A", "a-b", "a_b", "a.b", "a..", "0-", "9f" * 32, "a" * 200]
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)


def refusal(code: int, function: Callable[..., object], *arguments: object) -> CniError:
    with pytest.raises(CniError) as caught:
        function(*arguments)
    error = caught.value
    assert error.code == code
    assert error.msg and "\n" not in error.msg
    assert len(error.msg) < 300, "a hostile value must not flood the logs"
    return error


# ---- presence


@pytest.mark.parametrize("command", REQUIRED)
def test_all_that_is_missing_is_reported_together(command: str) -> None:
    nothing = dict.fromkeys((*ALL, "CNI_ARGS"), "")
    if not REQUIRED[command]:
        env.check_required(command, nothing)
        return
    error = refusal(4, env.check_required, command, nothing)
    assert error.msg == f"required env variables [{','.join(REQUIRED[command])}] missing"


@pytest.mark.parametrize("command", REQUIRED)
@pytest.mark.parametrize("name", ALL)
def test_each_is_missed_alone(command: str, name: str) -> None:
    values = dict.fromkeys((*ALL, "CNI_ARGS"), "x") | {name: ""}
    if name not in REQUIRED[command]:
        env.check_required(command, values)
        return
    error = refusal(4, env.check_required, command, values)
    assert error.msg == f"required env variables [{name}] missing"


def test_unset_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "environ", {b"CNI_IFNAME": "éth0".encode()})
    assert env.variable("CNI_IFNAME") == "éth0"
    assert env.variable("CNI_NETNS") == ""


@pytest.mark.parametrize("value", [b"\xff", b"eth\xc3", b"\xed\xa0\x80", b"\xc0\xaf"])
def test_what_is_not_utf8_is_refused(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    monkeypatch.setattr(posix, "environ", {b"CNI_IFNAME": value})
    assert "CNI_IFNAME" in refusal(4, env.variable, "CNI_IFNAME").msg


@pytest.mark.parametrize("name", [*ALL, "CNI_ARGS"])
def test_every_variable_is_read_as_utf8(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environ = {variable.encode(): b"x" for variable in ALL} | {name.encode(): b"\xff"}
    monkeypatch.setattr(posix, "environ", environ)
    assert name in refusal(4, main._environment, "ADD").msg


# ---- CNI_COMMAND


@pytest.mark.parametrize("command", REQUIRED)
def test_known_commands(command: str) -> None:
    env.check_command(command)


@pytest.mark.parametrize("command", ["add", "ADD ", "ADDDEL", "ADD\n", "A" * 10_000, "\u0130"])
def test_unknown_commands(command: str) -> None:
    error = refusal(4, env.check_command, command)
    assert error.msg.startswith("unknown CNI_COMMAND: ")
    assert "ADD, DEL, CHECK" in error.details


# ---- CNI_CONTAINERID and the network's name


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_identifiers(value: str) -> None:
    assert "CNI_CONTAINERID" in refusal(4, env.check_container_id, value).msg
    assert "network name" in refusal(7, env.check_network_name, value).msg


@pytest.mark.parametrize("value", GOOD_IDENTIFIERS)
def test_good_identifiers(value: str) -> None:
    env.check_container_id(value)
    assert env.check_network_name(value) == value


@pytest.mark.parametrize("value", [None, 7, True, ["a"], {"a": 1}, 1.5, b"a"])
def test_a_network_name_is_text(value: object) -> None:
    refusal(7, env.check_network_name, value)


def test_identifiers_have_a_length() -> None:
    assert "201" in refusal(4, env.check_container_id, "a" * 201).msg
    assert "201" in refusal(7, env.check_network_name, "a" * 201).msg


@given(st.text(max_size=8) | st.text("aZ09_.-/\n", max_size=8))
def test_identifiers_are_those_of_the_reference(value: str) -> None:
    assert env.is_identifier(value) == bool(IDENTIFIER.fullmatch(value))


# ---- CNI_IFNAME


@pytest.mark.parametrize(
    "value",
    ["a" * 16, "é" * 8, "\u0661" * 8, ".", "..", "a/b", "a:1", "a b", "a\n", "a\t", "a\0b", "/"]
    + ["a\u00a0b", "a\u2003b", "../../x", "eth%d", "%", "à", "a" * 10_000, "x\x0b", "x\x85"],
)
def test_hostile_interface_names(value: str) -> None:
    error = refusal(4, env.check_ifname, value)
    assert error.msg.startswith("invalid interface name: CNI_IFNAME is ")
    assert error.details


@pytest.mark.parametrize(
    "value", ["eth0", "a" * 15, "é" * 7, "eth0.100", "-", "...", "a@b", "0", "net-1_x", "a\\b"]
)
def test_good_interface_names(value: str) -> None:
    env.check_ifname(value)


@given(st.text(max_size=16))
def test_interface_names_as_the_kernel_takes_them(value: str) -> None:
    """net/core/dev.c dev_valid_name, which counts bytes and knows Latin-1 white space."""
    if not value:
        return
    data = value.encode()
    spaces = set(b" \t\n\v\f\r\xa0")
    valid = len(data) < 16 and value not in (".", "..") and not set(data) & (spaces | set(b"/:\0"))
    try:
        env.check_ifname(value)
    except CniError:
        # Stricter: other white space, as the reference is, and patterns.
        assert not valid or "%" in value or any(c.isspace() for c in value)
    else:
        assert valid


# ---- messages and the time-out


def test_long_values_are_shortened() -> None:
    assert env.shorten("a" * 64) == "a" * 64
    assert len(env.shorten("a" * 10_000)) < 90
    assert "10000" in env.shorten("a" * 10_000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"", 30), (b"1", 1), (b"90", 90), (b"x", 30), (b"-1", 30), (b"1.5", 30), (b"9" * 20, 86400)]
    + [("\u0661".encode(), 30)],
)
def test_the_time_out_for_stdin(
    monkeypatch: pytest.MonkeyPatch, text: bytes, seconds: float
) -> None:
    monkeypatch.setattr(posix, "environ", {b"CNI_STDIN_TIMEOUT": text})
    assert stdin._timeout() == seconds
