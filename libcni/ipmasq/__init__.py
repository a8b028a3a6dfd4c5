# SPDX-License-Identifier: Apache-2.0
"""Masquerade: what containers send out of their network leaves with the host's address.

Two backends: nftables in process (`nft`, the default where the kernel has it) and iptables, one
`iptables-restore` per operation, with the chains that the Go plugins make (`ipt`). Addresses
are text, "10.244.1.2/24": masqueraded is what the address sends to outside of that prefix.

All of this acts on the network namespace that the thread is in, which must be the host's.
"""

from __future__ import annotations

from errno import ENOENT

from libcni import orphans
from libcni.attachment import Attachment
from libcni.inet import Prefix
from libcni.legacy_tables import legacy_versions
from libcni.netlink.socket import NetlinkError, Socket
from libcni.nftables.transaction import is_missing
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

#: The values of `ipMasqBackend`; "" lets us choose.
BACKENDS = ("", "iptables", "nftables")


class Pending:
    """Work of the kernel that closing waits for: 8-16 ms after something has been deleted.

    Leave it open in the process (or child) that is to sit out the wait, or `close` it when
    nothing is left to do in the meantime. The end of the process closes it.
    """

    __slots__ = ("_socket",)

    def __init__(self, socket: Socket | None = None) -> None:
        self._socket = socket

    def fileno(self) -> int:
        """The descriptor to hand on, or -1 if there is nothing to wait for."""
        return -1 if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Wait. Idempotent."""
        if self._socket is not None:
            self._socket.close()


def _prefixes(addresses: list[str]) -> list[Prefix]:
    return [Prefix.parse(address) for address in addresses]


def _backend(name: str) -> str:
    if name not in BACKENDS:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"unknown ipmasq backend {name!r}",
            'ipMasqBackend is "nftables" or "iptables", or absent',
        )
    return name


def ensure(attachment: Attachment, addresses: list[str], backend: str = "") -> Pending:
    """Masquerade for these addresses. Idempotent; `remove` is the inverse.

    backend: one of BACKENDS; "" is nftables, or iptables where the kernel has no nftables.
    Raises CniError 7 for another one, 102 when the kernel or the tool refuses, 11 when others
    hold it up.
    """
    _backend(backend)
    prefixes = _prefixes(addresses)
    if backend != "iptables":
        from libcni.ipmasq import nft

        try:
            return Pending(nft.ensure(attachment, prefixes))
        except NetlinkError as error:
            # ENOENT: nftables without NAT in inet tables, as in Linux before 5.2.
            if backend or not (error.errno == ENOENT or is_missing()):
                raise
    from libcni.ipmasq import ipt

    ipt.ensure(attachment, prefixes)
    return Pending()


def undo(attachment: Attachment, addresses: list[str]) -> Pending:
    """`remove` after a failed ADD: also the nftables table, if this process has made it.

    It stays if others use it by then. Idempotent. Raises CniError 11 or 102.
    """
    return remove(attachment, addresses, failed=True)


def remove(
    attachment: Attachment, addresses: list[str] | None = None, failed: bool = False
) -> Pending:
    """Remove what either backend, ours or the Go plugins', made for the attachment. Idempotent.

    addresses: if known, saves a search. failed: see `undo`. Forks only where iptables-legacy's
    nat table is in use in this namespace. Raises CniError 11 or 102.
    """
    from libcni.ipmasq import nft

    orphans.wait(attachment)
    prefixes = _prefixes(addresses) if addresses else None
    try:
        if failed:
            pending = Pending(nft.undo(attachment, prefixes or []))
        else:
            pending = Pending(nft.remove(attachment, prefixes))
    except NetlinkError:
        if not is_missing():
            raise
        pending = Pending()
    families = legacy_versions("nat")
    if families:
        from libcni.ipmasq import ipt

        ipt.remove_legacy(attachment, prefixes, families)
    return pending


def check(attachment: Attachment, addresses: list[str], backend: str = "") -> None:
    """Raise CniError 103 naming what is missing of what `ensure` made.

    What the Go plugins made is as good, in the backend that was asked for, or in any.
    """
    _backend(backend)
    prefixes = _prefixes(addresses)
    from libcni.ipmasq import nft

    failures: list[CniError] = []
    if backend != "iptables":
        try:
            nft.check(attachment, prefixes)
            return
        except CniError as error:
            failures.append(error)
        if not is_missing() and nft.is_masqueraded_by_go(attachment):
            return
    if backend != "nftables":
        from libcni.ipmasq import ipt

        try:
            ipt.check(attachment, prefixes)
            return
        except CniError as error:
            failures.append(error)
    raise failures[0]


def gc(network: str, valid: set[tuple[str, str]]) -> None:
    """Remove what masquerades for attachments of the network that are not in `valid`.

    valid: (container ID, ifname). Both backends, and what the Go plugins made, whose iptables
    chains can be told apart by container only. Raises CniError 11 or 102.
    """
    from libcni.ipmasq import nft

    if not is_missing():
        nft.gc(network, valid)
    families = legacy_versions("nat")
    if families:
        from libcni.ipmasq import ipt

        ipt.gc_legacy(network, {container_id for container_id, _ in valid}, families)


def unusable(backend: str = "") -> str:
    """Why `ensure` with this backend would fail here, or "". For STATUS; changes nothing."""
    _backend(backend)
    from libcni.ipmasq import nft

    reason = "" if backend == "iptables" else nft.unusable()
    if backend == "iptables" or (reason and not backend and is_missing()):
        from libcni.ipmasq import ipt

        reason = ipt.unusable()
    return reason
