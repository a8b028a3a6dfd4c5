# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_bridge.addressing import first_address
from cni_bridge.config import Config
from cni_bridge.gateway import conflicts
from libcni.inet import Prefix, pton
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 50 naming what is in the way, or what the IPAM plugin's STATUS raises."""
    config = Config(request.config)
    from libcni.netlink.link import find_link
    from libcni.netlink.socket import Socket

    sock = Socket()
    link = find_link(sock, config.bridge)
    if link is not None and link.kind != "bridge":
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f'"{config.bridge}" already exists but is not a bridge',
            f"it is a {link.kind or 'plain'} device; set `bridge` to another name",
        )
    if config.is_gateway and not config.force_address:
        _require_gateway(sock, config, request.config)
    if config.masquerade or config.spoof_check:
        from libcni import ipmasq

        if config.masquerade:
            _require("ipMasq", ipmasq.unusable(config.masquerade_backend))
        if config.spoof_check:
            _require("macspoofchk", ipmasq.unusable("nftables"))
    if config.ipam:
        from libcni.invoke.delegate import delegate_status

        delegate_status(request, config.ipam)


def _require_gateway(sock: Socket, config: Config, document: dict[str, Any]) -> None:
    """Raise CniError 50 where an ADD would find no place for its gateway's address."""
    from libcni.netlink.addr import dump_addresses
    from libcni.netlink.link import find_link

    link = find_link(sock, config.vlan_gateway if config.vlan else config.bridge)
    wanted = _gateways(document)
    if link is None or not wanted:
        return
    for address in dump_addresses(sock, link.index):
        for gateway in wanted:
            if conflicts(address, gateway, wanted):
                raise CniError(
                    PLUGIN_NOT_AVAILABLE,
                    f'"{link.name}" already has an IP address different from {gateway.text()}',
                    f"it has {address.prefix.text()}; forceAddress would replace it",
                )


def _gateways(document: dict[str, Any]) -> list[Prefix]:
    """The gateways that host-local and static may give; none where that is not known before.

    Leniently: what is wrong with the IPAM's keys is for its own STATUS to say.
    """
    ipam = document.get("ipam") or {}
    if (document.get("capabilities") or {}).get("ipRanges"):
        return []  # what each container's runtimeConfig brings
    named = [(ipam.get("subnet"), ipam.get("gateway"))]
    for ranges in ipam.get("ranges") or ():
        named += [(range.get("subnet"), range.get("gateway")) for range in ranges]
    named += [(one.get("address"), one.get("gateway")) for one in ipam.get("addresses") or ()]
    found = []
    for subnet, gateway in named:
        try:
            prefix = Prefix.parse(subnet or "")
            packed = pton(gateway) if gateway else first_address(prefix)
        except ValueError:
            continue
        found.append(Prefix(packed, prefix.length))
    return found


def _require(key: str, reason: str) -> None:
    if reason:
        raise CniError(PLUGIN_NOT_AVAILABLE, f"{key} cannot work here: {reason}")
