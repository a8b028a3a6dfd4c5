# SPDX-License-Identifier: Apache-2.0
"""GC: ifb devices of attachments that are gone."""

from __future__ import annotations

from libcni.interface.removal import remove_stray_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove this network's ifb devices that belong to nobody valid. Idempotent.

    Those of Go's plugin bear no mark and are left alone. Raises CniError 7 without acting when
    the list of valid attachments is missing, NetlinkError.
    """
    remove_stray_links(request.network, request.valid_attachments(), "ifb")
