# SPDX-License-Identifier: Apache-2.0
"""The backend iptables: chains and rules as Go's plugin makes them, in one transaction a family.

Rules of a container are found again by its identity, without prevResult. Looking and removing
are by netlink where iptables is iptables-nft.
"""

from __future__ import annotations

from _struct import pack

from cni_firewall import handles, ipt_rules, strictest
from cni_firewall.config import Config
from cni_firewall.ipt_rules import CHAIN, STAGE1, TABLE, Saved, accepts, version_of
from libcni import iptables, orphans
from libcni.legacy_tables import legacy_versions
from libcni.netlink.codec import Reader, encode
from libcni.netlink.socket import NetlinkError, Socket
from libcni.netlink.tables.nft import RULE_ATTRIBUTES, VERDICT
from libcni.netns_lock import NamespaceLock
from libcni.nftables import expressions, rules
from libcni.nftables.transaction import (
    IPV4,
    IPV6,
    LIMIT,
    MISSING,
    TRANSIENT,
    attempts,
    commit,
    find_socket,
    refused,
)
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from libcni.attachment import Attachment
    from libcni.inet import Prefix
    from libcni.netlink.codec import Message
    from libcni.skel.undo import Undo

_EXPRESSIONS = Reader("NFTA_RULE_EXPRESSIONS", "NFTA_EXPR_NAME")
#: NFTA_DATA_VERDICT, with its length and without the flag of a nest, as the kernel shows it.
_ACCEPT = pack("=HH", 12, 2) + encode(VERDICT, {"NFTA_VERDICT_CODE": expressions.ACCEPT})
#: Where iptables-nft has its rules, by IP version.
_FILTERS = {4: handles.FILTERS[IPV4], 6: handles.FILTERS[IPV6]}


class _Before:
    """What an ADD knows of the attachment's rules from before it.

    may_have: there are some, or nobody has looked: then none is taken back, as they may be due.
    """

    __slots__ = ("may_have",)

    def __init__(self) -> None:
        self.may_have = True


def ensure(
    attachment: Attachment, addresses: list[Prefix], config: Config, bridge: str, undo: Undo
) -> list[int]:
    """Let the addresses' traffic through, and keep `bridge` apart ("" for no policy).

    Idempotent. A family without a tool is passed over, unless it is the container's only one.
    undo: gets what takes the container's rules back, unless it had some before.
    Returns the IP versions in which the bridge stays isolated, against the policy (see
    `strictest`). Raises CniError 11 or 102.
    """
    orphans.hold(attachment)
    by_version: dict[int, list[Prefix]] = {}
    for address in addresses:
        by_version.setdefault(version_of(address), []).append(address)
    if bridge:
        # What a bridge carries is kept apart whatever the container's addresses are.
        for version in (4, 6):
            by_version.setdefault(version, [])
    before = _Before()

    def take_back() -> None:
        undo.push(_take_back, attachment, before)

    notes = None
    if addresses:
        notes = handles.begin(attachment, take_back)
        if notes is None:
            take_back()
        before.may_have = notes is None or not notes.has_none
    done = [version for version in by_version if iptables.find(version, "restore")]
    unsure = []
    for version in done:
        if notes is None or not notes.has_none or bridge or not _is_framed(version, config):
            unsure.append(version)
        else:
            ours = by_version[version]
            lines = [f"-A {CHAIN} {rule}" for a in ours for rule in accepts(a, attachment)]
            iptables.restore(version, TABLE, lines)
    isolated: list[int] = []
    if unsure:
        with NamespaceLock():
            saved = {version: iptables.save(version, TABLE) for version in unsure}
            before.may_have = before.may_have and any(
                _bears(line, attachment.comment) for lines in saved.values() for line in lines
            )
            for version, lines in saved.items():
                ours = by_version[version]
                if _make(attachment, version, ours, config, bridge, notes, lines):
                    isolated.append(version)
    if not done and by_version:
        iptables.restore(min(by_version), TABLE, [])  # which says what is not installed
    if notes is not None:
        notes.note(CHAIN, sum(2 * len(by_version[version]) for version in done))
    return isolated


