# SPDX-License-Identifier: Apache-2.0
"""Who has the ports that an ADD wants.

A port that is somebody else's is refused, before anything changes. What another attachment of
the same container has is not: runtimes that connect a container to a second network publish
its ports there too. A mapping of one address and one of any clash as two sockets would.
"""

from __future__ import annotations

from _struct import pack
from errno import ENOENT

from cni_portmap import table
from cni_portmap.mapping import Claim
from cni_portmap.table import TABLE
from cni_portmap.taken import Taken
from libcni.attachment import Attachment
from libcni.netlink.socket import Socket
from libcni.nftables import maps, sets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.codec import Message

#: Of more elements all are listed, instead of asking for each.
_FEW = 60


class Holders:
    """What an ADD finds at the keys that it wants.

    mine: (map, key) of elements that are the attachment's own already. siblings: of those that
    another attachment of the container has.
    """

    __slots__ = ("_attachment", "_sources", "mine", "siblings")

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._sources: list[tuple[str, bytes]] = []
        self.mine: set[tuple[str, bytes]] = set()
        self.siblings: set[tuple[str, bytes]] = set()

    def look(self, sock: Socket, claims: list[Claim], sources: list[tuple[str, bytes]]) -> None:
        """Look at all keys. Raises CniError 101 for a port that is another container's."""
        wanted = _wanted(claims)
        names = [*wanted, *sources]
        if len(names) <= _FEW:
            replies = sock.batch([sets.get_element(TABLE, name, key) for name, key in names])
            found = [
                (name, element)
                for (name, _), reply in zip(names, replies, strict=True)
                if (element := maps.found(reply, ENOENT)) is not None
            ]
        else:
            found = [
                (name, element)
                for name in dict.fromkeys([name for name, _ in names])
                for body in sets.elements(sock, TABLE, name)
                for element in maps.read(body)
            ]
        taken = set(sources)
        for name, element in found:
            at = (name, element.key)
            if at in taken:
                self._sources.append(at)
            elif at in wanted:
                self._hold(at, *wanted[at], element)
        self._look_at_any(sock, claims)
        self.look_at_addresses(sock, claims)

    def _hold(
        self, at: tuple[str, bytes], claim: Claim, offset: int, element: maps.MapElement
    ) -> None:
        if element.comment == self._attachment.comment:
            self.mine.add(at)
        elif self._is_sibling(element.comment):
            self.siblings.add(at)
        else:
            raise self._refusal(claim.text(offset), element, "")

    def _look_at_any(self, sock: Socket, claims: list[Claim]) -> None:
        """Where one address is wanted, nobody else may have the port on any."""
        single = [claim for claim in claims if claim.address]
        for claim in single:
            for offset in range(claim.count):
                key = pack(">B3xH2x", claim.protocol, claim.port + offset)
                element = lookup(sock, table.PORTS[claim.family], key)
                if element is not None and not self._is_container(element.comment):
                    raise self._refusal(claim.text(offset), element, "on any address")

    def look_at_addresses(self, sock: Socket, claims: list[Claim]) -> None:
        """Where any address is wanted, nobody else may have the port on one.

        Lists all mappings of one address, which are few, and reads only what has a port.
        """
        for family in table.FAMILIES:
            wide = [c for c in claims if c.family == family and not c.address]
            bodies = sets.elements(sock, TABLE, table.ADDRESSES[family]) if wide else []
            if not bodies:
                continue
            ports = {
                pack(">B3xH2x", claim.protocol, claim.port + offset): claim.text(offset)
                for claim in wide
                for offset in range(claim.count)
            }
            for body in bodies:
                if len(ports) < _FEW and not any(port in body for port in ports):
                    continue
                for element in maps.read(body):
                    text = ports.get(element.key[:8])
                    if text is not None and not self._is_container(element.comment):
                        from libcni.inet import ntop

                        raise self._refusal(text, element, f"on {ntop(element.key[8:])}")

    def forget(self, gone: set[tuple[str, bytes]]) -> None:
        """The elements `gone` will have been deleted."""
        self._sources = [at for at in self._sources if at not in gone]
        self.mine -= gone

    def release(self) -> list[Message]:
        """Delete what was found and not forgotten, to be made anew.

        Somebody who is gone may have had the container's address; and our own elements stay
        without that in `owners` where somebody has deleted it.
        """
        changes: list[Message] = []
        for name, key in (*self._sources, *self.mine):
            changes += maps.delete(TABLE, name, [maps.MapElement(key)])
        return changes

    def _is_container(self, comment: str) -> bool:
        return comment == self._attachment.comment or self._is_sibling(comment)

    def _is_sibling(self, comment: str) -> bool:
        parts = comment.split(":")
        return len(parts) == 4 and parts[2] == self._attachment.container_id

    def _refusal(self, port: str, element: maps.MapElement, where: str) -> Taken:
        mine, comment = self._attachment, element.comment
        parts = comment.split(":")
        # A hashed identity does not say whose it is.
        known = len(parts) == 4 and parts[0] == "cni"
        # An address, then the port in four bytes.
        return Taken(
            f"hostPort {port} for {_name(mine.text)} is taken by {_name(comment)} {where}".strip(),
            "if that is gone, a DEL of it or a GC of its network frees the port",
            Attachment(*parts[1:]) if known else None,
            element.data[:-4],
        )


def _name(comment: str) -> str:
    """An attachment's identity in words."""
    parts = comment.split(":")
    if len(parts) != 4 or parts[0] != "cni":
        return f"{comment!r}"
    return f"network {parts[1]}, container {parts[2]}, interface {parts[3]}"


def _wanted(claims: list[Claim]) -> dict[tuple[str, bytes], tuple[Claim, int]]:
    """(map, key) of each port: its claim and offset."""
    return {
        (table.place(claim), element.key): (claim, offset)
        for claim in claims
        for offset, element in enumerate(table.elements(claim))
    }


def lookup(sock: Socket, name: str, key: bytes) -> maps.MapElement | None:
    """An element of one of our maps or sets, or None. Raises NetlinkError."""
    return maps.found(sock.batch([sets.get_element(TABLE, name, key)])[0], ENOENT)
