# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how the agent is (sd_notify(3)); nothing where systemd did not start it."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send lines like "READY=1" to the socket that systemd named, if it did. Never fails."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    # A service manager that does not listen must not stop the data path.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.settimeout(1.0)
        sock.sendto(state.encode(), path)
