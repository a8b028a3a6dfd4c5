# SPDX-License-Identifier: Apache-2.0
"""What iptables holds of an attachment, and what the Go plugin's nftables backend left.

In process where it is iptables-nft, whose tables are nftables' own: the chain CNI-DN-<hash> (in
older versions CNI-SN-<hash> too) and the jumps to it. iptables-legacy needs its tools, and is
only asked where it has a nat table.

Go's names are made of network and container only, so that two interfaces of one container in one
network share a chain, and the DEL of one takes the ports of both. Ours has Go's chain for the
first of them, and says whose it is in a last rule that does nothing but bear the attachment's
comment; each further one has a chain named by its interface too.
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
#: The length of an address in each.
_SIZES = dict(zip(NAT_TABLES, (4, 16), strict=True))
_GO_TABLES = (rules.Table(IPV4, "cni_hostport"), rules.Table(IPV6, "cni_hostport"))
_VERSIONS = {IPV4: 4, IPV6: 6}
_GO_CHAINS = ("hostports", "hostip_hostports", "masquerading")
#: The chains of all containers that jump to those of one: now, and up to version 0.7.
ENTRIES = {"CNI-DN-": "CNI-HOSTPORT-DNAT", "CNI-SN-": "CNI-HOSTPORT-SNAT"}


def chain_name(network: str, container_id: str, prefix: str = "CNI-DN-") -> str:
    """The chain of a container, 28 characters (the Go plugins' FormatChainName)."""
    digest = sha512((network + container_id).encode()).hexdigest()
    return (prefix + digest)[:28]


def own_chain_name(attachment: Attachment) -> str:
    """The chain of an attachment where another interface of the container has Go's."""
    return ("CNI-DN-" + attachment.digest())[:28]


def looks(attachment: Attachment) -> list[Message]:
    """Ask whether there may be anything, by six or eight names."""
    asked = [table.get_chain(name) for table in NAT_TABLES for name, _ in _names(attachment)]
    return [*asked, *[table.get() for table in _GO_TABLES]]


def looks_at_own(attachment: Attachment) -> list[Message]:
    """Ask whether there may be anything that this suite made, by four names."""
    return [
        table.get_chain(name)
        for table in NAT_TABLES
        for name, entry in _names(attachment)
        if entry == ENTRIES["CNI-DN-"]
    ]


def own_chains(attachment: Attachment) -> set[str]:
    """All chains that may be the attachment's; whose Go's is, `is_of` tells."""
    return {name for name, _ in _names(attachment)}


def _names(attachment: Attachment) -> list[tuple[str, str]]:
    """(chain, the one that jumps to it) of all chains that may be the attachment's."""
    network, container_id = attachment.network, attachment.container_id
    names = [(chain_name(network, container_id, prefix), ENTRIES[prefix]) for prefix in ENTRIES]
    return [*names, (own_chain_name(attachment), ENTRIES["CNI-DN-"])]


def are_there(replies: list[Reply]) -> bool:
    """True if one of the answers to `looks` is a yes; any errno is a no."""
    return not all(reply.error for reply in replies)


def removal(
    sock: Socket,
    attachment: Attachment,
    versions: tuple[int, ...] = (4, 6),
    addresses: set[bytes] | None = None,
) -> tuple[list[Message], set[bytes]]:
    """Messages that remove what nftables holds of the attachment for these versions of IP.

    addresses: the container's, packed, where it is an ADD that removes. What does not say whose
    it is then goes only if it leads to these: it may be another interface's, made by Go's.

    And the addresses, packed, that its chains of iptables-nft lead to.
    """
    changes: list[Message] = []
    led_to: set[bytes] = set()
    for table, size in _SIZES.items():
        if _VERSIONS[table.family] not in versions:
            continue
        for chain, entry in _names(attachment):
            content = table.rules(sock, chain)
            mark, there = owner(content), _targets(content, size)
            if is_of(mark, attachment) and (addresses is None or mark or there <= addresses):
                led_to |= there
                changes += _chain(sock, table, chain, entry)
    if addresses is not None:
        return changes, led_to
    for table in [table for table in _GO_TABLES if _VERSIONS[table.family] in versions]:
        for chain in _GO_CHAINS:
            changes += [
                table.delete_rule(chain, rule)
                for rule in table.rules(sock, chain)
                # Theirs say the container only.
                if rules.has_comment(rule, attachment.container_id)
            ]
    return changes, led_to


def is_of(comment: str, attachment: Attachment) -> bool:
    """True unless a chain's comment says that it is another interface's.

    The attachment's own interface is "" where only the container is known.
    """
    return comment in ("", attachment.comment) or not attachment.ifname


def owner(content: list[bytes]) -> str:
    """The comment of the attachment whose the raw rules of a chain are, "" where none says so."""
    for rule in content:
        comment = extension(rule, "comment").partition(b"\0")[0]
        if comment.startswith(b"cni:"):
            return comment.decode("utf-8", "replace")
    return ""


def _chain(sock: Socket, table: rules.Table, chain: str, entry: str) -> list[Message]:
    """Delete a chain and the jumps to it."""
    jumps = [rule for rule in table.rules(sock, entry) if rules.jumps_to(rule, chain)]
    changes = [table.delete_rule(entry, rule) for rule in jumps]
    if not sock.batch([table.get_chain(chain)])[0].error:
        changes += [table.flush_chain(chain), table.delete_chain(chain)]
    return changes


def _targets(content: list[bytes], size: int) -> set[bytes]:
    """The addresses, packed, that the raw rules of a chain of iptables-nft lead to."""
    return {address for rule in content if (address := _target(rule, size))}


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


def stale(sock: Socket, network: str, valid: list[Attachment]) -> tuple[list[Message], set[bytes]]:
    """Messages that remove what iptables-nft holds of the network's other attachments.

    And the addresses, packed, that it leads to.
    """
    keep = Kept(valid)
    changes: list[Message] = []
    led_to: set[bytes] = set()
    # A comment is `dnat name: "podnet" id: "0a1b"`, of which 255 characters are kept: the chain
    # tells the container, and only the network is read.
    mark = f'name: "{network}" id: "'.encode()
    for table, size in _SIZES.items():
        for prefix, entry in ENTRIES.items():
            chains = {
                chain: None
                for rule in table.rules(sock, entry)
                if mark in rule and (chain := _jump(rule, prefix))
            }
            for chain in chains:
                content = table.rules(sock, chain)
                if not keep.has(chain, owner(content)):
                    led_to |= _targets(content, size)
                    changes += _chain(sock, table, chain, entry)
    return changes, led_to


class Kept:
    """What is not to be collected: the chains of the valid attachments."""

    __slots__ = ("_chains", "_comments")

    def __init__(self, valid: list[Attachment]) -> None:
        self._chains = {name for attachment in valid for name, _ in _names(attachment)}
        self._comments = {attachment.comment for attachment in valid}

    def has(self, chain: str, comment: str) -> bool:
        """True for the chain of a valid attachment. comment: whose it says it is, "" if not."""
        return chain in self._chains and (not comment or comment in self._comments)


def _jump(rule: bytes, prefix: str) -> str:
    """The chain of a container that a raw rule jumps to, or ""."""
    at = rule.rfind(prefix.encode())
    chain = rule[at : at + 28].decode("ascii", "replace")
    return chain if at >= 0 and rules.jumps_to(rule, chain) else ""
