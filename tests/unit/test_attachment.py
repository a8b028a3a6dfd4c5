# SPDX-License-Identifier: Apache-2.0
"""Names that are derived from an attachment never mean another one."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from libcni.attachment import Attachment
from libcni.skel import env
from libcni.types.errors import CniError

IDENTIFIER = "[A-Za-z0-9][A-Za-z0-9_.-]"
identifiers = st.from_regex(IDENTIFIER + "{0,12}", fullmatch=True) | st.from_regex(
    IDENTIFIER + "{90,199}", fullmatch=True
)


def is_ifname(text: str) -> bool:
    try:
        env.check_ifname(text)
    except CniError:
        return False
    return bool(text)


#: As the plugin kit lets them through: any Unicode but colons, slashes and white space.
ifnames = (st.from_regex("[a-z]{1,4}[0-9]{0,3}", fullmatch=True) | st.text(max_size=15)).filter(
    lambda text: text.isprintable() and is_ifname(text)
)
triples = st.tuples(identifiers, identifiers, ifnames)


def limit(length: int) -> str:
    return "x" * length


@given(triples, triples)
def test_different_attachments_differ_in_every_name(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assume(one != other)
    _assert_apart(one, other)


@given(triples, st.integers(0, 2), st.integers(1, 14))
def test_no_part_can_pose_as_its_neighbour(
    one: tuple[str, str, str], part: int, moved: int
) -> None:
    """Characters moved from one part to the next, which plain concatenation would not see."""
    parts = list(one)
    head, tail = parts[part][:-moved], parts[part][-moved:]
    if part < 2:
        parts[part], parts[part + 1] = head, tail + parts[part + 1]
    else:
        parts[1], parts[2] = parts[1] + tail, head
    network, container, ifname = parts
    assume(env.is_identifier(network) and env.is_identifier(container) and is_ifname(ifname))
    _assert_apart(one, (network, container, ifname))


def _assert_apart(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    a, b = Attachment(*one), Attachment(*other)
    assert a != b
    assert a.text != b.text
    assert a.alias != b.alias
    assert a.comment != b.comment
    assert a.digest() != b.digest()
    assert not set(a.host_veth_names()) & set(b.host_veth_names())


@given(triples)
def test_equal_attachments_agree(one: tuple[str, str, str]) -> None:
    a, b = Attachment(*one), Attachment(*one)
    assert a == b and hash(a) == hash(b) and len({a, b}) == 1
    assert (a.text, a.alias, a.comment) == (b.text, b.alias, b.comment)
    assert a.host_veth_names() == b.host_veth_names()
    assert a != one


@given(triples)
def test_names_fit_where_they_go(one: tuple[str, str, str]) -> None:
    attachment = Attachment(*one)
    assert len(attachment.alias.encode()) <= 255
    assert len(attachment.comment.encode()) <= 127
    assert len(attachment.go_masquerade_chain) == 28
    names = attachment.host_veth_names()
    assert len(set(names)) == len(names) >= 2
    for name in names:
        assert len(name) == 12 and name.startswith("veth")
        env.check_ifname(name)


def test_what_fits_is_written_out() -> None:
    attachment = Attachment("podnet", "cafe01", "eth0")
    assert attachment.text == attachment.alias == attachment.comment == "cni:podnet:cafe01:eth0"
    assert repr(attachment) == "Attachment(cni:podnet:cafe01:eth0)"


@pytest.mark.parametrize(("name", "bound"), [("alias", 255), ("comment", 127)])
def test_the_bound_counts_bytes_and_is_reached(name: str, bound: int) -> None:
    def derived(ifname: str, total: int) -> str:
        rest = total - len("cni:") - 2 - len(ifname)
        attachment = Attachment(limit(rest // 2), limit(rest - rest // 2), ifname)
        assert len(attachment.text) == total
        return str(getattr(attachment, name))

    assert "#" not in derived("eth0", bound)
    assert len(derived("eth0", bound)) == bound
    assert "#" in derived("eth0", bound + 1)
    assert "#" in derived("éth0", bound), "it has one byte more than characters"
    longest = derived("äöü", bound)
    assert len(longest.encode()) <= bound


def test_hashed_names_cannot_be_claimed() -> None:
    """A container ID may not begin with '#', which is what marks a digest."""
    attachment = Attachment(limit(200), limit(200), "eth0")
    for name in (attachment.alias, attachment.comment):
        assert name.split(":")[2].startswith("#")
    assert not env.is_identifier("#" + attachment.digest()[:64])


@pytest.mark.parametrize(
    ("network", "container", "chain"), [("test", "1234", "CNI-2bbe0c48b91a7d1b8a6753a8")]
)
def test_the_chain_of_the_go_plugins(network: str, container: str, chain: str) -> None:
    """The value of their own test (pkg/utils/utils_test.go)."""
    assert Attachment(network, container, "eth0").go_masquerade_chain == chain
    assert chain == "CNI-" + hashlib.sha512(f"{network}{container}".encode()).hexdigest()[:24]
