# SPDX-License-Identifier: Apache-2.0
"""IPv6 needs an MTU of 1280: RFC 8200 section 5; net/ipv6/addrconf.c has none on a link with less.

Without a word of it the kernel refuses the address (EINVAL) and has no sysctls of the interface.
"""

from __future__ import annotations

from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Bytes. include/uapi/linux/ipv6.h IPV6_MIN_MTU
IPV6_MINIMUM = 1280


def require_ipv6_mtu(addresses: Iterable[str], mtu: int, device: str = "") -> None:
    """Raise CniError 7 naming the first IPv6 address, text, that `mtu` is too small for.

    mtu: bytes. device: whose it is, where the key `mtu` does not say.
    """
    if mtu >= IPV6_MINIMUM:
        return
    for address in addresses:
        if ":" in address:
            what = f"MTU {mtu} of {device}" if device else f"mtu {mtu}"
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"{what} is too small for IPv6 address {address}: it takes at least "
                f"{IPV6_MINIMUM}",
                "Linux has no IPv6 on an interface with less (RFC 8200 section 5)",
            )
