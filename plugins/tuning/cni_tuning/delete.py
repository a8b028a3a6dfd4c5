# SPDX-License-Identifier: Apache-2.0
"""DEL: everything as it was before ADD, sysctls too, where the interface is still there."""

from __future__ import annotations

from cni_tuning import backup
from cni_tuning.config import data_directory, path_of
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Restore and forget. Idempotent; needs nothing but the attachment's identity.

    Without the namespace, or the interface in it, there is nothing to restore. Raises CniError
    when something could not be restored; it is tried again by the next DEL.
    """
    restore(request, backup.path_of(data_directory(request.config), request.attachment))


def restore(request: Request, path: str) -> None:
    """What a backup says, all of it, then remove it. Idempotent.

    Raises the first CniError after trying everything; then the backup stays.
    """
    noted = backup.load(path)
    namespace = request.netns_or_none() if noted else None
    if namespace is not None:
        from cni_tuning import interface
        from libcni.attempts import Attempts

        attempts = Attempts()
        sock, link = interface.find_interface(namespace, request.ifname)
        if link is not None:
            attempts.attempt(interface.restore, sock, link, noted)
        sysctls = _usable(noted.get("sysctl"))
        if link is None:
            # Those of the interface went with it.
            sysctls = {
                name: value for name, value in sysctls.items() if f"/{request.ifname}/" not in name
            }
        interface.restore_sysctls(namespace, sysctls, attempts)
        attempts.report()
    backup.remove(path)


def _usable(sysctls: object) -> dict[str, str]:
    """Names and values of a backup, which somebody may have edited."""
    found = {}
    for name, value in sysctls.items() if isinstance(sysctls, dict) else ():
        try:
            found[path_of(f"net/{name}", "")] = str(value)
        except CniError:
            continue
    return found
