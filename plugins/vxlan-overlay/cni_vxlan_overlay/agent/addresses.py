# SPDX-License-Identifier: Apache-2.0
"""How many of this node's addresses host-local has given to pods, by its files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

from netaddr import AddrFormatError, IPAddress, IPNetwork, IPSet

#: Where host-local has its reservations unless it is told otherwise: <network>/<address>.
DATA_DIRECTORY = "/var/lib/cni/networks"
#: Neither the network's own address nor the gateway's is given out, nor a broadcast address.
_RESERVED = {4: 3, 6: 2}


@dataclasses.dataclass(frozen=True)
class Usage:
    """Numbers of addresses of one subnet (in CIDR notation)."""

    subnet: str
    allocated: int
    free: int


def usage(subnets: Iterable[str], directory: str = DATA_DIRECTORY) -> list[Usage]:
    """The use of each subnet now. A directory that cannot be read counts as empty."""
    reserved = IPSet(_reservations(directory))
    found = []
    for text in subnets:
        network = IPNetwork(text)
        capacity = max(network.size - _RESERVED[network.version], 0)
        allocated = (IPSet([network]) & reserved).size
        found.append(Usage(text, allocated, max(capacity - allocated, 0)))
    return found


def _reservations(directory: str) -> list[IPAddress]:
    addresses = []
    try:
        networks = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    except OSError:
        return []
    for path in networks:
        try:
            names = os.listdir(path)
        except OSError:  # it goes with its network
            continue
        for name in names:
            try:
                addresses.append(IPAddress(name))
            except (AddrFormatError, ValueError):
                continue  # lock, last_reserved_ip.0, our index
    return addresses
