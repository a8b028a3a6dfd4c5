# SPDX-License-Identifier: Apache-2.0
"""What is left in nftables of attachments and networks that are gone; the Go plugins' too.

Those have a table of their own, and iptables-nft's. Loaded only where there is something. Their
iptables chain is named after the network and the
container only: where a container has two interfaces in one network, both are in it, told apart
by their addresses.
"""

from __future__ import annotations

from _sha512 import sha512

from libcni.attachment import Attachment
from libcni.ipmasq.nft import GO_TABLE, NAT_TABLES, TABLE, delete_frame
from libcni.netlink.socket import Socket
from libcni.nftables import rules, sets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message

#: The Go plugins' chain of masquerade rules in their table.
_GO_CHAIN = "masq_checks"
_POSTROUTING = "POSTROUTING"


#: Sets that one ADD removes at most; a transaction has room for two messages each.
_AT_ONCE = 20


def forsaken(sock: Socket, wanted: set[str]) -> list[Message]:
    """Messages that delete the sets, and their rules, of subnets that have nobody left.

    wanted: sets to keep, empty or not. What an administrator put into a set keeps it.
    """
    empty = [
        name
        for name in sets.set_names(sock, TABLE)
        if name not in wanted and name.startswith(("ip4.", "ip6.")) and sets.is_empty(TABLE, name)
    ]
    return [message for name in empty[:_AT_ONCE] for message in delete_frame(sock, name)]


def _hash(text: str) -> str:
    return sha512(text.encode()).hexdigest()[:16]


def go_comment_prefix(network: str, container_id: str, ifname: str) -> str:
    """How the comments of the Go plugins' nftables rules for an attachment begin."""
    return f"{_hash(network)}-{_hash(f'{ifname}:{container_id}')}"


def removal(
    sock: Socket,
    attachment: Attachment,
    prefixes: list[Prefix] | None,
    nat_tables: list[rules.Table],
) -> list[Message]:
    """Messages that remove an attachment's leftovers.

    prefixes: its addresses; without them every jump to its chain is taken for its own.
    nat_tables: those of iptables-nft that have the chain. A chain that another interface of the
    container still uses stays.
    """
    prefix = go_comment_prefix(attachment.network, attachment.container_id, attachment.ifname)
    changes = [
        GO_TABLE.delete_rule(_GO_CHAIN, rule)
        for rule in GO_TABLE.rules(sock, _GO_CHAIN)
        if rules.has_comment_prefix(rule, prefix)
    ]
    chain = attachment.go_masquerade_chain
    for table in nat_tables:
        jumps = [r for r in table.rules(sock, _POSTROUTING) if rules.jumps_to(r, chain)]
        ours = jumps
        if prefixes:
            sources = [source for address in prefixes for source in _sources(address)]
            ours = [r for r in jumps if any(rules.compares_with(r, s) for s in sources)]
        changes += [table.delete_rule(_POSTROUTING, rule) for rule in ours]
        if len(ours) == len(jumps):
            changes += [table.flush_chain(chain), table.delete_chain(chain)]
    return changes


def _sources(address: Prefix) -> tuple[bytes, ...]:
    """What a jump compares the source with: the address, or in the oldest form its subnet."""
    subnet = address.network()
    return address.packed, subnet.packed, subnet.packed[: (subnet.length + 7) // 8]


def is_masqueraded_by_go(sock: Socket, attachment: Attachment) -> bool:
    """True if the Go plugins' nftables backend has a rule for the attachment."""
    prefix = go_comment_prefix(attachment.network, attachment.container_id, attachment.ifname)
    return any(rules.has_comment_prefix(rule, prefix) for rule in GO_TABLE.rules(sock, _GO_CHAIN))


def stale(sock: Socket, network: str, valid: set[tuple[str, str]]) -> list[Message]:
    """Messages that remove what the network has here, except for the valid attachments."""
    keep = [go_comment_prefix(network, *pair) for pair in valid]
    changes = [
        GO_TABLE.delete_rule(_GO_CHAIN, rule)
        for rule in GO_TABLE.rules(sock, _GO_CHAIN)
        if rules.has_comment_prefix(rule, _hash(network) + "-")
        and not any(rules.has_comment_prefix(rule, prefix) for prefix in keep)
    ]
    containers = {container_id for container_id, _ in valid}
    for table in NAT_TABLES:
        chains: dict[str, None] = {}
        for rule in table.rules(sock, _POSTROUTING):
            container_id = _container_of(rule, network)
            if container_id and container_id not in containers:
                chain = Attachment(network, container_id, "").go_masquerade_chain
                if rules.jumps_to(rule, chain):
                    chains[chain] = None
                    changes.append(table.delete_rule(_POSTROUTING, rule))
        for chain in chains:
            changes += [table.flush_chain(chain), table.delete_chain(chain)]
    return changes


def _container_of(rule: bytes, network: str) -> str:
    """The container that a jump's comment `name: "podnet" id: "0a1b"` names, or ""."""
    _, found, rest = rule.partition(f'name: "{network}" id: "'.encode())
    return rest.partition(b'"')[0].decode("utf-8", "replace") if found else ""
