# SPDX-License-Identifier: Apache-2.0
"""This node's VXLAN devices: what they shall be, how a device differs from it, how it is made."""

from __future__ import annotations

from _socket import AF_INET6, inet_pton

from cni_vxlan_overlay.peers import vtep_mac
from libcni.inet import Prefix, ntop, pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_vxlan_overlay.lease import Lease
    from cni_vxlan_overlay.underlay import Underlay
    from libcni.netlink.link import Link

#: What the alias of our devices begins with; the owner follows.
MARK = "vxlan-overlay:"
#: The owner of the devices of an agent; in the plugin's own it is the network's name, which
#: has no parentheses.
AGENT = "(agent)"


def device_name(vni: int, is_ipv6: bool) -> str:
    """Name of the device over an underlay of that family; at most 15 characters."""
    return f"adder6.{vni}" if is_ipv6 else f"adder.{vni}"


class Vtep:
    """What a VXLAN device shall be.

    local: the underlay's address, text. link: index of the underlay. mtu: bytes. addresses:
    of the device, each the network address of a subnet of this node, the source of what the
    host itself sends into the overlay.
    """

    __slots__ = (
        "addresses",
        "gbp",
        "learning",
        "link",
        "local",
        "mac",
        "mtu",
        "name",
        "owner",
        "port",
        "vni",
    )

    def __init__(
        self,
        owner: str,
        vni: int,
        port: int,
        local: str,
        link: int,
        mtu: int,
        addresses: list[Prefix],
        learning: bool = False,
        gbp: bool = False,
    ) -> None:
        self.owner = owner
        self.vni = vni
        self.port = port
        self.local = local
        self.link = link
        self.mtu = mtu
        self.addresses = addresses
        self.learning = learning
        self.gbp = gbp
        self.name = device_name(vni, ":" in local)
        self.mac = vtep_mac(vni, local)

    @property
    def is_ipv6(self) -> bool:
        """True over an underlay of IPv6."""
        return ":" in self.local

    @property
    def alias(self) -> str:
        """By which the device is known to be ours."""
        return MARK + self.owner

    def data(self) -> dict[str, Any]:
        """The attributes of the kind (linux/if_link.h IFLA_VXLAN_*), for `new_link`."""
        local = inet_pton(AF_INET6, self.local) if self.is_ipv6 else pton(self.local)
        return {
            "IFLA_VXLAN_ID": self.vni,
            "IFLA_VXLAN_LINK": self.link,
            "IFLA_VXLAN_LOCAL6" if self.is_ipv6 else "IFLA_VXLAN_LOCAL": local,
            "IFLA_VXLAN_PORT": self.port,
            "IFLA_VXLAN_LEARNING": int(self.learning),
            # What comes from a peer without checksums over IPv6 is taken; we send with them.
            "IFLA_VXLAN_UDP_ZERO_CSUM6_RX": 1 if self.is_ipv6 else None,
            "IFLA_VXLAN_GBP": True if self.gbp else None,
        }

    def unchangeable(self, link: Link) -> list[str]:
        """How a device differs in what only a new device can mend: "vni 2 instead of 1"."""
        info = link.info.get
        local = info("IFLA_VXLAN_LOCAL6" if self.is_ipv6 else "IFLA_VXLAN_LOCAL") or b""
        found = {
            "kind": (link.kind, "vxlan"),
            "vni": (info("IFLA_VXLAN_ID"), self.vni),
            "port": (info("IFLA_VXLAN_PORT"), self.port),
            "local address": (ntop(local) if local else "none", self.local),
            "underlay": (info("IFLA_VXLAN_LINK", 0), self.link),
            "learning": (bool(info("IFLA_VXLAN_LEARNING")), self.learning),
            "group policy": ("IFLA_VXLAN_GBP" in link.info, self.gbp),
        }
        return _differences(found)

    def changeable(self, link: Link) -> list[str]:
        """How a device differs in what can be set on it as it is."""
        found = {"MAC": (link.mac, self.mac), "MTU": (link.mtu, self.mtu)}
        return _differences(found) + ([] if link.is_up else ["it is down"])


def _differences(found: dict[str, tuple[Any, Any]]) -> list[str]:
    return [
        f"{what} {is_!r} instead of {wanted!r}"
        for what, (is_, wanted) in found.items()
        if is_ != wanted
    ]


def vteps_of(
    owner: str,
    underlay: Underlay,
    lease: Lease,
    *,
    vni: int,
    port: int,
    learning: bool,
    gbp: bool,
) -> list[Vtep]:
    """The devices of this node, one for each family of the underlay's addresses.

    The address of a subnet goes to the device of its family if there is one, as flannel's.
    """
    vteps = []
    for is_ipv6, local in sorted(underlay.addresses.items()):
        addresses = [
            Prefix(subnet.packed, len(subnet.packed) * 8)
            for subnet in lease.subnets
            if (len(subnet.packed) == 16) == is_ipv6
            or (len(subnet.packed) == 16) not in underlay.addresses
        ]
        vteps.append(
            Vtep(
                owner,
                vni,
                port,
                local,
                underlay.index,
                lease.mtu,
                addresses,
                learning=learning,
                gbp=gbp,
            )
        )
    return vteps
