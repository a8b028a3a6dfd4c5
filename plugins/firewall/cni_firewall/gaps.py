# SPDX-License-Identifier: Apache-2.0
"""Where an ingress policy does not hold on this host, although everything for it can be made.

What a bridge passes from port to port comes to the hook forward, whichever backend has a rule
there, only by br_netfilter. Source: net/bridge/br_netfilter_hooks.c, br_nf_forward.
"""

from __future__ import annotations

from cni_firewall.config import ISOLATED, NFTABLES, OPEN
from libcni import iptables, sysctl
from libcni.netlink.link import dump_links, find_link
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from libcni.netlink.link import Link

#: By IP version: the sysctl of all bridges, and the attribute by which a bridge is excepted.
_SEES = {
    4: ("bridge-nf-call-iptables", "IFLA_BR_NF_CALL_IPTABLES"),
    6: ("bridge-nf-call-ip6tables", "IFLA_BR_NF_CALL_IP6TABLES"),
}


class Gap:
    """An IP version that the policy does not hold for.

    why: the cause. advice: what to do. is_certain: it concerns what a bridge carries here.
    """

    __slots__ = ("advice", "is_certain", "version", "why")

    def __init__(self, version: int, why: str, advice: str, is_certain: bool) -> None:
        self.version = version
        self.why = why
        self.advice = advice
        self.is_certain = is_certain

    def words(self, policy: str, bridge: str = "") -> str:
        """The cause and the effect. bridge: "" for whichever."""
        where = f" on {bridge}" if bridge else ""
        return f"ingressPolicy {policy} does not hold for IPv{self.version}{where}: {self.why}"


def gaps(policy: str, backend: str, versions: Iterable[int], bridge: str = "") -> Iterator[Gap]:
    """The gaps, for each of the IP versions. bridge: "" for any of the host's.

    Raises NetlinkError.
    """
    for version in versions if policy != OPEN else ():
        tool = iptables.program(version)
        if backend != NFTABLES and not iptables.find(version, "restore"):
            # Nodes without it may have containers of the other version only.
            yield Gap(version, f"{tool} is not installed", f"install {tool}", False)
        elif policy == ISOLATED and not _is_seen(version, bridge):
            name = f"net.bridge.{_SEES[version][0]}"
            yield Gap(
                version,
                f"sysctl {name} is not 1, so that netfilter does not see what a bridge passes on",
                f"modprobe br_netfilter && sysctl -w {name}=1",
                version == 4 and (bool(bridge) or _has_bridges()),
            )


def _is_seen(version: int, bridge: str) -> bool:
    """True if netfilter sees what the bridge passes on, or if it is no bridge."""
    name, attribute = _SEES[version]
    try:
        if sysctl.read(f"bridge/{name}") == "1":
            return True
        is_loaded = True
    except OSError:
        is_loaded = False
    sock = Socket()
    try:
        if not bridge:
            found: list[Link] = dump_links(sock, "bridge") if is_loaded else []
        else:
            link = find_link(sock, bridge)
            if link is None or link.kind != "bridge":
                return True
            found = [link] if is_loaded else []
    finally:
        sock.close()
    return any(link.info.get(attribute) for link in found)


def _has_bridges() -> bool:
    """Without any, a container's own veth may be what the policy is about, as ptp makes it."""
    sock = Socket()
    try:
        return bool(dump_links(sock, "bridge"))
    finally:
        sock.close()
