# SPDX-License-Identifier: Apache-2.0
"""The bridge plugin's configuration, typed once at the edge.

The document has passed the schema when ADD, CHECK and STATUS come here; what is checked below
is what a schema cannot say, or what Go words in a way that operators search for. DEL and GC are
not validated, and read what little they need by themselves (`delete.lenient`).
"""

from __future__ import annotations

from libcni.mac import parse_mac
from libcni.types.errors import INVALID_ENVIRONMENT, INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request

DEFAULT_BRIDGE = "cni0"
#: Bytes. linux/if_ether.h ETH_MIN_MTU and ETH_MAX_MTU: what a veth and a bridge accept.
MTU_MIN, MTU_MAX = 68, 65535
#: IEEE 802.1Q: 0 means "no tag" and 4095 is reserved.
VLAN_MAX = 4094
#: linux/if_bridge.h: the VLAN in which a new port starts.
DEFAULT_VLAN = 1
#: linux/if_bridge.h BRIDGE_VLAN_INFO_*: untagged frames that come in belong to this VLAN;
#: frames of this VLAN go out without a tag.
PVID, UNTAGGED = 2, 4


def invalid(msg: str, details: str = "") -> CniError:
    """A CniError 7."""
    return CniError(INVALID_NETWORK_CONFIG, msg, details)


class Config:
    """What one attachment to a bridge shall look like."""

    __slots__ = (
        "bridge",
        "container_interface",
        "dad",
        "dns",
        "force_address",
        "hairpin",
        "ipam",
        "is_default_gateway",
        "is_gateway",
        "isolated",
        "keep_default_vlan",
        "mac",
        "masquerade",
        "masquerade_backend",
        "mtu",
        "promiscuous",
        "spoof_check",
        "trunk",
        "vlan",
    )

    def __init__(self, document: dict[str, Any]) -> None:
        """Read the canonical document. Raises CniError 7 for a contradiction."""
        get = document.get
        self.bridge: str = get("bridge") or DEFAULT_BRIDGE
        self.is_default_gateway: bool = get("isDefaultGateway", False)
        self.is_gateway: bool = get("isGateway", False) or self.is_default_gateway
        self.force_address: bool = get("forceAddress", False)
        self.masquerade: bool = get("ipMasq", False)
        self.masquerade_backend: str = get("ipMasqBackend", "")
        #: Bytes; 0 leaves it to the kernel.
        self.mtu: int = get("mtu", 0)
        self.hairpin: bool = get("hairpinMode", False)
        self.promiscuous: bool = get("promiscMode", False)
        #: The VLAN that the container sends and receives untagged; 0 for none.
        self.vlan: int = get("vlan", 0)
        #: VLANs that it sends and receives tagged, ascending.
        self.trunk: tuple[int, ...] = ()
        self.keep_default_vlan: bool = get("preserveDefaultVlan", False)
        self.spoof_check: bool = get("macspoofchk", False)
        #: IPv6 duplicate address detection in the container.
        self.dad: bool = get("enabledad", False)
        self.container_interface: bool = not get("disableContainerInterface", False)
        self.isolated: bool = get("portIsolation", False)
        #: Type of the IPAM plugin; empty for a network without addresses.
        self.ipam: str = (get("ipam") or {}).get("type", "")
        #: Replaces the DNS of IPAM when any of its fields is there, be it empty.
        self.dns: dict[str, Any] | None = get("dns") or None
        #: The MAC address the container asks for; empty for a random one.
        self.mac = ""

        if self.hairpin and self.promiscuous:
            raise invalid("cannot set hairpin mode and promiscuous mode at the same time")
        if self.ipam and not self.container_interface:
            raise invalid("cannot use IPAM when DisableContainerInterface flag is set")
        if self.mtu and not MTU_MIN <= self.mtu <= MTU_MAX:
            raise invalid(f"mtu: {self.mtu} must be 0 or between {MTU_MIN} and {MTU_MAX}")
        if not 0 <= self.vlan <= VLAN_MAX:
            raise invalid(f"invalid VLAN ID {self.vlan} (must be between 0 and {VLAN_MAX})")
        trunk = get("vlanTrunk")
        if trunk:
            self.trunk = trunk_vlans(trunk)
        if self.vlan and self.is_gateway and len(self.vlan_gateway) > 15:
            raise invalid(
                f"the gateway of VLAN {self.vlan} would be named {self.vlan_gateway!r}, "
                "which is too long",
                "interface names have up to 15 characters; shorten `bridge`",
            )
        if len(self.bridge) > 15 or "/" in self.bridge or self.bridge in (".", ".."):
            raise invalid(f"invalid bridge name {self.bridge!r}")

    @property
    def vlan_gateway(self) -> str:
        """Name of the interface that is the gateway of the VLAN, as Go's: "cni0.100"."""
        return f"{self.bridge}.{self.vlan}"

    @property
    def filters_vlans(self) -> bool:
        """True when ports of this bridge are told apart by VLAN."""
        return bool(self.vlan or self.trunk)

    def vlans(self) -> dict[int, int]:
        """VLANs of the host port, ascending, with their flags; empty without VLANs."""
        if not self.filters_vlans:
            return {}
        wanted = dict.fromkeys(self.trunk, 0)
        wanted[self.vlan or DEFAULT_VLAN] = PVID | UNTAGGED
        return {vlan: wanted[vlan] for vlan in sorted(wanted)}


def load(request: Request) -> Config:
    """The configuration of an ADD or CHECK, the container's MAC address included.

    Raises CniError 7 (configuration) or 4 (CNI_ARGS).
    """
    document = request.config
    config = Config(document)
    source = "runtimeConfig.mac"
    text = (document.get("runtimeConfig") or {}).get("mac")
    if not text:
        source = "args.cni.mac"
        text = ((document.get("args") or {}).get("cni") or {}).get("mac")
    if request.args:
        from libcni.types.args import load_args

        from_environment = load_args(request.args, ("MAC",)).get("MAC")
        if not text and from_environment:
            source, text = "CNI_ARGS MAC", from_environment
    if text:
        code = INVALID_ENVIRONMENT if source.startswith("CNI_ARGS") else INVALID_NETWORK_CONFIG
        config.mac = parse_mac(text, source, code)
    return config


def trunk_vlans(items: list[dict[str, Any]]) -> tuple[int, ...]:
    """All VLANs named by `vlanTrunk`, ascending, each once. Raises CniError 7."""
    found: set[int] = set()
    for item in items:
        low, high, single = item.get("minID"), item.get("maxID"), item.get("id")
        if low is not None and high is not None:
            if not 0 < low <= VLAN_MAX:
                raise invalid("incorrect trunk minID parameter", f"{low} is not 1 to {VLAN_MAX}")
            if not 0 < high <= VLAN_MAX:
                raise invalid("incorrect trunk maxID parameter", f"{high} is not 1 to {VLAN_MAX}")
            if high < low:
                raise invalid("minID is greater than maxID in trunk parameter", f"{low} > {high}")
            found.update(range(low, high + 1))
        elif low is not None or high is not None:
            missing = "minID" if low is None else "maxID"
            raise invalid(
                f"minID and maxID should be configured simultaneously, {missing} is missing"
            )
        if single is not None:
            if not 0 < single <= VLAN_MAX:
                raise invalid("incorrect trunk id parameter", f"{single} is not 1 to {VLAN_MAX}")
            found.add(single)
    return tuple(sorted(found))
