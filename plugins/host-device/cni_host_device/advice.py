# SPDX-License-Identifier: Apache-2.0
"""What host-device refuses, or accepts but nobody is likely to mean; `cnitool validate` asks."""

from __future__ import annotations

from cni_host_device.find import Config
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request

#: Keys that say which device, by precedence.
_WAYS = ("device", "hwaddr", "kernelpath", "pciBusID")


def refuse(request: Request) -> None:
    """Read what ADD reads before it looks at the host. Raises CniError as ADD would."""
    if (request.config.get("capabilities") or {}).get("deviceID"):
        return  # it is the runtime that says which device
    if Config(request.config).device == "lo":
        raise CniError(
            INVALID_NETWORK_CONFIG, "device: lo, the loopback device, cannot leave its namespace"
        )


def advice(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(path of the key, warning) for each; document: a canonical one that the schema accepts."""
    given = [key for key in _WAYS if document.get(key)]
    return [(key, f"not looked at, as {given[0]} goes before it") for key in given[1:]]
