# SPDX-License-Identifier: Apache-2.0
"""Addresses and prefixes against netaddr and ipaddress."""

from __future__ import annotations

import ipaddress
from socket import AF_INET, AF_INET6

import netaddr
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libcni import inet
from libcni.inet import Prefix

MAPPED = b"\0" * 10 + b"\xff\xff"
v4 = st.binary(min_size=4, max_size=4)
#: Uniform bytes hardly ever have runs of zeros, which are what makes the text of IPv6.
v6 = st.binary(min_size=16, max_size=16) | st.lists(
    st.sampled_from([0, 0, 0, 1, 0x10, 0xFFFF]), min_size=8, max_size=8
).map(lambda groups: b"".join(group.to_bytes(2, "big") for group in groups))
plain_v6 = v6.filter(lambda packed: not packed.startswith(MAPPED))
prefixes = st.one_of(
    st.builds(Prefix, v4, st.integers(0, 32)), st.builds(Prefix, plain_v6, st.integers(0, 128))
)


def network(prefix: Prefix) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((prefix.packed, prefix.length), strict=False)


# ---- addresses


@given(v4 | plain_v6)
@example(b"\0" * 16)
@example(b"\0" * 15 + b"\1")
@example(b"\0" * 12 + b"\1\2\3\4")
@example(b"\0" * 12 + b"\0\0\3\4")
@example(bytes.fromhex("20010db8000000010001000100010001"))
@example(bytes.fromhex("20010db8000000000001000000000001"))
@example(bytes.fromhex("0064ff9b0000000000000000c0000221"))
def test_text_is_that_of_rfc_5952(packed: bytes) -> None:
    written = inet.ntop(packed)
    assert written == str(ipaddress.ip_address(packed))
    # Like Go, and unlike the C library under netaddr, never the deprecated "::1.2.3.4".
    assert int(netaddr.IPAddress(written)) == int.from_bytes(packed, "big")
    assert inet.pton(written) == packed


@given(v4)
def test_mapped_addresses_are_ipv4(packed: bytes) -> None:
    dotted = str(ipaddress.IPv4Address(packed))
    for form in (f"::ffff:{dotted}", str(ipaddress.IPv6Address(MAPPED + packed)).upper()):
        assert inet.pton(form) == packed
    assert inet.ntop(MAPPED + packed) == dotted
    assert str(netaddr.IPAddress(f"::ffff:{dotted}").ipv4()) == dotted


@given(st.text("0123456789abcdefABCDEF:./ %x", max_size=20))
def test_reads_what_ipaddress_reads(text: str) -> None:
    try:
        expected = ipaddress.ip_address(text)
    except ValueError:
        expected = None
    if expected is None or "%" in text:
        with pytest.raises(ValueError, match="invalid IP address"):
            inet.pton(text)
        return
    packed = expected.packed
    assert inet.pton(text) == (packed[12:] if packed.startswith(MAPPED) else packed)


@given(st.lists(st.text("0123456789", min_size=1, max_size=4), min_size=3, max_size=5))
def test_reads_the_dotted_form_as_ipaddress(parts: list[str]) -> None:
    text = ".".join(parts)
    try:
        expected = ipaddress.IPv4Address(text).packed
    except ValueError:
        with pytest.raises(ValueError, match="invalid IP address"):
            inet.pton(text)
    else:
        assert inet.pton(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "010.0.0.1", "10.0.0.01", "1.2.3.4 ", " 1.2.3.4"]
    + ["0x7f.1.1.1", "1.2.3.4\n", "1.2.3.4\0", "\u0661.2.3.4", "\udc80", "localhost", "-1.2.3.4"]
    + [":", ":::", "1::2::3", "fe80::1%eth0", "[::1]", "::ffff:1.2.3", "::ffff:1.2.3.04"]
    + ["12345::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "::g", "1.2.3.4::", "::1/64"]
    + ["10.1.1.1/24"],
)  # fmt: skip
def test_refuses_other_text_by_naming_it(text: str) -> None:
    with pytest.raises(ValueError, match="invalid IP address") as caught:
        inet.pton(text)
    assert repr(text) in str(caught.value)


