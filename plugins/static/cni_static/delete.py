# SPDX-License-Identifier: Apache-2.0
"""DEL: let go of the addresses that were claimed, if any were."""

from __future__ import annotations

from cni_static.holders import directory_of, owner_of, release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Release what the attachment holds, whatever the configuration says by now. Idempotent.

    Raises CniError 5, or 11 when the lock is not to be had.
    """
    mine = owner_of(request.attachment)
    release(directory_of(request), lambda owner, _: owner == mine)
