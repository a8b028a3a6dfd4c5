# SPDX-License-Identifier: Apache-2.0
"""DEL: IPAM's reservations in any case, and the device where its namespace still is."""

from __future__ import annotations

from cni_tap.device import KIND
from libcni.interface.sole import delete_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def delete(request: Request) -> None:
    """Detach the container; see `delete_device`."""
    delete_device(request, KIND)
