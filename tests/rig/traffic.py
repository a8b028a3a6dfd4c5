# SPDX-License-Identifier: Apache-2.0
"""Servers and clients of real connections, in whichever network namespace."""

from __future__ import annotations

import http.client
import pathlib
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from tests.rig import isolation
from tests.rig.host import Netns

T = TypeVar("T")

#: A container's namespace, the path of one, or None for the test's host.
Place = Netns | str | pathlib.Path | None


def within(place: Place, function: Callable[[], T]) -> T:
    """Call in a namespace, or on the host."""
    if place is None:
        return function()
    return isolation.within(place.path if isinstance(place, Netns) else place, function)


def listen(place: Place, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A server on any address of both IP versions."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6, kind)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            made.listen(16)
        made.settimeout(3)
        return made

    return within(place, make)


def source_of(server: socket.socket, place: Place, address: str, port: int) -> str:
    """Connect from `place`; the address that the server sees. Raises OSError if it fails."""
    connection = within(place, lambda: socket.create_connection((address, port), 3))
    accepted, peer = server.accept()
    accepted.sendall(b"x")
    assert connection.recv(1) == b"x"
    accepted.close()
    connection.close()
    return str(peer[0]).removeprefix("::ffff:")


def send(place: Place, address: str, port: int, datagram: bytes) -> None:
    """Send a UDP datagram from `place`."""

    def work() -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(datagram, (address, port))

    within(place, work)


def is_refused(place: Place, address: str, port: int) -> bool:
    """True if nothing listens there."""
    try:
        within(place, lambda: socket.create_connection((address, port), 2)).close()
    except ConnectionRefusedError:
        return True
    return False


def fetch(place: Place, address: str, port: int, path: str, timeout: float = 4) -> str:
    """What a web server answers, without the white space around it.

    Asks again for `timeout` seconds, as servers take a moment to start and addresses to be
    usable; then raises OSError. Any other status than 200 raises AssertionError.
    """

    def ask() -> str:
        connection = http.client.HTTPConnection(address, port, timeout=2)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200, f"{address}:{port}{path}: {response.status}"
            return response.read().decode().strip()
        finally:
            connection.close()

    deadline = time.monotonic() + timeout
    while True:
        try:
            return within(place, ask)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
