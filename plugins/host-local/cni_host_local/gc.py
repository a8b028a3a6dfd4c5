# SPDX-License-Identifier: Apache-2.0
"""GC: release what belongs to no valid attachment."""

from __future__ import annotations

from cni_host_local.config import directory_of
from cni_host_local.scan import collect
from cni_host_local.store import Store
from libcni.fs import file_clock
from libcni.types.errors import IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Remove the reservations of whoever is not in `cni.dev/valid-attachments`. Idempotent.

    Removes as much as it can and then raises CniError 5 for what it could not; raises CniError
    7, with nothing removed, when the key is missing.
    """
    # A reservation younger than this process cannot be on the list, so it is left alone.
    since = file_clock()
    valid = request.valid_attachments()
    store = Store.open(directory_of(request.config, request.network))
    if store is None:
        return
    with store:
        problems = collect(store, valid, since)
    if problems:
        raise CniError(
            IO_FAILURE,
            f"{len(problems)} reservations could not be removed: {problems[0]}",
            "; ".join(problems[1:20]),
        )
