# SPDX-License-Identifier: Apache-2.0
"""Making a VXLAN device as `vtep` describes it, without an agent."""

from __future__ import annotations

from errno import EADDRINUSE, EAFNOSUPPORT, EEXIST, ENODEV

import libcni.netlink.tables.kinds  # noqa: F401  (registers the attributes of VXLAN devices)
from cni_vxlan_overlay.vtep import MARK, Vtep
from libcni.inet import Prefix
from libcni.netlink.addr import delete_address, dump_addresses, new_address
from libcni.netlink.link import (
    Link,
    delete_link,
    dump_links,
    find_link,
    new_link,
    set_inet,
    set_link,
)
from libcni.netlink.socket import Socket
from libcni.types.errors import CONFLICT, TRY_AGAIN_LATER, CniError

#: Times to look again when another ADD makes or removes the device at the same moment.
_TRIES = 5


def refuse_foreign(link: Link, vtep: Vtep) -> None:
    """Raise CniError 101 when a device of that name is not this overlay's.

    One without a mark but with our MAC is: another ADD is about to mark it.
    """
    if link.alias == vtep.alias or (not link.alias and _is_unmarked(link, vtep)):
        return
    if link.alias.startswith(MARK):
        whose = f"belongs to {link.alias.removeprefix(MARK)!r}"
        hint = "two networks on one node need a `vni` each"
    else:
        whose = f"is a {link.kind or 'plain'} device that is not ours"
        hint = f"remove it (`ip link delete {link.name}`) or choose another `vni`"
    raise CniError(CONFLICT, f"device {vtep.name} {whose}", hint)


def _is_unmarked(link: Link, vtep: Vtep) -> bool:
    return link.kind == "vxlan" and link.mac == vtep.mac


def ensure_device(sock: Socket, vtep: Vtep) -> tuple[Link, bool]:
    """Make the device, or make it as described if it is ours and differs. Idempotent.

    What cannot be changed makes it be made anew. Returns it, and whether there was none before.
    Raises CniError 101 for a device of the name that is not ours, or another one with its VNI
    and port, and NetlinkError.
    """
    made = False
    for _ in range(_TRIES):
        link = find_link(sock, vtep.name)
        if link is not None:
            refuse_foreign(link, vtep)
            if vtep.unchangeable(link):
                sock.batch([delete_link(index=link.index)])[0].check(ENODEV)
                if not _create(sock, vtep):
                    continue
                link = find_link(sock, vtep.name)
        elif not _create(sock, vtep):
            continue
        else:
            made = True
            link = find_link(sock, vtep.name)
        if link is not None:
            if vtep.changeable(link) or link.alias != vtep.alias:
                sock.run(
                    set_link(
                        index=link.index, mac=vtep.mac, mtu=vtep.mtu, up=True, alias=vtep.alias
                    )
                )
            _ensure_addresses(sock, vtep, link)
            return link, made
    raise CniError(TRY_AGAIN_LATER, f"device {vtep.name} changed {_TRIES} times while in use")


def _create(sock: Socket, vtep: Vtep) -> bool:
    """Make the device with its mark, down; False when somebody else has just made it."""
    made, *rest = sock.batch(
        [
            # The MAC is given at once: one that changes later, systemd-networkd's policy
            # included, is one that peers do not know.
            new_link(vtep.name, "vxlan", vtep.data(), mac=vtep.mac, mtu=vtep.mtu, up=False),
            set_link(vtep.name, alias=vtep.alias),
            # No link-local address, and so no neighbour or router discovery into the overlay.
            set_inet(vtep.name, address_generation=False),
            set_link(vtep.name, up=True),
        ]
    )
    if made.error == EEXIST:
        if find_link(sock, vtep.name) is not None:
            return False
        refuse_occupied(sock, vtep)
    made.check()
    rest[0].check()
    rest[1].check(EAFNOSUPPORT)
    if rest[2].error == EADDRINUSE:
        sock.batch([delete_link(vtep.name)])[0].check(ENODEV)
        raise _port_taken(sock, vtep)
    rest[2].check()
    return True


def holder(sock: Socket, vtep: Vtep, any_vni: bool = False) -> str:
    """Name of another device with this VNI and port, of which the kernel has room for one; "".

    any_vni: also one that has the port to itself for another reason. Raises NetlinkError.
    """
    for link in dump_links(sock, kind="vxlan"):
        info = link.info
        is_ipv6 = "IFLA_VXLAN_LOCAL6" in info or "IFLA_VXLAN_GROUP6" in info
        if (
            link.name != vtep.name
            and is_ipv6 == vtep.is_ipv6
            and info.get("IFLA_VXLAN_PORT") == vtep.port
            and (any_vni or info.get("IFLA_VXLAN_ID") == vtep.vni)
        ):
            return link.name
    return ""


def refuse_occupied(sock: Socket, vtep: Vtep) -> None:
    """Raise CniError 101 when another device has the VNI and port of one that is to be made."""
    name = holder(sock, vtep)
    if name:
        raise _occupied(vtep, f"device {name} has VNI {vtep.vni} on UDP port {vtep.port}", name)


def _port_taken(sock: Socket, vtep: Vtep) -> CniError:
    """Somebody has the port to himself: a VXLAN device that differs in kind, or no device."""
    name = holder(sock, vtep) or holder(sock, vtep, any_vni=True)
    who = f"device {name}" if name else "another program"
    return _occupied(vtep, f"{who} has UDP port {vtep.port}", name)


def _occupied(vtep: Vtep, why: str, name: str) -> CniError:
    hint = "choose another `vni` or `port`, on all nodes"
    if name.startswith("flannel"):
        hint = f"flannel's: stop flanneld here, then `ip link delete {name}`"
    return CniError(CONFLICT, f"cannot make {vtep.name}: {why}", hint)


def remove_others(sock: Socket, vteps: list[Vtep]) -> None:
    """Delete devices of this overlay that are none of these: of an earlier VNI or IP family.

    What leads through them would be in the way of what is to be. Raises NetlinkError.
    """
    aliases = {vtep.alias for vtep in vteps}
    names = {vtep.name for vtep in vteps}
    for link in dump_links(sock, kind="vxlan"):
        if link.alias in aliases and link.name not in names:
            sock.batch([delete_link(index=link.index)])[0].check(ENODEV)


def _ensure_addresses(sock: Socket, vtep: Vtep, link: Link) -> None:
    """Exactly the wanted addresses: those of an earlier subnet would be used as source."""
    wanted = set(vtep.addresses)
    found = {
        address.prefix
        for address in dump_addresses(sock, index=link.index)
        if not address.prefix.packed.startswith(b"\xfe\x80") or len(address.prefix.packed) == 4
    }
    changes = [delete_address(link.index, prefix) for prefix in found - wanted]
    changes += [
        new_address(link.index, prefix, nodad=True, broadcast=False, replace=True)
        for prefix in sorted(wanted - found, key=Prefix.text)
    ]
    for reply in sock.batch(changes):
        reply.check(EEXIST)


def remove_device(sock: Socket, vtep: Vtep) -> None:
    """Delete the device, if it is this overlay's, and with it all that leads through it.

    Idempotent. Raises NetlinkError.
    """
    link = find_link(sock, vtep.name)
    if link is not None and link.alias == vtep.alias:
        sock.batch([delete_link(index=link.index)])[0].check(ENODEV)
