# SPDX-License-Identifier: Apache-2.0
"""Connection tracking: forget connections that would go on being translated the old way.

A UDP "connection" lives as long as datagrams come, and its translation is decided by the first.
Source: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

from _socket import AF_INET
from errno import EINVAL, ENOENT

from libcni.netlink.codec import CHANGE, NLM_F_REQUEST, Message, Reader, fields, required
from libcni.netlink.socket import NETLINK_NETFILTER, NetlinkError, Socket
from libcni.netlink.tables.conntrack import CONNECTION, CONNECTION_ATTRIBUTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: NFNL_SUBSYS_CTNETLINK as the high byte of a message type
_GET = 1 << 8 | 1
_DELETE = 1 << 8 | 2
#: Compare the protocol, and the destination port, with those of the filter.
_PROTOCOL, _DESTINATION_PORT = 1 << 3, 1 << 5
#: For more ports all of the protocol's connections are listed at once.
_FEW = 8

_READER = Reader(
    "CTA_TUPLE_ORIG",
    "CTA_TUPLE_REPLY",
    "CTA_TUPLE_IP",
    "CTA_TUPLE_PROTO",
    "CTA_IP_V4_SRC",
    "CTA_IP_V4_DST",
    "CTA_IP_V6_SRC",
    "CTA_IP_V6_DST",
    "CTA_PROTO_NUM",
    "CTA_PROTO_SRC_PORT",
    "CTA_PROTO_DST_PORT",
    "CTA_ID",
    "CTA_ZONE",
)


class Connection:
    """One tracked connection.

    destination, port: where its first packet was sent. answers: the address that its answers
    come from, another one if the destination is translated. All packed.
    """

    __slots__ = ("_attributes", "answers", "destination", "family", "port", "protocol")

    def __init__(self, body: bytes) -> None:
        """Read the body of an answer."""
        self._attributes = _READER.read(CONNECTION_ATTRIBUTES, body, 4)
        self.family: int = fields("B", body)[0]
        version = 4 if self.family == AF_INET else 6
        original = required(self._attributes, "CTA_TUPLE_ORIG")
        reply = required(self._attributes, "CTA_TUPLE_REPLY")
        self.destination: bytes = required(original, "CTA_TUPLE_IP", f"CTA_IP_V{version}_DST")
        self.answers: bytes = required(reply, "CTA_TUPLE_IP", f"CTA_IP_V{version}_SRC")
        self.protocol: int = required(original, "CTA_TUPLE_PROTO", "CTA_PROTO_NUM")
        self.port: int = original["CTA_TUPLE_PROTO"].get("CTA_PROTO_DST_PORT", 0)

    def delete(self) -> Message:
        """Forget it. ENOENT if that has happened already."""
        return Message(
            _DELETE,
            CHANGE,
            f"conntrack: delete a connection to port {self.port}",
            CONNECTION,
            (self.family, 0, 0),
            {
                "CTA_TUPLE_ORIG": self._attributes["CTA_TUPLE_ORIG"],
                "CTA_ZONE": self._attributes.get("CTA_ZONE"),
                # A later connection with the same addresses is another one.
                "CTA_ID": self._attributes.get("CTA_ID"),
            },
        )


def list_connections(family: int, protocol: int, port: int = 0) -> Message:
    """List the connections to a port (0: to any); a kernel before 5.8 lists all of the family."""
    flags = _PROTOCOL | (_DESTINATION_PORT if port else 0)
    proto: dict[str, Any] = {"CTA_PROTO_NUM": protocol, "CTA_PROTO_DST_PORT": port or None}
    return Message(
        _GET,
        NLM_F_REQUEST,
        f"conntrack: list connections to port {port}",
        CONNECTION,
        (family, 0, 0),
        {
            "CTA_TUPLE_ORIG": {"CTA_TUPLE_PROTO": proto},
            "CTA_FILTER": {"CTA_FILTER_ORIG_FLAGS": flags},
        },
    )


def forget(
    family: int, protocol: int, ports: list[int], is_meant: Callable[[Connection], bool]
) -> int:
    """Delete the connections to these ports (none: to any) for which `is_meant`; how many.

    Idempotent. A kernel that tracks no connections has none. Raises NetlinkError.
    """
    wanted = set(ports)
    sock = Socket(NETLINK_NETFILTER)
    try:
        meant: list[Connection] = []
        for port in ports if 0 < len(wanted) <= _FEW else [0]:
            for body in _list(sock, list_connections(family, protocol, port)):
                connection = Connection(body)
                if connection.protocol == protocol and (not wanted or connection.port in wanted):
                    meant.append(connection)
        meant = [connection for connection in meant if is_meant(connection)]
        for start in range(0, len(meant), 60):
            part = meant[start : start + 60]
            for reply in sock.batch([connection.delete() for connection in part]):
                reply.check(ENOENT)
    finally:
        sock.close()
    return len(meant)


def _list(sock: Socket, message: Message) -> list[bytes]:
    try:
        return sock.dump(message)
    except NetlinkError as error:
        if error.errno in (EINVAL, ENOENT):
            return []  # no ctnetlink in this kernel
        raise
