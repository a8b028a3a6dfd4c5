# SPDX-License-Identifier: Apache-2.0
"""What an element of a set keeps of its attachment: a name, and addresses."""

from __future__ import annotations

from libcni.inet import Prefix


def pack(name: str, addresses: list[Prefix]) -> bytes:
    """The record: the name up to a NUL, then each address behind its length."""
    return name.encode("utf-8", "replace") + b"\0" + b"".join(map(packed, addresses))


def packed(address: Prefix) -> bytes:
    """An address as records have it."""
    return bytes([len(address.packed)]) + address.packed


def unpack(record: bytes | None) -> tuple[str, list[Prefix]] | None:
    """Name and addresses; None where a record is missing or not understood."""
    name, found, rest = (record or b"").partition(b"\0")
    addresses = []
    while rest:
        size = rest[0]
        address, rest = rest[1 : 1 + size], rest[1 + size :]
        if size not in (4, 16) or len(address) != size:
            return None
        addresses.append(Prefix(address, size * 8))
    return (name.decode("utf-8", "replace"), addresses) if found and addresses else None
