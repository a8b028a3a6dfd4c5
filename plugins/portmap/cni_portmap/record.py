# SPDX-License-Identifier: Apache-2.0
"""What belongs to an attachment, in the record of its element of `owners`.

A sequence of entries, each a byte that says what it is:
    1, 2   a claim on any IPv4, IPv6 address: protocol, first port, number of ports
    3, 4   the same on one address, which follows
    5, 6   the container's IPv4, IPv6 address and the length of its prefix: what is masqueraded
    7      it has rules in the chain `conditional`
    8      the host's end of its veth bears its alias
    9      what those rules are: a digest, eight bytes
It is made of what fits into an element's user data. Where it does not fit there is no record, and
DEL searches.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from _struct import error, pack, unpack_from  # type: ignore[attr-defined]

from cni_portmap.mapping import Claim
from libcni.inet import Prefix

_ANY, _ONE, _TARGET = 1, 3, 5
_CONDITIONAL, _HOST_END, _DIGEST = 7, 8, 9
#: Bytes of a digest.
DIGEST = 8


class Record:
    """claims: without where they lead. targets: the container's addresses.

    digest: of the rules with conditions (`conditional.digest`), b"" where it is not known.
    """

    __slots__ = ("claims", "conditional", "digest", "host_end", "targets")

    def __init__(
        self,
        claims: list[Claim],
        targets: list[Prefix],
        conditional: bool = False,
        host_end: bool = False,
    ) -> None:
        self.claims = claims
        self.targets = targets
        self.conditional = conditional
        self.host_end = host_end
        self.digest = b""

    def pack(self, room: int) -> bytes | None:
        """The record, or None if it has more than `room` bytes."""
        parts = []
        for claim in self.claims:
            kind = (_ONE if claim.address else _ANY) + (claim.family == AF_INET6)
            head = pack(">BBHH", kind, claim.protocol, claim.port, claim.count)
            parts.append(head + claim.address)
        for target in self.targets:
            kind = _TARGET + (target.family == AF_INET6)
            parts.append(pack("BB", kind, target.length) + target.packed)
        if self.conditional:
            parts.append(pack("B", _CONDITIONAL))
        if self.host_end:
            parts.append(pack("B", _HOST_END))
        if self.digest:
            parts.append(pack("B", _DIGEST) + self.digest)
        data = b"".join(parts)
        return data if len(data) <= room else None


def unpack(data: bytes | None) -> Record | None:
    """Read a record; None where there is none, or none that we understand."""
    if data is None:
        return None
    record = Record([], [])
    offset = 0
    try:
        while offset < len(data):
            kind = data[offset]
            family, size = (AF_INET, 4) if kind & 1 else (AF_INET6, 16)
            if kind in (1, 2, 3, 4):
                protocol, port, count = unpack_from(">BHH", data, offset + 1)
                offset += 6
                address = b""
                if kind >= _ONE:
                    address = data[offset : offset + size]
                    offset += size
                if offset > len(data):
                    return None
                record.claims.append(Claim(family, protocol, address, port, count))
            elif kind in (5, 6):
                packed, length = data[offset + 2 : offset + 2 + size], data[offset + 1]
                if len(packed) < size or length > size * 8:
                    return None
                record.targets.append(Prefix(packed, length))
                offset += 2 + size
            elif kind == _CONDITIONAL:
                record.conditional = True
                offset += 1
            elif kind == _HOST_END:
                record.host_end = True
                offset += 1
            elif kind == _DIGEST:
                record.digest = data[offset + 1 : offset + 1 + DIGEST]
                if len(record.digest) < DIGEST:
                    return None
                offset += 1 + DIGEST
            else:
                return None
    except (error, IndexError):
        return None
    return record
