# SPDX-License-Identifier: Apache-2.0
"""GC: the devices are in their containers and go with them; IPAM has what may be left."""

from __future__ import annotations

from libcni.interface.ipam import collect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Let IPAM release what belongs to nobody valid. Idempotent.

    Raises CniError 7 without acting when the list of valid attachments is missing.
    """
    request.valid_attachments()
    collect(request)
