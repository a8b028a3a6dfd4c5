# SPDX-License-Identifier: Apache-2.0
"""GC: remove what belongs to attachments of this network that do not exist any more."""

from __future__ import annotations

from errno import ENODEV

from cni_bridge.delete import Attempts, lenient
from libcni.attachment import Attachment, network_marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove stray host ends, masquerade and spoof-check state, and let IPAM do the same.

    Idempotent. Raises CniError 7 without acting when the list of valid attachments is missing;
    otherwise tries everything and raises the first CniError.
    """
    valid = request.valid_attachments()
    config = lenient(request.config)
    attempts = Attempts()
    attempts.attempt(_remove_ports, request.network, valid)
    from cni_bridge import spoofcheck
    from libcni import ipmasq

    attempts.attempt(ipmasq.gc, request.network, valid)
    attempts.attempt(spoofcheck.gc, request.network, valid)
    if config.ipam:
        from libcni.invoke.delegate import delegate_gc

        attempts.attempt(delegate_gc, request, config.ipam)
    attempts.report()


def _remove_ports(network: str, valid: set[tuple[str, str]]) -> None:
    """Delete the host ends that bear this network's alias and belong to nobody valid.

    Wherever they are: a port outlives its bridge, and stays off it when the bridge is made anew.
    """
    from libcni.netlink.link import delete_link, dump_links
    from libcni.netlink.socket import Socket

    sock = Socket()
    keep = {Attachment(network, container_id, ifname).alias for container_id, ifname in valid}
    stray = [
        delete_link(index=link.index)
        for link in dump_links(sock, kind="veth")
        if link.alias.startswith(network_marks(network)) and link.alias not in keep
    ]
    if stray:
        for reply in sock.batch(stray):
            reply.check(ENODEV)
