# SPDX-License-Identifier: Apache-2.0
"""Standard input: read whole, within bounds of size and time."""

from __future__ import annotations

import posix
import select
from time import monotonic

from libcni.fs import io_error
from libcni.types.errors import DECODING_FAILURE, IO_FAILURE, CniError

#: Bytes; the largest real configurations (with prevResult) have some 10 kB.
LIMIT = 1 << 20
#: Seconds that a runtime may take to write the configuration and close the pipe.
TIMEOUT = 30.0
#: Seconds; poll(2) counts milliseconds in 31 bits.
_LONGEST = 86400.0


def _timeout() -> float:
    text = posix.environ.get(b"CNI_STDIN_TIMEOUT", b"")
    return min(float(text), _LONGEST) if text.isdigit() else TIMEOUT


def read_configuration() -> bytes:
    """Everything on stdin up to its end.

    Raises CniError 5 when it cannot be read or does not end within the time-out (seconds,
    CNI_STDIN_TIMEOUT), and CniError 6 when it is larger than LIMIT bytes.
    """
    parts: list[bytes] = []
    size = 0
    deadline = 0.0
    poll = None
    while True:
        if poll is None:
            poll = select.poll()
            poll.register(0, select.POLLIN)
            deadline = monotonic() + _timeout()
        try:
            if not poll.poll(max(0.0, deadline - monotonic()) * 1000):
                raise CniError(
                    IO_FAILURE,
                    f"stdin was not closed within {_timeout():g} s",
                    f"{size} bytes came; the runtime has to close it after the configuration",
                )
            part = posix.read(0, 65536)
        except OSError as error:
            raise io_error(error, "read", "stdin") from None
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > LIMIT:
            raise CniError(DECODING_FAILURE, f"network configuration is larger than {LIMIT} bytes")


def peek_version() -> str:
    """The cniVersion on stdin of a VERSION call, or "" when none comes.

    stdin may be absent, a terminal, or never closed, so this waits 50 ms at most for a
    complete document and swallows nothing else: VERSION must answer whatever is there.
    """
    from libcni.jsontext import loads

    poll = select.poll()
    poll.register(0, select.POLLIN)
    data = b""
    deadline = monotonic() + 0.05
    try:
        while len(data) < LIMIT:
            left = deadline - monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return ""
            part = posix.read(0, 65536)
            data += part
            if not part or data.rstrip().endswith(b"}"):
                break
        version = loads(data).get("cniVersion", "") if data.strip() else ""
    except (OSError, CniError, AttributeError):
        return ""
    return version if isinstance(version, str) else ""
