# SPDX-License-Identifier: Apache-2.0
"""What firewall refuses, or accepts but nobody is likely to mean; `cnitool validate` asks."""

from __future__ import annotations

from cni_firewall.config import FIREWALLD, IPTABLES, NFTABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request


def refuse(request: Request) -> None:
    """Read what ADD reads before it looks at the host. Raises CniError as ADD would."""
    request.chained_result()


def advice(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(path of the key, warning) for each; document: a canonical one that the schema accepts."""
    backend = document.get("backend") or ""
    if backend in ("", IPTABLES, NFTABLES, FIREWALLD):
        return []
    known = f"{IPTABLES}, {NFTABLES} and {FIREWALLD}"
    return [("backend", f'"{backend}" is none of {known}: one is chosen as if not given')]
