# SPDX-License-Identifier: Apache-2.0
"""Links: bridges, veth pairs, bridge ports; messages to send and what comes back.

The functions that return a `Message` send nothing: put several in one `Socket.batch`. MACs are
text, MTUs bytes. A request names its link by index, or by name where the index is not yet known.
"""

from __future__ import annotations

from errno import ENOBUFS, ENODEV, ERANGE

from libcni.netlink.codec import CHANGE, CREATE, NLM_F_REQUEST, Message, Reader, fields
from libcni.netlink.socket import NetlinkError, Socket
from libcni.netlink.tables.link import LINK, LINK_ATTRIBUTES, LINK_SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTMGRP_LINK = 1
_RTEXT_FILTER_SKIP_STATS = 8
#: enum in6_addr_gen_mode (linux/if_link.h).
_EUI64, _NO_ADDRESSES = 0, 1
# linux/if.h
_NAME_MAX = 15
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_PROMISC = 0x100
IFF_ALLMULTI = 0x200
#: IF_OPER_UP of linux/if.h
OPERSTATE_UP = 6
OPERSTATES = (
    "UNKNOWN",
    "NOTPRESENT",
    "DOWN",
    "LOWERLAYERDOWN",
    "TESTING",
    "DORMANT",
    "UP",
)

_READER = Reader(
    "IFLA_ADDRESS",
    "IFLA_IFNAME",
    "IFLA_MTU",
    "IFLA_LINK",
    "IFLA_MASTER",
    "IFLA_OPERSTATE",
    "IFLA_LINKINFO",
    "IFLA_INFO_KIND",
    "IFLA_INFO_DATA",
    "IFLA_INFO_SLAVE_KIND",
    "IFLA_INFO_SLAVE_DATA",
    "IFLA_IFALIAS",
    "IFLA_LINK_NETNSID",
    "IFLA_PROMISCUITY",
    "IFLA_MIN_MTU",
    "IFLA_MAX_MTU",
    "IFLA_TXQLEN",
    "IFLA_QDISC",
    # of a bridge and of a bridge's port
    "IFLA_BR_VLAN_FILTERING",
    "IFLA_BR_VLAN_DEFAULT_PVID",
    "IFLA_BR_NF_CALL_IPTABLES",
    "IFLA_BR_NF_CALL_IP6TABLES",
    "IFLA_BRPORT_MODE",
    "IFLA_BRPORT_ISOLATED",
    "IFLA_BRPORT_LEARNING",
    "IFLA_BRPORT_NO",
    # of the tunnels and macvlan, where their tables are loaded
    "IFLA_VXLAN_ID",
    "IFLA_VXLAN_LINK",
    "IFLA_VXLAN_LOCAL",
    "IFLA_VXLAN_LOCAL6",
    "IFLA_VXLAN_PORT",
    "IFLA_VXLAN_LEARNING",
    "IFLA_VXLAN_GROUP6",
    "IFLA_VXLAN_GBP",
    "IFLA_VLAN_ID",
    "IFLA_MACVLAN_MODE",
    "IFLA_MACVLAN_BC_QUEUE_LEN",
)


