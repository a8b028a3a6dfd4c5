# SPDX-License-Identifier: Apache-2.0
"""DEL: every trace of the attachment goes, whatever of it is still there.

Everything is found by the attachment's identity, so neither the namespace nor prevResult is
needed. A step that fails does not keep the others from being tried; the first error is reported.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, EPROTONOSUPPORT

from libcni.attempts import Attempts
from libcni.interface.veth_removal import start_removal
from libcni.netlink.codec import NLM_F_REQUEST, Message
from libcni.netlink.link import find_link
from libcni.netlink.socket import NETLINK_NETFILTER, NetlinkError, Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.attachment import Attachment
    from libcni.netlink.codec import Layout
    from libcni.netlink.link import Link
    from libcni.skel.request import Request


#: As in `config`, which DEL does not load.
_DEFAULT_BRIDGE = "cni0"

# linux/netfilter/nf_tables.h; the tables of libcni.netlink.tables.nft take longer to load than
# this takes in all.
_GET_TABLE, _GET_CHAIN = 10 << 8 | 1, 10 << 8 | 4
_INET, _IPV4, _BRIDGE, _IPV6 = 1, 2, 7, 10
_NAMES: Layout = (">BBH", {"TABLE": (1, "s"), "CHAIN": (3, "s")})


class lenient:
    """The few keys that DEL and GC need, from a document that nothing has validated."""

    __slots__ = ("bridge", "ipam", "masquerade", "masquerade_backend", "spoof_check")

    def __init__(self, document: dict[str, Any]) -> None:
        bridge, ipam = document.get("bridge"), document.get("ipam")
        kind = ipam.get("type") if isinstance(ipam, dict) else None
        backend = document.get("ipMasqBackend")
        self.bridge = bridge if isinstance(bridge, str) and bridge else _DEFAULT_BRIDGE
        self.ipam = kind if isinstance(kind, str) else ""
        self.masquerade = document.get("ipMasq") is True
        self.masquerade_backend = backend if isinstance(backend, str) else ""
        self.spoof_check = document.get("macspoofchk") is True


def delete(request: Request) -> None:
    """Detach the container. Idempotent. Raises the first CniError after trying everything."""
    config = lenient(request.config)
    attempts = Attempts()
    # First, as the wait that ends in closing their sockets then passes together with the
    # links' own; until then the sockets stay open.
    pending: list[Any] = []
    masquerade, spoof_check = config.masquerade, config.spoof_check
    if not (masquerade and spoof_check):
        there = attempts.attempt(_tables, request.attachment, pending)
        if there is not None:
            masquerade, spoof_check = masquerade or there[0], spoof_check or there[1]
    if masquerade:
        from libcni import ipmasq

        addresses = _addresses(request.config.get("prevResult"))
        pending.append(attempts.attempt(ipmasq.remove, request.attachment, addresses))
    if spoof_check:
        from cni_bridge import spoofcheck

        pending.append(attempts.attempt(spoofcheck.remove, request.attachment))
    held = [handle.fileno() for handle in pending if handle is not None]

    def is_port(sock: Socket, peer: Link) -> bool:
        master = find_link(sock, config.bridge)
        return master is not None and peer.master == master.index

    removal = attempts.attempt(start_removal, request, held, is_port)
    if config.ipam:
        from libcni.invoke.delegate import delegate_delete

        attempts.attempt(delegate_delete, request, config.ipam)
    if removal is not None:
        attempts.attempt(removal.finish)
    attempts.report()


def _tables(attachment: Attachment, held: list[Any]) -> tuple[bool, bool]:
    """Whether masquerading and spoof checks may have state here, whatever the configuration says.

    ADD may have been asked for what the configuration no longer names. Four names are looked
    for (0.1 ms) as a vain search of the rules would cost more than the rest of DEL. The socket
    is added to `held`: it may be slow to close (see `libcni.nftables.transaction`).
    """
    try:
        sock = Socket(NETLINK_NETFILTER)
    except NetlinkError as error:
        if error.errno in (EAFNOSUPPORT, EPROTONOSUPPORT):
            return False, False  # no nfnetlink in this kernel
        raise
    held.append(sock)
    chain = attachment.go_masquerade_chain
    replies = sock.batch(
        [
            _look_for(_GET_TABLE, _INET, "adder_ipmasq"),
            # The backend iptables, where it is iptables-nft.
            _look_for(_GET_CHAIN, _IPV4, "nat", chain),
            _look_for(_GET_CHAIN, _IPV6, "nat", chain),
            _look_for(_GET_TABLE, _BRIDGE, "adder_spoofcheck"),
        ]
    )
    # Any errno is a no: ENOENT, or EINVAL of a kernel without nftables. EPERM too: what the
    # configuration names is tried all the same, and the links need the same capability.
    found = [not reply.error for reply in replies]
    return any(found[:3]), found[3]


def _look_for(kind: int, family: int, table: str, chain: str = "") -> Message:
    names = {"TABLE": table, "CHAIN": chain or None}
    return Message(kind, NLM_F_REQUEST, f"look for table {table}", _NAMES, (family, 0, 0), names)


def _addresses(result: Any) -> list[str] | None:
    """The addresses in a prevResult, just to save a search: None at the least doubt."""
    from libcni.inet import Prefix

    try:
        addresses = [ip["address"] for ip in result["ips"]]
        for address in addresses:
            Prefix.parse(address)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    return addresses
