# SPDX-License-Identifier: Apache-2.0
"""Record what this kernel answers to each question, for the corpus of `netlink-answer`.

    python -m tests.fuzz.capture       as root; writes corpus/netlink-answer/kernel-<question>

In a network namespace of its own with a little of everything. What this kernel refuses (VLAN
filtering, where it is not built in) leaves no file.
"""

from __future__ import annotations

import shlex

from cni_portmap import leftovers
from libcni.netlink.codec import Message
from libcni.netlink.socket import NETLINK_NETFILTER, NETLINK_ROUTE, Reply, Socket
from libcni.types.errors import CniError
from tests.fuzz.target import CORPUS
from tests.fuzz.targets.netlink_answer import ATTACHMENT, INDEX, QUESTIONS, build
from tests.rig import isolation

#: Questions to nfnetlink; the others are rtnetlink's.
_NETFILTER = ("connections", "generation", "set", "element", "map", "nft", "go")
_CHAIN = leftovers.chain_name(ATTACHMENT.network, ATTACHMENT.container_id)
#: Bytes of a corpus file at most.
_ENOUGH = 4000
_COMMANDS = f"""\
ip link add eth0 index {INDEX} type veth peer name eth1
ip link set eth1 alias cni:net:c1:eth0
ip link add br0 type bridge
ip link set eth1 master br0
ip link add adder.1 type vxlan id 1 local 10.1.2.3 dev eth0 dstport 8472 nolearning
ip link set eth0 up
ip link set eth1 up
ip link set br0 up
ip link set adder.1 up
ip address add 10.1.2.3/24 broadcast 10.1.2.255 dev eth0 label eth0:a
ip address add fd00::3/64 dev eth0 nodad
ip route add 10.9.0.0/16 via 10.1.2.1 dev eth0 mtu 1400 advmss 1300 metric 7
ip route add 10.8.0.0/16 nexthop via 10.1.2.1 dev eth0 nexthop via 10.1.2.4 dev eth0
ip route add 10.7.0.0/16 via 10.1.2.1 table 300 protocol 97
ip rule add from 10.1.2.3 table 300 protocol 97
ip neigh add 10.1.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
bridge fdb add 02:00:00:00:00:09 dev adder.1 dst 10.1.2.9
tc qdisc add dev eth0 root tbf rate 1mbit burst 10000 limit 20000
tc qdisc add dev eth0 ingress
tc filter add dev eth0 parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress \
redirect dev br0
nft add table inet adder_portmap
nft add set inet adder_portmap ports '{{ type ipv4_addr; }}'
nft add element inet adder_portmap ports '{{ 0.0.0.1 comment "cni:net:c1:eth0", 10.1.2.3 }}'
nft add chain inet adder_portmap postrouting
nft add rule inet adder_portmap postrouting ip saddr @ports counter comment '"cni:net:c1:eth0"'
nft add table ip nat
nft add chain ip nat POSTROUTING
nft add chain ip nat {ATTACHMENT.go_masquerade_chain}
nft add rule ip nat POSTROUTING ip saddr 10.1.2.3 jump {ATTACHMENT.go_masquerade_chain}
iptables -t nat -N CNI-HOSTPORT-DNAT
iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 80 -j DNAT --to-destination 10.1.2.3:80 \
-m comment --comment dnat
iptables -t nat -N {_CHAIN}
iptables -t nat -A {_CHAIN} -p tcp --dport 80 -j DNAT --to-destination 10.1.2.3:80
conntrack -I -p udp -s 10.1.2.3 -d 10.1.2.4 --sport 1000 --dport 53 -t 100
"""


class _Recorder(Socket):
    """A socket that keeps every body it was answered with."""

    bodies: list[bytes]

    def _exchange(self, messages: list[Message]) -> list[Reply]:
        replies = super()._exchange(messages)
        self.bodies += [body for reply in replies for body in reply.items]
        return replies

    def _dump(self, message: Message) -> tuple[Reply, bool]:
        reply, whole = super()._dump(message)
        self.bodies += reply.items
        return reply, whole


def main() -> None:
    """Make the namespace, ask, and write."""
    isolation.enter()
    for line in _COMMANDS.splitlines():
        try:
            isolation.command(*shlex.split(line))
        except RuntimeError as error:
            print(error)
    folder = CORPUS / "netlink-answer"
    folder.mkdir(parents=True, exist_ok=True)
    for name, question in QUESTIONS.items():
        sock = _Recorder(NETLINK_NETFILTER if name.startswith(_NETFILTER) else NETLINK_ROUTE)
        sock.bodies = []
        try:
            question(sock)
        except CniError as error:
            print(f"{name}: {error}")
        finally:
            sock.close()
        if sock.bodies:
            data = build(name, sock.bodies)
            (folder / f"kernel-{name}").write_bytes(data[:_ENOUGH])


if __name__ == "__main__":
    main()
