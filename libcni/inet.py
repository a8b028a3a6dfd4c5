# SPDX-License-Identifier: Apache-2.0
"""IP addresses and prefixes, on `inet_pton` and integer arithmetic.

`import ipaddress` costs 2.4 ms and netaddr 25 ms; a plugin needs four operations. netaddr is the
oracle of the tests. Text is RFC 5952; an IPv4-mapped IPv6 address is IPv4, as in Go.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

_ZEROS = b"\0" * 10
_MAPPED = _ZEROS + b"\xff\xff"


def pton(text: str) -> bytes:
    """The 4 or 16 bytes of an address in text. Raises ValueError naming the text."""
    try:
        if ":" in text:
            packed = inet_pton(AF_INET6, text)
            return packed[12:] if packed.startswith(_MAPPED) else packed
        return inet_pton(AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f"invalid IP address {text!r}") from None


def ntop(packed: bytes) -> str:
    """The text of a 4 or 16 byte address: RFC 5952, lower case; IPv4-mapped as IPv4."""
    if len(packed) == 4:
        return inet_ntop(AF_INET, packed)
    if packed.startswith(_ZEROS):
        if packed.startswith(_MAPPED):
            return inet_ntop(AF_INET, packed[12:])
        high, low = packed[12] << 8 | packed[13], packed[14] << 8 | packed[15]
        if high and packed[10:12] == b"\0\0":
            # The C library would write the deprecated ::1.2.3.4.
            return f"::{high:x}:{low:x}"
    return inet_ntop(AF_INET6, packed)


def family(packed: bytes) -> int:
    """AF_INET or AF_INET6 for a packed address."""
    return AF_INET if len(packed) == 4 else AF_INET6


def is_loopback(packed: bytes) -> bool:
    """True for 127.0.0.0/8 and ::1."""
    return packed[0] == 127 if len(packed) == 4 else packed == b"\0" * 15 + b"\1"


class Prefix:
    """An address with its prefix length in bits; the host bits are kept."""

    __slots__ = ("length", "packed")

    def __init__(self, packed: bytes, length: int) -> None:
        self.packed = packed
        self.length = length

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read "10.1.2.3/24". Raises ValueError naming the text."""
        address, slash, length = text.partition("/")
        packed = pton(address)
        bits = len(packed) * 8
        if not slash or not (length.isascii() and length.isdigit()) or len(length) > 3:
            raise ValueError(f"invalid CIDR address {text!r}")
        number = int(length)
        if ":" in address and bits == 32:
            number -= 96  # an IPv4-mapped prefix counts its bits in the IPv6 form
        if number < 0 or number > bits or (len(length) > 1 and length[0] == "0"):
            raise ValueError(f"invalid CIDR address {text!r}: prefix length 0 to {bits}")
        return cls(packed, number)

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return AF_INET if len(self.packed) == 4 else AF_INET6

    @property
    def bits(self) -> int:
        """Length of the address in bits: 32 or 128."""
        return len(self.packed) * 8

    def _mask(self) -> int:
        bits = len(self.packed) * 8
        return ((1 << self.length) - 1) << (bits - self.length)

    def network(self) -> Prefix:
        """The same prefix with its host bits zero."""
        size = len(self.packed)
        number = int.from_bytes(self.packed, "big") & self._mask()
        return Prefix(number.to_bytes(size, "big"), self.length)

    def broadcast(self) -> bytes:
        """The last address of the prefix, packed."""
        size = len(self.packed)
        host = (1 << (size * 8 - self.length)) - 1
        return (int.from_bytes(self.packed, "big") | host).to_bytes(size, "big")

    def contains(self, packed: bytes) -> bool:
        """True when the address is of this family and inside the prefix."""
        if len(packed) != len(self.packed):
            return False
        difference = int.from_bytes(packed, "big") ^ int.from_bytes(self.packed, "big")
        return not difference & self._mask()

    def text(self) -> str:
        """ "10.1.2.3/24"."""
        return f"{ntop(self.packed)}/{self.length}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prefix):
            return NotImplemented
        return self.packed == other.packed and self.length == other.length

    def __hash__(self) -> int:
        return hash((self.packed, self.length))

    def __repr__(self) -> str:
        return f"Prefix({self.text()})"
