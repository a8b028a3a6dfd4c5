# SPDX-License-Identifier: Apache-2.0
"""DEL: everything as it was before ADD: the interface, if it is still there, and sysctls.

A sysctl that has been changed since, and not by us, is not ours any more.
"""

from __future__ import annotations

from cni_tuning import backup, inheritance
from cni_tuning.config import data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Restore and forget. Idempotent; needs nothing but the attachment's identity.

    Without the namespace there is nothing to restore, without the interface in it those sysctls
    that are not the interface's. Raises CniError when something could not be restored; it is
    tried again by the next DEL.
    """
    restore(request, backup.path_of(data_directory(request.config), request.attachment))


def restore(request: Request, path: str) -> None:
    """What a backup says, all of it, then remove it. Idempotent.

    Raises the first CniError after trying everything; then the backup stays.
    """
    directory = path.rpartition("/")[0]
    if backup.is_there(directory):
        with backup.BackupsLock(directory):
            _restore(request, path)
            backup.sweep(directory)


def _restore(request: Request, path: str) -> None:
    noted = backup.load(path)
    sysctls = backup.sysctls_of(noted)
    heirs = inheritance.find_heirs(path, request.container_id) if sysctls else []
    namespace = request.netns_or_none() if noted else None
    if namespace is not None:
        from cni_tuning import interface
        from libcni.attempts import Attempts

        attempts = Attempts()
        sock, link = interface.find_interface(namespace, request.ifname)
        if link is not None:
            attempts.attempt(interface.restore, sock, link, noted)
        values = {
            name: inheritance.value_after(name, noted, heirs)
            for name in sysctls
            # Those of the interface went with it.
            if link is not None or f"/{request.ifname}/" not in name
        }
        interface.restore_sysctls(namespace, values, backup.written_of(noted), attempts)
        attempts.report()
    inheritance.hand_on(noted, heirs)
    backup.remove(path)
