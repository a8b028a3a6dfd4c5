# SPDX-License-Identifier: Apache-2.0
"""What this node has of the overlay, and the subnet file by which an agent says so.

The file has flannel's name, place and keys, so that the agent or the plugin may be flannel's:
its readers skip keys that they do not know, and those beginning with ADDER_ are ours.
"""

from __future__ import annotations

from libcni.inet import Prefix
from libcni.types.errors import PLUGIN_NOT_AVAILABLE, CniError

DEFAULT_FILE = "/run/flannel/subnet.env"


class Lease:
    """This node's part of the overlay.

    networks: of all pods. subnets: of this node's pods, without host bits. mtu: bytes, 0 for
    the kernel's choice. masquerades: the agent does it for all pods. devices: names of the VXLAN
    devices, empty when unknown (flanneld). peers_file: where the agent keeps the peers.
    """

    __slots__ = ("devices", "masquerades", "mtu", "networks", "peers_file", "subnets")

    def __init__(
        self,
        networks: list[Prefix],
        subnets: list[Prefix],
        mtu: int = 0,
        masquerades: bool = False,
        devices: list[str] | None = None,
        peers_file: str = "",
    ) -> None:
        self.networks = networks
        self.subnets = subnets
        self.mtu = mtu
        self.masquerades = masquerades
        self.devices = devices or []
        self.peers_file = peers_file

    def network_of(self, subnet: Prefix) -> Prefix | None:
        """The cluster network that a subnet lies in, None if in none."""
        for network in self.networks:
            if network.length <= subnet.length and network.contains(subnet.packed):
                return network
        return None


def read_lease(path: str) -> Lease:
    """The lease that an agent wrote to `path`.

    Raises CniError 50 when there is none, or it says too little: until the agent has it, no
    pod can start on this node.
    """
    from libcni.fs import read_file

    try:
        text = read_file(path).decode("utf-8", "replace")
    except OSError as error:
        import posix

        reason = posix.strerror(error.errno or 0)
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"failed to load the subnet file {path}: {reason}",
            "the agent (vxlan-overlayd or flanneld) writes it once this node has a subnet; "
            "see its log, or configure `subnet` and `peers` to do without an agent",
        ) from None
    return parse_lease(text, path)


def parse_lease(text: str, path: str) -> Lease:
    """The lease in the text of a subnet file; `path` is for messages. Raises CniError 50."""
    values = _values(text)
    networks: list[Prefix] = []
    subnets: list[Prefix] = []
    for key in ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"):
        networks += dict.fromkeys(_prefixes(values, key, path))
    for key in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"):
        subnets += _prefixes(values, key, path)
    needed = {
        "FLANNEL_NETWORK": networks,
        "FLANNEL_SUBNET": subnets,
        "FLANNEL_MTU": values.get("FLANNEL_MTU"),
        "FLANNEL_IPMASQ": values.get("FLANNEL_IPMASQ"),
    }
    missing = [key for key, value in needed.items() if not value]
    mtu, masquerade = values.get("FLANNEL_MTU", ""), values.get("FLANNEL_IPMASQ", "")
    what = ", ".join(missing)
    if not missing and not (mtu.isascii() and mtu.isdigit() and len(mtu) < 10):
        what = f"a number as FLANNEL_MTU, which is {mtu!r}"
    elif not missing and masquerade not in ("true", "false"):
        what = f"true or false as FLANNEL_IPMASQ, which is {masquerade!r}"
    if what:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            f"{path} is missing {what}",
            "the agent (vxlan-overlayd or flanneld) rewrites it when it is restarted",
        )
    return Lease(
        networks,
        subnets,
        int(mtu),
        masquerade == "true",
        values.get("ADDER_DEVICES", "").split(),
        values.get("ADDER_PEERS", ""),
    )


def _values(text: str) -> dict[str, str]:
    values = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            values[key.strip()] = value.strip()
    return values


def _prefixes(values: dict[str, str], key: str, path: str) -> list[Prefix]:
    """The prefixes of a comma list, without host bits (a subnet is given as its gateway)."""
    found = []
    for part in values.get(key, "").split(","):
        if part.strip():
            try:
                found.append(Prefix.parse(part.strip()).network())
            except ValueError as error:
                raise CniError(PLUGIN_NOT_AVAILABLE, f"{path}: {key}: {error}") from None
    return found


def format_lease(lease: Lease) -> str:
    """The text of a subnet file; each subnet as its first address, the gateway, as flannel's."""
    lines = []
    for v6, infix in ((False, ""), (True, "IPV6_")):
        networks = [n.text() for n in lease.networks if (len(n.packed) == 16) == v6]
        subnets = [_gateway(s).text() for s in lease.subnets if (len(s.packed) == 16) == v6]
        if networks and subnets:
            lines.append(f"FLANNEL_{infix}NETWORK={','.join(networks)}")
            lines.append(f"FLANNEL_{infix}SUBNET={subnets[0]}")
    lines.append(f"FLANNEL_MTU={lease.mtu}")
    lines.append(f"FLANNEL_IPMASQ={'true' if lease.masquerades else 'false'}")
    if lease.devices:
        lines.append(f"ADDER_DEVICES={' '.join(lease.devices)}")
    if lease.peers_file:
        lines.append(f"ADDER_PEERS={lease.peers_file}")
    return "\n".join(lines) + "\n"


def _gateway(subnet: Prefix) -> Prefix:
    first = int.from_bytes(subnet.packed, "big") + 1
    return Prefix(first.to_bytes(len(subnet.packed), "big"), subnet.length)
