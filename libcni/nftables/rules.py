# SPDX-License-Identifier: Apache-2.0
"""Tables, chains and rules: messages to send, and rules that come back.

Rules are recognised in the bytes that the kernel sends; they are taken apart only as far as
their handle. Making a table or chain that exists already, as it is, succeeds.
"""

from __future__ import annotations

from _struct import pack
from errno import ENOENT

from libcni.netlink.codec import (
    CHANGE,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Message,
    Reader,
    attributes,
    encode,
    required,
)
from libcni.netlink.socket import NETLINK_NETFILTER, NetlinkError, Socket
from libcni.netlink.tables.nft import (
    CHAIN,
    CHAIN_ATTRIBUTES,
    LOOKUP,
    RULE,
    RULE_ATTRIBUTES,
    TABLE,
    TABLE_ATTRIBUTES,
    VERDICT,
)
from libcni.nftables.transaction import MISSING, NFTABLES, comment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.nftables.expressions import Expression

_NEW_TABLE = NFTABLES | 0
_GET_TABLE = NFTABLES | 1
_DELETE_TABLE = NFTABLES | 2
_NEW_CHAIN = NFTABLES | 3
_GET_CHAIN = NFTABLES | 4
_DELETE_CHAIN = NFTABLES | 5
_NEW_RULE = NFTABLES | 6
_GET_RULE = NFTABLES | 7
_DELETE_RULE = NFTABLES | 8

_EXPRESSIONS = 4  # NFTA_RULE_EXPRESSIONS
#: Expressions that show how much they have seen.
_COUNTING = (b"counter", b"quota", b"last", b"connlimit")
#: Of sets that are written as `{ ... }` in a rule; a number follows.
_NAMED_BY_KERNEL = (b"__set", b"__map")

_STATE = Reader("NFTA_TABLE_FLAGS", "NFTA_CHAIN_HOOK", "NFTA_HOOK_HOOKNUM", "NFTA_HOOK_PRIORITY")
_DORMANT = 1  # NFT_TABLE_F_DORMANT

_HANDLE = Reader("NFTA_RULE_HANDLE")


