# SPDX-License-Identifier: Apache-2.0
"""The VLAN filter of a bridge: which VLANs a port carries.

A kernel built without CONFIG_BRIDGE_VLAN_FILTERING answers EOPNOTSUPP.
"""

from __future__ import annotations

from libcni.netlink.codec import CHANGE, NLM_F_REQUEST, Message, Reader, fields, required
from libcni.netlink.socket import Socket
from libcni.netlink.tables.link import LINK
from libcni.netlink.tables.vlan import VLAN_ATTRIBUTES, VLAN_QUERY

AF_BRIDGE = 7
# linux/rtnetlink.h
_RTM_DELLINK = 17
_RTM_SETLINK = 19
_RTM_GETVLAN = 114
# linux/if_bridge.h
#: The VLAN of frames that arrive untagged; frames of the VLAN leave untagged.
PVID = 2
UNTAGGED = 4
_RANGE_BEGIN = 8
_RANGE_END = 16
_BRIDGE_FLAGS_SELF = 2

_READER = Reader(
    "BRIDGE_VLANDB_ENTRY_INFO", "BRIDGE_VLANDB_ENTRY_RANGE", repeated=("BRIDGE_VLANDB_ENTRY",)
)


def add_vlan(
    port: int, first: int, last: int = 0, *, flags: int = 0, bridge_itself: bool = False
) -> Message:
    """Let a port carry a VLAN, or all from `first` to `last`. Idempotent.

    flags: PVID (for one VLAN only, EINVAL else) and UNTAGGED. bridge_itself: `port` is the
    index of the bridge, not of a port.
    """
    return _change(_RTM_SETLINK, "add", port, first, last, flags, bridge_itself)


def delete_vlan(port: int, first: int, last: int = 0, *, bridge_itself: bool = False) -> Message:
    """Let a port no longer carry a VLAN, or those from `first` to `last`. Idempotent."""
    return _change(_RTM_DELLINK, "delete", port, first, last, 0, bridge_itself)


def _change(
    kind: int, verb: str, port: int, first: int, last: int, flags: int, bridge_itself: bool
) -> Message:
    vlans = [(flags, first)]
    if last > first:
        vlans = [(flags | _RANGE_BEGIN, first), (flags | _RANGE_END, last)]
    return Message(
        kind,
        CHANGE,
        f"{verb} VLAN {first}{f'-{last}' if last > first else ''} of bridge port {port}",
        LINK,
        (AF_BRIDGE, 0, port, 0, 0),
        {
            "IFLA_AF_SPEC": {
                "IFLA_BRIDGE_FLAGS": _BRIDGE_FLAGS_SELF if bridge_itself else None,
                "IFLA_BRIDGE_VLAN_INFO": vlans,
            }
        },
    )


def get_vlans(port: int) -> Message:
    """Ask for the VLANs of a port or bridge; the message of a dump."""
    # The family is the kernel's key to the handler: only that of bridges has one.
    return Message(
        _RTM_GETVLAN,
        NLM_F_REQUEST,
        f"list VLANs of bridge port {port}",
        VLAN_QUERY,
        (AF_BRIDGE, port),
        {},
    )


def dump_vlans(sock: Socket, port: int) -> dict[int, int]:
    """The VLANs a port (or a bridge itself) carries, each with its PVID and UNTAGGED flags.

    Needs Linux 5.6. Raises NetlinkError.
    """
    found: dict[int, int] = {}
    for body in sock.dump(get_vlans(port)):
        if fields("=i", body, 4)[0] != port:
            continue
        for entry in _READER.read(VLAN_ATTRIBUTES, body, 8).get("BRIDGE_VLANDB_ENTRY", ()):
            flags, first = required(entry, "BRIDGE_VLANDB_ENTRY_INFO")
            for vlan in range(first, entry.get("BRIDGE_VLANDB_ENTRY_RANGE", first) + 1):
                found[vlan] = flags & (PVID | UNTAGGED)
    return found
