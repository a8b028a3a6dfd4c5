# SPDX-License-Identifier: Apache-2.0
"""The gateway: addresses of the host on the bridge, and forwarding."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EEXIST, EINVAL

from libcni import sysctl
from libcni.interface.mtu import require_ipv6_mtu
from libcni.netlink.addr import delete_address, dump_addresses, new_address
from libcni.netlink.link import Link, get_link, set_link
from libcni.types.errors import CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.device import Changes
    from libcni.inet import Prefix
    from libcni.netlink.addr import Address
    from libcni.netlink.socket import Socket

#: By address length in bytes.
FORWARDING = {4: "ipv4/ip_forward", 16: "ipv6/conf/all/forwarding"}


def ensure_gateways(
    sock: Socket, link: Link, gateways: list[Prefix], force: bool, changes: Changes
) -> None:
    """Give the link (the bridge, or its VLAN's gateway) the addresses, and forward for them.

    An IPv4 address that is not one of them, or an IPv6 one whose prefix overlaps, is an error
    (CniError 101) unless `force`, which replaces it: as with Go. Idempotent.
    """
    present = dump_addresses(sock, link.index)
    for gateway in gateways:
        if any(address.prefix == gateway for address in present):
            continue
        for address in present:
            if conflicts(address, gateway, gateways):
                if not force:
                    raise CniError(
                        CONFLICT,
                        f'"{link.name}" already has an IP address different from {gateway.text()}',
                        f"it has {address.prefix.text()}; forceAddress would replace it",
                    )
                changes.removed.append((link.index, address.prefix))
                request = delete_address(link.index, address.prefix)
                sock.batch([request])[0].check(EADDRNOTAVAIL)
        changes.added.append((link.index, gateway))
        replies = sock.batch(
            [
                new_address(link.index, gateway, nodad=True),
                # To itself: from now on it does not follow the ports' (a bridge not made by us).
                set_link(index=link.index, mac=link.mac),
            ]
        )
        if replies[0].error == EINVAL:
            # The MTU of a bridge may have followed its ports' since it was looked at.
            now = Link(sock.request(get_link(index=link.index))[0])
            require_ipv6_mtu([gateway.text()], now.mtu, now.name)
        if not replies[0].check(EEXIST):
            changes.added.pop()
        replies[1].check()
    for size in {len(gateway.packed) for gateway in gateways}:
        if sysctl.write_if_differs(FORWARDING[size], "1"):
            changes.forwarding.append(FORWARDING[size])


def conflicts(address: Address, gateway: Prefix, gateways: list[Prefix]) -> bool:
    """True when `address` cannot stay beside `gateway`; other gateways asked for now can."""
    prefix = address.prefix
    if prefix.family != gateway.family or prefix in gateways:
        return False
    if len(prefix.packed) == 4:
        return True
    return prefix.contains(gateway.packed) or gateway.contains(prefix.packed)