def _take_back(attachment: Attachment, before: _Before) -> None:
    if before.may_have:
        return
    sock = remove(attachment, [])
    if sock is not None:
        sock.close()


def _make(
    attachment: Attachment,
    version: int,
    addresses: list[Prefix],
    config: Config,
    bridge: str,
    notes: handles.Handles | None,
    saved: list[str],
) -> bool:
    """Make whatever is missing, of what containers share too, and that once; the caller has the
    lock of the host's namespace.

    saved: what there is. Returns whether the bridge stays isolated, against the policy.
    """
    stays_isolated = False

    def missing(lines: list[str]) -> list[str]:
        nonlocal stays_isolated
        saved = Saved(lines)
        stays_isolated = ipt_rules.stays_isolated(saved, config.policy, bridge)
        lines = ipt_rules.missing(saved, attachment, addresses, config, bridge)
        if lines and notes is not None:
            notes.forget()
        return lines

    iptables.ensure(version, TABLE, missing, saved)
    return stays_isolated


def _is_framed(version: int, config: Config) -> bool:
    """True if all that containers share is there, as netlink says of iptables-nft.

    That saves a process, and is how it is for all but the first container of a node.
    """
    table = _FILTERS[version]
    sock = find_socket()
    if sock is None:
        return False
    try:
        if not any(rules.jumps_to(rule, CHAIN) for rule in table.rules(sock, "FORWARD")):
            return False
        # It is the first one; whoever put others before it makes us look at all by iptables.
        first = table.first_rules(CHAIN)
        return any(rules.jumps_to(rule, config.admin_chain) for rule in first)
    except CniError:
        return False  # a kernel without nftables
    finally:
        sock.close()


def check(attachment: Attachment, addresses: list[Prefix], config: Config, bridge: str) -> None:
    """Raise CniError 103 naming the first rule that is missing; Go's are as good as ours.

    So it does for an IP version whose rules it has made and which cannot be looked at.
    """
    versions = (4, 6) if bridge else sorted({version_of(address) for address in addresses})
    for version in versions:
        if not iptables.find(version, "save"):
            if any(version_of(address) == version for address in addresses):
                _check_passed_over(attachment, version)
            continue
        saved = Saved(iptables.save(version, TABLE))
        wanted = list(ipt_rules.frame(config))
        if bridge:
            for chain, rules_ in ipt_rules.isolation(config.policy, bridge).items():
                wanted += [(chain, rule) for rule in rules_]
        for address in addresses:
            if version_of(address) != version:
                continue
            both = zip(accepts(address, attachment), accepts(address, None), strict=True)
            wanted += [(CHAIN, rule) for rule, gos in both if not saved.has(CHAIN, gos)]
        for chain, rule in wanted:
            if not saved.has(chain, rule):
                raise CniError(
                    CHECK_FAILED,
                    f"{iptables.program(version)} table {TABLE} lacks: -A {chain} {rule}",
                )
        if ipt_rules.stays_isolated(saved, config.policy, bridge):
            raise CniError(
                CHECK_FAILED,
                f"firewall: {strictest.words(bridge)}",
                strictest.advice(reopening(bridge, [version])),
            )


def _check_passed_over(attachment: Attachment, version: int) -> None:
    """Raise CniError 103 if ADD has made rules of the version, as far as it has noted them.

    Where it noted nothing it may have had no tool for the version either.
    """
    if _FILTERS[version].family in {family for family, _ in handles.places_of(attachment)}:
        raise CniError(
            CHECK_FAILED,
            f"{iptables.program(version)}-save is not installed: the container's rules cannot be "
            "looked at",
            f"install {iptables.program(version)}",
        )


def reopening(bridge: str, versions: list[int]) -> str:
    """The command that ends the isolation of a bridge, in the IP versions given."""
    rule = f"-D {STAGE1} {ipt_rules.isolating(bridge)}"
    return "; ".join([f"{iptables.program(version)} {rule}" for version in versions])


def _mark(attachment: Attachment) -> bytes:
    return attachment.comment.encode() + b"\0"


