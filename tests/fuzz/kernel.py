# SPDX-License-Identifier: Apache-2.0
"""The other end of a netlink socket that says what an input has it say.

No kernel can be made to answer wrongly, so the descriptor of a `libcni` socket is one end of a
pair of datagram sockets here, in whose other end the answers lie ready.
"""

from __future__ import annotations

import socket as python_socket
import struct
from _socket import socket as raw_socket
from collections.abc import Callable
from typing import TypeVar

from libcni.netlink import socket as netlink
from libcni.netlink.socket import Socket

T = TypeVar("T")

_DONE, _MULTI = 3, 2


def ask(
    question: Callable[[Socket], T],
    datagrams: list[bytes],
    protocol: int = netlink.NETLINK_ROUTE,
) -> T:
    """Ask on a socket where these datagrams lie ready as answers, and no others ever come.

    What the question returns. Raises what it raises.
    """
    ours, theirs = python_socket.socketpair(python_socket.AF_UNIX, python_socket.SOCK_DGRAM)
    sock = Socket.__new__(Socket)
    sock._handle = raw_socket(fileno=ours.detach())
    try:
        theirs.setblocking(False)
        for datagram in datagrams:
            try:
                theirs.send(datagram)
            except OSError:
                break  # more than a buffer holds; as many will do
        # No answer is waited for: at once it is "the kernel did not answer in time".
        sock._handle.setblocking(False)
        sock._protocol = protocol
        sock._sequence = 0
        return question(sock)
    finally:
        sock.close()
        theirs.close()


def answers(bodies: list[bytes]) -> list[bytes]:
    """Datagrams with these bodies, as the answers to each of eight questions."""
    return [_dump(sequence, bodies) for sequence in range(1, 9)]


def _dump(sequence: int, bodies: list[bytes]) -> bytes:
    parts = [_message(16, sequence, body) for body in bodies]
    return b"".join([*parts, _message(_DONE, sequence, bytes(4))])


def _message(kind: int, sequence: int, body: bytes) -> bytes:
    head = struct.pack("=IHHII", 16 + len(body), kind, _MULTI, sequence, 0)
    return head + body + bytes(-len(body) & 3)
