# SPDX-License-Identifier: Apache-2.0
"""route_localnet: what is sent to 127.0.0.1 leads to the container by the host's interface to it.

The kernel drops packets from 127.0.0.0/8 on any other interface than `lo` unless this is set. It
stays set after DEL, as other containers on the interface rely on it.
"""

from __future__ import annotations

from libcni import sysctl
from libcni.netlink.link import Link, get_link
from libcni.netlink.route import find_route
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.undo import Undo


def setting(target: bytes) -> str:
    """The sysctl of the interface that leads to an IPv4 address, or "". Raises NetlinkError."""
    sock = Socket()
    route = find_route(sock, target)
    if route is None or not route.nexthops:
        return ""
    name = Link(sock.request(get_link(index=route.nexthops[0][1]))[0]).name
    return f"ipv4/conf/{name}/route_localnet"


def ensure(target: bytes, comment: str, undo: Undo) -> None:
    """Let 127.0.0.1 lead to the container. Idempotent. Raises CniError 102, NetlinkError.

    comment: of the attachment.
    """
    name = setting(target)
    if name:
        undo.push(_restore, name, _read(name), comment)
        sysctl.write_if_differs(name, "1")


def is_set(target: bytes) -> tuple[str, bool]:
    """The sysctl, and whether it is as ADD set it."""
    name = setting(target)
    return name, not name or _read(name) == "1"


def _read(name: str) -> str:
    try:
        return sysctl.read(name)
    except OSError:
        return ""


def _restore(name: str, before: str, comment: str) -> None:
    """After a failed ADD; not if a container on the same interface relies on it by now."""
    if before in ("", "1"):
        return
    from cni_portmap.table import LOCALHOST, TABLE
    from libcni.nftables import maps, sets
    from libcni.nftables.transaction import find_socket

    sock = find_socket()
    if sock is not None and not TABLE.is_absent(sock):
        for body in sets.elements(sock, TABLE, LOCALHOST):
            for element in maps.read(body):
                if element.comment != comment and setting(element.key) == name:
                    return
    sysctl.try_write(name, before)
