# SPDX-License-Identifier: Apache-2.0
"""The gateway of a VLAN: `<bridge>.<vlan>`, a veth whose other end is a port in that VLAN.

As Go's: made once, kept for all containers of the VLAN, never removed by DEL.
"""

from __future__ import annotations

from _sha512 import sha512
from errno import EEXIST, ENODEV

from libcni import sysctl
from libcni.mac import random_mac
from libcni.netlink.link import delete_link, dump_links, find_link, get_link, new_veth, set_link
from libcni.types.errors import CONFLICT, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket
    from libcni.skel.undo import Undo


def ensure_vlan_gateway(sock: Socket, config: Config, bridge: Link, undo: Undo) -> Link:
    """The gateway's link, made and set up if need be. Idempotent.

    On the undo stack goes its removal, if it was made here and nobody else uses it by then.
    Raises CniError 101 when the name is that of another kind of link, 102.
    """
    name = config.vlan_gateway
    link = find_link(sock, name)
    if link is None:
        link = _create(sock, name, config, bridge, undo)
    if link.kind != "veth":
        raise CniError(
            CONFLICT,
            f'"{name}" already exists but is not a veth',
            f"it is a {link.kind or 'plain'} device in the place of VLAN {config.vlan}'s gateway",
        )
    if not link.is_up:
        sysctl.try_write(f"ipv6/conf/{name}/accept_ra", "0")
        sock.run(set_link(index=link.index, up=True))
    return link


def _create(sock: Socket, name: str, config: Config, bridge: Link, undo: Undo) -> Link:
    identity = f"cni-gateway:{name}"
    port = f"veth{sha512(identity.encode()).hexdigest()[:8]}"
    mac = random_mac()
    undo.push(_remove, sock, name, mac, bridge.index)
    replies = sock.batch(
        [
            new_veth(
                port,
                name,
                mac=random_mac(),
                peer_mac=mac,
                mtu=bridge.mtu,
                master=bridge.index,
            ),
            # Harmless where another ADD was faster: it says the same of the same pair.
            set_link(port, alias=identity),
            get_link(port),
            get_link(name),
        ]
    )
    replies[0].check(EEXIST)
    from libcni.netlink.link import Link as Seen

    for reply in replies[1:]:
        reply.check()
    host_end = Seen(replies[2].items[0])
    sysctl.try_write(f"ipv6/conf/{port}/accept_ra", "0")
    if host_end.master == bridge.index:
        from cni_bridge.vlans import set_access_vlan

        set_access_vlan(sock, host_end, config, bridge)
        return Seen(replies[3].items[0])
    raise CniError(KERNEL, f"failed to create vlan gateway {name!r}: {port} is in the way")


def _remove(sock: Socket, name: str, mac: str, bridge: int) -> None:
    link = find_link(sock, name)
    if link is not None and link.mac == mac:
        ports = dump_links(sock, master=bridge)
        if all(port.index == link.peer for port in ports):
            sock.batch([delete_link(index=link.index)])[0].check(ENODEV)
