# SPDX-License-Identifier: Apache-2.0
"""Results of versions 0.1.0 and 0.2.0: one address per family, each with its own routes."""

from __future__ import annotations

from libcni.types.errors import INTERNAL, CniError
from libcni.types.result import IPConfig, Result, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RESULT_KEYS = ("cniVersion", "ip4", "ip6", "dns")
_FAMILY_KEYS = ("ip", "gateway", "routes")


def parse(document: object) -> Result:
    """Read one: IPv4 first, then IPv6; there are no interfaces. Raises CniError 6."""
    from libcni.types.parsing import cidr, ip_address, members, parse_dns, parse_routes

    get = members(document, "result", _RESULT_KEYS).get
    ips: list[IPConfig] = []
    routes: list[Route] = []
    for family in ("ip4", "ip6"):
        part = get(family)
        if part is None:
            continue
        member = members(part, family, _FAMILY_KEYS).get
        ips.append(
            IPConfig(
                cidr(member("ip"), f"{family}.ip"),
                ip_address(member("gateway"), f"{family}.gateway"),
            )
        )
        routes += parse_routes(member("routes"), f"{family}.routes")
    return Result(ips=ips, routes=routes, dns=parse_dns(get("dns")))


def render(result: Result, version: str) -> dict[str, Any]:
    """Write one: the first address of each family, routes by the family of their destination.

    What does not fit is left out as the reference does: further addresses, interfaces, a
    route's newer fields, routes of a family without an address. Raises CniError 999 when there
    is no address at all.
    """
    families: dict[str, dict[str, Any]] = {}
    for family in ("ip4", "ip6"):
        for ip in result.ips:
            if _family(ip.address) == family:
                families[family] = {"ip": ip.address}
                if ip.gateway:
                    families[family]["gateway"] = ip.gateway
                break
    if not families:
        raise CniError(
            INTERNAL,
            "cannot convert: no valid IP addresses",
            f"a result of version {version} needs one; use a cniVersion of 0.3.0 or later",
        )
    for route in result.routes:
        part = families.get(_family(route.dst))
        if part is not None:
            kept = {"dst": route.dst}
            if route.gw:
                kept["gw"] = route.gw
            part.setdefault("routes", []).append(kept)
    return {"cniVersion": version, **families, "dns": result.dns.to_json()}


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip4"
