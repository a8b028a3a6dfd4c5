# SPDX-License-Identifier: Apache-2.0
"""Routes as configurations have them."""

from __future__ import annotations

from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError
from libcni.types.result import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_routes(entries: list[dict[str, Any]], where: str = "ipam.routes") -> list[Route]:
    """The routes of a list that has passed the schema. Raises CniError 7 for one that is none."""
    routes = []
    for index, entry in enumerate(entries):
        get = entry.get
        try:
            dst = Prefix.parse(entry["dst"]).text()
            gw = get("gw")
            routes.append(
                Route(
                    dst,
                    ntop(pton(gw)) if gw else "",
                    get("mtu", 0),
                    get("advmss", 0),
                    get("priority", 0),
                    get("table"),
                    get("scope"),
                )
            )
        except (KeyError, ValueError) as error:
            raise CniError(INVALID_NETWORK_CONFIG, f"{where}[{index}]: {error}") from None
    return routes
