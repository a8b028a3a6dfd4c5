# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_static.config import addresses_of
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 7 when the configuration is wrong, with `exclusive` 50 when an address is
    held or nothing could be noted. No addresses is no fault: the runtime may name them."""
    addresses = addresses_of(request)
    if request.config["ipam"].get("exclusive"):
        from cni_static.holders import describe, directory_of, holder_of
        from libcni.writable import require_writable

        require_writable(directory_of(request), "ipam.dataDir")
        for ip in addresses:
            address = ip.address.partition("/")[0]
            holder = holder_of(request, address)
            if holder:
                raise CniError(
                    PLUGIN_NOT_AVAILABLE, f"address {address} is held by {describe(holder)}"
                )
