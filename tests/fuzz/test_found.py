# SPDX-License-Identifier: Apache-2.0
"""What fuzzing has found, as small as it gets, and what is answered instead."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import struct

import pytest

from cni_host_local import index
from cni_portmap import ipt, leftovers, record
from cni_portmap.mapping import Claim
from cni_vxlan_overlay.lease import parse_lease, read_lease
from libcni import iptables
from libcni.attachment import Attachment
from libcni.cache import NetworkAttachment
from libcni.fs import read_file
from libcni.netlink import link
from libcni.netlink.addr import dump_addresses
from libcni.nftables import maps, rules, sets, transaction
from libcni.types.errors import DECODING_FAILURE, KERNEL, PLUGIN_NOT_AVAILABLE, CniError
from tests.fuzz.kernel import answers, ask
from tests.fuzz.targets.netlink_answer import QUESTIONS

_TABLE = rules.Table(transaction.INET, "adder_portmap")


def _attribute(number: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), number) + data + bytes(-len(data) & 3)


#: Question, body of the answer, what the message names.
_MALFORMED = [
    ("link", b"\0" * 10, "an answer of 10 bytes, less than 12"),
    ("link", b"\0" * 16 + _attribute(4, b"\0"), "IFLA_MTU of 1 bytes is too short"),
    ("addresses", b"\x02\x18", "an answer of 2 bytes, less than 8"),
    ("addresses", b"\x02\x18\0\0\2\0\0\0" + _attribute(2, b"\n\1"), "IFA_ADDRESS of 2 bytes"),
    ("addresses", b"\x02\x40\0\0\2\0\0\0" + _attribute(2, b"\n\1\2\3"), "0a010203/64 is no IP"),
    ("routes", b"\x02\x18", "less than 9"),
    ("route", b"\x02\0\0\0\xfe\0\0\1\0\0\0\0" + _attribute(5, b"\n"), "RTA_GATEWAY of 1 bytes"),
    ("neighbours", b"\x02", "less than 11"),
    ("rules", b"\x02\0\0", "less than 8"),
    ("rules", b"", "an answer of 0 bytes"),
    ("bucket", b"\0" * 8, "less than 16"),
    ("vlans", b"\0", "less than 8"),
    ("connections", b"\x02\0\0\0", "an answer without CTA_TUPLE_ORIG"),
    ("connections", b"", "an answer of 0 bytes"),
    ("generation", b"\0" * 8, "less than 12"),
    ("sets", b"\1\0\0\0", "an answer without NFTA_SET_NAME"),
    ("element", b"\1\0\0\0", "an answer without the element"),
    ("map-element", b"\1\0\0\0", "an answer without the element"),
    ("nft-rules", b"\1\0\0\0", "an answer without NFTA_RULE_HANDLE"),
]


@pytest.mark.parametrize(("question", "body", "words"), _MALFORMED)
def test_a_malformed_answer_is_refused_by_name(question: str, body: bytes, words: str) -> None:
    with pytest.raises(CniError) as caught:
        ask(QUESTIONS[question], answers([body]))
    assert caught.value.code == KERNEL
    assert words in caught.value.msg


@pytest.mark.parametrize("question", ["link", "route", "generation", "element", "map-element"])
def test_an_answer_that_holds_nothing(question: str) -> None:
    with pytest.raises(CniError, match="an answer that holds nothing"):
        ask(QUESTIONS[question], answers([]))


def test_a_refusal_that_is_cut_short() -> None:
    datagram = struct.pack("=IHHII", 16, 2, 0, 1, 0)
    with pytest.raises(CniError, match="an answer of 0 bytes, less than 4"):
        ask(lambda sock: sock.batch([link.get_link("eth0")]), [datagram])


@pytest.mark.parametrize("number", [5, -5000, -(2**31)])
def test_a_refusal_that_is_no_errno(number: int) -> None:
    datagram = struct.pack("=IHHIIi16x", 36, 2, 0x100, 1, 0, number)
    with pytest.raises(CniError, match=f"an answer with the error {number}"):
        ask(lambda sock: sock.batch([link.get_link("eth0")]), [datagram])


def test_an_event_that_is_cut_short() -> None:
    datagram = struct.pack("=IHHIIB", 17, link.RTM_DELLINK, 0, 0, 0, 0)
    with pytest.raises(CniError, match="an answer of 1 bytes, less than 8"):
        ask(lambda sock: link.is_deleted(sock, 5), [datagram])


def test_addresses_of_other_families_are_left_out() -> None:
    phonet = b"\x23\x08\0\0\2\0\0\0" + _attribute(2, b"\x10")
    ours = b"\x02\x18\0\0\2\0\0\0" + _attribute(2, b"\n\1\2\3")
    assert [a.prefix.text() for a in ask(dump_addresses, answers([phonet, ours]))] == [
        "10.1.2.3/24"
    ]


def test_options_before_their_kind() -> None:
    body = struct.pack("=BxxxiIII", 0, 22, 0, 0xFFFFFFFF, 0)
    body += _attribute(2, _attribute(1, bytes(36))) + _attribute(1, b"tbf\0")
    ask(QUESTIONS["bucket"], answers([body]))


def test_an_element_for_all_keys_is_nobodys() -> None:
    flags = _attribute(3, struct.pack(">I", 2))  # NFTA_SET_ELEM_FLAGS: NFT_SET_ELEM_CATCHALL
    key = _attribute(1, _attribute(1, b"\0\0\0\1"))
    body = b"\1\0\0\0" + _attribute(3, _attribute(1, flags) + _attribute(1, key))
    assert [element.key for element in sets.read_elements(body)] == [b"\0\0\0\1"]
    assert [element.key for element in maps.read(body)] == [b"\0\0\0\1"]


def test_a_key_without_value() -> None:
    body = b"\1\0\0\0" + _attribute(3, _attribute(1, _attribute(1, b"")))
    for read in (sets.read_elements, maps.read):
        with pytest.raises(CniError, match=r"NFTA_DATA_VALUE|without the value of its key"):
            read(body)


def test_a_target_of_no_length_is_no_endless_loop() -> None:
    rule = b"\x09\0\1\0DNAT\0\0\0\0" + bytes(8)
    assert leftovers.extension(rule, "DNAT") == b""


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("0518") + b"\n\1",  # an address of two bytes
        bytes.fromhex("0540") + b"\n\1\2\3",  # 64 bits of 32
        bytes.fromhex("030600500001") + b"\x7f",  # a claim on an address of one byte
    ],
)
def test_a_record_that_is_cut_short_is_none(data: bytes) -> None:
    assert record.unpack(data) is None


@pytest.mark.parametrize(
    "rule",
    [
        "-A CNI-DN-x -j DNAT --to-destination 10.1.2.3:80",
        "-A CNI-DN-x -p tcp -m tcp --dport http -j DNAT --to-destination 10.1.2.3:80",
        f"-A CNI-DN-x -p tcp -m tcp --dport {'9' * 5000} -j DNAT --to-destination 10.1.2.3:80",
        "-A CNI-DN-x -j DNAT -p",
    ],
)
def test_a_rule_without_port_holds_no_port(rule: str) -> None:
    jump = '-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"n\\" id: \\"b\\"" '
    saved = [rule, jump + "-m multiport --dports 80 -j CNI-DN-x"]
    claims = [Claim(2, 6, b"", 80, 1)]
    ipt.refuse_taken(Attachment("net", "c1", "eth0"), claims, saved)
    with pytest.raises(CniError, match="hostPort 80/tcp"):
        other = "-A CNI-DN-x -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.2.3:80"
        ipt.refuse_taken(Attachment("net", "c1", "eth0"), claims, [*saved, other])


def test_a_destination_that_is_no_address_does_not_keep_del_from_cleaning_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attachment = Attachment("net", "c1", "eth0")
    chain = leftovers.chain_name("net", "c1")
    saved = [
        f":{chain} - [0:0]",
        f"-A {chain} -p tcp -j DNAT --to-destination 10.1.2.3-10.1.2.9:80",
        ": -j DNAT --to-destination 10.1.2.9:80",
        f"-A {chain} -p tcp -j DNAT --to-destination 10.1.2.3:80",
    ]
    restored: list[str] = []
    monkeypatch.setattr(iptables, "find", lambda *_: "/usr/sbin/iptables-legacy-save")
    monkeypatch.setattr(iptables, "save", lambda *_: saved)
    monkeypatch.setattr(iptables, "restore", lambda v, t, lines, variant: restored.extend(lines))
    assert ipt.remove_legacy(attachment, [4]) == {b"\n\1\2\3"}
    assert restored == [f"-F {chain}", f"-X {chain}"]


def test_a_cached_configuration_that_is_not_ascii() -> None:
    data = json.dumps({"kind": "cniCacheV1", "config": "é"}).encode()
    with pytest.raises(CniError, match="config") as caught:
        NetworkAttachment.decode(data, "x")
    assert caught.value.code == DECODING_FAILURE


@pytest.mark.parametrize("digits", ["\u00b2", "9" * 5000])
def test_digits_that_are_no_number(digits: str) -> None:
    assert index.decode(f"boot\n\n10.1.2.3 {digits}\n".encode()) is None
    text = f"FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU={digits}\n"
    with pytest.raises(CniError, match="a number as FLANNEL_MTU") as caught:
        parse_lease(text + "FLANNEL_IPMASQ=true\n", "subnet.env")
    assert caught.value.code == PLUGIN_NOT_AVAILABLE


def test_a_pipe_that_nobody_writes_to_is_empty(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "subnet.env"
    os.mkfifo(pipe)
    assert read_file(str(pipe)) == b""
    with pytest.raises(CniError, match="FLANNEL_NETWORK"):
        read_lease(str(pipe))
    # Nor when somebody holds it open without a word.
    holder = os.open(pipe, os.O_RDWR)
    try:
        with pytest.raises(CniError, match="temporarily unavailable"):
            read_lease(str(pipe))
    finally:
        os.close(holder)


def test_a_device_that_never_stops_giving_is_too_large() -> None:
    with pytest.raises(OSError) as caught:
        read_file("/dev/zero")
    assert caught.value.errno == errno.EFBIG
