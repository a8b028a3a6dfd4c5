# SPDX-License-Identifier: Apache-2.0
"""Routes: messages to send and what comes back."""

from __future__ import annotations

from errno import EHOSTUNREACH, ENETUNREACH, ENOENT

from libcni.inet import Prefix
from libcni.netlink.codec import (
    CHANGE,
    CREATE,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    Message,
    Reader,
    fields,
    read_address,
    read_prefix,
)
from libcni.netlink.socket import NetlinkError, Socket
from libcni.netlink.tables.route import ROUTE, ROUTE_ATTRIBUTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# linux/rtnetlink.h
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254
RT_SCOPE_NOWHERE = 255
RTN_UNICAST = 1
RTPROT_KERNEL = 2
RTPROT_BOOT = 3
RTNH_F_ONLINK = 4

#: What to do when a route to the same destination exists (NLM_F_*): refuse with EEXIST; put one
#: more beside it (IPv6 makes it one route of several gateways); replace it.
EXCLUSIVE = CREATE
APPEND = CHANGE | NLM_F_CREATE | NLM_F_APPEND
REPLACE = CHANGE | NLM_F_CREATE | NLM_F_REPLACE

_READER = Reader(
    "RTA_DST",
    "RTA_OIF",
    "RTA_GATEWAY",
    "RTA_PRIORITY",
    "RTA_PREFSRC",
    "RTA_METRICS",
    "RTAX_MTU",
    "RTAX_ADVMSS",
    "RTA_MULTIPATH",
    "RTA_TABLE",
)


class Route:
    """A route. dst has no host bits; gw and src are packed, or empty; nexthops: (gw, oif)."""

    __slots__ = (
        "advmss",
        "dst",
        "family",
        "flags",
        "gw",
        "mtu",
        "nexthops",
        "oif",
        "priority",
        "protocol",
        "scope",
        "src",
        "table",
        "type",
    )

    def __init__(self, body: bytes) -> None:
        """Read the body of an RTM_NEWROUTE."""
        self.family: int
        self.protocol: int
        self.scope: int
        self.type: int
        self.flags: int
        head = fields("BBxxBBBBB", body)
        self.family, length, table, self.protocol, self.scope, self.type, self.flags = head
        read = _READER.read(ROUTE_ATTRIBUTES, body, 12).get
        any_address = b"\0" * (4 if self.family == 2 else 16)
        self.dst = read_prefix(read("RTA_DST", any_address), length, "RTA_DST")
        self.gw: bytes = read_address(read("RTA_GATEWAY", b""), "RTA_GATEWAY")
        self.src: bytes = read_address(read("RTA_PREFSRC", b""), "RTA_PREFSRC")
        self.oif: int = read("RTA_OIF", 0)
        self.priority: int = read("RTA_PRIORITY", 0)
        self.table: int = read("RTA_TABLE", table)
        metrics: dict[str, Any] = read("RTA_METRICS", {})
        self.mtu: int = metrics.get("RTAX_MTU", 0)
        self.advmss: int = metrics.get("RTAX_ADVMSS", 0)
        self.nexthops: list[tuple[bytes, int]] = [
            (read_address(hop.get("RTA_GATEWAY", b""), "RTA_GATEWAY"), hop[""][2])
            for hop in read("RTA_MULTIPATH", [])
        ] or [(self.gw, self.oif)]

    def __repr__(self) -> str:
        return f"Route({self.dst.text()} table {self.table} via {self.nexthops})"


