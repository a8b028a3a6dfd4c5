# SPDX-License-Identifier: Apache-2.0
"""The macvlan device, which is made in the container's namespace and never is on the host.

That it has a temporary name at first has one more reason (see `libcni.interface.sole`): kernels
before 6.14 refuse a name that is taken on the host.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

import libcni.netlink.tables.kinds  # noqa: F401  (knows the kind)
from cni_macvlan.config import MODES
from libcni.interface.sole import remove_device, require_free_name, temporary_name
from libcni.netlink.link import Link, get_link, new_link, set_link
from libcni.netlink.socket import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_macvlan.config import Config
    from libcni.netlink.socket import Socket
    from libcni.skel.request import Request


def create_device(
    outside: Socket, inside: Socket, request: Request, config: Config, master: Link
) -> Link:
    """Make the device, down, with its final name and the attachment's alias.

    outside: of the master's namespace; inside: of the container's. On the undo stack goes its
    removal. Raises CniError 101 when the container has an interface of that name, 102.
    """
    attachment = request.attachment
    require_free_name(inside, request)
    name = temporary_name(attachment)
    remove_device(inside, attachment, "macvlan")
    request.undo.push(remove_device, inside, attachment, "macvlan")
    message = new_link(
        name,
        "macvlan",
        {
            "IFLA_MACVLAN_MODE": MODES[config.mode],
            "IFLA_MACVLAN_BC_QUEUE_LEN": config.queue or None,
        },
        mac=config.mac,
        mtu=config.mtu,
        link=master.index,
        netns=request.netns().fd,
        up=False,
    )
    message.doing = f"create macvlan {request.ifname} ({config.mode}) on {master.name}"
    try:
        outside.run(message)
    except NetlinkError as error:
        error.details = error.details or _hint(error.errno, config, master)
        raise
    replies = inside.run(set_link(name, alias=attachment.alias), get_link(name))
    index = Link(replies[1].items[0]).index
    replies = inside.run(set_link(index=index, new_name=request.ifname), get_link(index=index))
    return Link(replies[1].items[0])


def _hint(number: int, config: Config, master: Link) -> str:
    """What the kernel means, which says no more than EBUSY or EINVAL."""
    if number == EBUSY:
        return f"is {master.name} a port of a bridge or bond, or has it an ipvlan?"
    if number == EINVAL and config.mode == "passthru":
        return f"in mode passthru no other macvlan can be on {master.name}"
    if number == EINVAL:
        return f"is there a macvlan in mode passthru on {master.name}?"
    return ""
