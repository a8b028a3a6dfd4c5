# SPDX-License-Identifier: Apache-2.0
"""GC: forget what attachments that are gone were like."""

from __future__ import annotations

from cni_tuning import backup, inheritance
from cni_tuning.config import data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove the backups of this network's attachments that are not valid. Idempotent.

    Raises CniError 7 without acting when the list of valid attachments is missing, CniError 5.
    """
    valid = request.valid_attachments()
    directory = data_directory(request.config)
    if not backup.is_there(directory):
        return
    with backup.BackupsLock(directory):
        for path in backup.stale(directory, request.network, valid):
            noted = backup.load(path)
            container_id = noted.get("container")
            if isinstance(container_id, str):
                inheritance.hand_on(noted, inheritance.find_heirs(path, container_id))
            backup.remove(path)
        backup.sweep(directory)