def remove(attachment: Attachment, addresses: list[Prefix]) -> Socket | None:
    """Remove the container's rules, and Go's for these addresses. Idempotent; no tool is run
    where iptables is iptables-nft.

    Returns the socket, whose closing waits (see `libcni.nftables.closing`); None without any.
    Raises CniError 11 or 102.
    """
    mark, packed = _mark(attachment), [address.packed for address in addresses]

    def is_ours(rule: bytes) -> bool:
        return mark in rule or any(rules.compares_with(rule, p) for p in packed if _is_gos(rule))

    sock = _remove_from_nft(is_ours, attachment)
    comment = attachment.comment
    gos = {f"-A {CHAIN} {rule}" for address in addresses for rule in accepts(address, None)}
    _remove_from_legacy(lambda line: _bears(line, comment) or line in gos)
    return sock


def _bears(line: str, comment: str) -> bool:
    """True if a line of `iptables-save` has this comment, which the tool may quote."""
    return f"--comment {comment} " in line.replace('"', "")


def _is_gos(rule: bytes) -> bool:
    """True for a raw rule that accepts what is from or to one address, as Go's plugin makes it."""
    read = _EXPRESSIONS.read(RULE_ATTRIBUTES, rule, 4).get("NFTA_RULE_EXPRESSIONS", [])
    names = [expression.get("NFTA_EXPR_NAME", "") for expression in read]
    if b"conntrack\0" in rule and names[2:3] == ["match"]:
        del names[2]
    return names == ["payload", "cmp", "counter", "immediate"] and _ACCEPT in rule


def gc(marks: tuple[str, ...], keep: set[str]) -> None:
    """Remove the rules whose comment begins with one of `marks` and is not in `keep`.

    Go's rules bear no mark and are left alone. Raises CniError 11 or 102.
    """

    def owner_of(rule: bytes) -> str:
        for mark in marks:
            _, found, rest = rule.partition(mark.encode())
            if found:
                return mark + rest.partition(b"\0")[0].decode("utf-8", "replace")
        return ""

    def is_stale(rule: bytes) -> bool:
        owner = owner_of(rule)
        return bool(owner) and owner not in keep

    sock = _remove_from_nft(is_stale)
    if sock is not None:
        sock.close()

    def is_stale_line(line: str) -> bool:
        _, found, rest = line.replace('"', "").partition("--comment ")
        owner = rest.partition(" ")[0]
        return bool(found) and owner.startswith(marks) and owner not in keep

    _remove_from_legacy(is_stale_line)


def _remove_from_nft(
    is_meant: Callable[[bytes], bool], attachment: Attachment | None = None
) -> Socket | None:
    """Delete the rules that are meant: searched, unless it is known where an attachment's are."""
    sock = find_socket()
    if sock is None:
        return None
    for _ in attempts("firewall"):
        changes: list[Message] = []
        try:
            known = False
            if attachment is not None:
                changes, known = handles.removal(sock, attachment, CHAIN)
            if not known:
                # Before the elements, which say that there are any.
                changes[:0] = [
                    table.delete_rule(CHAIN, rule)
                    for table in _FILTERS.values()
                    for rule in table.rules(sock, CHAIN)
                    if is_meant(rule)
                ]
        except NetlinkError as error:
            if error.errno in MISSING:
                break
            raise
        if not changes:
            break
        from errno import ENOENT

        whole = len(changes) <= LIMIT
        if not refused(commit(sock, changes[:LIMIT]), ENOENT, *TRANSIENT) and whole:
            break
    return sock


def _remove_from_legacy(is_ours: Callable[[str], bool]) -> None:
    for version in legacy_versions(TABLE):
        if not iptables.find(version, "save", iptables.LEGACY):
            continue
        saved = iptables.save(version, TABLE, iptables.LEGACY)
        lines = [
            f"-D{line[2:]}" for line in saved if line.startswith(f"-A {CHAIN} ") and is_ours(line)
        ]
        if lines:
            iptables.restore(version, TABLE, lines, iptables.LEGACY)


def unusable() -> str:
    """Why iptables cannot be used here, or "" if it can, for at least one family."""
    reason = ""
    for version in (4, 6):
        try:
            iptables.save(version, TABLE)
        except CniError as error:
            reason = reason or error.msg
        else:
            return ""
    return reason
