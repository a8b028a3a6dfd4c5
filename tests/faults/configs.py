# SPDX-License-Identifier: Apache-2.0
"""The network that most tests of this directory start from."""

from __future__ import annotations

from typing import Any

BRIDGE = "faults0"
NETWORK = "faults"
SUBNET = "10.203.0.0/24"
GATEWAY = "10.203.0.1"
STORE = f"/var/lib/cni/networks/{NETWORK}"


def network(**changes: Any) -> dict[str, Any]:
    """A masqueraded bridge network; None removes a key."""
    document: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "name": NETWORK,
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]},
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def with_ipam(**ipam: Any) -> dict[str, Any]:
    """The network with another IPAM configuration."""
    return network(ipam={"type": "host-local", **ipam})
