# SPDX-License-Identifier: Apache-2.0
"""UDP and SCTP: what was sent to a port before its mapping came or went must not go on so."""

from __future__ import annotations

from cni_portmap.mapping import CONNECTIONLESS, Claim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_portmap.removal import Freed
    from libcni.netlink.conntrack import Connection


def forget_strays(claims: list[Claim]) -> None:
    """After ADD: forget connections to the ports that do not lead to the container.

    Only those to an address of this host, or to the one that is mapped: containers have
    connections to the same ports of others. Raises NetlinkError.
    """
    for claim in claims:
        if claim.protocol in CONNECTIONLESS:
            from libcni.netlink.conntrack import forget

            ports = list(range(claim.port, claim.port + claim.count))
            forget(claim.family, claim.protocol, ports, _Strays(claim).contains)


class _Strays:
    """The connections to a claim's addresses that lead somewhere else."""

    __slots__ = ("_claim", "_local")

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._local: set[bytes] | None = None

    def contains(self, connection: Connection) -> bool:
        """True for one to be forgotten."""
        if connection.answers == self._claim.target:
            return False
        if self._claim.address:
            return connection.destination == self._claim.address
        return self._is_local(connection.destination)

    def _is_local(self, address: bytes) -> bool:
        from libcni.inet import is_loopback

        if self._local is None:
            from libcni.netlink.addr import dump_addresses
            from libcni.netlink.socket import Socket

            self._local = {
                found.prefix.packed
                for found in dump_addresses(Socket(), family=self._claim.family)
            }
        return address in self._local or is_loopback(address)


def forget_freed(freed: list[Freed]) -> None:
    """After DEL: forget connections that lead to the container. Raises NetlinkError."""
    groups: dict[tuple[int, int, bytes], list[int]] = {}
    for port in freed:
        if port.protocol in CONNECTIONLESS:
            groups.setdefault((port.family, port.protocol, port.target), []).append(port.port)
    for (family, protocol, target), ports in groups.items():
        from libcni.netlink.conntrack import forget

        forget(family, protocol, ports, _Leading(target).contains)


def forget_translated(targets: set[bytes]) -> None:
    """After DEL: forget all translated connections to these addresses. Raises NetlinkError.

    For the iptables backend, which is not asked for its ports.
    """
    for target in targets:
        from libcni.inet import family
        from libcni.netlink.conntrack import forget

        for protocol in CONNECTIONLESS:
            forget(family(target), protocol, [], _Leading(target).contains)


class _Leading:
    """The connections that lead to an address."""

    __slots__ = ("_target",)

    def __init__(self, target: bytes) -> None:
        self._target = target

    def contains(self, connection: Connection) -> bool:
        """True for one to be forgotten."""
        return connection.answers == self._target != connection.destination
