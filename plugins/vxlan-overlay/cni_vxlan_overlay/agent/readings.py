# SPDX-License-Identifier: Apache-2.0
"""What pyroute2's messages of links and neighbours say, in the words that the agent compares."""

from __future__ import annotations

from typing import Any

from libcni.inet import ntop, pton

# linux/neighbour.h: states, and the flag of entries of a bridge that a device is a port of.
_PERMANENT, _NOARP = 0x80, 0x40
_MASTER = 0x04
_AF_BRIDGE = 7
#: Attributes that a forwarding entry of ours has not: another UDP port, VNI or underlay.
_FOREIGN = ("NDA_PORT", "NDA_VNI", "NDA_IFINDEX", "NDA_NH_ID")


def forwarding_of(message: Any, names: dict[int, str]) -> tuple[str, str, str] | None:
    """The tuple of a forwarding entry on one of our devices that does not age, else None.

    What is unlike any of ours, as it leads to another port or is not permanent, has words beside
    the address, so that it is nothing that is wanted.
    """
    name = names.get(message["ifindex"])
    state = message["state"]
    if name is None or message["family"] != _AF_BRIDGE or message["flags"] & _MASTER:
        return None
    if not state & (_PERMANENT | _NOARP):
        return None
    address = message.get("NDA_DST")
    words = [ntop(pton(address)) if address else "nowhere"]
    words += [f"{what} {message.get(what)}" for what in _FOREIGN if message.get(what) is not None]
    if not state & _PERMANENT:
        words.append("static")
    return name, str(message.get("NDA_LLADDR")), ", ".join(words)


def neighbour_of(message: Any, names: dict[int, str]) -> tuple[str, str, str] | None:
    """The tuple of a permanent neighbour on one of our devices, else None."""
    name = names.get(message["ifindex"])
    address, mac = message.get("NDA_DST"), message.get("NDA_LLADDR")
    if name is None or message["family"] == _AF_BRIDGE or not message["state"] & _PERMANENT:
        return None
    return (name, ntop(pton(address)), str(mac)) if address and mac else None


def is_vxlan(message: Any) -> bool:
    """True for a link's message if that is a VXLAN device."""
    info = message.get("IFLA_LINKINFO")
    return bool(info) and info.get("IFLA_INFO_KIND") == "vxlan"


class _Link:
    """A pyroute2 link with the names that `Vtep` compares by."""

    def __init__(self, message: Any) -> None:
        info = message.get("IFLA_LINKINFO")
        data = info.get("IFLA_INFO_DATA") if info else None
        self.kind: str = (info.get("IFLA_INFO_KIND") if info else None) or ""
        self.info: dict[str, Any] = {}
        for name, value in (data or {}).get("attrs", ()):
            if name in ("IFLA_VXLAN_LOCAL", "IFLA_VXLAN_LOCAL6"):
                value = pton(value)
            self.info[name] = value
        self.index: int = message["index"]
        self.mac: str = message.get("IFLA_ADDRESS") or ""
        self.mtu: int = message.get("IFLA_MTU") or 0
        self.is_up = bool(message["flags"] & 1)


def as_link(message: Any) -> Any:
    """A link's message as `Vtep` compares devices: what it reads of libcni's `Link` is there."""
    return _Link(message)