class Link:
    """A network device as the kernel described it.

    kind: "bridge", "veth" ... or "" for a device without one (loopback, hardware). master,
    peer: interface indices, 0 for none; the peer is the other end of a veth or the device
    under a macvlan, an index of namespace `link_netnsid` or of this one when that is -1.
    promiscuity: how many ask for it. txqlen: packets. qdisc: the kind of the one at its root.
    info: attributes of its kind; port: of its being a bridge's port.
    """

    __slots__ = (
        "alias",
        "flags",
        "index",
        "info",
        "kind",
        "link_netnsid",
        "mac",
        "master",
        "max_mtu",
        "min_mtu",
        "mtu",
        "name",
        "operstate",
        "peer",
        "port",
        "promiscuity",
        "qdisc",
        "txqlen",
        "type",
    )

    def __init__(self, body: bytes) -> None:
        """Read the body of an RTM_NEWLINK."""
        self.type: int
        self.index: int
        self.flags: int
        self.type, self.index, self.flags = fields("=HiI", body, 2)
        read = _READER.read(LINK_ATTRIBUTES, body, 16).get
        info: dict[str, Any] = read("IFLA_LINKINFO", {})
        self.name: str = read("IFLA_IFNAME", "")
        self.mac: str = read("IFLA_ADDRESS", "")
        self.mtu: int = read("IFLA_MTU", 0)
        self.min_mtu: int = read("IFLA_MIN_MTU", 0)
        self.max_mtu: int = read("IFLA_MAX_MTU", 0)
        self.master: int = read("IFLA_MASTER", 0)
        self.peer: int = read("IFLA_LINK", 0)
        self.link_netnsid: int = read("IFLA_LINK_NETNSID", -1)
        self.alias: str = read("IFLA_IFALIAS", "")
        self.operstate: int = read("IFLA_OPERSTATE", 0)
        self.promiscuity: int = read("IFLA_PROMISCUITY", 0)
        self.txqlen: int = read("IFLA_TXQLEN", 0)
        self.qdisc: str = read("IFLA_QDISC", "")
        self.kind: str = info.get("IFLA_INFO_KIND", "")
        data = info.get("IFLA_INFO_DATA")
        self.info: dict[str, Any] = data if data.__class__ is dict else {}
        data = info.get("IFLA_INFO_SLAVE_DATA")
        self.port: dict[str, Any] = data if data.__class__ is dict else {}

    @property
    def is_up(self) -> bool:
        """True when it is set up, whatever its carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def is_promiscuous(self) -> bool:
        """True when promiscuous mode was asked for by a user (`ip link set ... promisc on`)."""
        return bool(self.flags & IFF_PROMISC)

    @property
    def is_allmulticast(self) -> bool:
        """True when a user asked for all multicast packets."""
        return bool(self.flags & IFF_ALLMULTI)

    @property
    def vlan_filtering(self) -> bool:
        """True for a bridge that filters VLANs."""
        return bool(self.info.get("IFLA_BR_VLAN_FILTERING"))

    @property
    def hairpin(self) -> bool:
        """True for a bridge port that sends frames back where they came from."""
        return bool(self.port.get("IFLA_BRPORT_MODE"))

    @property
    def isolated(self) -> bool:
        """True for a bridge port that reaches only ports that are not isolated."""
        return bool(self.port.get("IFLA_BRPORT_ISOLATED"))

    @property
    def port_number(self) -> int:
        """Of a bridge port: the lowest that was free when it became one, from 1 on; else 0."""
        return int(self.port.get("IFLA_BRPORT_NO", 0))

    @property
    def learning(self) -> bool:
        """True for a bridge port whose source addresses are learned."""
        return bool(self.port.get("IFLA_BRPORT_LEARNING", 1))

    def __repr__(self) -> str:
        return f"Link({self.index}: {self.name} {self.kind or '-'} mtu {self.mtu} {self.mac})"


def get_link(name: str = "", index: int = 0) -> Message:
    """Ask for one link; answered by a body for `Link`, or by ENODEV.

    name: or alternative name, which may be longer than 15 bytes (`ip link property`).
    """
    attribute = "IFLA_IFNAME" if len(name) <= _NAME_MAX else "IFLA_ALT_IFNAME"
    return Message(
        RTM_GETLINK,
        NLM_F_REQUEST,
        f"get link {name or index}",
        LINK,
        (0, 0, index, 0, 0),
        {attribute: name or None, "IFLA_EXT_MASK": _RTEXT_FILTER_SKIP_STATS},
    )


def find_link(sock: Socket, name: str = "", index: int = 0) -> Link | None:
    """The link of that name or index, None when there is none. Raises NetlinkError."""
    reply = sock.batch([get_link(name, index)])[0]
    # ERANGE: longer than any name can be.
    return Link(reply.item()) if reply.check(ENODEV, ERANGE) else None


def dump_links(sock: Socket, kind: str = "", master: int = 0) -> list[Link]:
    """All links, or those of a kind, or the ports of one bridge. Raises NetlinkError."""
    message = Message(
        RTM_GETLINK,
        NLM_F_REQUEST,
        "list links",
        LINK,
        (0, 0, 0, 0, 0),
        {
            "IFLA_EXT_MASK": _RTEXT_FILTER_SKIP_STATS,
            "IFLA_MASTER": master or None,
            "IFLA_LINKINFO": {"IFLA_INFO_KIND": kind} if kind else None,
        },
    )
    links = [Link(body) for body in sock.dump(message)]
    # An old kernel ignores the filter, and one without the kind's module lists all.
    return [
        link
        for link in links
        if (not kind or link.kind == kind) and (not master or link.master == master)
    ]


def new_link(
    name: str,
    kind: str,
    data: dict[str, Any] | None = None,
    *,
    mac: str = "",
    mtu: int = 0,
    master: int = 0,
    link: int = 0,
    netns: int = -1,
    up: bool = True,
) -> Message:
    """Create a link of any kind, `data` being the attributes of the kind. EEXIST if it exists.

    link: index of the device it sits on. netns: descriptor of the namespace in which it is made,
    -1 for this one; old kernels refuse a name that is taken in this one all the same. Kinds other
    than bridge and veth need `libcni.netlink.tables.kinds` loaded when they have data.
    """
    flags = IFF_UP if up else 0
    return Message(
        RTM_NEWLINK,
        CREATE,
        f"create {kind} {name}",
        LINK,
        (0, 0, 0, flags, flags),
        {
            "IFLA_IFNAME": name,
            "IFLA_ADDRESS": mac or None,
            "IFLA_MTU": mtu or None,
            "IFLA_LINK": link or None,
            "IFLA_MASTER": master or None,
            "IFLA_NET_NS_FD": netns if netns >= 0 else None,
            "IFLA_LINKINFO": {"IFLA_INFO_KIND": kind, "IFLA_INFO_DATA": data},
        },
    )


def new_bridge(
    name: str, *, mac: str = "", mtu: int = 0, vlan_filtering: bool = False, up: bool = True
) -> Message:
    """Create a bridge. EEXIST if the name is taken. mtu 0 leaves it to the kernel and the ports.

    A MAC that is given stays; else the bridge takes the lowest of its ports' as they come and go.
    """
    data = {"IFLA_BR_VLAN_FILTERING": 1} if vlan_filtering else None
    return new_link(name, "bridge", data, mac=mac, mtu=mtu, up=up)


def new_veth(
    name: str,
    peer_name: str,
    *,
    peer_netns: int = -1,
    peer_mac: str = "",
    mac: str = "",
    mtu: int = 0,
    master: int = 0,
    up: bool = True,
) -> Message:
    """Create both ends of a veth pair at once. EEXIST if either name is taken: then neither is.

    peer_netns: descriptor of the namespace in which the peer is made, -1 for this one. mtu is
    that of both ends; master and up are of this end. The peer can only be set up in its own
    namespace, afterwards: the kernel opens it before the pair is joined (ENOTCONN).
    """
    peer = {
        "": (0, 0, 0, 0, 0),
        "IFLA_IFNAME": peer_name,
        "IFLA_ADDRESS": peer_mac or None,
        "IFLA_MTU": mtu or None,
        "IFLA_NET_NS_FD": peer_netns if peer_netns >= 0 else None,
    }
    message = new_link(
        name, "veth", {"VETH_INFO_PEER": peer}, mac=mac, mtu=mtu, master=master, up=up
    )
    message.doing = f"create veth {name} with peer {peer_name}"
    return message


def set_link(
    name: str = "",
    index: int = 0,
    *,
    up: bool | None = None,
    promiscuous: bool | None = None,
    allmulticast: bool | None = None,
    mtu: int = 0,
    txqlen: int | None = None,
    mac: str = "",
    master: int | None = None,
    alias: str | None = None,
    new_name: str = "",
    netns: int = -1,
    hairpin: bool | None = None,
    isolated: bool | None = None,
    learning: bool | None = None,
    vlan_filtering: bool | None = None,
) -> Message:
    """Change a link; what is not given stays. ENODEV if there is none. Idempotent.

    master 0 takes it off its bridge. new_name needs the index. hairpin, isolated and learning
    need a link that is a bridge's port already (an earlier message of the batch may make it one).
    vlan_filtering is for a bridge.
    """
    flags = change = 0
    if up is not None:
        change |= IFF_UP
        flags |= IFF_UP if up else 0
    if promiscuous is not None:
        change |= IFF_PROMISC
        flags |= IFF_PROMISC if promiscuous else 0
    if allmulticast is not None:
        change |= IFF_ALLMULTI
        flags |= IFF_ALLMULTI if allmulticast else 0
    info: dict[str, Any] | None = None
    if hairpin is not None or isolated is not None or learning is not None:
        info = {
            "IFLA_INFO_SLAVE_KIND": "bridge",
            "IFLA_INFO_SLAVE_DATA": {
                "IFLA_BRPORT_MODE": hairpin,
                "IFLA_BRPORT_ISOLATED": isolated,
                "IFLA_BRPORT_LEARNING": learning,
            },
        }
    elif vlan_filtering is not None:
        info = {
            "IFLA_INFO_KIND": "bridge",
            "IFLA_INFO_DATA": {"IFLA_BR_VLAN_FILTERING": vlan_filtering},
        }
    return Message(
        # Not RTM_SETLINK, which knows nothing of the kind's and the port's attributes.
        RTM_NEWLINK,
        CHANGE,
        f"set link {name or index}",
        LINK,
        (0, 0, index, flags, change),
        {
            "IFLA_IFNAME": new_name or name or None,
            "IFLA_MTU": mtu or None,
            "IFLA_TXQLEN": txqlen,
            "IFLA_ADDRESS": mac or None,
            "IFLA_MASTER": master,
            "IFLA_IFALIAS": alias,
            "IFLA_NET_NS_FD": netns if netns >= 0 else None,
            "IFLA_LINKINFO": info,
        },
    )


def set_inet(
    name: str = "",
    index: int = 0,
    *,
    arp_notify: bool | None = None,
    address_generation: bool | None = None,
) -> Message:
    """Change what IPv4 and IPv6 do with a link, as sysctls would. Idempotent.

    arp_notify is the sysctl of that name. address_generation: False keeps IPv6 from giving the
    link a link-local address when it comes up. ENODEV if there is no such link, EAFNOSUPPORT
    where the kernel has no IPv6, or not for a link of so small an MTU.
    """
    spec: dict[str, Any] = {}
    if arp_notify is not None:
        spec["AF_INET"] = {"IFLA_INET_CONF": {"arp_notify": arp_notify}}
    if address_generation is not None:
        mode = _EUI64 if address_generation else _NO_ADDRESSES
        spec["AF_INET6"] = {"IFLA_INET6_ADDR_GEN_MODE": mode}
    return Message(
        RTM_NEWLINK,
        CHANGE,
        f"set addressing of link {name or index}",
        LINK_SETTINGS,
        (0, 0, index, 0, 0),
        {"IFLA_IFNAME": name or None, "IFLA_AF_SPEC": spec},
    )


def delete_link(name: str = "", index: int = 0) -> Message:
    """Delete a link, of a veth both ends. ENODEV if there is none.

    The kernel answers only after a grace period of about 15 ms, when nobody can see the link any
    more; the event (`wait_deleted`) comes before it.
    """
    return Message(
        RTM_DELLINK,
        CHANGE,
        f"delete link {name or index}",
        LINK,
        (0, 0, index, 0, 0),
        {"IFLA_IFNAME": name or None},
    )


def watch_links() -> Socket:
    """A socket that hears of every change of a link in this namespace from now on."""
    return Socket(groups=RTMGRP_LINK)


def wait_deleted(watch: Socket, index: int, seconds: float, other: int = -1) -> bool:
    """Wait until the link is gone from view: True. False when `seconds` are up, or `other` ended.

    watch: made by `watch_links` before the deletion was asked for. other: a descriptor that ends
    the wait too when it becomes readable or hangs up, with False (the pipe of a child that
    deletes). Raises NetlinkError.
    """
    import select
    import time

    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    if other >= 0:
        poll.register(other, select.POLLIN)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ready = poll.poll(left * 1000)
        if any(fd == watch.fileno() for fd, _ in ready):
            if is_deleted(watch, index):
                return True
        elif ready:
            return False
    return False


def is_deleted(watch: Socket, index: int) -> bool:
    """Read one datagram of events: True when it says that the link is deleted.

    A deletion from a bridge's ports is an event of the same type with the family AF_BRIDGE.
    When events were lost it looks for the link. Raises NetlinkError.
    """
    lost = False
    while True:
        try:
            events = watch.receive(wait=not lost)
        except NetlinkError as error:
            if error.errno != ENOBUFS:
                raise
            # The queue is full of older events, and has no room for an answer: read on.
            lost = True
            continue
        for kind, _, _, body in events:
            if kind == RTM_DELLINK and fields("=Bxxxi", body) == (0, index):
                return True
        if not lost:
            return False
        if not events:
            return find_link(watch, index=index) is None