class Table:
    """A table by family (INET, IPV4, BRIDGE, IPV6) and name; what everything else is made in.

    made_here: this process has made it, so that its failing ADD takes it away again.
    """

    __slots__ = ("family", "made_here", "name")

    def __init__(self, family: int, name: str) -> None:
        self.family = family
        self.name = name
        self.made_here = False

    @property
    def header(self) -> tuple[int, int, int]:
        """The nfgenmsg of messages about this table."""
        return (self.family, 0, 0)

    def create(self) -> Message:
        """Make the table."""
        return Message(
            _NEW_TABLE,
            CHANGE | NLM_F_CREATE,
            f"nftables: make table {self.name}",
            TABLE,
            self.header,
            {"NFTA_TABLE_NAME": self.name, "NFTA_TABLE_FLAGS": 0},
        )

    def get(self) -> Message:
        """Ask whether the table exists (ENOENT)."""
        return Message(
            _GET_TABLE,
            NLM_F_REQUEST,
            f"nftables: look for table {self.name}",
            TABLE,
            self.header,
            {"NFTA_TABLE_NAME": self.name},
        )

    def delete(self) -> Message:
        """Delete the table with everything in it."""
        return Message(
            _DELETE_TABLE,
            CHANGE,
            f"nftables: delete table {self.name}",
            TABLE,
            self.header,
            {"NFTA_TABLE_NAME": self.name},
        )

    def is_absent(self, sock: Socket) -> bool:
        """True if there is no such table, or no nftables at all. Raises NetlinkError."""
        return not sock.batch([self.get()])[0].check(ENOENT, *MISSING)

    def idle(self, sock: Socket, hooks: dict[str, tuple[int, int]]) -> str:
        """Why the kernel does not call the base chains, in words; "" if it does.

        hooks: hook and priority of each, as for `create_base_chain`. A table can be put to sleep,
        and a chain made anew without its hook, while all rules are there. Raises NetlinkError.
        """
        table, *chains = sock.batch([self.get(), *[self.get_chain(name) for name in hooks]])
        if not table.check(ENOENT):
            return f"table {self.name} is missing"
        if _STATE.read(TABLE_ATTRIBUTES, table.item(), 4).get("NFTA_TABLE_FLAGS", 0) & _DORMANT:
            return f"table {self.name} is dormant"
        for (name, wanted), reply in zip(hooks.items(), chains, strict=True):
            if not reply.check(ENOENT):
                return f"chain {name} of table {self.name} is missing"
            hook = _STATE.read(CHAIN_ATTRIBUTES, reply.item(), 4).get("NFTA_CHAIN_HOOK", {})
            if (hook.get("NFTA_HOOK_HOOKNUM"), hook.get("NFTA_HOOK_PRIORITY")) != wanted:
                return f"chain {name} of table {self.name} does not have its hook"
        return ""

    def undo(self, sock: Socket) -> None:
        """Delete the table if it was made here and none of its sets has an element. Idempotent.

        Another ADD may be about to use it. What it adds after we have looked is another
        generation, for which the kernel refuses the deletion, and we look again; what it adds
        after the deletion it finds refused, and makes the table anew. A table stays if the rule
        set never stops changing. Raises NetlinkError.
        """
        if not self.made_here:
            return
        from libcni.nftables import sets
        from libcni.nftables.transaction import (
            TRANSIENT,
            commit,
            generation,
            get_generation,
            refused,
        )

        for _ in range(50):
            number = generation(sock.batch([get_generation()])[0])
            for name in sets.set_names(sock, self):
                if any(map(sets.read_elements, sets.elements(sock, self, name))):
                    return
            if refused(commit(sock, [self.delete()], number), ENOENT, *TRANSIENT) <= {ENOENT}:
                self.made_here = False
                return

    def create_base_chain(self, name: str, type: str, hook: int, priority: int) -> Message:
        """Make a chain that the kernel calls; its policy is accept.

        type: "nat" or "filter". hook: enum nf_inet_hooks (bridge has the same numbers).
        """
        return Message(
            _NEW_CHAIN,
            CHANGE | NLM_F_CREATE,
            f"nftables: make chain {name}",
            CHAIN,
            self.header,
            {
                "NFTA_CHAIN_TABLE": self.name,
                "NFTA_CHAIN_NAME": name,
                "NFTA_CHAIN_TYPE": type,
                "NFTA_CHAIN_POLICY": 1,
                "NFTA_CHAIN_HOOK": {"NFTA_HOOK_HOOKNUM": hook, "NFTA_HOOK_PRIORITY": priority},
            },
        )

    def create_chain(self, name: str) -> Message:
        """Make a chain that rules jump to."""
        return self._chain(_NEW_CHAIN, CHANGE | NLM_F_CREATE, "make", name)

    def get_chain(self, name: str) -> Message:
        """Ask whether the chain exists (ENOENT)."""
        return self._chain(_GET_CHAIN, NLM_F_REQUEST, "look for", name)

    def delete_chain(self, name: str) -> Message:
        """Delete an empty chain. EBUSY while a rule jumps to it."""
        return self._chain(_DELETE_CHAIN, CHANGE, "delete", name)

    def _chain(self, type: int, flags: int, doing: str, name: str) -> Message:
        return Message(
            type,
            flags,
            f"nftables: {doing} chain {name}",
            CHAIN,
            self.header,
            {"NFTA_CHAIN_TABLE": self.name, "NFTA_CHAIN_NAME": name},
        )

    def add_rule(
        self, chain: str, expressions: list[Expression], comment: str, first: bool = False
    ) -> Message:
        """Make a rule, the chain's last or first one."""
        return Message(
            _NEW_RULE,
            CHANGE | NLM_F_CREATE | (0 if first else NLM_F_APPEND),
            f"nftables: add a rule to chain {chain} ({comment})",
            RULE,
            self.header,
            {
                "NFTA_RULE_TABLE": self.name,
                "NFTA_RULE_CHAIN": chain,
                "NFTA_RULE_EXPRESSIONS": expressions,
                "NFTA_RULE_USERDATA": comment_of(comment),
            },
        )

    def delete_rule(self, chain: str, rule: bytes) -> Message:
        """Delete a rule, given as it came from `rules`."""
        return self._delete_rules(chain, handle_of(rule))

    def flush_chain(self, chain: str) -> Message:
        """Delete all rules of a chain."""
        return self._delete_rules(chain, None)

    def _delete_rules(self, chain: str, handle: int | None) -> Message:
        return Message(
            _DELETE_RULE,
            CHANGE,
            f"nftables: delete from chain {chain}",
            RULE,
            self.header,
            {
                "NFTA_RULE_TABLE": self.name,
                "NFTA_RULE_CHAIN": chain,
                "NFTA_RULE_HANDLE": handle,
            },
        )

    def rules(self, sock: Socket, chain: str) -> list[bytes]:
        """The rules of a chain ("": of all), raw; none when it or the table does not exist."""
        try:
            return sock.dump(self._get_rules(chain, None))
        except NetlinkError as error:
            if error.errno == ENOENT:
                return []
            raise

    def first_rules(self, chain: str) -> list[bytes]:
        """As `rules`, but only some ten of them, and in no more time than these take."""
        sock = Socket(NETLINK_NETFILTER)
        try:
            return sock.beginning(self._get_rules(chain, None))
        except NetlinkError as error:
            if error.errno == ENOENT:
                return []
            raise
        finally:
            sock.close()

    def get_rule(self, chain: str, handle: int) -> Message:
        """Ask for one rule (ENOENT)."""
        return self._get_rules(chain, handle)

    def _get_rules(self, chain: str, handle: int | None) -> Message:
        return Message(
            _GET_RULE,
            NLM_F_REQUEST,
            f"nftables: list chain {chain}",
            RULE,
            self.header,
            {
                "NFTA_RULE_TABLE": self.name,
                "NFTA_RULE_CHAIN": chain or None,
                "NFTA_RULE_HANDLE": handle,
            },
        )


