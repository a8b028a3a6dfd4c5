# SPDX-License-Identifier: Apache-2.0
"""DEL: `lo` down."""

from __future__ import annotations

from cni_loopback.device import open_socket, set_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Bring `lo` down; idempotent, and nothing to do when the namespace is gone."""
    namespace = request.netns_or_none()
    if namespace is not None:
        set_up(open_socket(namespace), False)
