# SPDX-License-Identifier: Apache-2.0
"""ADD: a rule and a table for each address; the interface's routes move there."""

from __future__ import annotations

from errno import EEXIST, ENOENT, ESRCH

from cni_sbr.config import (
    PROTOCOL,
    addresses_of,
    configured_gateways,
    configured_table,
    gateway_of,
    source_of,
)
from cni_sbr.move import MovedRoute, keep, routes_through
from libcni.inet import Prefix, ntop
from libcni.interrupt import checkpoint
from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import Link, find_link
from libcni.netlink.route import (
    REPLACE,
    RT_TABLE_MAIN,
    delete_route,
    dump_routes,
    new_route,
)
from libcni.netlink.rule import Rule, delete_rule, dump_rules, new_rule
from libcni.netlink.socket import Socket
from libcni.netns import Inside
from libcni.netns_lock import NamespaceLock
from libcni.types.errors import CONFLICT, INVALID_NETWORK_CONFIG, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from libcni.netlink.codec import Message
    from libcni.skel.request import Request
    from libcni.types.result import IPConfig, Result

#: The first table to take, as with Go.
FIRST_TABLE = 100


def add(request: Request) -> Result:
    """Returns prevResult, with the table of each route that has moved.

    Idempotent with `table`; without, a second one is refused (101), as the routes have moved.
    Leaves everything as it was when it fails (CniError).
    """
    result = request.chained_result()
    gateways = configured_gateways(request)
    ips = addresses_of(request, result)
    if not ips:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"prevResult has no address of {request.ifname}",
            "sbr routes by address; does the plugin before have `ipam`?",
        )
    with Inside(request.netns()):
        sock = Socket()
    with NamespaceLock(request.netns()):
        link = find_link(sock, request.ifname)
        if link is None:
            raise CniError(
                KERNEL,
                f"failed to find interface {request.ifname} in {request.netns_path}",
                "an earlier plugin of the list has to make it",
            )
        table, rules = configured_table(request), dump_rules(sock)
        if table:
            _add_rules(sock, request, link, [(ip, table) for ip in ips], rules)
        else:
            _refuse_repetition(sock, request, link, ips, rules)
            # Now and not when each is needed: somebody else's routes do not mind the lock.
            free = _free_tables(sock, rules)
            chosen = [(ip, next(free)) for ip in ips]
            _separate(sock, request, link, chosen, gateways, result, rules)
    checkpoint()
    return result


def _refuse_repetition(
    sock: Socket, request: Request, link: Link, ips: list[IPConfig], rules: list[Rule]
) -> None:
    """Raise CniError 101 when ADD was here before: the routes of the interface have moved.

    A rule of ours whose table has none of them is a dead one, of an earlier interface.
    """
    sources = [source_of(ip) for ip in ips]
    mine = [r for r in rules if r.protocol == PROTOCOL and r.simple and r.src in sources]
    if not mine:
        return
    used = {route.table for route in routes_through(sock, link.index, 0)}
    for rule in mine:
        if rule.src is not None and rule.table in used:
            raise CniError(
                CONFLICT,
                f"sbr has moved the routes of {request.ifname} before: there is a rule from "
                f"{rule.src.text()} lookup {rule.table}",
                "run DEL for this container and interface first",
            )


def _free_tables(sock: Socket, rules: list[Rule]) -> Iterator[int]:
    """Tables that neither a rule nor a route uses, from 100 on."""
    taken = {rule.table for rule in rules}
    for family in (2, 10):
        taken |= {route.table for route in dump_routes(sock, family, table=0)}
    number = FIRST_TABLE
    while True:
        # 253 to 255 are the kernel's default, main and local.
        if number not in taken and not 253 <= number <= 255:
            yield number
        number += 1


def _add_rules(
    sock: Socket,
    request: Request,
    link: Link,
    chosen: list[tuple[IPConfig, int]],
    rules: list[Rule],
) -> None:
    """rules: those that are there. One of ours for an address of this link alone is kept."""
    messages = []
    for ip, table in chosen:
        source = source_of(ip)
        present = [rule for rule in rules if rule.src == source and rule.table == table]
        if any(rule.simple and rule.protocol == PROTOCOL for rule in present):
            others = [a for a in dump_addresses(sock) if a.index != link.index]
            if all(address.prefix.packed != source.packed for address in others):
                continue  # of an ADD before
        if present:
            raise CniError(
                CONFLICT,
                f"a rule from {source.text()} lookup {table} exists already",
                "does another interface of the container have the same address?",
            )
        request.undo.push(_remove_rule, sock, source, table)
        messages.append(new_rule(source, table, PROTOCOL))
    sock.run(*messages)


