# SPDX-License-Identifier: Apache-2.0
"""Moving a device into the container and back, marked all the time.

A device keeps its name when it moves; where the name is taken it gets a temporary one. Who moves
or marks has the lock of the host's namespace: of two ADDs for one device the later one finds that
it is gone, and has not touched it.
"""

from __future__ import annotations

from errno import EEXIST

from cni_host_device.mark import (
    UNSUPPORTED,
    add_marks,
    clear_marks,
    find_marked,
    mark_of,
    new_marks,
    read_marks,
    recorded_name,
)
from libcni.interface.sole import temporary_name
from libcni.netlink.addr import IFA_F_PERMANENT, Address, dump_addresses, new_address
from libcni.netlink.link import Link, find_link, set_link
from libcni.netlink.socket import Socket
from libcni.netns import Inside, Namespace, own
from libcni.netns_lock import NamespaceLock
from libcni.types.errors import CONFLICT, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.skel.request import Request


def move_in(sock: Socket, inside: Socket, request: Request, device: Link) -> Link | None:
    """Move the device, down, and name it CNI_IFNAME. On the undo stack goes the way back.

    sock, inside: sockets of the host's and of the container's namespace. None when the device
    has left the host since it was looked for. Raises CniError 102, or 11 when the lock of the
    host's namespace is not to be had.
    """
    with NamespaceLock():
        here = find_link(sock, index=device.index)
        if here is None or here.mac != device.mac:
            return None
        return _move_in(sock, inside, request, here)


def _move_in(sock: Socket, inside: Socket, request: Request, device: Link) -> Link:
    attachment, namespace = request.attachment, request.netns()
    addresses = [a for a in dump_addresses(sock, device.index) if a.flags & IFA_F_PERMANENT]
    stale, original = read_marks(sock, device), device.name
    if not request.config.get("device"):
        # It may have come back with the end of a namespace, and its DEL is still to come.
        original = recorded_name(stale, request.network) or original
    request.undo.push(_undo, sock, inside, attachment, device, addresses, original, stale)
    # In one system call: by its mark and its alias together a killed ADD is put right.
    *marks, renaming = sock.batch(
        [
            *new_marks(device.index, mark_of(attachment), original),
            set_link(index=device.index, up=False, alias=original),
        ]
    )
    for reply in marks:
        reply.check(EEXIST, UNSUPPORTED)
    renaming.check()
    name = _free_name(inside, device.name, attachment)
    message = set_link(index=device.index, netns=namespace.fd, new_name=name)
    message.doing = f"move device {device.name} to {namespace.path}"
    sock.run(message)
    # The index may have been taken.
    moved = find_link(inside, name)
    if moved is None:
        raise CniError(KERNEL, f"device {device.name} did not arrive in {namespace.path}")
    if name != request.ifname:
        inside.run(set_link(index=moved.index, new_name=request.ifname))
    found = find_link(inside, index=moved.index)
    return found or moved


def _free_name(sock: Socket, name: str, attachment: Attachment) -> str:
    return name if find_link(sock, name) is None else temporary_name(attachment)


def _undo(
    sock: Socket,
    inside: Socket,
    attachment: Attachment,
    device: Link,
    addresses: list[Address],
    original: str,
    stale: list[str],
) -> None:
    """As it was: name, alias, marks of others (`stale`), addresses, up or down, port of what.
    Routes that it had are gone. original: what was to be recorded."""
    with NamespaceLock():
        link = find_marked(inside, attachment)
        if link is None:
            link = find_link(inside, attachment.ifname)
            if link is not None and (link.mac != device.mac or link.alias != original):
                link = None
        if link is not None:
            move_out(sock, inside, attachment, link, device.name)
        here = find_link(sock, device.name)
        if here is not None and here.mac == device.mac:
            clear_marks(sock, here.index)
            for reply in sock.batch(add_marks(here.index, stale)):
                reply.check(EEXIST, UNSUPPORTED)
            sock.run(set_link(index=here.index, alias=device.alias, up=device.is_up))
            if device.master:
                sock.run(set_link(index=here.index, master=device.master))
            for reply in sock.batch(
                [new_address(here.index, a.prefix, scope=a.scope) for a in addresses]
            ):
                reply.check(EEXIST)


def move_out(
    sock: Socket, inside: Socket, attachment: Attachment, link: Link, original: str
) -> None:
    """Bring a device back to the host under its name, down; the caller has the lock.

    Raises CniError 101 when another device has the name by now, 102.
    """
    name = _free_name(sock, original, attachment)
    messages = [set_link(index=link.index, up=False)]
    if link.name != name and find_link(inside, name) is None:
        messages.append(set_link(index=link.index, new_name=name))
    inside.run(*messages)
    fd = _own_namespace()
    try:
        inside.run(set_link(index=link.index, netns=fd.fd, new_name=name))
    finally:
        fd.close()
    moved = find_link(sock, name)
    if moved is None:
        raise CniError(KERNEL, f"device {original} did not arrive on the host")
    restore(sock, moved, original)


def restore(sock: Socket, link: Link, original: str) -> None:
    """A device that is on the host again gets its name back, and loses alias and marks.

    original: "" to leave its name. The caller has the lock. Raises CniError 101 when the name is
    taken.
    """
    if original and link.name != original:
        if find_link(sock, original) is not None:
            raise CniError(
                CONFLICT,
                f"device {original} is on the host again as {link.name}: its name is taken",
                "rename the other device and repeat DEL, or give this one a name: "
                f"ip link set {link.name} name NAME",
            )
        sock.run(
            set_link(index=link.index, up=False), set_link(index=link.index, new_name=original)
        )
    sock.run(set_link(index=link.index, alias=""))
    clear_marks(sock, link.index)


def _own_namespace() -> Namespace:
    import posix

    fd = posix.open("/proc/thread-self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    return Namespace("the plugin's own", fd, own())


def inside_of(namespace: Namespace) -> Socket:
    """A socket of the container's namespace."""
    with Inside(namespace):
        return Socket()
