# SPDX-License-Identifier: Apache-2.0
"""Routes as the kernel shows them, to be had again in another table with all that they have.

Requests are made from the bytes of the dump, so that no attribute is lost that we do not know.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from libcni.inet import Prefix
from libcni.netlink.codec import CHANGE, NLM_F_REQUEST, Message
from libcni.netlink.route import (
    APPEND,
    REPLACE,
    RT_TABLE_MAIN,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTNH_F_ONLINK,
    Route,
    new_route,
)
from libcni.netlink.tables.route import ROUTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.socket import Socket

# linux/rtnetlink.h: age and users of a route, which nobody can set; the table.
_RTA_CACHEINFO, _RTA_TABLE = 12, 15
_TYPE_MASK = 0x3FFF
_LINK_LOCAL = Prefix.parse("fe80::/64")


class MovedRoute(Route):
    """A route with the bytes that it was read from."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._body = body

    @property
    def is_link_local(self) -> bool:
        """True for the route that neighbour discovery of IPv6 needs in the table main."""
        return self.dst == _LINK_LOCAL

    def _in_table(self, table: int) -> bytes:
        """Header and attributes, of another table."""
        header = bytearray(self._body[:12])
        header[4] = table if table < 256 else 0
        header[8:12] = pack("=I", self.flags & RTNH_F_ONLINK)
        parts = [bytes(header)]
        offset = 12
        while offset + 4 <= len(self._body):
            size, number = unpack_from("=HH", self._body, offset)
            if size < 4:
                break
            if number & _TYPE_MASK not in (_RTA_CACHEINFO, _RTA_TABLE):
                parts.append(self._body[offset : offset + (size + 3 & ~3)])
            offset += size + 3 & ~3
        parts.append(pack("=HHI", 8, _RTA_TABLE, table))
        return b"".join(parts)

    def add_to(self, table: int, replace: bool = True) -> Message:
        """Have it in a table, instead of one to the same destination if `replace`."""
        return self._message(RTM_NEWROUTE, REPLACE if replace else APPEND, "add", table)

    def delete_from(self, table: int) -> Message:
        """Delete it. ESRCH if it is not there."""
        return self._message(RTM_DELROUTE, CHANGE, "delete", table)

    def _message(self, kind: int, flags: int, verb: str, table: int) -> Message:
        doing = f"{verb} route to {self.dst.text()} in table {table}"
        message = Message(kind, flags, doing, ("=", {}), (), {})
        message.body = self._in_table(table)
        return message


def routes_through(sock: Socket, index: int, table: int = RT_TABLE_MAIN) -> list[MovedRoute]:
    """The routes of a table (0: of all) through a link, those without a gateway first.

    Raises NetlinkError.
    """
    found = []
    for family in (2, 10):
        message = Message(
            RTM_GETROUTE,
            NLM_F_REQUEST,
            "list routes",
            ROUTE,
            (family, 0, 0, 0, 0, 0, 0, 0, 0),
            {},
        )
        found += [MovedRoute(body) for body in sock.dump(message)]
    mine = [
        route
        for route in found
        if (not table or route.table == table) and any(oif == index for _, oif in route.nexthops)
    ]
    return sorted(mine, key=lambda route: any(gw for gw, _ in route.nexthops))


def keep(
    routes: list[MovedRoute], subnets: list[Prefix], index: int
) -> tuple[list[MovedRoute], list[tuple[Prefix, Message]]]:
    """What has to be in the table main for `addSourceHints`: routes into the interface's subnets.

    Returns those that can stay as they are, as they have a source or lead over a gateway, and
    (destination, request) of those that have to be made anew, to have one.
    """
    staying: list[MovedRoute] = []
    hints: list[tuple[Prefix, Message]] = []
    for route in routes:
        near = [subnet for subnet in subnets if subnet.contains(route.dst.packed)]
        if not near or route.dst.length < near[0].length or route.is_link_local:
            continue
        if route.src or any(gw for gw, _ in route.nexthops):
            staying.append(route)
        else:
            source = near[0].packed
            message = new_route(route.dst, index, src=source, priority=route.priority, mode=APPEND)
            hints.append((route.dst, message))
    return staying, hints
