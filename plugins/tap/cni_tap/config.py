# SPDX-License-Identifier: Apache-2.0
"""The configuration of tap."""

from __future__ import annotations

from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request

#: Bytes: the least that a device accepts.
_MTU_MIN = 68


class Config:
    """What one attachment shall look like. mtu: bytes, 0 for the kernel's. owner, group: or None.

    bridge: "" for none.
    """

    __slots__ = ("bridge", "context", "dns", "group", "mac", "mtu", "multi_queue", "owner")

    def __init__(self, request: Request) -> None:
        """Read the canonical document. Raises CniError 7, or 4 for CNI_ARGS."""
        document: dict[str, Any] = request.config
        get = document.get
        self.multi_queue: bool = get("multiQueue", False)
        self.mtu: int = get("mtu", 0)
        self.owner: int | None = get("owner")
        self.group: int | None = get("group")
        self.context: str = get("selinuxContext", "")
        self.bridge: str = get("bridge", "")
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
