# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of an overlay, by pyroute2: devices, what is there, changes, events."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

from cni_vxlan_overlay import offload
from cni_vxlan_overlay.agent import messages
from cni_vxlan_overlay.agent.readings import as_link, forwarding_of, neighbour_of
from cni_vxlan_overlay.fabric import ROUTE_PROTOCOL, Fabric
from cni_vxlan_overlay.vtep import MARK, Vtep
from libcni import sysctl
from libcni.inet import Prefix, ntop, pton

log = logging.getLogger(__name__)

_ONLINK = 4
#: enum in6_addr_gen_mode: no link-local address.
_NO_ADDRESSES = 1
#: asm-generic/socket.h
_SO_RCVBUFFORCE = 33
#: Bytes for events that wait: a device with 5,000 peers that goes makes 15,000 at once, of
#: almost 1 KiB each as the kernel counts. What does not fit is found by reading everything.
_EVENTS = 32 << 20
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
#: What the kernel tells of: links, neighbours (forwarding entries too), routes, addresses.
GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_NEIGH
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV6_ROUTE
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV6_IFADDR
)


@contextlib.contextmanager
def trying(what: str) -> Iterator[None]:
    """Have the kernel's errors say what was tried: it says no more than "No such device"."""
    try:
        yield
    except NetlinkError as error:
        raise Refused(f"cannot {what}: {error.args[1]}") from error


class Refused(Exception):
    """The kernel, or what is in it, does not let the overlay be; the text says what to mend."""


