# SPDX-License-Identifier: Apache-2.0
"""What ptp refuses of its configuration, and what cannot work; `cnitool validate` asks."""

from __future__ import annotations

from cni_ptp.config import Config
from cni_ptp.pair import gateway_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Result


def refuse(request: Request) -> None:
    """Read what ADD reads before it looks at the host. Raises CniError as ADD would."""
    Config(request.config)


def refuse_addresses(request: Request, result: Result) -> None:
    """Raise CniError 104, as ADD would, for an address without a gateway that can be one.

    result: of IPAM, as `example` in the `advice` of its plugin.
    """
    if (request.config.get("capabilities") or {}).get("ips"):
        return  # the runtime may ask for others
    for ip in result.ips:
        gateway_of(ip)
