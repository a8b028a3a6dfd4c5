# SPDX-License-Identifier: Apache-2.0
"""ADD: say which addresses the container has. Nothing is kept unless `exclusive` is set."""

from __future__ import annotations

from cni_static.config import addresses_of
from libcni.types.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def add(request: Request) -> Result:
    """The addresses with gateways, routes and DNS.

    Raises CniError 7 or 4; with `exclusive` what `claim` raises, and nothing stays claimed then.
    """
    ipam = request.config["ipam"]
    result = Result(ips=addresses_of(request))
    if ipam.get("exclusive"):
        from cni_static.holders import claim

        claim(request, [ip.address.partition("/")[0] for ip in result.ips])
    if ipam.get("routes"):
        from libcni.types.routes import read_routes

        result.routes = read_routes(ipam["routes"])
    if ipam.get("dns"):
        from libcni.types.parsing import parse_dns

        result.dns = parse_dns(ipam["dns"])
    return result
