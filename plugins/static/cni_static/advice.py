# SPDX-License-Identifier: Apache-2.0
"""What static refuses when it reads its configuration; `cnitool validate` asks for it."""

from __future__ import annotations

from cni_static.config import addresses_of
from libcni.types.result import Result
from libcni.types.routes import read_routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def refuse(request: Request) -> None:
    """Read what ADD reads. Raises CniError as ADD would."""
    example(request)


def example(request: Request) -> Result:
    """What ADD gives if the runtime asks for nothing else. Raises CniError as ADD would."""
    routes = read_routes(request.config["ipam"].get("routes") or [])
    return Result(ips=addresses_of(request), routes=routes)
