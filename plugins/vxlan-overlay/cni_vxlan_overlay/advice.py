# SPDX-License-Identifier: Apache-2.0
"""What vxlan-overlay refuses of its configuration, or will; `cnitool validate` asks for it."""

from __future__ import annotations

import posix

from cni_vxlan_overlay.config import Config
from cni_vxlan_overlay.delegation import render
from cni_vxlan_overlay.lease import Lease
from cni_vxlan_overlay.peer_list import load_peers, others, placed
from libcni.inet import Prefix, ntop
from libcni.netlink.addr import dump_addresses
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request


def refuse(request: Request) -> None:
    """Read what ADD reads, peers included, whatever the underlay is. Raises CniError as ADD would.

    An entry is this node's own if its publicIP is any address of this machine. A `peersFile`
    that is not there is passed over: `advice` tells of it.
    """
    config = Config(request.config)
    if config.lease is None:
        return
    if not _is_there(config.peers_file):
        config.peers_file = ""
    peers = load_peers(config)
    if peers:
        own = {ntop(address.prefix.packed) for address in dump_addresses(Socket())}
        for peer in others(peers, own):
            placed(peer, config.lease, {})


def delegates(request: Request) -> list[tuple[str, dict[str, Any]]]:
    """(key, configuration) of the delegate as ADD would render it.

    An example stands for what only the agent knows. Raises CniError as ADD would.
    """
    config = Config(request.config)
    lease = config.lease or Lease([Prefix.parse("10.0.0.0/8")], [Prefix.parse("10.0.0.0/24")])
    return [("delegate", render(request, config, lease).document)]


def advice(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(path of the key, warning) for each; document: a canonical one that the schema accepts."""
    path = document.get("peersFile") or ""
    if not path or _is_there(path):
        return []
    return [("peersFile", f"{path} is not there: without it ADD fails")]


def _is_there(path: str) -> bool:
    return bool(path) and posix.access(path, posix.F_OK)
