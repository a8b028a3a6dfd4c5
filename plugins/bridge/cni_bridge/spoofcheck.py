# SPDX-License-Identifier: Apache-2.0
"""macspoofchk: a container's frames must come from the MAC address that it was given.

    table bridge adder_spoofcheck {
        set guarded { type ifname; elements = { "veth0a1b2c3d" comment "cni:..." } }
        set allowed { type ifname . ether_addr; elements = { "veth0a1b2c3d" . 02:... } }
        chain prerouting {
            type filter hook prerouting priority -300; policy accept;
            iifname @guarded iifname . ether saddr != @allowed counter drop
        }
    }

One rule for all containers; an attachment is one element in each set, with its identity as
comment. The Go plugins make two chains per container in `table bridge nat`; `remove` deletes
these too.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from libcni.nftables import expressions, rules, sets
from libcni.nftables.transaction import (
    BRIDGE,
    LIMIT,
    MISSING,
    TRANSIENT,
    attempts,
    commit,
    generation,
    get_generation,
    open_socket,
    refused,
)
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.netlink.codec import Message
    from libcni.netlink.socket import Socket

TABLE = rules.Table(BRIDGE, "adder_spoofcheck")
CHAIN = "prerouting"
#: linux/netfilter_bridge.h NF_BR_PRE_ROUTING and NF_BR_PRI_NAT_DST_BRIDGED
_PRE_ROUTING = 0
_PRIORITY = -300
GUARDED = "guarded"
ALLOWED = "allowed"
_RULE = "frames from another MAC address than the container's"
_DOING = "macspoofchk"

_GO_TABLE = rules.Table(BRIDGE, "nat")
_GO_CHAIN = "PREROUTING"


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def _pair(name: str, mac: str) -> bytes:
    # Each part of a concatenation is padded to a multiple of four bytes.
    return _interface(name) + bytes.fromhex(mac.replace(":", "")) + b"\0\0"


def _has_rule(sock: Socket) -> bool:
    return any(
        rules.looks_up(rule, GUARDED) and rules.looks_up(rule, ALLOWED)
        for rule in TABLE.rules(sock, CHAIN)
    )


def ensure(attachment: Attachment, interface: str, mac: str) -> None:
    """Let only `mac` send through the host interface. Idempotent; `remove` is the inverse.

    Whatever was said before about this interface, or for this attachment, is replaced. Raises
    NetlinkError, or CniError 11 when others never stop changing the rule set.
    """
    sock = open_socket()
    comment = attachment.comment
    looks = [
        get_generation(),
        sets.get_element(TABLE, GUARDED, _interface(interface)),
        sets.get_element(TABLE, ALLOWED, _pair(interface, mac)),
    ]
    additions = [
        sets.add_element(TABLE, GUARDED, _interface(interface), comment),
        sets.add_element(TABLE, ALLOWED, _pair(interface, mac), comment),
    ]
    for _ in attempts(_DOING):
        # A refused commit costs the kernel 8-16 ms, looking first 20 us.
        replies = sock.batch(looks)
        number = generation(replies[0])
        changes = [] if _has_rule(sock) else _frame()
        if any(sets.found(reply) is not None for reply in replies[1:]):
            changes += _stale(sock, attachment, interface)
        absent = bool(changes) and TABLE.is_absent(sock)
        bound = number if changes else 0
        raced = TRANSIENT if bound else (ENOENT, EEXIST, *TRANSIENT)
        if not refused(commit(sock, [*changes, *additions], bound), *raced):
            TABLE.made_here |= absent
            return


def _frame() -> list[Message]:
    """Table, chain, sets and rule."""
    return [
        TABLE.create(),
        TABLE.create_base_chain(CHAIN, "filter", _PRE_ROUTING, _PRIORITY),
        sets.create_set(TABLE, GUARDED, sets.INTERFACE_NAME, number=1),
        sets.create_set(TABLE, ALLOWED, sets.INTERFACE_NAME_AND_MAC, number=2),
        TABLE.add_rule(
            CHAIN,
            [
                expressions.meta(expressions.META_IIFNAME),
                expressions.lookup(GUARDED),
                expressions.meta(expressions.META_IIFNAME),
                expressions.payload(expressions.LINK_HEADER, 6, 6, register=2),
                expressions.lookup(ALLOWED, negated=True),
                expressions.counter(),
                expressions.verdict(expressions.DROP),
            ],
            _RULE,
        ),
    ]


def _stale(sock: Socket, attachment: Attachment, interface: str) -> list[Message]:
    """Delete what the sets say about the interface or the attachment."""
    changes: list[Message] = []
    for name in (GUARDED, ALLOWED):
        keys = [
            element.key
            for element in _elements(sock, name)
            if element.comment == attachment.comment
            or element.key.startswith(_interface(interface))
        ]
        changes += sets.delete_elements(TABLE, name, keys)
    return changes


def _elements(sock: Socket, name: str) -> list[sets.Element]:
    return [
        element
        for body in sets.elements(sock, TABLE, name)
        for element in sets.read_elements(body)
    ]


def remove(attachment: Attachment) -> Socket:
    """Remove the attachment's elements, and the Go plugins' chains for it. Idempotent.

    Returns the open socket, which is slow to close (see `libcni.nftables.transaction`): close
    it, or leave it to a child, once there is nothing else to wait for. Raises NetlinkError, or
    CniError 11.
    """
    sock = open_socket()
    go_chain = f"cni-br-iface-{attachment.container_id}-{attachment.ifname}"
    for _ in attempts(_DOING):
        replies = sock.batch([get_generation(), _GO_TABLE.get_chain(go_chain)])
        if replies[0].error in MISSING:
            break  # no nftables in this kernel: nothing of it to remove
        number = generation(replies[0])
        changes: list[Message] = []
        for name in (GUARDED, ALLOWED):
            owned = sets.owned(sock, TABLE, name, attachment.comment)
            changes += sets.delete_elements(TABLE, name, owned)
        if not replies[1].error:
            changes += _remove_go_chains(sock, go_chain)
        if not changes or not refused(commit(sock, changes, number), ENOENT, *TRANSIENT):
            break
    return sock


def undo(attachment: Attachment) -> Socket:
    """`remove` after a failed ADD: also the table, if this process made it and nobody uses it."""
    sock = remove(attachment)
    TABLE.undo(sock)
    return sock


def _remove_go_chains(sock: Socket, chain: str) -> list[Message]:
    jumps = [r for r in _GO_TABLE.rules(sock, _GO_CHAIN) if rules.jumps_to(r, chain)]
    changes = [_GO_TABLE.delete_rule(_GO_CHAIN, rule) for rule in jumps]
    changes += [_GO_TABLE.flush_chain(chain), _GO_TABLE.delete_chain(chain)]
    mac_chain = f"{chain}-mac"
    if not sock.batch([_GO_TABLE.get_chain(mac_chain)])[0].error:
        changes += [_GO_TABLE.flush_chain(mac_chain), _GO_TABLE.delete_chain(mac_chain)]
    return changes


def check(attachment: Attachment, interface: str, mac: str) -> None:
    """Raise CniError 103 naming what is missing. What the Go plugins made is as good."""
    sock = open_socket()
    try:
        go_chain = f"cni-br-iface-{attachment.container_id}-{attachment.ifname}"
        replies = sock.batch(
            [
                sets.get_element(TABLE, GUARDED, _interface(interface)),
                sets.get_element(TABLE, ALLOWED, _pair(interface, mac)),
                TABLE.get_chain(CHAIN),
                _GO_TABLE.get_chain(go_chain),
            ]
        )
        ours = [sets.found(reply) for reply in replies[:2]]
        if ours == [None, None] and not replies[3].error:
            jumps = _GO_TABLE.rules(sock, _GO_CHAIN)
            if any(rules.jumps_to(rule, go_chain) for rule in jumps):
                return
        for name, element, what in zip(
            (GUARDED, ALLOWED), ours, (interface, f"{interface} . {mac}"), strict=True
        ):
            if element is None:
                raise _missing(f"{what} in set bridge {TABLE.name} {name}")
            if element.comment != attachment.comment:
                raise CniError(
                    CHECK_FAILED,
                    f"macspoofchk: {what} belongs to another attachment",
                    f"set bridge {TABLE.name} {name} says {element.comment!r}",
                )
        if not replies[2].check(ENOENT) or not _has_rule(sock):
            raise _missing(f"the rule in chain bridge {TABLE.name} {CHAIN}")
    finally:
        sock.close()


def _missing(what: str) -> CniError:
    return CniError(CHECK_FAILED, f"macspoofchk: {what} is missing")


def gc(network: str, valid: set[tuple[str, str]]) -> None:
    """Remove the elements of attachments of the network other than `valid`.

    valid: (container ID, ifname). An identity so long that it is hashed, and does not tell the
    network any more, is left to its DEL; so are the Go plugins' chains, which never tell it.
    Raises NetlinkError, or CniError 11.
    """
    from libcni.attachment import Attachment, network_marks

    keep = {Attachment(network, *pair).comment for pair in valid}
    sock = open_socket()
    try:
        for _ in attempts(_DOING):
            reply = sock.batch([get_generation()])[0]
            if reply.error in MISSING:
                return
            changes: list[Message] = []
            for name in (GUARDED, ALLOWED):
                stale = [
                    element.key
                    for element in _elements(sock, name)
                    if element.comment.startswith(network_marks(network))
                    and element.comment not in keep
                ]
                changes += sets.delete_elements(TABLE, name, stale)
            if not changes:
                return
            # Each commit is a new generation; what does not fit is for the next attempt.
            refused(commit(sock, changes[:LIMIT], generation(reply)), ENOENT, *TRANSIENT)
    finally:
        sock.close()
