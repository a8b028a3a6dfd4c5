# SPDX-License-Identifier: Apache-2.0
"""What tuning refuses when it reads its configuration; `cnitool validate` asks for it."""

from __future__ import annotations

from cni_tuning.config import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def refuse(request: Request) -> None:
    """Read what ADD reads before it looks at the host. Raises CniError as ADD would."""
    request.chained_result()
    Config(request)
