# SPDX-License-Identifier: Apache-2.0
"""Port mappings as the runtime gives them, and the claims on ports of the host that they make."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from libcni.inet import family, ntop, pton
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: IP protocol numbers by the names that may be given, in any case.
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
NAMES = {number: name for name, number in PROTOCOLS.items()}
#: What connection tracking would go on to send the old way.
CONNECTIONLESS = (17, 132)
#: Ports of the host that one attachment may claim: each is an element of a map.
MOST = 10_000
_LAST_PORT = 65535
#: Where the mappings stand.
_KEY = "runtimeConfig.portMappings"
_UNSPECIFIED = (bytes(4), bytes(16))


class Claim:
    """`count` ports of the host from `port` on, and where they lead, for one IP version.

    address: the host's, packed; b"" for any. target: the container's, packed.
    """

    __slots__ = ("address", "count", "family", "port", "protocol", "target", "target_port")

    def __init__(
        self,
        family: int,
        protocol: int,
        address: bytes,
        port: int,
        count: int = 1,
        target: bytes = b"",
        target_port: int = 0,
    ) -> None:
        self.family = family
        self.protocol = protocol
        self.address = address
        self.port = port
        self.count = count
        self.target = target
        self.target_port = target_port

    def __repr__(self) -> str:
        return f"Claim({self.text(0)}, {self.count})"

    def text(self, offset: int) -> str:
        """ "8080/tcp", or with an address "10.0.0.1:8080/tcp": the port at an offset."""
        return describe(self.protocol, self.port + offset, self.address)


def describe(protocol: int, port: int, address: bytes) -> str:
    """A port of the host in words; address b"" is any."""
    host = ""
    if address:
        text = ntop(address)
        host = f"[{text}]:" if ":" in text else f"{text}:"
    return f"{host}{port}/{NAMES.get(protocol, protocol)}"


def parse(entries: list[dict[str, Any]], targets: dict[int, bytes]) -> list[Claim]:
    """The claims of canonical, valid `runtimeConfig.portMappings`.

    targets: the container's address of each family; a mapping without one for its family makes
    no claim, as in Go. Raises CniError 7 naming the mapping that cannot be.
    """
    claims: list[Claim] = []
    seen: dict[tuple[int, int, bytes, int], tuple[bytes, int]] = {}
    total = 0
    for index, entry in enumerate(entries):
        where = f"{_KEY}[{index}]"
        protocol = _protocol(entry, where)
        first, count = _ports(entry, where)
        target_port: int = entry["containerPort"]
        address = pton(entry["hostIP"]) if entry.get("hostIP") else b""
        for version in (AF_INET, AF_INET6):
            target = targets.get(version)
            if target is None or (address and family(address) != version):
                continue
            own = b"" if address in _UNSPECIFIED else address
            claim = Claim(version, protocol, own, first, count, target, target_port)
            for offset, fresh in _merge(claim, seen, where):
                part = Claim(
                    version, protocol, own, first + offset, fresh, target, target_port + offset
                )
                claims.append(part)
                total += fresh
    if total > MOST:
        raise invalid(f"{_KEY}: {total} ports of the host", f"one attachment may have {MOST}")
    return claims


def _merge(
    claim: Claim, seen: dict[tuple[int, int, bytes, int], tuple[bytes, int]], where: str
) -> list[tuple[int, int]]:
    """(offset, count) of what was not claimed before. Raises CniError 7 if that led elsewhere."""
    parts: list[tuple[int, int]] = []
    for offset in range(claim.count):
        key = (claim.family, claim.protocol, claim.address, claim.port + offset)
        value = (claim.target, claim.target_port + offset)
        earlier = seen.setdefault(key, value)
        if earlier is value:
            if parts and sum(parts[-1]) == offset:
                parts[-1] = (parts[-1][0], parts[-1][1] + 1)
            else:
                parts.append((offset, 1))
        elif earlier != value:
            raise invalid(
                f"{where}: hostPort {claim.text(offset)} is mapped twice",
                f"to container ports {earlier[1]} and {value[1]}",
            )
    return parts


def _protocol(entry: dict[str, Any], where: str) -> int:
    name = entry.get("protocol") or "tcp"
    number = PROTOCOLS.get(name.lower())
    if number is None:
        raise invalid(
            f"{where}.protocol: unknown protocol {name!r} of hostPort {entry['hostPort']}",
            f"one of {', '.join(PROTOCOLS)}",
        )
    return number


def _ports(entry: dict[str, Any], where: str) -> tuple[int, int]:
    """First port and number of ports of the host."""
    for key in ("hostPort", "containerPort"):
        port = entry.get(key, 0)
        if not 1 <= port <= _LAST_PORT:
            what = "host" if key == "hostPort" else "container"
            raise invalid(
                f"{where}.{key}: Invalid {what} port number: {port}", f"it is 1 to {_LAST_PORT}"
            )
    first: int = entry["hostPort"]
    last: int = entry.get("hostPortEnd") or first
    if not first <= last <= _LAST_PORT:
        raise invalid(f"{where}.hostPortEnd: {last} is not hostPort {first} to {_LAST_PORT}")
    end = entry["containerPort"] + last - first
    if end > _LAST_PORT:
        raise invalid(
            f"{where}: hostPort {first} to {last} would lead to containerPort {end}",
            f"the last port is {_LAST_PORT}",
        )
    return first, last - first + 1


def invalid(msg: str, details: str = "") -> CniError:
    """A CniError 7."""
    return CniError(INVALID_NETWORK_CONFIG, msg, details)
