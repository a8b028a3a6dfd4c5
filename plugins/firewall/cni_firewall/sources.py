# SPDX-License-Identifier: Apache-2.0
"""What firewalld was told of an attachment: its zones know addresses, and no attachments.

So the zone and the addresses are the record of an element of the set `sources` (see `table`),
and DEL and GC find them by the attachment's identity. A kernel without nftables has no such set:
there DEL knows what prevResult says.
"""

from __future__ import annotations

from errno import ENOENT

from cni_firewall import firewalld
from cni_firewall.table import SOURCES, TABLE, add, deletion, look
from libcni.inet import Prefix
from libcni.nftables import maps, sets
from libcni.nftables.transaction import (
    TRANSIENT,
    commit,
    find_socket,
    is_missing,
    open_socket,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.netlink.socket import Socket


def pack(zone: str, addresses: list[Prefix]) -> bytes:
    """The record: the zone up to a NUL, then each address behind its length."""
    parts = [bytes([len(address.packed)]) + address.packed for address in addresses]
    return zone.encode("utf-8", "replace") + b"\0" + b"".join(parts)


def unpack(record: bytes | None) -> tuple[str, list[Prefix]] | None:
    """Zone and addresses; None where a record is missing or not understood."""
    zone, found, rest = (record or b"").partition(b"\0")
    addresses = []
    while rest:
        size = rest[0]
        packed, rest = rest[1 : 1 + size], rest[1 + size :]
        if size not in (4, 16) or len(packed) != size:
            return None
        addresses.append(Prefix(packed, size * 8))
    return (zone.decode("utf-8", "replace"), addresses) if found and addresses else None


def ensure(attachment: Attachment, addresses: list[Prefix], zone: str) -> None:
    """Make the addresses sources of the zone, of which an earlier ADD's no longer are. Idempotent.

    Raises CniError 102, CniError 11.
    """
    _remember(attachment, addresses, zone)
    firewalld.ensure(addresses, zone)


def _remember(attachment: Attachment, addresses: list[Prefix], zone: str) -> None:
    if is_missing():
        return
    sock, record = open_socket(), pack(zone, addresses)
    earlier = look(sock, attachment, SOURCES)[0]
    if earlier is not None and earlier.record != record:
        _take_out(sock, earlier)
        earlier = None
    if earlier is None and len(record) <= maps.room_for_record(attachment.comment):
        add(sock, SOURCES, attachment, record)


def remove(attachment: Attachment, addresses: list[Prefix], zone: str) -> Socket | None:
    """Take out what the attachment put into zones; and its addresses, as far as they are known.

    addresses, zone: of prevResult and the configuration, for what Go's plugin did. Idempotent.
    Returns the socket, whose closing may wait (see `libcni.nftables.closing`), None without
    nftables. Raises CniError 102, NetlinkError.
    """
    sock = find_socket()
    element = look(sock, attachment, SOURCES)[0] if sock is not None else None
    if sock is not None and element is not None:
        told = unpack(element.record)
        _take_out(sock, element)
        if told is not None and told[0] == zone:
            addresses = [one for one in addresses if one not in told[1]]
    firewalld.remove(addresses, zone)
    return sock


def _take_out(sock: Socket, element: maps.MapElement) -> None:
    """The element goes last, so that what fails is tried again by the next DEL."""
    told = unpack(element.record)
    if told is not None:
        firewalld.remove(told[1], told[0])
    refused(commit(sock, deletion(SOURCES, element)), ENOENT, *TRANSIENT)


def gc(marks: tuple[str, ...], keep: set[str]) -> None:
    """Take out what attachments did whose comment begins with one of `marks`, not in `keep`.

    Raises CniError 102, NetlinkError.
    """
    sock = find_socket()
    if sock is None or TABLE.is_absent(sock):
        return
    for body in sets.elements(sock, TABLE, SOURCES):
        for element in maps.read(body):
            if element.comment.startswith(marks) and element.comment not in keep:
                _take_out(sock, element)
