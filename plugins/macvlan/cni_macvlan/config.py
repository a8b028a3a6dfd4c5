# SPDX-License-Identifier: Apache-2.0
"""The configuration of macvlan."""

from __future__ import annotations

from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request

#: linux/if_link.h enum macvlan_mode.
MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
#: Bytes: the least that a device accepts.
_MTU_MIN = 68


class Config:
    """What one attachment shall look like. mtu: bytes, 0 for the master's.

    master: "" for the interface of the default route. queue: packets, 0 for the kernel's choice.
    """

    __slots__ = ("dns", "in_container", "mac", "master", "mode", "mtu", "queue")

    def __init__(self, request: Request) -> None:
        """Read the canonical document. Raises CniError 7, or 4 for CNI_ARGS."""
        document: dict[str, Any] = request.config
        get = document.get
        self.master: str = get("master", "")
        self.mode: str = get("mode") or "bridge"
        self.mtu: int = get("mtu", 0)
        self.in_container: bool = get("linkInContainer", False)
        self.queue: int = get("bcqueuelen", 0)
        #: Replaces the DNS of IPAM when any of its fields is there, be it empty.
        self.dns: dict[str, Any] | None = get("dns") or None
        self.mac = ""
        if request.args or get("mac") or get("runtimeConfig"):
            from libcni.mac import requested_mac

            self.mac = requested_mac(request)
        if self.mtu and self.mtu < _MTU_MIN:
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"mtu: invalid MTU {self.mtu}, must be 0 or at least {_MTU_MIN}",
            )
        if self.mac and self.mode == "passthru":
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"MAC address {self.mac} is asked for in mode passthru",
                "there the interface has the MAC address of its master",
            )
