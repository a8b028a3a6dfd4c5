# SPDX-License-Identifier: Apache-2.0
"""ADD: note what there is, then change it."""

from __future__ import annotations

from cni_tuning import backup, interface
from cni_tuning.config import Config, data_directory
from cni_tuning.delete import restore
from libcni.interface.mtu import require_ipv6_mtu
from libcni.types.errors import KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket
    from libcni.netns import Namespace
    from libcni.skel.request import Request
    from libcni.types.result import Result


def add(request: Request) -> Result:
    """Tune the interface; returns prevResult with its MAC address and MTU as they are now.

    Idempotent. Raises CniError; then everything is as it was.
    """
    result = request.chained_result()
    config = Config(request)
    if not config.sysctls and not config.has_link_changes:
        return result
    if config.mtu:
        # The addresses would go without a word (libcni/interface/mtu.py).
        require_ipv6_mtu(_addresses_of(result, request.ifname), config.mtu)
    namespace = request.netns()
    # Sysctls need none: a device of a user-space driver has no interface in the namespace.
    found = _find_link(request, namespace) if config.has_link_changes else None
    noted = interface.before(config, found[1]) if found else {}
    if config.sysctls:
        noted["sysctl"] = interface.read_sysctls(namespace, list(config.sysctls))
    directory = data_directory(request.config)
    path = backup.path_of(directory, request.attachment)
    backup.ensure_place(directory)
    with backup.BackupsLock(directory):
        request.undo.push(restore, request, path)
        backup.save(path, noted, request.network, request.container_id)
        if config.sysctls:
            written = interface.write_sysctls(namespace, config.sysctls)
            backup.settle(path, {name: written[name] for name in noted["sysctl"]})
    if found:
        interface.apply(*found, config)
    for entry in result.interfaces:
        if entry.name == request.ifname and entry.sandbox:
            entry.mac = config.mac or entry.mac
            entry.mtu = config.mtu or entry.mtu
    return result


def _addresses_of(result: Result, ifname: str) -> list[str]:
    """Those that a result gives the container's interface, or none in particular."""
    own = {
        index
        for index, entry in enumerate(result.interfaces)
        if entry.name == ifname and entry.sandbox
    }
    return [ip.address for ip in result.ips if ip.interface is None or ip.interface in own]


def _find_link(request: Request, namespace: Namespace) -> tuple[Socket, Link]:
    """A socket in the namespace, and the interface there. Raises CniError 102 without it."""
    sock, link = interface.find_interface(namespace, request.ifname)
    if link is None:
        raise CniError(
            KERNEL,
            f"failed to find interface {request.ifname} in {request.netns_path}",
            "an earlier plugin of the list has to make it",
        )
    return sock, link
