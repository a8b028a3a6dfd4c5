# SPDX-License-Identifier: Apache-2.0
"""As much of D-Bus as it takes to call a method with strings: no library starts fast enough.

Source: the D-Bus specification, "Message Protocol", "Authentication Protocol", "Marshaling".
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket
from _struct import pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT = "/run/dbus/system_bus_socket"
#: Seconds for one answer; firewalld may have to wait for the kernel.
_TIMEOUT = 30.0
_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = (
    *(1, 2, 3, 4, 5, 6),
    8,
)


class Refused(Exception):
    """The other side answered with an error. name: its D-Bus name; text: what it says."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Bus:
    """A connection to the system's bus. Raises OSError when there is none, or it breaks."""

    def __init__(self) -> None:
        self._serial = 0
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
        self._socket.settimeout(_TIMEOUT)
        try:
            self._socket.connect(_address())
            identity = str(posix.getuid()).encode().hex()
            self._socket.sendall(f"\0AUTH EXTERNAL {identity}\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n"):
                part = self._socket.recv(512)
                if not part:
                    raise OSError(0, "D-Bus hung up")
                answer += part
            if not answer.startswith(b"OK "):
                raise OSError(0, f"D-Bus: {answer.decode(errors='replace').strip()}")
            self._socket.sendall(b"BEGIN\r\n")
            self.call(*_BUS, "Hello")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._socket.close()

    def has_owner(self, name: str) -> bool:
        """True when a program has this well-known name."""
        return bool(self.call(*_BUS, "NameHasOwner", name))

    def call(self, destination: str, path: str, interface: str, member: str, *texts: str) -> Any:
        """Call a method with strings; its first string, boolean, or None. Raises Refused."""
        self._serial += 1
        body = b""
        for text in texts:
            body = _aligned(body, 4) + _string(text)
        fields = b""
        for code, signature, value in (
            (_PATH, "o", path),
            (_DESTINATION, "s", destination),
            (_INTERFACE, "s", interface),
            (_MEMBER, "s", member),
            (_SIGNATURE, "g", "s" * len(texts)),
        ):
            if not value:
                continue
            fields = _aligned(fields, 8) + bytes((code, 1)) + signature.encode() + b"\0"
            if signature == "g":
                fields += bytes((len(value),)) + value.encode() + b"\0"
            else:
                fields = _aligned(fields, 4) + _string(value)
        head = pack("<cBBBIII", b"l", _CALL, 0, 1, len(body), self._serial, len(fields))
        self._socket.sendall(_aligned(head + fields, 8) + body)
        while True:
            kind, serial, name, signature, body = self._receive()
            if serial != self._serial:
                continue  # a signal, such as NameAcquired
            value = _first(signature, body)
            if kind == _ERROR:
                raise Refused(name, str(value or ""))
            if kind == _RETURN:
                return value

    def _receive(self) -> tuple[int, int, str, str, bytes]:
        """Kind, serial of the call, name of an error, signature, body."""
        head = self._read(16)
        order = "<" if head[:1] == b"l" else ">"
        kind = head[1]
        body_size, _, fields_size = unpack_from(f"{order}III", head, 4)
        fields = self._read((fields_size + 7) & ~7)[:fields_size]
        body = self._read(body_size)
        serial, name, signature = 0, "", ""
        at = 0
        while at + 4 < len(fields):
            at = (at + 7) & ~7
            code, length = fields[at], fields[at + 1]
            what = fields[at + 2 : at + 2 + length].decode()
            at += 2 + length + 1
            if what == "u":
                at = (at + 3) & ~3
                value: Any = unpack_from(f"{order}I", fields, at)[0]
                at += 4
            elif what == "g":
                value = fields[at + 1 : at + 1 + fields[at]].decode()
                at += fields[at] + 2
            else:
                at = (at + 3) & ~3
                size = unpack_from(f"{order}I", fields, at)[0]
                value = fields[at + 4 : at + 4 + size].decode(errors="replace")
                at += size + 5
            if code == _REPLY_SERIAL:
                serial = value
            elif code == _ERROR_NAME:
                name = value
            elif code == _SIGNATURE:
                signature = value
        return kind, serial, name, signature, body if order == "<" else b""

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise OSError(0, "D-Bus hung up")
            data += part
        return data


_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def _address() -> str:
    """The path of the bus's socket; DBUS_SYSTEM_BUS_ADDRESS may name another ("unix:path=…")."""
    given = posix.environ.get(b"DBUS_SYSTEM_BUS_ADDRESS", b"").decode("utf-8", "replace")
    for address in given.split(";"):
        for pair in address.removeprefix("unix:").split(","):
            if address.startswith("unix:") and pair.startswith("path="):
                return pair[5:]
    return _DEFAULT


def _aligned(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def _string(text: str) -> bytes:
    data = text.encode()
    return pack("<I", len(data)) + data + b"\0"


def _first(signature: str, body: bytes) -> Any:
    """The first value of a body, if it is a string or a boolean."""
    if signature[:1] == "b" and len(body) >= 4:
        return bool(unpack_from("<I", body)[0])
    if signature[:1] == "s" and len(body) >= 4:
        size = unpack_from("<I", body)[0]
        return body[4 : 4 + size].decode("utf-8", "replace")
    return None
