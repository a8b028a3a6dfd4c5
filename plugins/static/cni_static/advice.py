# SPDX-License-Identifier: Apache-2.0
"""What static refuses, or accepts but nobody is likely to mean; `cnitool validate` asks."""

from __future__ import annotations

from cni_static.config import addresses_of
from libcni.types.result import Result
from libcni.types.routes import read_routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request


def refuse(request: Request) -> None:
    """Read what ADD reads. Raises CniError as ADD would."""
    example(request)


def example(request: Request) -> Result:
    """What ADD gives if the runtime asks for nothing else. Raises CniError as ADD would."""
    routes = read_routes(request.config["ipam"].get("routes") or [])
    return Result(ips=addresses_of(request), routes=routes)


def advice(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(path of the key, warning) for each; document: a canonical one that the schema accepts,
    with the network's `capabilities`."""
    is_told = (document.get("capabilities") or {}).get("ips")
    arguments = ((document.get("args") or {}).get("cni") or {}).get("ips")
    if document["ipam"].get("addresses") or is_told or arguments:
        return []
    return [
        (
            "ipam.addresses",
            'no address is named, nor can a runtime ask for one without "capabilities": '
            '{"ips": true}',
        )
    ]
