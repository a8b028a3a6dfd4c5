# SPDX-License-Identifier: Apache-2.0
"""CHECK: a rule for each address, and in its table the way out; and nothing else."""

from __future__ import annotations

from cni_sbr.config import (
    addresses_of,
    configured_gateways,
    configured_table,
    gateway_of,
    source_of,
)
from libcni.inet import Prefix, ntop, pton
from libcni.interface.container import next_hop
from libcni.interface.verify import differs
from libcni.netlink.link import find_link
from libcni.netlink.route import dump_routes
from libcni.netlink.rule import dump_rules
from libcni.netlink.socket import Socket
from libcni.netns import Inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.skel.request import Request
    from libcni.types.result import IPConfig, Result, Route


def check(request: Request) -> None:
    """Raise CniError 103 naming the rule or route, what was expected and what was found."""
    result = request.require_prev_result()
    with Inside(request.netns()):
        sock = Socket()
    link = find_link(sock, request.ifname)
    if link is None:
        raise differs(f"interface {request.ifname}", f"one in {request.netns_path}", "nothing")
    rules = [rule for rule in dump_rules(sock) if rule.simple]
    configured, gateways = configured_table(request), configured_gateways(request)
    for ip in addresses_of(request, result):
        source = source_of(ip)
        tables = [rule.table for rule in rules if rule.src == source]
        what = f"rule from {source.text()}"
        if not tables:
            raise differs(what, f"one to table {configured or 'of its own'}", "none")
        if configured:
            if configured not in tables:
                raise differs(what, f"one to table {configured}", f"one to table {tables[0]}")
            continue
        # The one that counts.
        _check_table(sock, link, ip, tables[0], gateway_of(ip, gateways))
        if request.config.get("addSourceHints"):
            _check_hint(sock, link, ip)
        for wanted in result.routes:
            if wanted.table == tables[0]:
                _check_moved(sock, link, wanted, result)


def _check_moved(sock: Socket, link: Link, wanted: Route, result: Result) -> None:
    """A route of the result that ADD says to have moved is there."""
    destination = Prefix.parse(wanted.dst).network()
    hop = next_hop(wanted, result)
    gateway = pton(hop) if hop else b""
    routes = dump_routes(sock, destination.family, link.index, wanted.table or 0)
    if not any(r.dst == destination and gateway in [gw for gw, _ in r.nexthops] for r in routes):
        via = f" via {hop}" if hop else ""
        raise differs(
            f"route {destination.text()}{via} in table {wanted.table}",
            f"one through {link.name}",
            "none",
        )


def _check_hint(sock: Socket, link: Link, ip: IPConfig) -> None:
    address = Prefix.parse(ip.address)
    if address.length == address.bits:
        return
    subnet = address.network()
    routes = [r for r in dump_routes(sock, subnet.family, link.index) if r.dst == subnet]
    sources = [ntop(route.src) for route in routes if route.src]
    # Two addresses of one subnet: the route has one of them.
    if not any(subnet.contains(pton(source)) for source in sources):
        raise differs(
            f"route {subnet.text()} in table main",
            f"one through {link.name} from {ntop(address.packed)}",
            "none" if not routes else "one without a source",
        )


def _check_table(sock: Socket, link: Link, ip: IPConfig, table: int, gateway: bytes) -> None:
    address = Prefix.parse(ip.address)
    routes = dump_routes(sock, address.family, link.index, table)
    if address.length < address.bits - 1:
        subnet = address.network()
        if not any(route.dst == subnet for route in routes):
            raise differs(
                f"route {subnet.text()} in table {table}", f"one through {link.name}", "none"
            )
    hops = [gw for route in routes if not route.dst.length for gw, _ in route.nexthops]
    if gateway and gateway not in hops:
        found = ", ".join(f"via {ntop(hop)}" if hop else "one without" for hop in hops)
        raise differs(
            f"default route in table {table}",
            f"one via {ntop(gateway)} through {link.name}",
            found or "none",
        )
