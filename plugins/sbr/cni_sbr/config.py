# SPDX-License-Identifier: Apache-2.0
"""The configuration of sbr, and the addresses that it is about."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import IPConfig, Result

#: By which our rules are known (FRA_PROTOCOL): a number that no routing daemon has.
PROTOCOL = 173


def configured_table(request: Request) -> int:
    """`table`; 0 for free ones. DEL is not validated."""
    value = request.config.get("table")
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def configured_gateways(request: Request) -> dict[int, bytes]:
    """`gateways` by family, packed. Raises CniError 7 for two of one family."""
    found: dict[int, bytes] = {}
    for text in request.config.get("gateways") or ():
        gateway = pton(text)
        family = AF_INET if len(gateway) == 4 else AF_INET6
        if family in found:
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"gateways: {ntop(found[family])} and {ntop(gateway)} are of one family",
                "a table has one default route: give one gateway for IPv4 and one for IPv6",
            )
        found[family] = gateway
    return found


def gateway_of(ip: IPConfig, configured: dict[int, bytes]) -> bytes:
    """The gateway of an address's table, packed; empty for none."""
    family = AF_INET6 if ":" in ip.address else AF_INET
    return configured.get(family) or (pton(ip.gateway) if ip.gateway else b"")


def addresses_of(request: Request, result: Result) -> list[IPConfig]:
    """The addresses of CNI_IFNAME in a result; one that names no interface counts.

    Raises CniError 7 for an index that is out of range.
    """
    found = []
    for ip in result.ips:
        if ip.interface is not None:
            if not 0 <= ip.interface < len(result.interfaces):
                raise CniError(
                    INVALID_NETWORK_CONFIG,
                    f"prevResult: address {ip.address} is of interface {ip.interface}, "
                    f"of which there are {len(result.interfaces)}",
                )
            if result.interfaces[ip.interface].name != request.ifname:
                continue
        found.append(ip)
    return found


def source_of(ip: IPConfig) -> Prefix:
    """The address alone, as a rule has it."""
    prefix = Prefix.parse(ip.address)
    return Prefix(prefix.packed, prefix.bits)
