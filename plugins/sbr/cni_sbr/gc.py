# SPDX-License-Identifier: Apache-2.0
"""GC: rules and tables are in the containers' namespaces and go with them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def gc(request: Request) -> None:
    """Nothing to remove. Raises CniError 7 when the list of valid attachments is missing."""
    request.valid_attachments()