def _remove_rule(sock: Socket, source: Prefix, table: int) -> None:
    sock.batch([delete_rule(source, table, PROTOCOL)])[0].check(ENOENT)


def _separate(
    sock: Socket,
    request: Request,
    link: Link,
    chosen: list[tuple[IPConfig, int]],
    gateways: dict[int, bytes],
    result: Result,
    rules: list[Rule],
) -> None:
    routes = routes_through(sock, link.index)
    placed = place(routes, chosen)
    subnets = [Prefix.parse(ip.address) for ip, _ in chosen]
    staying, hints = (
        keep(routes, subnets, link.index) if request.config.get("addSourceHints") else ([], [])
    )
    moving = [
        route
        for route in routes
        if id(route) in placed and not route.is_link_local and route not in staying
    ]
    tables = [table for _, table in chosen]
    request.undo.push(_restore, sock, link.index, moving, tables, [route for route, _ in hints])
    #: Where what was in the table main is to be found.
    now = [(route.dst, placed[id(route)][0]) for route in moving]
    messages: list[Message] = []
    for route in routes:
        if not route.dst.length and route.family in gateways:
            continue  # another one comes in its place
        messages += [route.add_to(table) for table in placed.get(id(route), ())]
    for ip, table in chosen:
        gateway = gateway_of(ip, gateways)
        if gateway:
            anywhere = Prefix(bytes(len(gateway)), 0)
            has_own = anywhere.family not in gateways and any(
                route.dst == anywhere and table in placed.get(id(route), ()) for route in routes
            )
            if not has_own:
                now.append((anywhere, table))
                message = new_route(
                    anywhere,
                    link.index,
                    gateway,
                    table=table,
                    protocol=PROTOCOL,  # ours: DEL does not give it to the table main
                    mode=REPLACE,
                )
                hop = ntop(gateway)
                message.doing = f"add route to {anywhere.text()} via {hop} in table {table}"
                messages.append(message)
    sock.run(*messages)
    # The tables are complete before anything is sent to them.
    _add_rules(sock, request, link, chosen, rules)
    for reply in sock.batch([route.delete_from(RT_TABLE_MAIN) for route in reversed(moving)]):
        reply.check(ESRCH)
    sock.run(*(message for _, message in hints))
    for wanted in result.routes:
        if wanted.table in (None, RT_TABLE_MAIN):
            destination = Prefix.parse(wanted.dst).network()
            for dst, table in now:
                if dst == destination:
                    wanted.table = table
                    if not dst.length and dst.family in gateways:
                        wanted.gw = ntop(gateways[dst.family])
                    break


def place(routes: list[MovedRoute], chosen: list[tuple[IPConfig, int]]) -> dict[int, list[int]]:
    """The tables that each route goes to, by its id(); one without any stays where it is.

    To those of the addresses whose subnet has its source or gateway, else to all of its family.
    """
    placed: dict[int, list[int]] = {}
    for route in routes:
        near, family = [], []
        for ip, table in chosen:
            subnet = Prefix.parse(ip.address)
            if subnet.family != route.family:
                continue
            family.append(table)
            hops = [gw for gw, _ in route.nexthops if gw]
            if any(
                Prefix(packed, subnet.length).network() == subnet.network()
                for packed in (*hops, *([route.src] if route.src else []))
            ):
                near.append(table)
        if near or family:
            placed[id(route)] = near or family
    return placed


def _restore(
    sock: Socket,
    index: int,
    routes: list[MovedRoute],
    tables: list[int],
    hints: list[Prefix],
) -> None:
    """Undo: the routes as they were, and nothing in the tables. Idempotent."""
    for reply in sock.batch([delete_route(dst, index) for dst in hints]):
        reply.check(ESRCH)
    for reply in sock.batch([route.add_to(RT_TABLE_MAIN, replace=False) for route in routes]):
        reply.check(EEXIST)
    empty(sock, index, set(tables))


def empty(sock: Socket, index: int, tables: set[int]) -> None:
    """Delete what some tables have of a link. Idempotent."""
    stale = [route for route in routes_through(sock, index, 0) if route.table in tables]
    for reply in sock.batch([route.delete_from(route.table) for route in reversed(stale)]):
        reply.check(ESRCH)
