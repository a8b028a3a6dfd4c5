# SPDX-License-Identifier: Apache-2.0
"""DEL: IPAM's reservations in any case, and the interface where its namespace still is."""

from __future__ import annotations

import libcni.netlink.tables.kinds  # noqa: F401  (knows the kind)
from cni_macvlan.config import MODES
from libcni.interface.sole import delete_device
from libcni.netlink.socket import Socket
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Detach the container; see `delete_device`."""

    def is_as_configured(inside: Socket, link: Link) -> bool:
        return _is_as_configured(inside, request, link)

    delete_device(request, "macvlan", is_as_configured)


def _is_as_configured(inside: Socket, request: Request, link: Link) -> bool:
    """True for a macvlan as Go's plugin would make it of this configuration."""
    from cni_macvlan.config import Config
    from cni_macvlan.master import find_master

    try:
        config = Config(request)
        outside = inside if config.in_container else Socket()
        master = find_master(outside, config)
    except (CniError, TypeError, AttributeError):
        return False  # a configuration that no ADD would have accepted
    return (
        master is not None
        and link.info.get("IFLA_MACVLAN_MODE") == MODES.get(config.mode)
        and link.peer in (master.index, master.peer if master.kind == "macvlan" else -1)
    )
