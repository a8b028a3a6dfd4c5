# SPDX-License-Identifier: Apache-2.0
"""What the agent wrote down of its devices and peers, held against the kernel."""

from __future__ import annotations

import libcni.netlink.tables.kinds  # noqa: F401  (registers the attributes of VXLAN devices)
from cni_vxlan_overlay import offload
from cni_vxlan_overlay.fabric import Fabric
from libcni.inet import ntop
from libcni.netlink.link import find_link
from libcni.netlink.socket import Socket
from libcni.types.errors import DECODING_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_vxlan_overlay.lease import Lease
    from libcni.netlink.link import Link


class Problem:
    """Something that is not as the agent said. device: it is the device itself."""

    __slots__ = ("device", "hint", "text")

    def __init__(self, text: str, hint: str = "", device: bool = False) -> None:
        self.text = text
        self.hint = hint
        self.device = device


_HINT = "the agent repairs this within a second while it runs; see `vxlan-overlayd status`"


def problem(lease: Lease) -> Problem | None:
    """The first thing in the kernel that is not as the agent wrote it down, None without any.

    The devices of the subnet file, and the entries of the agent's peers file. Raises
    NetlinkError.
    """
    sock = Socket()
    devices = {}
    links = []
    for name in lease.devices:
        link = find_link(sock, name)
        if link is None or link.kind != "vxlan":
            return Problem(f"device {name} is missing", _HINT, device=True)
        if not link.is_up:
            return Problem(f"device {name} is down", _HINT, device=True)
        if lease.mtu and link.mtu != lease.mtu:
            return Problem(f"device {name} has MTU {link.mtu} instead of {lease.mtu}", _HINT)
        devices[name] = link.index
        links.append(link)
    try:
        document = _load(lease.peers_file)
    except CniError as error:
        return Problem(error.msg, _HINT)
    if document is None:
        return None
    wanted = Fabric(*[map(tuple, document["fabric"][kind]) for kind in Fabric.__slots__])
    from cni_vxlan_overlay.embedded import check_addresses, check_fabric

    try:
        for link in links:
            difference = _difference(sock, link, document)
            if difference:
                return Problem(f"device {link.name} has {difference}", _HINT)
        check_addresses(sock, devices, lease.subnets)
        check_fabric(sock, wanted, devices, lease.networks)
    except CniError as error:
        return Problem(error.msg, _HINT)
    return None


def _difference(sock: Socket, link: Link, document: dict[str, Any]) -> str:
    """How a device differs from what the agent wrote down: "vni 2 instead of 1"; "" if not.

    What it did not write (one of an earlier version) is not compared.
    """
    conf, underlay = document.get("conf", {}), document.get("underlay", {})
    info = link.info
    local = info.get("IFLA_VXLAN_LOCAL") or info.get("IFLA_VXLAN_LOCAL6")
    index = info.get("IFLA_VXLAN_LINK")
    carrier = find_link(sock, index=index) if index else None
    compared = {
        "vni": (info.get("IFLA_VXLAN_ID"), conf.get("vni")),
        "port": (info.get("IFLA_VXLAN_PORT"), conf.get("port")),
        "learning": (bool(info.get("IFLA_VXLAN_LEARNING")), conf.get("learning")),
        "gbp": ("IFLA_VXLAN_GBP" in info, conf.get("gbp")),
        "MAC": (link.mac, document.get("devices", {}).get(link.name)),
        "local address": (
            ntop(local) if local else "none",
            underlay.get("local", {}).get(link.name),
        ),
        "underlay": (carrier.name if carrier else "none", underlay.get("interface")),
    }
    for what, (found, wanted) in compared.items():
        if wanted is not None and found != wanted:
            return f"{what} {found} instead of {wanted}"
    return offload.difference(link.name, conf.get("checksum", "auto"))


def _load(path: str) -> dict[str, Any] | None:
    """The agent's peers file, None when it has not written one yet. Raises CniError 5 or 6."""
    if not path:
        return None
    from libcni.fs import io_error, read_file
    from libcni.jsontext import loads

    try:
        document = loads(read_file(path), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise io_error(error, "read the agent's peers", path) from None
    if not _is_whole(document):
        raise CniError(DECODING_FAILURE, f"{path} is not as the agent writes it")
    return document  # type: ignore[no-any-return]


def _is_whole(document: Any) -> bool:
    """True when everything that is read here has its type."""
    if not isinstance(document, dict):
        return False
    fabric = document.get("fabric")
    return (
        all(isinstance(document.get(key, {}), dict) for key in ("devices", "conf", "underlay"))
        and isinstance(document.get("underlay", {}).get("local", {}), dict)
        and isinstance(fabric, dict)
        and all(isinstance(fabric.get(kind), list) for kind in Fabric.__slots__)
        and all(
            isinstance(entry, list) and list(map(type, entry)) == [str, str, str]
            for kind in Fabric.__slots__
            for entry in fabric[kind]
        )
    )