def new_route(
    dst: Prefix,
    oif: int = 0,
    gw: bytes = b"",
    *,
    src: bytes = b"",
    mtu: int = 0,
    advmss: int = 0,
    priority: int = 0,
    table: int = RT_TABLE_MAIN,
    scope: int | None = None,
    onlink: bool = False,
    protocol: int = RTPROT_BOOT,
    nexthops: list[tuple[bytes, int]] | None = None,
    mode: int = EXCLUSIVE,
) -> Message:
    """Add a route to `dst` through link `oif`, by way of the packed address `gw` if given.

    mode says what happens when one exists. scope None: the universe by way of a gateway, else the
    link. onlink: the gateway is on the link though no route says so. nexthops: (gw, oif) of a
    route over several gateways, instead of `gw` and `oif`. mtu and advmss in bytes.
    """
    if scope is None:
        scope = RT_SCOPE_UNIVERSE if gw or nexthops or len(dst.packed) == 16 else RT_SCOPE_LINK
    flags = RTNH_F_ONLINK if onlink else 0
    metrics = {"RTAX_MTU": mtu or None, "RTAX_ADVMSS": advmss or None}
    hops = [
        {"": (flags, 0, link), "RTA_GATEWAY": address or None} for address, link in nexthops or ()
    ]
    return Message(
        RTM_NEWROUTE,
        mode,
        f"add route to {dst.text()}",
        ROUTE,
        _header(dst, table, protocol, scope, RTN_UNICAST, flags),
        {
            "RTA_DST": dst.packed if dst.length else None,
            "RTA_OIF": oif or None,
            "RTA_GATEWAY": gw or None,
            "RTA_PREFSRC": src or None,
            "RTA_PRIORITY": priority or None,
            "RTA_TABLE": table,
            "RTA_METRICS": metrics if mtu or advmss else None,
            "RTA_MULTIPATH": hops or None,
        },
    )


def delete_route(
    dst: Prefix,
    oif: int = 0,
    gw: bytes = b"",
    *,
    priority: int = 0,
    table: int = RT_TABLE_MAIN,
) -> Message:
    """Delete the first route to `dst` that matches what is given. ESRCH if there is none."""
    return Message(
        RTM_DELROUTE,
        CHANGE,
        f"delete route to {dst.text()}",
        ROUTE,
        _header(dst, table, 0, RT_SCOPE_NOWHERE, 0, 0),
        {
            "RTA_DST": dst.packed if dst.length else None,
            "RTA_OIF": oif or None,
            "RTA_GATEWAY": gw or None,
            "RTA_PRIORITY": priority or None,
            "RTA_TABLE": table,
        },
    )


def dump_routes(
    sock: Socket, family: int, oif: int = 0, table: int = RT_TABLE_MAIN
) -> list[Route]:
    """The routes of one table (0: of all) and family, through link `oif` if given.

    A table that does not exist has no routes. Raises NetlinkError.
    """
    message = Message(
        RTM_GETROUTE,
        NLM_F_REQUEST,
        f"list routes of table {table}" if table else "list routes",
        ROUTE,
        (family, 0, 0, 0, table if table < 256 else 0, 0, 0, 0, 0),
        {"RTA_TABLE": table or None, "RTA_OIF": oif or None},
    )
    try:
        routes = [Route(body) for body in sock.dump(message)]
    except NetlinkError as error:
        if error.errno == ENOENT and table:
            return []
        raise
    # A kernel without strict checking ignores the filter.
    return [
        route
        for route in routes
        if (not table or route.table == table)
        and (not oif or any(hop[1] == oif for hop in route.nexthops))
    ]


def find_route(sock: Socket, packed: bytes) -> Route | None:
    """The route that a packet to the packed address would take, None if there is none.

    Raises NetlinkError.
    """
    prefix = Prefix(packed, len(packed) * 8)
    message = Message(
        RTM_GETROUTE,
        NLM_F_REQUEST,
        f"look up the route to {prefix.text()}",
        ROUTE,
        (prefix.family, prefix.length, 0, 0, 0, 0, 0, 0, 0),
        {"RTA_DST": packed},
    )
    reply = sock.batch([message])[0]
    return Route(reply.item()) if reply.check(ENETUNREACH, EHOSTUNREACH) else None


def _header(
    dst: Prefix, table: int, protocol: int, scope: int, kind: int, flags: int
) -> tuple[int, ...]:
    number = table if table < 256 else 0
    return (dst.family, dst.length, 0, 0, number, protocol, scope, kind, flags)
