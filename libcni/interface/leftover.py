# SPDX-License-Identifier: Apache-2.0
"""A veth host end that is there before ADD made it: left by a killed ADD, or in use."""

from __future__ import annotations

from errno import ENODEV

from libcni.netlink.link import Link, delete_link, find_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside
from libcni.types.errors import CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def name_taken(request: Request) -> CniError:
    """The CniError 101 of an ADD whose CNI_IFNAME the container has already."""
    return CniError(
        CONFLICT,
        f'container veth name ("{request.ifname}") already exists in {request.netns_path}',
        "run DEL for this container and interface first, or use another CNI_IFNAME",
    )


def require_free_name(request: Request) -> None:
    """Raise CniError 101 when the container has an interface named CNI_IFNAME.

    Raises CniError or NetlinkError when the namespace or the kernel refuses.
    """
    with Inside(request.netns()):
        inside = Socket()
    taken = find_link(inside, request.ifname)
    inside.close()
    if taken is not None:
        raise name_taken(request)


def remove_leftover(sock: Socket, request: Request, found: Link) -> None:
    """Remove the host end that a killed ADD of this attachment left, unless it is in use.

    A container end that is where it belongs may carry traffic: an ADD without a DEL before is an
    error of the runtime's, and must not change anything. Raises CniError 101 for that, CniError
    or NetlinkError when the namespace or the kernel refuses. Idempotent.
    """
    require_free_name(request)
    sock.batch([delete_link(index=found.index)])[0].check(ENODEV)
