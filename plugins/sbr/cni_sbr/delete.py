# SPDX-License-Identifier: Apache-2.0
"""DEL: the rules of the interface's addresses, and what their tables have of it.

rule from one address alone                                         removed?
ours or Go's, the address is on CNI_IFNAME, or of it in prevResult  yes
ours, and no interface of the container has the address any more    yes, it is a dead one
somebody else's                                                     no
"""

from __future__ import annotations

from errno import EEXIST, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENOENT

from cni_sbr.add import empty
from cni_sbr.config import PROTOCOL, addresses_of, configured_table, source_of
from cni_sbr.move import MovedRoute, routes_through
from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import find_link
from libcni.netlink.route import RT_TABLE_MAIN, dump_routes
from libcni.netlink.rule import Rule, delete_rule, dump_rules
from libcni.netlink.socket import Socket
from libcni.netns import Inside
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Remove the rules. Idempotent; without a namespace there are none. Raises CniError."""
    namespace = request.netns_or_none()
    if namespace is None:
        return
    with Inside(namespace):
        sock = Socket()
    rules = [rule for rule in dump_rules(sock) if rule.simple and rule.src is not None]
    rules = [rule for rule in rules if rule.src and rule.src.length == rule.src.bits]
    if not any(rule.protocol in (0, PROTOCOL) for rule in rules):
        return
    link = find_link(sock, request.ifname)
    present = dump_addresses(sock)
    everyone = {address.prefix.packed for address in present}
    mine = _remembered(request)
    if link is not None:
        mine |= {a.prefix.packed for a in present if a.index == link.index}
    configured = configured_table(request)
    gone = []
    for rule in rules:
        source = rule.src.packed if rule.src else b""
        if rule.protocol == PROTOCOL:
            found = source in mine or source not in everyone
        else:
            found = source in mine and not rule.protocol and not 253 <= rule.table <= 255
            found = found and (
                rule.table == configured
                if configured
                else _is_alone_in(sock, rule, link.index if link is not None else 0)
            )
        if found:
            gone.append(rule)
    for reply in sock.batch(
        [delete_rule(r.src, r.table, r.protocol, r.priority) for r in gone if r.src]
    ):
        reply.check(ENOENT)
    if link is not None and not configured:
        tables = {rule.table for rule in gone}
        _give_back(sock, link.index, {rule.table for rule in gone if rule.protocol == PROTOCOL})
        empty(sock, link.index, tables)


def _give_back(sock: Socket, index: int, tables: set[int]) -> None:
    """Have the routes that ADD moved in the table main again, those without a gateway first.

    Not those that it made itself. What cannot be had there, as its gateway is out of reach or the
    link is down, is no reason to fail: interface and routes are about to go.
    """
    moved: dict[tuple[object, ...], MovedRoute] = {}
    for route in routes_through(sock, index, 0):
        if route.table in tables and route.protocol != PROTOCOL and not route.is_link_local:
            key = (route.family, route.dst.text(), route.priority, tuple(route.nexthops))
            moved.setdefault(key, route)
    for route in moved.values():
        reply = sock.batch([route.add_to(RT_TABLE_MAIN, replace=False)])[0]
        reply.check(EEXIST, ENETUNREACH, EHOSTUNREACH, ENETDOWN, EINVAL)


def _is_alone_in(sock: Socket, rule: Rule, index: int) -> bool:
    """True when the table of a rule that says not who made it has routes of one link at most."""
    routes = dump_routes(sock, rule.family, table=rule.table)
    return all(oif == index for route in routes for _, oif in route.nexthops)


def _remembered(request: Request) -> set[bytes]:
    """The addresses of the interface in prevResult."""
    try:
        result = request.prev_result()
        return {source_of(ip).packed for ip in addresses_of(request, result)} if result else set()
    except (CniError, ValueError):
        return set()  # a damaged one must not keep DEL from succeeding
