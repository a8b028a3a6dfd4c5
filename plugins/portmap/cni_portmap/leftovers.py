# SPDX-License-Identifier: Apache-2.0
"""What iptables holds of an attachment, and what the Go plugin's nftables backend left.

In process where it is iptables-nft, whose tables are nftables' own: the chain CNI-DN-<hash> (in
older versions CNI-SN-<hash> too) and the jumps to it. iptables-legacy needs its tools, and is
only asked where it has a nat table. Names are made of network and container only, so that two
interfaces of one container in one network share a chain.
"""

from __future__ import annotations

from _sha512 import sha512
from _struct import pack, unpack_from

from libcni.attachment import Attachment
from libcni.netlink.socket import Reply, Socket
from libcni.nftables import rules
from libcni.nftables.transaction import IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.codec import Message

#: Where iptables-nft has its rules, and the Go plugins' nftables backend has its own.
NAT_TABLES = (rules.Table(IPV4, "nat"), rules.Table(IPV6, "nat"))
_GO_TABLES = (rules.Table(IPV4, "cni_hostport"), rules.Table(IPV6, "cni_hostport"))
_GO_CHAINS = ("hostports", "hostip_hostports", "masquerading")
#: The chains of all containers that jump to those of one: now, and up to version 0.7.
ENTRIES = {"CNI-DN-": "CNI-HOSTPORT-DNAT", "CNI-SN-": "CNI-HOSTPORT-SNAT"}


def chain_name(network: str, container_id: str, prefix: str = "CNI-DN-") -> str:
    """The chain of a container, 28 characters (the Go plugins' FormatChainName)."""
    digest = sha512((network + container_id).encode()).hexdigest()
    return (prefix + digest)[:28]


def looks(attachment: Attachment) -> list[Message]:
    """Ask whether there may be anything, by four or six names."""
    names = [chain_name(attachment.network, attachment.container_id, prefix) for prefix in ENTRIES]
    asked = [table.get_chain(name) for table in NAT_TABLES for name in names]
    return [*asked, *[table.get() for table in _GO_TABLES]]


def are_there(replies: list[Reply]) -> bool:
    """True if one of the answers to `looks` is a yes; any errno is a no."""
    return not all(reply.error for reply in replies)


def removal(sock: Socket, attachment: Attachment) -> list[Message]:
    """Messages that remove what nftables holds of the attachment."""
    network, container_id = attachment.network, attachment.container_id
    changes: list[Message] = []
    for table in NAT_TABLES:
        for prefix, entry in ENTRIES.items():
            changes += _chain(sock, table, chain_name(network, container_id, prefix), entry)
    for table in _GO_TABLES:
        for chain in _GO_CHAINS:
            changes += [
                table.delete_rule(chain, rule)
                for rule in table.rules(sock, chain)
                # Theirs say the container only.
                if rules.has_comment(rule, container_id)
            ]
    return changes


def _chain(sock: Socket, table: rules.Table, chain: str, entry: str) -> list[Message]:
    """Delete a chain and the jumps to it."""
    jumps = [rule for rule in table.rules(sock, entry) if rules.jumps_to(rule, chain)]
    changes = [table.delete_rule(entry, rule) for rule in jumps]
    if not sock.batch([table.get_chain(chain)])[0].error:
        changes += [table.flush_chain(chain), table.delete_chain(chain)]
    return changes


def targets(sock: Socket, attachment: Attachment) -> set[bytes]:
    """The addresses, packed, that the container's chains of iptables-nft lead to."""
    found: set[bytes] = set()
    chain = chain_name(attachment.network, attachment.container_id)
    for table, size in zip(NAT_TABLES, (4, 16), strict=True):
        for rule in table.rules(sock, chain):
            address = _target(rule, size)
            if address:
                found.add(address)
    return found


def _target(rule: bytes, size: int) -> bytes:
    """The address of a DNAT target of iptables in a raw rule, or b"".

    A struct nf_nat_range2 has flags, then the first address.
    """
    address = extension(rule, "DNAT")[4 : 4 + size]
    return address if len(address) == size else b""


def extension(rule: bytes, name: str) -> bytes:
    """The struct of a match or target of iptables in a raw rule, b"" if it has none such.

    It is in a nest of name (NFTA_MATCH_NAME, 1), revision (2) and struct (3).
    """
    offset = rule.find(pack("=HH", 5 + len(name), 1) + name.encode() + b"\0")
    while 0 <= offset < len(rule) - 4:
        length, number = unpack_from("=HH", rule, offset)
        if length < 4:
            break
        if number == 3:
            return rule[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return b""


def stale(sock: Socket, network: str, containers: set[str]) -> list[Message]:
    """Messages that remove what iptables-nft holds of the network's other containers."""
    changes: list[Message] = []
    for table in NAT_TABLES:
        for prefix, entry in ENTRIES.items():
            chains: dict[str, None] = {}
            for rule in table.rules(sock, entry):
                container_id = _container_of(rule, network)
                if container_id and container_id not in containers:
                    chains[chain_name(network, container_id, prefix)] = None
            for chain in chains:
                changes += _chain(sock, table, chain, entry)
    return changes


def _container_of(rule: bytes, network: str) -> str:
    """The container that a comment `dnat name: "podnet" id: "0a1b"` names, or ""."""
    _, found, rest = rule.partition(f'name: "{network}" id: "'.encode())
    return rest.partition(b'"')[0].decode("utf-8", "replace") if found else ""
