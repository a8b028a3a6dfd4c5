# SPDX-License-Identifier: Apache-2.0
"""Masquerade for an overlay: what pods send to outside of it leaves with the node's address.

`libcni.ipmasq` leaves alone what stays within an address's prefix; so each address is given
the prefix length of the overlay's network instead of the node's subnet.
"""

from __future__ import annotations

from libcni.inet import Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.types.result import Result


def addresses_of(result: Result, networks: list[Prefix], ifname: str = "") -> list[str]:
    """The result's addresses with the prefix length of their overlay network, as text.

    ifname: only those of this interface, and those that name none: in the final result of a list
    there are addresses that plugins after this one have added to interfaces of their own.
    """
    found = []
    for ip in result.ips:
        if ifname and ip.interface is not None and ip.interface < len(result.interfaces):
            interface = result.interfaces[ip.interface]
            if interface.sandbox and interface.name != ifname:
                continue
        prefix = Prefix.parse(ip.address)
        for network in networks:
            if network.contains(prefix.packed):
                prefix = Prefix(prefix.packed, network.length)
                break
        found.append(prefix.text())
    return found
