# SPDX-License-Identifier: Apache-2.0
"""The configuration of ptp."""

from __future__ import annotations

from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes: what a veth accepts.
MTU_MIN, MTU_MAX = 68, 65535


class Config:
    """What one attachment shall look like. mtu: bytes, 0 leaves it to the kernel."""

    __slots__ = ("dns", "ipam", "masquerade", "masquerade_backend", "mtu")

    def __init__(self, document: dict[str, Any]) -> None:
        """Read the canonical document. Raises CniError 7."""
        get = document.get
        self.masquerade: bool = get("ipMasq", False)
        self.masquerade_backend: str = get("ipMasqBackend", "")
        self.mtu: int = get("mtu", 0)
        self.ipam: str = (get("ipam") or {}).get("type", "")
        #: Replaces the DNS of IPAM when any of its fields is there, be it empty.
        self.dns: dict[str, Any] | None = get("dns") or None
        if not self.ipam:
            raise CniError(
                INVALID_NETWORK_CONFIG,
                "ipam.type is missing",
                "without addresses there is nothing that ptp could route",
            )
        if self.mtu and not MTU_MIN <= self.mtu <= MTU_MAX:
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"mtu: {self.mtu} must be 0 or between {MTU_MIN} and {MTU_MAX}",
            )
