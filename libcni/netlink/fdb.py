# SPDX-License-Identifier: Apache-2.0
"""Forwarding databases: behind which port, or which tunnel end, a hardware address lives."""

from __future__ import annotations

from libcni.netlink.codec import (
    CHANGE,
    CREATE,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    Message,
)
from libcni.netlink.neigh import (
    NTF_MASTER,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
    Neighbour,
)
from libcni.netlink.socket import Socket
from libcni.netlink.tables.neigh import NEIGHBOUR

AF_BRIDGE = 7

#: What to do when the address is known already (NLM_F_*): refuse with EEXIST; replace; for a
#: VXLAN's all-zero address, send to one more destination.
EXCLUSIVE = CREATE
REPLACE = CHANGE | NLM_F_CREATE | NLM_F_REPLACE
APPEND = CHANGE | NLM_F_CREATE | NLM_F_APPEND


def new_entry(
    index: int,
    mac: str,
    dst: bytes = b"",
    *,
    vlan: int = 0,
    local: bool = False,
    mode: int = REPLACE,
) -> Message:
    """Add an entry that does not age.

    With `dst`, the packed address of a tunnel's other end, it goes into the database of the
    VXLAN device `index`; without, into that of the bridge whose port `index` is. local: the
    address is the bridge's own, not to be forwarded.
    """
    return Message(
        RTM_NEWNEIGH,
        mode,
        f"add forwarding entry {mac} to link {index}",
        NEIGHBOUR,
        (AF_BRIDGE, index, NUD_PERMANENT if local or dst else NUD_NOARP, _table(dst), 0),
        {"NDA_DST": dst or None, "NDA_LLADDR": mac, "NDA_VLAN": vlan or None},
    )


def delete_entry(index: int, mac: str, dst: bytes = b"", *, vlan: int = 0) -> Message:
    """Delete an entry of the database that `new_entry` chooses. ENOENT if there is none."""
    return Message(
        RTM_DELNEIGH,
        CHANGE,
        f"delete forwarding entry {mac} from link {index}",
        NEIGHBOUR,
        (AF_BRIDGE, index, 0, _table(dst), 0),
        {"NDA_DST": dst or None, "NDA_LLADDR": mac, "NDA_VLAN": vlan or None},
    )


def _table(dst: bytes) -> int:
    return NTF_SELF if dst else NTF_MASTER


def dump_entries(sock: Socket, index: int = 0, master: int = 0) -> list[Neighbour]:
    """The entries of one device, of one bridge's ports, or all. Raises NetlinkError."""
    message = Message(
        RTM_GETNEIGH,
        NLM_F_REQUEST,
        "list forwarding entries",
        NEIGHBOUR,
        (AF_BRIDGE, 0, 0, 0, 0),
        {"NDA_IFINDEX": index or None, "NDA_MASTER": master or None},
    )
    found = [Neighbour(body) for body in sock.dump(message)]
    # The kernel takes the filter for a hint, and lists some devices' own entries besides.
    return [
        entry
        for entry in found
        if (not index or entry.index == index) and (not master or entry.master == master)
    ]
