# SPDX-License-Identifier: Apache-2.0
"""The underlay: which interface carries the VXLAN packets, and which of its addresses."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from cni_vxlan_overlay.config import OVERHEAD_IPV4, OVERHEAD_IPV6, invalid
from libcni.inet import Prefix, ntop, pton
from libcni.netlink.addr import IFA_F_PERMANENT, RT_SCOPE_UNIVERSE, Address, dump_addresses
from libcni.netlink.link import Link, find_link
from libcni.netlink.route import dump_routes, find_route
from libcni.netlink.socket import Socket

#: linux/if_addr.h; the first means "secondary" for IPv4, which is no fault.
_IFA_F_TEMPORARY = 0x01
_IFA_F_DEPRECATED = 0x20
_REACH = "reach "


class Underlay:
    """An interface with one address of each family that is used.

    addresses: text by family, True for IPv6. on_link: the prefixes of these addresses. mtu:
    bytes, of the interface.
    """

    __slots__ = ("addresses", "index", "mtu", "name", "on_link")

    def __init__(
        self, name: str, index: int, mtu: int, addresses: dict[bool, str], on_link: list[Prefix]
    ) -> None:
        self.name = name
        self.index = index
        self.mtu = mtu
        self.addresses = addresses
        self.on_link = on_link

    def overlay_mtu(self, wanted: int = 0) -> int:
        """The MTU that packets of pods may have, bytes: `wanted`, or what the underlay leaves."""
        overhead = OVERHEAD_IPV6 if True in self.addresses else OVERHEAD_IPV4
        return wanted or self.mtu - overhead

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Underlay):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Underlay({self.name} {self.addresses} mtu {self.mtu})"


def find_underlay(sock: Socket, choice: str, reach: list[str], families: set[bool]) -> Underlay:
    """The underlay that `choice` names: an interface, an address, "reach ADDRESS", or "".

    reach: addresses to try when nothing is chosen, before the default route. families: those
    that peers may have; of others no address is looked for. Raises CniError 7 naming what was
    looked for, NetlinkError.
    """
    chosen = ""
    if choice.startswith(_REACH):
        reach, choice = [choice[len(_REACH) :].strip()], ""
        if not is_address(reach[0]):
            raise invalid(f"underlay: {reach[0]!r} is not an address to reach")
    if choice:
        index, chosen = _by_name_or_address(sock, choice)
    else:
        index, chosen = _by_route(sock, reach)
    link = find_link(sock, index=index)
    if link is None:
        raise invalid(f"underlay: interface {index} has just gone")
    return _with_addresses(sock, link, chosen, families)


def is_address(text: str) -> bool:
    """True for an IPv4 or IPv6 address without a prefix length."""
    try:
        pton(text)
    except ValueError:
        return False
    return True


def _by_name_or_address(sock: Socket, choice: str) -> tuple[int, str]:
    """Index of the interface and, where an address was named, that address."""
    if not is_address(choice):
        link = find_link(sock, choice) if len(choice) < 16 else None
        if link is None:
            raise invalid(f"underlay: there is no interface {choice!r}", "see `ip link`")
        return link.index, ""
    packed = pton(choice)
    for address in dump_addresses(sock):
        if address.prefix.packed == packed:
            return address.index, ntop(packed)
    raise invalid(f"underlay: no interface has the address {choice}", "see `ip address`")


def _by_route(sock: Socket, reach: list[str]) -> tuple[int, str]:
    """Index of the interface that leads to the first address that can be reached, and "".

    Without one, that of the default route.
    """
    for address in reach:
        route = find_route(sock, pton(address))
        if route is not None and route.oif:
            return route.oif, ""
    if not reach:
        for family in (AF_INET, AF_INET6):
            default = [r for r in dump_routes(sock, family) if not r.dst.length and r.oif]
            if default:
                return min(default, key=lambda route: route.priority).oif, ""
        raise invalid(
            "underlay: there is no default route to tell which interface to use",
            "name it: `underlay` is an interface, an address, or `reach ADDRESS`",
        )
    raise invalid(
        f"underlay: no route leads to {' or '.join(reach)}",
        "name it: `underlay` is an interface, an address, or `reach ADDRESS`",
    )


def _with_addresses(sock: Socket, link: Link, chosen: str, families: set[bool]) -> Underlay:
    here = dump_addresses(sock, index=link.index)
    addresses: dict[bool, str] = {}
    on_link: list[Prefix] = []
    for is_ipv6 in sorted(families):
        candidates = [a for a in here if (a.prefix.family == AF_INET6) == is_ipv6]
        best = best_address(candidates, chosen if (":" in chosen) == is_ipv6 else "")
        if best is not None:
            addresses[is_ipv6] = ntop(best.prefix.packed)
            on_link += [a.prefix.network() for a in candidates if not _is_link_local(a)]
    if not addresses:
        raise invalid(
            f"underlay: interface {link.name} has no address that peers could be reached from",
            "it needs an IPv4 or IPv6 address of the family of the peers' `publicIP`",
        )
    return Underlay(link.name, link.index, link.mtu, addresses, on_link)


def _is_link_local(address: Address) -> bool:
    return address.prefix.family == AF_INET6 and address.scope != RT_SCOPE_UNIVERSE


def best_address(candidates: list[Address], chosen: str = "") -> Address | None:
    """The address to be known by: `chosen` if given, else the steadiest; None without any.

    As flannel: global before others, permanent before leased, none that is temporary,
    deprecated or still tentative.
    """
    if chosen:
        packed = pton(chosen)
        return next((a for a in candidates if a.prefix.packed == packed), None)
    usable = [a for a in candidates if not _is_unsteady(a) and not _is_link_local(a)]
    usable.sort(key=lambda a: (a.scope, not a.flags & IFA_F_PERMANENT))
    return usable[0] if usable else None


def _is_unsteady(address: Address) -> bool:
    if address.prefix.family == AF_INET:
        return False
    return bool(address.flags & (_IFA_F_TEMPORARY | _IFA_F_DEPRECATED)) or address.is_tentative
