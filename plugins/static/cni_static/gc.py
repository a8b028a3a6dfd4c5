# SPDX-License-Identifier: Apache-2.0
"""GC: let go of the addresses that belong to no valid attachment."""

from __future__ import annotations

from cni_static.holders import directory_of, owner_of, release
from libcni.attachment import Attachment
from libcni.fs import file_clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Release what is held by whoever is not in `cni.dev/valid-attachments`. Idempotent.

    Raises CniError 7, with nothing released, when the key is missing; 5 after trying everything.
    """
    # What is younger than this process cannot be on the list.
    since = file_clock()
    keep = {owner_of(Attachment(request.network, *who)) for who in request.valid_attachments()}
    release(directory_of(request), lambda owner, written: owner not in keep and written < since)
