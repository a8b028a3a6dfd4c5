# SPDX-License-Identifier: Apache-2.0
"""Datagrams of a netlink socket, framing and all, as answers to a batch, a dump and a wait.

An input is datagrams, each after its length (two bytes, little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from unittest import mock

from libcni.netlink import link, socket
from libcni.netlink.socket import Socket
from libcni.nftables import rules, transaction
from tests.fuzz import properties
from tests.fuzz.kernel import ask
from tests.fuzz.target import Target
from tests.fuzz.targets.netlink_answer import bodies, build

_TABLE = rules.Table(transaction.INET, "adder_portmap")


def _batch(sock: Socket) -> None:
    for reply in sock.batch([link.get_link("eth0"), link.set_link("eth0", up=True)]):
        reply.check(19)


def _commit(sock: Socket) -> None:
    replies = transaction.commit(sock, [_TABLE.create(), _TABLE.delete()], 7)
    transaction.refused(replies, *transaction.TRANSIENT)


QUESTIONS: tuple[tuple[int, Callable[[Socket], object]], ...] = (
    (socket.NETLINK_ROUTE, _batch),
    (socket.NETLINK_ROUTE, lambda sock: sock.dump(link.get_link("eth0"))),
    (socket.NETLINK_NETFILTER, _commit),
    (socket.NETLINK_ROUTE, lambda sock: link.is_deleted(sock, 5)),
)


def run(data: bytes) -> None:
    """Ask each question and be answered so."""
    datagrams = bodies(data)
    with mock.patch.object(socket, "_BACK_OFF", (0, 0, 0)):
        for protocol, question in QUESTIONS:
            properties.coded(ask, question, datagrams, protocol)


def seeds() -> Iterator[bytes]:
    """Acknowledgements, refusals with the kernel's words, a dump, one that was interrupted."""
    ack = struct.pack("=IHHIIi16x", 36, 2, 0x100, 1, 0, 0)
    words = b"not so".ljust(8, b"\0")
    refusal = struct.pack("=IHHIIi16xHH8s", 48, 2, 0x300, 2, 0, -22, 11, 1, words)
    whole = struct.pack("=IHHIIi16xHH8s", 48, 2, 0x200, 1, 0, -19, 11, 1, words)
    done = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)
    item = struct.pack("=IHHII16x", 32, 16, 2, 1, 0)
    interrupted = struct.pack("=IHHII16x", 32, 16, 0x12, 1, 0)
    deleted = struct.pack("=IHHIIBxHiII", 32, 17, 0, 0, 0, 0, 1, 5, 0, 0)
    overrun = struct.pack("=IHHII", 16, 4, 0, 1, 0)
    for datagrams in (
        [ack + refusal],
        [item, ack, whole],
        [item + item + done],
        [interrupted, done],
        [deleted],
        [overrun],
        [ack[:20], done[:10]],
    ):
        yield build("", datagrams)[1:]


TARGET = Target(run, seeds)
