# SPDX-License-Identifier: Apache-2.0
"""The bridge itself: found or made, set up, and put back when an ADD fails."""

from __future__ import annotations

import posix
from errno import EEXIST, EOPNOTSUPP

from libcni import sysctl
from libcni.netlink.link import find_link, new_bridge, set_link
from libcni.types.errors import CONFLICT, KERNEL, TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.inet import Prefix
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket


def random_mac() -> str:
    """A locally administered unicast MAC address."""
    octets = posix.getrandom(6)
    return bytes((octets[0] & 0xFC | 0x02, *octets[1:])).hex(":")


class Changes:
    """What this ADD changed about the bridge and the host, for `revert` on its undo stack."""

    __slots__ = (
        "added",
        "created",
        "forwarding",
        "is_up",
        "mac",
        "name",
        "promiscuous",
        "removed",
        "sock",
    )

    def __init__(self, sock: Socket, name: str) -> None:
        self.sock = sock
        self.name = name
        #: The bridge's MAC address before, which a port that comes and goes may change.
        self.mac = ""
        #: The MAC address that proves a bridge of this name to be the one made here.
        self.created = ""
        self.is_up = False
        self.promiscuous = False
        #: Addresses put on the bridge, and those that made room for them, with their device.
        self.added: list[tuple[int, Prefix]] = []
        self.removed: list[tuple[int, Prefix]] = []
        #: Forwarding sysctls that were off.
        self.forwarding: list[str] = []

    def revert(self) -> None:
        """Put everything back, unless other containers use the bridge by now.

        Addresses that had to make room (forceAddress) come back in any case. Raises CniError.
        """
        from libcni.netlink.addr import delete_address, new_address
        from libcni.netlink.link import delete_link, dump_links

        link = find_link(self.sock, self.name)
        shared = link is not None and any(
            port.kind == "veth" for port in dump_links(self.sock, master=link.index)
        )
        if not shared or self.removed:
            requests = [delete_address(index, prefix) for index, prefix in self.added]
            requests += [new_address(index, prefix, nodad=True) for index, prefix in self.removed]
            if requests:
                self.sock.batch(requests)
        if shared:
            return
        for name in self.forwarding:
            sysctl.write(name, "0")
        if link is None:
            return
        if self.created == link.mac:
            self.sock.batch([delete_link(index=link.index)])
            return
        if self.mac and self.mac != link.mac:
            self.sock.batch([set_link(index=link.index, mac=self.mac)])
        if self.is_up:
            self.sock.batch([set_link(index=link.index, up=False)])
        if self.promiscuous:
            self.sock.batch([set_link(index=link.index, promiscuous=False)])


def ensure_bridge(sock: Socket, config: Config, found: Link | None, changes: Changes) -> Link:
    """The bridge of the configuration, made if absent, up and promiscuous as asked.

    found: the link of that name as read before, or None. Idempotent; `changes`, already on the
    undo stack, learns what was done. A bridge that exists keeps its MAC address, MTU and VLAN
    filtering, as with Go. Raises CniError 101 when the name is that of another kind of link.
    """
    if found is None:
        changes.created = random_mac()
        # A fixed MAC address: else it becomes the lowest of its ports', changing as they come
        # and go, and connections to the gateway drop.
        request = new_bridge(
            config.bridge,
            mac=changes.created,
            mtu=config.mtu,
            vlan_filtering=config.filters_vlans,
            up=False,
        )
        reply = sock.batch([request])[0]
        if reply.error == EOPNOTSUPP and config.filters_vlans:
            raise CniError(
                KERNEL,
                f"cannot create bridge {config.bridge}: this kernel has no VLAN filtering",
                "vlan and vlanTrunk need CONFIG_BRIDGE_VLAN_FILTERING",
            )
        if not reply.check(EEXIST):
            changes.created = ""  # another first ADD was faster
        found = find_link(sock, config.bridge)
        if found is None:
            raise CniError(TRY_AGAIN_LATER, f"bridge {config.bridge} was removed while in use")
    verify_bridge(found)
    if not changes.created:
        changes.mac = found.mac
    promiscuous = config.promiscuous and not found.is_promiscuous
    if found.is_up and not promiscuous:
        return found
    if not found.is_up:
        changes.is_up = True
        # Before the bridge can hear anything: a container must not advertise itself as the
        # host's IPv6 router (CVE-2020-10749).
        sysctl.try_write(f"ipv6/conf/{config.bridge}/accept_ra", "0")
    if promiscuous:
        changes.promiscuous = True
    sock.run(set_link(index=found.index, up=True, promiscuous=True if promiscuous else None))
    return found


def verify_bridge(link: Link) -> None:
    """Raise CniError 101 when `link` is not a bridge."""
    if link.kind != "bridge":
        raise CniError(
            CONFLICT,
            f'"{link.name}" already exists but is not a bridge',
            f"it is a {link.kind or 'plain'} device; set `bridge` to another name",
        )
