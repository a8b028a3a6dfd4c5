# SPDX-License-Identifier: Apache-2.0
"""The tap device, made by ioctl(2) in the container's namespace.

Until it is persistent it goes with the process that makes it.
"""

from __future__ import annotations

import fcntl
import posix
from _struct import pack

from libcni.interface.sole import remove_device, require_free_name, temporary_name
from libcni.netlink.codec import Reader
from libcni.netlink.link import Link, find_link, get_link, set_link
from libcni.netlink.tables.link import KINDS, LINK_ATTRIBUTES
from libcni.netns import Inside
from libcni.types.errors import INVALID_NETWORK_CONFIG, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_tap.config import Config
    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request

DEVICE = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNSETGROUP = (
    *(0x400454CA, 0x400454CB),
    *(0x400454CC, 0x400454CE),
)
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x100, 0x1000, 0x4000
#: linux/if_tun.h and linux/if_link.h: what the kernel says of a tap.
KIND, TAP = "tun", 2
KINDS[KIND] = {
    "IFLA_TUN_OWNER": (1, "=I"),
    "IFLA_TUN_GROUP": (2, "=I"),
    "IFLA_TUN_TYPE": (3, "=B"),
    "IFLA_TUN_PERSIST": (6, "=B"),
    "IFLA_TUN_MULTI_QUEUE": (7, "=B"),
}
_READER = Reader(
    "IFLA_LINKINFO",
    "IFLA_INFO_KIND",
    "IFLA_INFO_DATA",
    *KINDS[KIND],
)
_CONTEXT = "/proc/thread-self/attr/current"


def describe(inside: Socket, index: int) -> dict[str, Any]:
    """What is special about a tap: the attributes of its kind. Raises NetlinkError."""
    body = inside.request(get_link(index=index))[0]
    info = _READER.read(LINK_ATTRIBUTES, body, 16).get("IFLA_LINKINFO", {})
    data: dict[str, Any] = info.get("IFLA_INFO_DATA", {})
    return data


def create_device(inside: Socket, request: Request, config: Config) -> Link:
    """Make the device, down, with its name, the attachment's alias, MAC, MTU and bridge.

    On the undo stack goes its removal. Raises CniError 101 when the container has an interface
    of that name, 7 when it has no such bridge, 102.
    """
    attachment = request.attachment
    require_free_name(inside, request)
    master = None
    if config.bridge:
        bridge = find_link(inside, config.bridge)
        if bridge is None or bridge.kind != "bridge":
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"bridge {config.bridge!r} is no bridge in {request.netns_path}",
                "it has to be there before: list the plugin that makes it first",
            )
        master = bridge.index
    name = temporary_name(attachment)
    remove_device(inside, attachment, KIND)
    request.undo.push(remove_device, inside, attachment, KIND)
    with Inside(request.netns()):
        _make(name, config)
    replies = inside.run(set_link(name, alias=attachment.alias), get_link(name))
    index = Link(replies[1].items[0]).index
    replies = inside.run(
        set_link(
            index=index,
            new_name=request.ifname,
            mac=config.mac,
            mtu=config.mtu,
            master=master,
        ),
        get_link(index=index),
    )
    return Link(replies[1].items[0])


def _make(name: str, config: Config) -> None:
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    if config.multi_queue:
        flags |= _IFF_MULTI_QUEUE
    previous = _take_on(config.context) if config.context else ""
    try:
        fd = posix.open(DEVICE, posix.O_RDWR | posix.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, pack("16sH22x", name.encode(), flags))
            if config.owner is not None:
                fcntl.ioctl(fd, _TUNSETOWNER, config.owner)
            if config.group is not None:
                fcntl.ioctl(fd, _TUNSETGROUP, config.group)
            fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        finally:
            posix.close(fd)
    except OSError as error:
        cause = posix.strerror(error.errno or 0)
        raise CniError(KERNEL, f"cannot make a tap device with {DEVICE}: {cause}") from error
    finally:
        if previous:
            _take_on(previous)


def _take_on(context: str) -> str:
    """Change this thread's SELinux context; returns the one before. Raises CniError 102."""
    try:
        fd = posix.open(_CONTEXT, posix.O_RDWR | posix.O_CLOEXEC)
        try:
            previous = posix.read(fd, 4096).rstrip(b"\0\n").decode()
            posix.write(fd, context.encode())
        finally:
            posix.close(fd)
    except OSError as error:
        cause = posix.strerror(error.errno or 0)
        raise CniError(
            KERNEL,
            f"cannot take on selinuxContext {context!r}: {cause}",
            "is SELinux in use here?",
        ) from error
    return previous
