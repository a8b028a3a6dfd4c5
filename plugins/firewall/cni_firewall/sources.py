# SPDX-License-Identifier: Apache-2.0
"""What firewalld was told of an attachment: its zones know addresses, and no attachments.

So the zone and the addresses are the record of an element of the set `sources` (see `table`),
and DEL and GC find them by the attachment's identity. A kernel without nftables has no such set:
there DEL knows what prevResult says.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from cni_firewall import firewalld
from cni_firewall.record import pack, packed, unpack
from cni_firewall.table import SOURCES, TABLE, add, deletion, look
from libcni.nftables import maps, sets
from libcni.nftables.transaction import (
    TRANSIENT,
    attempts,
    commit,
    find_socket,
    is_missing,
    open_socket,
    refused,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from libcni.attachment import Attachment
    from libcni.inet import Prefix
    from libcni.netlink.socket import Socket
    from libcni.skel.undo import Undo


def ensure(attachment: Attachment, addresses: list[Prefix], zone: str, undo: Undo) -> None:
    """Make the addresses sources of the zone, of which an earlier ADD's no longer are. Idempotent.

    An address that another attachment left behind is taken over. undo: gets what makes it all as
    it was. Raises CniError 102, CniError 11.
    """
    if is_missing():
        undo.push(firewalld.remove, addresses, zone)
    else:
        sock = open_socket()
        earlier = look(sock, attachment, SOURCES)[0]
        others = list(_others(sock, attachment.comment, addresses))
        is_new = earlier is None or earlier.record != pack(zone, addresses)
        if is_new or others:
            before = [element for element, _, _ in others]
            if earlier is not None:
                before.append(earlier)
            undo.push(_restore, attachment, addresses, zone, before)
        for other in others:
            _take_over(sock, addresses, zone, *other)
        if earlier is not None and is_new:
            _take_out(sock, earlier)
        if is_new:
            _remember(sock, attachment, addresses, zone)
    firewalld.ensure(addresses, zone)


def _restore(
    attachment: Attachment, addresses: list[Prefix], zone: str, before: list[maps.MapElement]
) -> None:
    """Take out what was put in, and let the elements, and their sources, be as `before`."""
    sock = remove(attachment, addresses, zone) or open_socket()
    try:
        for element in before:
            told = unpack(element.record)
            if told is not None:
                firewalld.ensure(told[1], told[0])
            # Whether it is there still, with fewer addresses, only the kernel knows.
            refused(commit(sock, deletion(SOURCES, element)), ENOENT, *TRANSIENT)
            addition = maps.add(TABLE, SOURCES, [element])
            for _ in attempts("firewall"):
                if refused(commit(sock, addition), EEXIST, *TRANSIENT) <= {EEXIST}:
                    break
    finally:
        sock.close()


def _remember(sock: Socket, attachment: Attachment, addresses: list[Prefix], zone: str) -> None:
    record = pack(zone, addresses)
    if len(record) <= maps.room_for_record(attachment.comment):
        add(sock, SOURCES, attachment, record)


def _others(
    sock: Socket, comment: str, addresses: list[Prefix]
) -> Iterator[tuple[maps.MapElement, str, list[Prefix]]]:
    """What attachments other than `comment` recorded, of which any has one of the addresses:
    element, zone, addresses."""
    keys = [packed(address) for address in addresses]
    for body in sets.elements(sock, TABLE, SOURCES) if keys else []:
        if not any(key in body for key in keys):
            continue
        for element in maps.read(body):
            told = unpack(element.record)
            if told is None or element.comment == comment:
                continue
            if any(address in addresses for address in told[1]):
                yield element, *told


def _take_over(
    sock: Socket,
    addresses: list[Prefix],
    zone: str,
    element: maps.MapElement,
    theirs: str,
    told: list[Prefix],
) -> None:
    """Let the addresses be no others', whose DEL or GC would take them from the new one."""
    if theirs != zone:
        # An address is a source of one zone only.
        firewalld.remove([address for address in told if address in addresses], theirs)
    rest = [address for address in told if address not in addresses]
    changes = deletion(SOURCES, element)
    if rest:
        left = maps.MapElement(element.key, b"", element.comment, pack(theirs, rest))
        changes += maps.add(TABLE, SOURCES, [left])
    refused(commit(sock, changes), ENOENT, *TRANSIENT)


def remove(attachment: Attachment, addresses: list[Prefix], zone: str) -> Socket | None:
    """Take out what the attachment put into zones; and its addresses, as far as they are known.

    addresses, zone: of prevResult and the configuration, for what Go's plugin did. What another
    attachment has by now stays. Idempotent. Returns the socket, whose closing may wait (see
    `libcni.nftables.closing`), None without nftables. Raises CniError 102, NetlinkError.
    """
    sock = find_socket()
    element = look(sock, attachment, SOURCES)[0] if sock is not None else None
    if sock is not None and element is not None:
        told = unpack(element.record)
        _take_out(sock, element)
        if told is not None and told[0] == zone:
            addresses = [one for one in addresses if one not in told[1]]
    if sock is not None:
        addresses = _free(sock, attachment.comment, addresses, zone)
    firewalld.remove(addresses, zone)
    return sock


def _free(sock: Socket, comment: str, addresses: list[Prefix], zone: str) -> list[Prefix]:
    """Those of the addresses that no attachment other than `comment` has in the zone."""
    taken: list[Prefix] = []
    if addresses and not TABLE.is_absent(sock):
        for _, theirs, told in _others(sock, comment, addresses):
            if theirs == zone:
                taken += told
    return [address for address in addresses if address not in taken]


def _take_out(sock: Socket, element: maps.MapElement) -> None:
    """The element goes last, so that what fails is tried again by the next DEL."""
    told = unpack(element.record)
    if told is not None:
        zone, addresses = told
        firewalld.remove(_free(sock, element.comment, addresses, zone), zone)
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
