# SPDX-License-Identifier: Apache-2.0
"""The bridge itself: found or made, set up, and put back when an ADD fails."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EEXIST, ENODEV, EOPNOTSUPP

from libcni import sysctl
from libcni.attachment import is_mark
from libcni.mac import random_mac
from libcni.netlink.link import delete_link, find_link, new_bridge, set_link
from libcni.types.errors import CONFLICT, KERNEL, TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket


class Changes:
    """What this ADD changed about the bridge and the host, for `revert` on its undo stack."""

    __slots__ = (
        "accept_ra",
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
        #: The sysctl of an existing bridge that was down, where it was changed.
        self.accept_ra = ""
        self.promiscuous = False
        #: Addresses put on the bridge, and those that made room for them, with their device.
        self.added: list[tuple[int, Prefix]] = []
        self.removed: list[tuple[int, Prefix]] = []
        #: Forwarding sysctls that were off.
        self.forwarding: list[str] = []

    def revert(self) -> None:
        """Put everything back, unless other containers use it by now.

        Addresses that had to make room (forceAddress) come back in any case. Tries everything;
        raises the first CniError.
        """
        from libcni.attempts import Attempts
        from libcni.netlink.link import dump_links

        attempts = Attempts()
        link = find_link(self.sock, self.name)
        shared = link is not None and any(
            port.kind == "veth" for port in dump_links(self.sock, master=link.index)
        )
        if not shared or self.removed:
            attempts.attempt(self._revert_addresses)
        if not shared:
            if self.forwarding:
                attempts.attempt(self._revert_forwarding)
            if link is not None:
                attempts.attempt(self._revert_bridge, link)
        attempts.report()

    def _revert_addresses(self) -> None:
        from libcni.netlink.addr import delete_address, new_address

        requests = [delete_address(index, prefix) for index, prefix in self.added]
        requests += [new_address(index, prefix, nodad=True) for index, prefix in self.removed]
        # ENODEV: it was on a VLAN's gateway, which is gone by now.
        self._change(requests, EADDRNOTAVAIL, EEXIST, ENODEV)

    def _revert_forwarding(self) -> None:
        """Switch off what was off, unless another network's containers rely on it by now."""
        if self._is_forwarded_for():
            return
        for name in self.forwarding:
            sysctl.write(name, "0")
        # An ADD makes its port before it looks at the sysctl: one that found it still on is
        # seen now, and one that is not seen now will find it off.
        if self._is_forwarded_for():
            for name in self.forwarding:
                sysctl.write(name, "1")

    def _is_forwarded_for(self) -> bool:
        """True when there is an attachment of ours, or a veth on somebody's bridge."""
        from libcni.netlink.link import dump_links

        return any(
            is_mark(link.alias) or (link.kind == "veth" and link.master)
            for link in dump_links(self.sock)
        )

    def _revert_bridge(self, link: Link) -> None:
        if self.created == link.mac:
            self._change([delete_link(index=link.index)], ENODEV)
            return
        requests = []
        if self.mac and self.mac != link.mac:
            requests.append(set_link(index=link.index, mac=self.mac))
        if self.is_up or self.promiscuous:
            requests.append(
                set_link(
                    index=link.index,
                    up=False if self.is_up else None,
                    promiscuous=False if self.promiscuous else None,
                )
            )
        try:
            self._change(requests, ENODEV)
        finally:
            if self.accept_ra:
                sysctl.try_write(f"ipv6/conf/{self.name}/accept_ra", self.accept_ra)

    def _change(self, requests: list[Message], *allowed: int) -> None:
        """Send all, then raise the first refusal that is none of those allowed."""
        if requests:
            for reply in self.sock.batch(requests):
                reply.check(*allowed)


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
        name = f"ipv6/conf/{config.bridge}/accept_ra"
        if changes.created:
            sysctl.try_write(name, "0")
        else:
            try:
                changes.accept_ra = sysctl.read(name)
            except OSError:
                pass  # no IPv6
            else:
                sysctl.try_write(name, "0")
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
