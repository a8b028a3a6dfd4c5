# SPDX-License-Identifier: Apache-2.0
"""A port that another container has, and whether that container is gone.

A runtime that was wiped, or died, never calls DEL for what it had attached. Whoever can be proved
to be gone does not keep a port. Two things are proof: the address that its port leads to is the
new container's, or the host's end of its veth, which bears its name as alias as long as it is
there, is not there any more. What is merely silent is alive.
"""

from __future__ import annotations

from libcni.attachment import Attachment
from libcni.types.errors import CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix
    from libcni.skel.request import Request
    from libcni.types.result import Result


class Taken(CniError):
    """Code 101. holder: whose the port is, None for a stranger; its interface is "" where only
    the container is known. target: where the port leads, packed."""

    __slots__ = ("holder", "target")

    def __init__(self, msg: str, details: str, holder: Attachment | None, target: bytes) -> None:
        super().__init__(CONFLICT, msg, details)
        self.holder = holder
        self.target = target


def has_host_end(request: Request, result: Result) -> bool:
    """True if an earlier plugin of the list has made a veth that is known by the attachment."""
    names = request.attachment.host_veth_names()
    return any(one.name in names and not one.sandbox for one in result.interfaces)


def make_room(taken: Taken, targets: dict[int, Prefix]) -> None:
    """Remove whatever the holder has, if it is gone; otherwise raise `taken`.

    targets: the new container's addresses.
    """
    holder = taken.holder
    if holder is None:
        raise taken
    is_ours = any(taken.target == target.packed for target in targets.values())
    if not is_ours and not _has_lost_its_host_end(holder):
        raise taken
    from cni_portmap.delete import remove

    remove(holder)


def _has_lost_its_host_end(holder: Attachment) -> bool:
    """True if there was a host's end when the ports were mapped, and there is none now."""
    from cni_portmap import table
    from cni_portmap.holders import lookup
    from cni_portmap.record import unpack
    from libcni.netlink.link import dump_links
    from libcni.netlink.socket import Socket
    from libcni.nftables.transaction import find_socket

    sock = find_socket() if holder.ifname else None
    if sock is None:
        return False
    owner = lookup(sock, table.OWNERS, holder.set_key)
    known = unpack(owner.record) if owner and owner.comment == holder.comment else None
    if known is None or not known.host_end:
        return False
    # By its alias: it may have been given another name.
    return not any(link.alias == holder.alias for link in dump_links(Socket(), kind="veth"))