def all_chains(sock: Socket) -> list[bytes]:
    """The chains of all tables and families, raw. Raises NetlinkError."""
    return sock.dump(
        Message(_GET_CHAIN, NLM_F_REQUEST, "nftables: list chains", CHAIN, (0, 0, 0), {})
    )


def handle_of(rule: bytes) -> int:
    """The handle of a raw rule, by which the kernel finds it at once."""
    values = _HANDLE.read(RULE_ATTRIBUTES, rule, 4)
    handle: int = required(values, "NFTA_RULE_HANDLE")
    return handle


def constant_part(rule: bytes) -> bytes:
    """The expressions of a raw rule, alike for rules that are.

    Without what counts packets, and without names that the kernel has given to sets.
    """
    parts = []
    for number, expressions in attributes(rule, 4):
        if number != _EXPRESSIONS:
            continue
        for _, expression in attributes(expressions, 0):
            held = dict(attributes(expression, 0))
            name = held.get(1, b"").rstrip(b"\0")  # NFTA_EXPR_NAME
            if name == b"lookup":
                for attribute, value in attributes(held.get(2, b""), 0):  # NFTA_EXPR_DATA
                    if not value.startswith(_NAMED_BY_KERNEL):
                        parts.append(pack("=H", attribute) + value)
            parts.append(name if name in (*_COUNTING, b"lookup") else expression)
    return b"".join(parts)


def looks_up(rule: bytes, set_name: str) -> bool:
    """True if a raw rule looks something up in the set."""
    return encode(LOOKUP, {"NFTA_LOOKUP_SET": set_name}) in rule


def jumps_to(rule: bytes, chain: str) -> bool:
    """True if a raw rule jumps or goes to the chain."""
    return encode(VERDICT, {"NFTA_VERDICT_CHAIN": chain}) in rule


def compares_with(rule: bytes, data: bytes) -> bool:
    """True if a raw rule compares something with exactly these bytes."""
    return pack("=HH", len(data) + 4, 1) + data in rule


def has_comment(rule: bytes, comment: str) -> bool:
    """True if a raw rule or element has exactly this comment."""
    return comment_of(comment) in rule


def has_comment_prefix(rule: bytes, prefix: str) -> bool:
    """True if a raw rule's comment begins so."""
    text = prefix.encode()
    at = rule.find(text)
    # Before it: the type of the user data (0: a comment) and its length.
    return at >= 2 and rule[at - 2] == 0
