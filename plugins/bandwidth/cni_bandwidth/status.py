# SPDX-License-Identifier: Apache-2.0
"""STATUS: could an ADD succeed now?"""

from __future__ import annotations

from cni_bandwidth.config import limits_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def status(request: Request) -> None:
    """Raise CniError 7 when the configuration is wrong. What the kernel has of ifb and tbf it
    loads when they are asked for, so that nothing can be said of it before."""
    limits_of(request.config)
