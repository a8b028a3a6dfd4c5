# SPDX-License-Identifier: Apache-2.0
"""The file by which flanneld or vxlan-overlayd says what this node has."""

from __future__ import annotations

from collections.abc import Iterator

from cni_vxlan_overlay.lease import format_lease, parse_lease
from tests.fuzz import properties
from tests.fuzz.target import Target

_SEED = b"""\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_IPV6_NETWORK=fd00:10:244::/48
FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
ADDER_DEVICES=adder.1 adder6.1
ADDER_PEERS=/run/flannel/peers.json
"""


def run(data: bytes) -> None:
    """Parse it; what was understood is written and read again without loss."""
    lease = properties.coded(parse_lease, data.decode("utf-8", "replace"), "subnet.env")
    if lease is None:
        return
    again = properties.coded(parse_lease, format_lease(lease), "again")
    if again is not None:
        properties.equal(lease.mtu, again.mtu, "the MTU")


def seeds() -> Iterator[bytes]:
    """Of both families, of one, and with several networks."""
    yield _SEED
    yield b"\n".join(line for line in _SEED.split(b"\n") if b"IPV6" not in line)
    yield _SEED.replace(b"10.244.0.0/16", b"10.244.0.0/16,10.245.0.0/16").replace(b"\n", b"\r\n")


TARGET = Target(run, seeds)
