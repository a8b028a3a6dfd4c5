# SPDX-License-Identifier: Apache-2.0
"""What others do to a node's kernel: to what is the agent's, and beside it."""

from __future__ import annotations

from cni_vxlan_overlay.peers import vtep_mac
from tests.overlay.cluster import Node, underlay_address

#: Shell commands that change what is ours; {number} is the peer's, {mac} its VTEP's MAC.
DAMAGE = {
    "route": "ip route delete 10.244.{number}.0/24",
    "route6": "ip -6 route delete fd00:10:244:{number}::/64",
    "routes": "for d in adder.1 adder6.1 eth0; do ip route flush proto 97 dev $d; "
    "ip -6 route flush proto 97 dev $d; done",
    "route-replaced": "ip route replace 10.244.{number}.0/24 via 192.168.50.254 proto 97",
    "route6-replaced": "ip -6 route replace fd00:10:244:{number}::/64 via 2001:db8:50::fe "
    "proto 97",
    "neighbour": "ip neigh delete 10.244.{number}.0 dev adder.1",
    "neighbours": "ip neigh flush dev adder.1 nud all; ip neigh flush dev adder6.1 nud all",
    "neighbour-mac": "ip neigh replace 10.244.{number}.0 lladdr 02:00:00:00:00:01 dev adder.1",
    "neighbour-stale": "ip neigh change 10.244.{number}.0 lladdr {mac} dev adder.1 nud stale",
    "forwarding": "bridge fdb delete {mac} dev adder.1",
    "forwarding-elsewhere": "bridge fdb replace {mac} dev adder.1 dst 192.168.50.99",
    "forwarding-port": "bridge fdb replace {mac} dev adder.1 dst {address} port 4789",
    "forwarding-static": "bridge fdb replace {mac} dev adder.1 dst 192.168.50.98 static",
    "more-forwarding": "bridge fdb add 02:00:00:00:00:07 dev adder.1 dst 192.168.50.97 static",
    "flooding": "bridge fdb append 00:00:00:00:00:00 dev adder.1 dst 192.168.50.96; "
    "bridge fdb append 00:00:00:00:00:00 dev adder.1 dst 192.168.50.95",
    "more-neighbours": "ip neigh add 10.244.99.0 lladdr 02:00:00:00:00:05 dev adder.1",
    "more-routes": "ip route add 10.244.98.0/24 via 10.244.98.0 dev adder.1 onlink proto 97",
    "more-direct-routes": "ip route add 10.244.97.0/24 via 192.168.50.254 proto 97",
    "device": "ip link delete adder.1",
    "devices": "ip link delete adder.1; ip link delete adder6.1",
    "down": "ip link set adder.1 down",
    "renamed": "ip link set adder.1 down; ip link set adder.1 name renamed0",
    "down-and-up": "ip link set adder.1 down; ip link set adder.1 up",
    "mac": "ip link set adder.1 address 02:00:00:00:00:03",
    "mtu": "ip link set adder6.1 mtu 1300",
    "addresses": "ip address flush dev adder.1; ip address add 10.1.1.1/24 dev adder.1",
    "rules": "nft delete table inet adder_overlay",
    "underlay": "ip link set eth0 down; ip link set eth0 up; "
    "ip -6 address replace {own6}/64 dev eth0 nodad",
}
#: What is not ours, and how it is shown; {tag} tells one from the other.
FOREIGN = {
    "route": (
        "ip route add 10.77.{tag}.0/24 via 192.168.50.254",
        "ip route show 10.77.{tag}.0/24",
    ),
    "narrower-route": (
        "ip route add 10.244.3.{tag}/32 via 192.168.50.254 proto static",
        "ip route show 10.244.3.{tag}/32",
    ),
    "table": (
        "ip route add 10.244.{tag}.0/24 via 192.168.50.254 table 100 proto 97",
        "ip route show table 100 10.244.{tag}.0/24",
    ),
    "device": (
        "ip link add other{tag} type vxlan id {tag} dstport 4790 nolearning "
        "dev eth0; "
        "ip link set other{tag} up; "
        "bridge fdb append 00:00:00:00:00:00 dev other{tag} dst 192.168.50.1; "
        "ip neigh add 10.78.{tag}.1 lladdr 02:00:00:00:01:01 dev other{tag} nud permanent; "
        "ip route add 10.78.{tag}.0/24 via 10.78.{tag}.1 dev other{tag} onlink proto 97",
        "ip -br link show other{tag}; bridge fdb show dev other{tag}; "
        "ip neigh show dev other{tag} nud permanent; ip route show dev other{tag}",
    ),
    "neighbour": (
        "ip neigh add 192.168.50.{tag} lladdr 02:00:00:00:01:02 dev eth0 nud permanent",
        "ip neigh show 192.168.50.{tag}",
    ),
    "rules": (
        "nft add table inet other{tag}; nft add chain inet other{tag} c; "
        "nft add rule inet other{tag} c ip saddr 10.244.0.0/16 accept",
        "nft list table inet other{tag}",
    ),
}


def damage(node: Node, kind: str, own: str, number: int, address: str) -> None:
    """Do one of DAMAGE. own: the node's address. number, address: of the peer that it is about."""
    words = DAMAGE[kind].format(
        number=number,
        address=address,
        mac=vtep_mac(1, address),
        own6=underlay_address(int(own.rpartition(".")[2]), True),
    )
    node.run("sh", "-c", f"({words}) 2>&1; true")


def add_foreign(node: Node, kind: str, tag: int) -> None:
    """Make one of FOREIGN."""
    node.run("sh", "-e", "-c", FOREIGN[kind][0].format(tag=tag))


def show_foreign(node: Node, kind: str, tag: int) -> str:
    """What there is of it now."""
    return node.run("sh", "-c", f"{FOREIGN[kind][1].format(tag=tag)} 2>&1; true")
