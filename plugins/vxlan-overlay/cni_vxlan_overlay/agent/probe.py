# SPDX-License-Identifier: Apache-2.0
"""Echo requests of an exact size that nobody may fragment, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import struct
import time

# linux/in.h, linux/in6.h: no fragments, here or on the way.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _DO = 10, 23, 2
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
_HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
#: Bytes of IP header and echo header: no packet is smaller.
SMALLEST = 64


class NotSent(Exception):
    """The kernel did not send it. code: errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


class Prober:
    """Raw sockets for both families; needs CAP_NET_RAW. Raises PermissionError without."""

    def __init__(self) -> None:
        self._identity = secrets.randbelow(1 << 16)
        self._sequence = 0
        self._waiting: dict[tuple[int, int], asyncio.Future[float]] = {}
        self._sockets = {}
        for family, level, option in (
            (socket.AF_INET, socket.IPPROTO_IP, _IP_MTU_DISCOVER),
            (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER),
        ):
            try:
                sock = socket.socket(family, socket.SOCK_RAW, _PROTOCOL[family])
            except PermissionError:
                self.close()
                raise
            except OSError:
                continue  # a kernel without the family has no peers of it
            sock.setblocking(False)
            sock.setsockopt(level, option, _DO)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            self._sockets[family] = sock

    async def __aenter__(self) -> Prober:
        loop = asyncio.get_running_loop()
        for family, sock in self._sockets.items():
            loop.add_reader(sock, self._receive, family, sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        for sock in self._sockets.values():
            asyncio.get_running_loop().remove_reader(sock)
        self.close()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        for sock in self._sockets.values():
            sock.close()

    async def echo(self, address: str, size: int, timeout: float) -> float | None:
        """Send an IP packet of `size` bytes and wait; seconds until its answer, None without one.

        The answer is of the same size, so that it says the same of the way back. Raises NotSent.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = self._sockets.get(family)
        if sock is None:
            raise NotSent(errno.EAFNOSUPPORT)
        self._sequence = (self._sequence + 1) & 0xFFFF
        key = (family, self._sequence)
        self._waiting[key] = answer = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        try:
            sock.sendto(self._packet(family, self._sequence, size), (address, 0))
            async with asyncio.timeout(timeout):
                answered: float = await answer
            return answered - began
        except TimeoutError:
            return None
        except OSError as error:
            raise NotSent(error.errno or 0) from None
        finally:
            del self._waiting[key]

    def _packet(self, family: int, sequence: int, size: int) -> bytes:
        request, _ = _ECHO[socket.AddressFamily(family)]
        body = bytes(max(size - _HEADERS[socket.AddressFamily(family)], 0))
        packet = struct.pack(">BBHHH", request, 0, 0, self._identity, sequence) + body
        if family == socket.AF_INET:  # the kernel does it for ICMPv6
            packet = packet[:2] + struct.pack(">H", _checksum(packet)) + packet[4:]
        return packet

    def _receive(self, family: int, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = sock.recv(1 << 16)
                now = time.monotonic()
                if family == socket.AF_INET:  # with its IP header
                    data = data[(data[0] & 0xF) * 4 :]
                if len(data) < 8:
                    continue
                kind, _, _, identity, sequence = struct.unpack_from(">BBHHH", data)
                if kind != _ECHO[socket.AddressFamily(family)][1] or identity != self._identity:
                    continue
                waiting = self._waiting.get((family, sequence))
                if waiting is not None and not waiting.done():
                    waiting.set_result(now)


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
