# SPDX-License-Identifier: Apache-2.0
"""The configuration that is handed to the delegate, made as the flannel plugin makes it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_vxlan_overlay.config import Config
    from cni_vxlan_overlay.lease import Lease
    from libcni.inet import Prefix
    from libcni.skel.request import Request

BRIDGE = "bridge"
#: In whose stead we masquerade: they would do so between pods of different nodes.
MASQUERADERS = (BRIDGE, "ptp")


class Rendered:
    """A delegate's configuration, and what this plugin does itself around it.

    document: for the delegate. masquerade: we do it, for traffic that leaves the overlay, with
    `backend` ("" for the default). networks: of the overlay.
    """

    __slots__ = ("backend", "document", "masquerade", "networks")

    def __init__(
        self, document: dict[str, Any], masquerade: bool, backend: str, networks: list[Prefix]
    ) -> None:
        self.document = document
        self.masquerade = masquerade
        self.backend = backend
        self.networks = networks

    @property
    def type(self) -> str:
        """The delegate."""
        kind: str = self.document["type"]
        return kind


def render(request: Request, config: Config, lease: Lease | None) -> Rendered:
    """The delegate's configuration: what `delegate` says over flannel's defaults.

    lease: None when it is not known any more (DEL, GC), for which names and places are enough.
    `ipMasq` is done here, not there: to a bridge everything outside of its own subnet is
    outside, pods on other nodes included.
    """
    document: dict[str, Any] = dict(config.delegate)
    kind = document.setdefault("type", BRIDGE) or BRIDGE
    document["type"] = kind
    document["name"] = request.network
    document["cniVersion"] = request.version
    wanted = document.get("ipMasq")
    if not isinstance(wanted, bool):
        wanted = lease is None or not lease.masquerades
    ours = wanted and kind in MASQUERADERS
    document["ipMasq"] = wanted and not ours
    if lease is not None and lease.mtu:
        document.setdefault("mtu", min(config.mtu or lease.mtu, lease.mtu))
    if kind == BRIDGE:
        document.setdefault("isGateway", True)
    for key, value in (
        ("runtimeConfig", config.runtime_config),
        ("prevResult", request.config.get("prevResult")),
        ("args", request.config.get("args")),
        ("dns", request.config.get("dns")),
    ):
        if value is not None:
            document.setdefault(key, value)
    document["ipam"] = _ipam(config, lease)
    backend = document.get("ipMasqBackend")
    networks = [] if lease is None else lease.networks
    return Rendered(document, ours, backend if isinstance(backend, str) else "", networks)


def _ipam(config: Config, lease: Lease | None) -> dict[str, Any]:
    """`ipam` with the node's subnets as ranges, and a route to each network of the overlay."""
    ipam: dict[str, Any] = dict(config.ipam)
    if not ipam.get("type"):
        ipam["type"] = "host-local"
    if lease is not None:
        ipam["ranges"] = [[{"subnet": subnet.text()}] for subnet in lease.subnets]
        given = ipam.get("routes")
        routes = list(given) if isinstance(given, list) else []
        families = {subnet.family for subnet in lease.subnets}
        networks = [network for network in lease.networks if network.family in families]
        ipam["routes"] = routes + [{"dst": network.text()} for network in networks]
    return ipam
