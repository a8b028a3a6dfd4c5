# SPDX-License-Identifier: Apache-2.0
"""The plugin's configuration, typed once at the edge; and what is never validated (DEL, GC)."""

from __future__ import annotations

from cni_vxlan_overlay.lease import DEFAULT_FILE, Lease, read_lease
from libcni.fs import usable_path
from libcni.inet import Prefix
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: As the flannel plugin's: what it attached can be deleted by us.
DEFAULT_DATA_DIRECTORY = "/var/lib/cni/flannel"
#: Bytes: what VXLAN adds to a packet: outer IP header, UDP, VXLAN, inner Ethernet header.
OVERHEAD_IPV4, OVERHEAD_IPV6 = 50, 70
#: IANA's is 4789; this is Linux's and flannel's.
DEFAULT_PORT = 8472


def invalid(msg: str, details: str = "") -> CniError:
    """A CniError 7."""
    return CniError(INVALID_NETWORK_CONFIG, msg, details)


class Config:
    """One network's configuration.

    lease: what the configuration itself says of this node (no agent), or None: the agent says
    it in `subnet_file`. mtu: bytes, 0 follows the underlay.
    """

    __slots__ = (
        "checksum",
        "data_directory",
        "delegate",
        "direct_routing",
        "gbp",
        "ipam",
        "learning",
        "lease",
        "mtu",
        "network",
        "peers",
        "peers_file",
        "port",
        "runtime_config",
        "subnet_file",
        "underlay",
        "vni",
    )

    def __init__(self, document: dict[str, Any]) -> None:
        """Read the canonical document. Raises CniError 7 for a contradiction."""
        get = document.get
        self.network: str = get("name", "")
        self.vni: int = get("vni", 1)
        self.port: int = get("port", DEFAULT_PORT)
        self.mtu: int = get("mtu", 0)
        self.learning: bool = get("learning", False)
        self.gbp: bool = get("gbp", False)
        self.direct_routing: bool = get("directRouting", False)
        self.checksum: str = get("txChecksumOffload") or "auto"
        self.underlay: str = get("underlay", "")
        self.subnet_file = usable_path(get("subnetFile") or DEFAULT_FILE, "subnetFile")
        self.data_directory: str = get("dataDir") or DEFAULT_DATA_DIRECTORY
        self.delegate: dict[str, Any] = get("delegate") or {}
        self.ipam: dict[str, Any] = get("ipam") or {}
        self.runtime_config: dict[str, Any] | None = get("runtimeConfig")
        self.peers: list[dict[str, Any]] = get("peers") or []
        self.peers_file: str = get("peersFile", "")
        self.lease = _own_lease(document)
        for key in ("name", "ipam"):
            if key in self.delegate:
                raise invalid(
                    f"'delegate' dictionary, if present, must not have '{key}' field",
                    "`ipam` is a key of its own beside `delegate`; the name is the network's",
                )
        kind = self.delegate.get("type", "")
        if not isinstance(kind, str):
            raise invalid(f"'delegate' dictionary must have a string as 'type', not {kind!r}")
        if self.lease is None and (self.peers or self.peers_file):
            raise invalid(
                "peers are configured, but no `subnet` or `ipv6Subnet` of this node",
                "with them the plugin needs no agent; without, `peers` has no meaning",
            )

    def current_lease(self) -> Lease:
        """The configured lease, or the agent's. Raises CniError 50 when there is none yet."""
        return self.lease if self.lease is not None else read_lease(self.subnet_file)


def _own_lease(document: dict[str, Any]) -> Lease | None:
    """What the configuration says of this node, None without a subnet. Raises CniError 7."""
    networks, subnets = [], []
    for network_key, subnet_key in (("network", "subnet"), ("ipv6Network", "ipv6Subnet")):
        subnet_text, network_text = document.get(subnet_key), document.get(network_key)
        if not subnet_text:
            continue
        if not network_text:
            raise invalid(
                f"{subnet_key} is configured, but not {network_key}",
                f"{network_key} holds the pods of all nodes; {subnet_key} is a part of it",
            )
        subnet, network = Prefix.parse(subnet_text), Prefix.parse(network_text)
        version = 6 if subnet_key.startswith("ipv6") else 4
        for key, prefix in ((subnet_key, subnet), (network_key, network)):
            if len(prefix.packed) != (16 if version == 6 else 4):
                raise invalid(f"{key} {prefix.text()} is no IPv{version} prefix")
            if prefix != prefix.network():
                raise invalid(
                    f"{key} {prefix.text()} has host bits set",
                    f"did you mean {prefix.network().text()}?",
                )
        if network.length > subnet.length or not network.contains(subnet.packed):
            raise invalid(f"{subnet_key} {subnet.text()} is not in {network_key} {network.text()}")
        networks.append(network)
        subnets.append(subnet)
    return Lease(networks, subnets) if subnets else None
