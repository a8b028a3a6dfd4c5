# SPDX-License-Identifier: Apache-2.0
"""What bridge refuses of its configuration, and what cannot work; `cnitool validate` asks."""

from __future__ import annotations

from cni_bridge.addressing import complete
from cni_bridge.config import invalid, load
from libcni.inet import Prefix, pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import IPConfig, Result


def refuse(request: Request) -> None:
    """Read what ADD reads before it looks at the host. Raises CniError as ADD would."""
    load(request)


def refuse_addresses(request: Request, result: Result) -> None:
    """Raise CniError 7 for a default route that the kernel will refuse.

    result: of IPAM, as `example` in the `advice` of its plugin; it is changed.
    """
    config = load(request)
    if not config.is_default_gateway or not result.ips:
        return
    on_link = [Prefix.parse(route.dst) for route in result.routes if not route.gw]
    complete(result, config)
    for ip in result.ips:
        if not _is_reached(ip) and not any(p.contains(pton(ip.gateway)) for p in on_link):
            subnet = Prefix.parse(ip.address).network().text()
            raise invalid(
                f"gateway {ip.gateway} is not in {subnet}",
                "with isDefaultGateway the default route leads to it, and no container would "
                "reach it",
            )


def _is_reached(ip: IPConfig) -> bool:
    """Whether a gateway is in the subnet of its address, or of every link."""
    gateway = pton(ip.gateway)
    link_local = len(gateway) == 16 and gateway[0] == 0xFE and gateway[1] & 0xC0 == 0x80
    return link_local or Prefix.parse(ip.address).contains(gateway)