def test_family() -> None:
    assert inet.family(inet.pton("10.0.0.1")) == AF_INET
    assert inet.family(inet.pton("::ffff:10.0.0.1")) == AF_INET
    assert inet.family(inet.pton("fd00::1")) == AF_INET6
    assert Prefix.parse("10.0.0.1/8").family == AF_INET
    assert Prefix.parse("fd00::1/8").family == AF_INET6


@given(v4 | v6)
@example(b"\x7f\0\0\1")
@example(b"\0" * 15 + b"\1")
def test_loopback(packed: bytes) -> None:
    if not packed.startswith(MAPPED):
        assert inet.is_loopback(packed) == ipaddress.ip_address(packed).is_loopback


# ---- prefixes


@given(prefixes)
def test_prefix_text_keeps_the_host_bits(prefix: Prefix) -> None:
    written = prefix.text()
    assert written == str(ipaddress.ip_interface((prefix.packed, prefix.length)))
    again = Prefix.parse(written)
    assert again == prefix and hash(again) == hash(prefix)
    assert (again.packed, again.length, again.bits) == (
        prefix.packed,
        prefix.length,
        len(prefix.packed) * 8,
    )


@given(prefixes)
def test_network_and_broadcast(prefix: Prefix) -> None:
    expected = network(prefix)
    assert prefix.network().packed == expected.network_address.packed
    assert prefix.network().length == prefix.length
    assert prefix.network().network() == prefix.network()
    assert prefix.broadcast() == expected.broadcast_address.packed
    theirs = netaddr.IPNetwork(prefix.text())
    assert prefix.network().packed == int(theirs.first).to_bytes(len(prefix.packed), "big")
    assert prefix.broadcast() == int(theirs.last).to_bytes(len(prefix.packed), "big")


@given(prefixes, v4 | plain_v6, st.integers(0, 127))
def test_contains(prefix: Prefix, other: bytes, flipped: int) -> None:
    bits = prefix.bits
    near = (int.from_bytes(prefix.packed, "big") ^ (1 << flipped % bits)).to_bytes(
        bits // 8, "big"
    )
    expected = network(prefix)
    theirs = netaddr.IPNetwork(prefix.text())
    for packed in (other, near, prefix.packed, prefix.broadcast()):
        address = ipaddress.ip_address(packed)
        inside = address.version == expected.version and address in expected
        assert prefix.contains(packed) == inside
        assert (netaddr.IPAddress(str(address)) in theirs) == inside


@given(v4, st.integers(0, 128))
def test_mapped_prefixes_count_bits_in_the_ipv6_form(packed: bytes, length: int) -> None:
    text = f"::ffff:{ipaddress.IPv4Address(packed)}/{length}"
    if length < 96:
        with pytest.raises(ValueError, match="invalid CIDR address"):
            Prefix.parse(text)
    else:
        assert Prefix.parse(text) == Prefix(packed, length - 96)


@pytest.mark.parametrize(
    "text",
    ["", "/", "10.0.0.0", "10.0.0.0/", "/24", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/024"]
    + ["10.0.0.0/00", "10.0.0.0/24/8", "10.0.0.0/255.255.255.0", "10.0.0.0/+8", "10.0.0.0/ 8"]
    + ["10.0.0.0/8 ", "10.0.0.0/8\n", "10.0.0.0/\u0662", "10.0.0.0/\u00b2", "fd00::/129"]
    + ["fd00::/1280", "fd00::", "10.0.0/8", "fe80::1%eth0/64", "10.0.0.0/1_0", "10.0.0.0/8\0"],
)
def test_refuses_other_prefixes_by_naming_them(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid (CIDR|IP) address") as caught:
        Prefix.parse(text)
    assert repr(text.partition("/")[0])[:-1] in str(caught.value)


def test_prefixes_of_different_length_or_family_differ() -> None:
    assert Prefix.parse("0.0.0.0/0") != Prefix.parse("::/0")
    assert Prefix.parse("10.0.0.0/8") != Prefix.parse("10.0.0.0/9")
    assert Prefix.parse("10.0.0.0/8") != "10.0.0.0/8"
    assert repr(Prefix.parse("10.0.0.1/8")) == "Prefix(10.0.0.1/8)"
