# SPDX-License-Identifier: Apache-2.0
"""VLANs of a bridge port: which frames it takes in, and which go out untagged.

To read them there is `libcni.netlink.vlan.dump_vlans`.
"""

from __future__ import annotations

from errno import ENOENT

from cni_bridge.config import DEFAULT_VLAN, PVID, UNTAGGED
from libcni.netlink.codec import CHANGE, Message
from libcni.netlink.tables.link import LINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket

_AF_BRIDGE = 7
# linux/rtnetlink.h
_RTM_DELLINK = 17
_RTM_SETLINK = 19


def set_vlans(sock: Socket, port: Link, config: Config, bridge: Link) -> None:
    """Put the port into the VLANs of the configuration, and out of the bridge's default one.

    Idempotent; vanishes with the port. Raises CniError 102.
    """
    _set(sock, port, config.vlans(), config, bridge)


def set_access_vlan(sock: Socket, port: Link, config: Config, bridge: Link) -> None:
    """Put the port into the container's untagged VLAN alone. Idempotent. Raises CniError 102."""
    _set(sock, port, {config.vlan: PVID | UNTAGGED}, config, bridge)


def _set(sock: Socket, port: Link, wanted: dict[int, int], config: Config, bridge: Link) -> None:
    default = bridge.info.get("IFLA_BR_VLAN_DEFAULT_PVID", DEFAULT_VLAN)
    messages = []
    if default and default not in wanted and not config.keep_default_vlan:
        messages.append(vlan_message(_RTM_DELLINK, port.index, port.name, {default: 0}))
    messages.append(vlan_message(_RTM_SETLINK, port.index, port.name, wanted))
    for reply in sock.batch(messages):
        reply.check(ENOENT)


def vlan_message(kind: int, index: int, name: str, vlans: dict[int, int]) -> Message:
    """A request to put a port into VLANs (RTM_SETLINK, with flags) or out (RTM_DELLINK)."""
    return Message(
        kind,
        CHANGE,
        f"set {len(vlans)} VLANs of port {name}",
        LINK,
        (_AF_BRIDGE, 0, index, 0, 0),
        {
            "IFLA_AF_SPEC": {
                "IFLA_BRIDGE_VLAN_INFO": [(flags, vlan) for vlan, flags in vlans.items()]
            }
        },
    )
