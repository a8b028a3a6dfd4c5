# SPDX-License-Identifier: Apache-2.0
"""CHECK: `lo` is up."""

from __future__ import annotations

from cni_loopback.device import NAME, is_up, open_socket
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 when `lo` is not up in the container's namespace."""
    if not is_up(open_socket(request.netns())):
        raise CniError(
            CHECK_FAILED,
            f"interface {NAME} in {request.netns_path} is down",
            "ADD had brought it up",
        )
