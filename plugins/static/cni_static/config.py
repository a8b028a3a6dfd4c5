# SPDX-License-Identifier: Apache-2.0
"""The configuration of static: which addresses, and whose word counts.

`addresses` of the configuration and CNI_ARGS IP are added up; args.cni.ips takes the place of
both, and runtimeConfig.ips of all others, as in Go. What the schema has accepted is not checked
again.
"""

from __future__ import annotations

from libcni.inet import Prefix, ntop, pton
from libcni.types.errors import INVALID_ENVIRONMENT, INVALID_NETWORK_CONFIG, CniError
from libcni.types.result import IPConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request


def addresses_of(request: Request) -> list[IPConfig]:
    """The container's addresses, with their gateways, in order.

    Raises CniError 7 naming the key, or 4 when CNI_ARGS is wrong.
    """
    document = request.config
    configured: list[IPConfig] = []
    for index, entry in enumerate(document["ipam"].get("addresses") or ()):
        where = f"ipam.addresses[{index}]"
        ip = _configured(entry, where)
        if ip.address in [other.address for other in configured]:
            raise CniError(INVALID_NETWORK_CONFIG, f"{where}: {ip.address} is there twice")
        configured.append(ip)
    runtime = (document.get("runtimeConfig") or {}).get("ips")
    arguments = ((document.get("args") or {}).get("cni") or {}).get("ips")
    found = configured
    if request.args:
        # Read even where others go before it, as it may be malformed.
        found = configured + _from_environment(request.args, configured)
    for key, texts in (("runtimeConfig.ips", runtime), ("args.cni.ips", arguments)):
        if texts:
            found = [
                _requested(text, configured, f"{key}[{index}]", INVALID_NETWORK_CONFIG)
                for index, text in enumerate(texts)
            ]
            break
    # Asked for twice, or what is configured anyway, is asked for once.
    unique: dict[str, IPConfig] = {}
    for ip in found:
        first = unique.setdefault(ip.address, ip)
        first.gateway = first.gateway or ip.gateway
    found = list(unique.values())
    if request.version in ("0.1.0", "0.2.0"):
        for version6 in (False, True):
            if sum((":" in ip.address) == version6 for ip in found) > 1:
                raise CniError(
                    INVALID_NETWORK_CONFIG,
                    f"CNI version {request.version} does not support more than 1 address per "
                    "family",
                    ", ".join(ip.address for ip in found),
                )
    return found


def _configured(entry: dict[str, Any], where: str) -> IPConfig:
    try:
        gateway = pton(entry["gateway"]) if entry.get("gateway") else b""
        prefix = Prefix.parse(entry["address"])
    except (KeyError, ValueError) as error:
        raise CniError(INVALID_NETWORK_CONFIG, f"{where}: {error}") from None
    _refuse_unusable(prefix, f"{where}.address", INVALID_NETWORK_CONFIG)
    if gateway and len(gateway) != len(prefix.packed):
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"{where}.gateway: {ntop(gateway)} is not of the family of {prefix.text()}",
        )
    return IPConfig(prefix.text(), ntop(gateway) if gateway else "")


def _refuse_unusable(prefix: Prefix, where: str, code: int) -> None:
    """Raise CniError `code` for what the kernel accepts, but no container can use."""
    packed, inet = prefix.packed, len(prefix.packed) == 4
    reason = ""
    if not any(packed):
        reason = "no address"
    elif (224 <= packed[0] < 240) if inet else packed[0] == 0xFF:
        reason = "a multicast address"
    elif inet and prefix.length < 31 and prefix == prefix.network():
        reason = "the subnet, not an address in it"
    elif inet and prefix.length < 31 and packed == prefix.broadcast():
        reason = "the broadcast address of its subnet"
    if reason:
        raise CniError(
            code,
            f"{where}: {prefix.text()} is {reason}",
            "an address that the container can have is expected, such as 10.1.2.3/24",
        )


def _from_environment(args: str, configured: list[IPConfig]) -> list[IPConfig]:
    """What CNI_ARGS adds: IP=address,...; GATEWAY=address,... is for those that it suits.

    Blanks around them do not matter, and the gateways of configured addresses stay, as in Go.
    """
    from libcni.types.args import load_args

    values = load_args(args, ("IP", "GATEWAY"))
    added = [
        _requested(text, configured, "CNI_ARGS: IP", INVALID_ENVIRONMENT)
        for text in _listed(values.get("IP", ""))
    ]
    for text in _listed(values.get("GATEWAY", "")):
        try:
            gateway = pton(text)
        except ValueError as error:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: GATEWAY: {error}") from None
        for ip in added:
            if Prefix.parse(ip.address).contains(gateway):
                ip.gateway = ntop(gateway)
    return added


def _listed(value: str) -> list[str]:
    return [text for part in value.split(",") if (text := part.strip())]


def _requested(text: str, configured: list[IPConfig], where: str, code: int) -> IPConfig:
    """One "address/length". Prefix length and gateway of a configured address whose subnet it is
    in are its own, unless it says a length itself; CRI-O and podman ask for bare addresses."""
    try:
        prefix = Prefix.parse(text) if "/" in text else None
        packed = prefix.packed if prefix is not None else pton(text)
    except ValueError as error:
        raise CniError(code, f"{where}: {error}") from None
    for ip in configured:
        subnet = Prefix.parse(ip.address)
        if subnet.contains(packed):
            prefix = prefix or Prefix(packed, subnet.length)
            _refuse_unusable(prefix, where, code)
            return IPConfig(prefix.text(), ip.gateway)
    if prefix is None:
        raise CniError(
            code,
            f"{where}: {text!r} is expected to be in CIDR notation",
            "its prefix length is taken from ipam.addresses only if it is in one's subnet",
        )
    _refuse_unusable(prefix, where, code)
    return IPConfig(prefix.text())