class Kernel:
    """One network namespace, the one that the process is in when this is made.

    networks: of the overlay, to tell our direct routes. devices: index by name, of our devices
    as last ensured.
    """

    def __init__(self) -> None:
        self._ipr = AsyncIPRoute(strict_check=True)
        self._batch = messages.Batch()
        self.devices: dict[str, int] = {}
        self.networks: list[Prefix] = []

    async def close(self) -> None:
        """Close the sockets; what is in the kernel stays."""
        self._batch.close()
        self._ipr.close()

    # -- devices --------------------------------------------------------------------------

    async def ensure_device(self, vtep: Vtep, checksum: str = "auto") -> list[str]:
        """Make the device, or make it as described if it is ours and differs. Idempotent.

        Returns what had to be done, in words; empty when it was as it shall be. What cannot be
        changed makes it be made anew, and only that. Raises Refused for a device of the name
        that is not ours, or another with its VNI and port, and for what the kernel does not do;
        NetlinkError.
        """
        done = []
        link = await self._link(vtep.name)
        if link is not None:
            if link.get("IFLA_IFALIAS") != vtep.alias:
                whose = link.get("IFLA_IFALIAS") or ""
                what = f"belongs to {whose}" if whose.startswith(MARK) else "is not ours"
                raise Refused(
                    f"device {vtep.name} {what}; `ip link delete {vtep.name}`, or another VNI"
                )
            differences = vtep.unchangeable(as_link(link))
            if differences:
                with trying(f"remove device {vtep.name}"):
                    await self._ipr.link("del", index=link["index"])
                done.append(f"device {vtep.name} made anew: {', '.join(differences)}")
                link = None
        if link is None:
            done += await self._remove_renamed(vtep)
            where = f"interface {vtep.link} with the address {vtep.local}"
            with trying(f"make device {vtep.name} over {where}"):
                await self._create(vtep)
            if not done:
                done.append(f"device {vtep.name} made")
            link = await self._link(vtep.name)
            if link is None:
                raise Refused(f"device {vtep.name} was removed while it was being made")
        differences = vtep.changeable(as_link(link))
        if differences:
            with trying(f"mend device {vtep.name} ({', '.join(differences)})"):
                await self._ipr.link(
                    "set", index=link["index"], address=vtep.mac, mtu=vtep.mtu, state="up"
                )
            done.append(f"device {vtep.name}: {', '.join(differences)}")
        done += self._ensure_offload(vtep, checksum)
        with trying(f"set the addresses of device {vtep.name}"):
            done += await self._ensure_addresses(vtep, link["index"])
        self.devices[vtep.name] = link["index"]
        return done

    async def _link(self, name: str) -> Any:
        try:
            found = await self._ipr.link("get", ifname=name)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise
        return found[0] if found else None

    async def find_link(self, name: str) -> Any:
        """A link with its `index` and what `Vtep` compares by; None if there is none."""
        link = await self._link(name)
        return None if link is None else as_link(link)

    async def link_name(self, index: int) -> str:
        """Name of the link with this index; "none" if there is none."""
        try:
            found = await self._ipr.link("get", index=index)
        except NetlinkError as error:
            if error.code in (errno.ENODEV, errno.EINVAL):
                return "none"
            raise
        return str(found[0].get("IFLA_IFNAME")) if found else "none"

    async def _create(self, vtep: Vtep) -> None:
        arguments: dict[str, Any] = {
            "ifname": vtep.name,
            "kind": "vxlan",
            # At creation: a MAC that is changed later is one that peers do not know.
            "address": vtep.mac,
            "mtu": vtep.mtu,
            "vxlan_id": vtep.vni,
            "vxlan_link": vtep.link,
            "vxlan_port": vtep.port,
            "vxlan_learning": int(vtep.learning),
        }
        if vtep.is_ipv6:
            arguments["vxlan_local6"] = vtep.local
            arguments["vxlan_udp_zero_csum6_rx"] = 1
        else:
            arguments["vxlan_local"] = vtep.local
        if vtep.gbp:
            arguments["vxlan_gbp"] = True
        if await self._is_port_taken(vtep):
            raise Refused(f"cannot make {vtep.name}: another program has UDP port {vtep.port}")
        try:
            await self._ipr.link("add", **arguments)
            await self._ipr.link("set", ifname=vtep.name, ifalias=vtep.alias)
            # No link-local address, so no neighbour or router discovery into the overlay.
            sysctl.try_write(f"ipv6/conf/{vtep.name}/addr_gen_mode", str(_NO_ADDRESSES))
            sysctl.try_write(f"ipv6/conf/{vtep.name}/accept_ra", "0")
            await self._ipr.link("set", ifname=vtep.name, state="up")
        except NetlinkError as error:
            if error.code in (errno.EEXIST, errno.EADDRINUSE):
                raise Refused(await self._occupied(vtep)) from None
            raise

    async def _occupied(self, vtep: Vtep) -> str:
        """Who has the VNI and port; the kernel has room for one device of them."""
        if await self._is_ours(vtep):
            await self._ipr.link("del", ifname=vtep.name)
        async for link in await self._ipr.link("dump", kind="vxlan"):
            data = as_link(link).info
            name = link.get("IFLA_IFNAME")
            if (data.get("IFLA_VXLAN_ID"), data.get("IFLA_VXLAN_PORT")) == (vtep.vni, vtep.port):
                hint = (
                    f"stop flanneld here, then `ip link delete {name}`"
                    if str(name).startswith("flannel")
                    else "use another VNI or port, on all nodes"
                )
                return (
                    f"cannot make {vtep.name}: device {name} has VNI {vtep.vni} on UDP port "
                    f"{vtep.port}; {hint}"
                )
        return f"cannot make {vtep.name}: another program has UDP port {vtep.port}"

    async def _is_port_taken(self, vtep: Vtep) -> bool:
        """True if a program has the UDP port, so that a device would be made for nothing.

        VXLAN devices share a port.
        """
        family = socket.AF_INET6 if vtep.is_ipv6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as handle:
            if vtep.is_ipv6:
                handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                handle.bind(("", vtep.port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return False  # the kernel's own socket may have it all the same
            else:
                return False
        links = [link async for link in await self._ipr.link("dump", kind="vxlan")]
        return all(as_link(link).info.get("IFLA_VXLAN_PORT") != vtep.port for link in links)

    async def _is_ours(self, vtep: Vtep) -> bool:
        link = await self._link(vtep.name)
        return link is not None and link.get("IFLA_IFALIAS") == vtep.alias

    async def _remove_renamed(self, vtep: Vtep) -> list[str]:
        """Delete our device if it is there under another name: it has the VNI and port."""
        done = []
        for link in [link async for link in await self._ipr.link("dump", kind="vxlan")]:
            if link.get("IFLA_IFALIAS") == vtep.alias and not vtep.unchangeable(as_link(link)):
                await self._tolerate(self._ipr.link("del", index=link["index"]), errno.ENODEV)
                done.append(f"device {vtep.name} made anew: it was {link.get('IFLA_IFNAME')}")
        return done

    @staticmethod
    def _ensure_offload(vtep: Vtep, checksum: str) -> list[str]:
        difference = offload.difference(vtep.name, checksum)
        if not difference:
            return []
        offload.set_checksum_offload(vtep.name, checksum)
        return [f"device {vtep.name}: {difference}"]

    async def _ensure_addresses(self, vtep: Vtep, index: int) -> list[str]:
        """Exactly the wanted addresses: those of an earlier subnet would be used as source."""
        found = await self.addresses(index)
        wanted = set(vtep.addresses)
        for prefix in found - wanted:
            await self._tolerate(
                self._ipr.addr(
                    "del", index=index, address=ntop(prefix.packed), prefixlen=prefix.length
                ),
                errno.EADDRNOTAVAIL,
            )
        for prefix in wanted - found:
            arguments: dict[str, Any] = {"address": ntop(prefix.packed)}
            if len(prefix.packed) == 16:
                arguments["flags"] = 0x02  # IFA_F_NODAD: ours alone by assignment
            await self._tolerate(
                self._ipr.addr("add", index=index, prefixlen=prefix.length, **arguments),
                errno.EEXIST,
            )
        return [f"addresses of {vtep.name} set"] if found != wanted else []

    async def addresses(self, index: int) -> set[Prefix]:
        """The addresses of a link, but link-local ones."""
        found = set()
        async for address in await self._ipr.addr("dump", index=index):
            text = address.get("IFA_LOCAL") or address.get("IFA_ADDRESS")
            if address["index"] == index and not str(text).startswith("fe80:"):
                found.add(Prefix(pton(text), address["prefixlen"]))
        return found

    @staticmethod
    async def _tolerate(request: Any, code: int) -> None:
        try:
            await request
        except NetlinkError as error:
            if error.code != code:
                raise

    async def remove_devices(self, keep: Iterable[str] = (), owner: str = "") -> list[str]:
        """Delete VXLAN devices that bear the owner's mark, but those in `keep`; their names."""
        kept = set(keep)
        removed = []
        for link in [link async for link in await self._ipr.link("dump", kind="vxlan")]:
            name = str(link.get("IFLA_IFNAME"))
            if link.get("IFLA_IFALIAS") == MARK + owner and name not in kept:
                await self._tolerate(self._ipr.link("del", index=link["index"]), errno.ENODEV)
                removed.append(name)
                self.devices.pop(name, None)
        return removed

    async def owners(self) -> set[str]:
        """Whose VXLAN devices there are of ours: AGENT, and names of networks without one."""
        aliases = [
            str(link.get("IFLA_IFALIAS") or "")
            async for link in await self._ipr.link("dump", kind="vxlan")
        ]
        return {alias.removeprefix(MARK) for alias in aliases if alias.startswith(MARK)}

    # -- what is there ---------------------------------------------------------------------

    async def read(self) -> Fabric:
        """What is in the kernel of what we make, by dumps. Raises NetlinkError."""
        fabric = Fabric()
        names = {index: name for name, index in self.devices.items()}
        for name, index in self.devices.items():
            async for entry in await self._ipr.fdb("dump", ifindex=index):
                found = forwarding_of(entry, names)
                if found is not None:
                    fabric.forwarding.add(found)
            for family in _FAMILIES:
                async for entry in await self._ipr.neigh("dump", family=family, ifindex=index):
                    found = neighbour_of(entry, names)
                    if found is not None and found[0] == name:
                        fabric.neighbours.add(found)
        for family in _FAMILIES:
            async for entry in await self._ipr.route("dump", family=family, proto=ROUTE_PROTOCOL):
                found = self.route_of(entry)
                if found is not None:
                    fabric.routes.add(found)
        return fabric

    def route_of(self, message: Any) -> tuple[str, str, str] | None:
        """The tuple of a route message if the route is ours, else None."""
        if message["proto"] != ROUTE_PROTOCOL or message["table"] != 254:
            return None
        gateway, destination = message.get("RTA_GATEWAY"), message.get("RTA_DST")
        if not gateway or not destination:
            return None
        prefix = Prefix(pton(destination), message["dst_len"])
        for name, index in self.devices.items():
            if message.get("RTA_OIF") == index:
                return prefix.text(), ntop(pton(gateway)), name
        if not message["flags"] & _ONLINK and any(
            network.length <= prefix.length and network.contains(prefix.packed)
            for network in self.networks
        ):
            return prefix.text(), ntop(pton(gateway)), ""
        return None

    # -- changes ---------------------------------------------------------------------------

    async def apply(
        self, added: Fabric, removed: Fabric, replaced: set[str]
    ) -> dict[tuple[str, ...], int]:
        """Put `added` into the kernel and take `removed` out of it, in one batch.

        replaced: destinations whose present route is ours, and gives way. Returns the errno of
        what failed, by ("forwarding" | "neighbours" | "routes", *entry); what was there or gone
        already has not failed. Raises OSError when the outcome is unknown.
        """
        work: list[tuple[tuple[str, ...], bytes, tuple[int, ...]]] = []
        for entry in added.forwarding:
            device, mac, address = entry
            message = messages.forwarding(self.devices[device], mac, address)
            work.append((("forwarding", *entry), message, ()))
        for entry in added.neighbours:
            device, address, mac = entry
            message = messages.neighbour(self.devices[device], address, mac)
            work.append((("neighbours", *entry), message, ()))
        for entry in added.routes:
            destination, next_hop, device = entry
            index = self.devices[device] if device else 0
            replace = destination in replaced
            message = messages.route(
                destination, next_hop, index, onlink=bool(device), replace=replace
            )
            work.append((("routes", *entry), message, ()))
        gone = (errno.ENOENT, errno.ESRCH)
        for entry in removed.routes:
            destination, next_hop, device = entry
            if device and device not in self.devices:
                continue
            index = self.devices[device] if device else 0
            message = messages.route(destination, next_hop, index, remove=True)
            work.append((("routes", *entry), message, gone))
        for entry in removed.neighbours:
            device, address, mac = entry
            message = messages.neighbour(self.devices[device], address, mac, remove=True)
            work.append((("neighbours", *entry), message, gone))
        for entry in removed.forwarding:
            device, mac, address = entry
            message = messages.forwarding(self.devices[device], mac, address, remove=True)
            work.append((("forwarding", *entry), message, gone))
        errors = await self._batch.send([message for _, message, _ in work])
        failed = {
            key: code
            for (key, _, allowed), code in zip(work, errors, strict=True)
            if code and code not in allowed
        }
        await self._replace_ipv6({k: m for k, m, _ in work if k in failed}, failed, replaced)
        return failed

    async def _replace_ipv6(
        self,
        sent: dict[tuple[str, ...], bytes],
        failed: dict[tuple[str, ...], int],
        replaced: set[str],
    ) -> None:
        """Make the routes for which the ones they replace had to go first; no longer in `failed`.

        A next hop on the device is refused while another route leads to it by another device:
        so a direct route to a peer's pods, which contain the next hop.
        """
        stuck = [
            key
            for key, code in failed.items()
            if key[0] == "routes" and ":" in key[1] and key[1] in replaced and code == errno.EINVAL
        ]
        pairs = [(messages.route(key[1], "", remove=True), sent[key]) for key in stuck]
        errors = await self._batch.send([message for pair in pairs for message in pair])
        for key, code in zip(stuck, errors[1::2], strict=True):
            if code:
                failed[key] = code
            else:
                del failed[key]

    # -- events ----------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Any]:
        """None once it listens, then every message of GROUPS. OSError when some were lost."""
        watch = AsyncIPRoute()
        try:
            await watch.bind(groups=GROUPS)
            with contextlib.suppress(OSError):  # needs CAP_NET_ADMIN in the first user namespace
                watch.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENTS)
            yield None
            while True:
                async for message in watch.get():
                    error = message["header"].get("error")
                    if error is not None:
                        raise error
                    yield message
        finally:
            watch.close()
