# SPDX-License-Identifier: Apache-2.0
"""Masquerade by iptables, rule for rule as the Go plugins make it.

    :CNI-2bbe0c48b91a7d1b8a6753a8
    -A CNI-2bbe... -d 10.244.1.0/24 -j ACCEPT
    -A CNI-2bbe... ! -d 224.0.0.0/4 -j MASQUERADE
    -A POSTROUTING -s 10.244.1.2 -j CNI-2bbe...

each with the comment `name: "podnet" id: "0a1b"`. So either suite deletes what the other made.
The chain's name is made of the network and the container, not the interface: two interfaces of
one container in one network share it, and a DEL that does not know its addresses removes both.
What iptables-nft holds is removed in process (`leftovers`); only iptables-legacy needs its tool.
"""

from __future__ import annotations

from libcni import iptables, orphans
from libcni.attachment import Attachment
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix

_TABLE = "nat"
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


def _version(prefix: Prefix) -> int:
    return 4 if len(prefix.packed) == 4 else 6


def _host(prefix: Prefix) -> str:
    return prefix.text().partition("/")[0]


def _by_version(prefixes: list[Prefix]) -> dict[int, list[Prefix]]:
    sorted_out: dict[int, list[Prefix]] = {}
    for prefix in prefixes:
        sorted_out.setdefault(_version(prefix), []).append(prefix)
    return sorted_out


def _comment_text(network: str, container_id: str) -> str:
    return f'name: "{network}" id: "{container_id}"'


class _Rules:
    """What an attachment needs for one IP version: as (how `-save` shows it, how to make it)."""

    __slots__ = ("accepts", "chain", "jumps", "masquerade")

    def __init__(self, attachment: Attachment, version: int, prefixes: list[Prefix]) -> None:
        chain = self.chain = attachment.go_masquerade_chain
        text = _comment_text(attachment.network, attachment.container_id)
        comment = f"-m comment --comment {iptables.quoted(text)}"
        subnets = dict.fromkeys([prefix.network().text() for prefix in prefixes])
        self.accepts = {
            (f"-A {chain} -d {subnet} ", "-j ACCEPT"): f"{chain} -d {subnet} {comment} -j ACCEPT"
            for subnet in subnets
        }
        multicast = _MULTICAST[version]
        self.masquerade = (
            (f"-A {chain} ! -d {multicast} ", "-j MASQUERADE"),
            f"{chain} ! -d {multicast} {comment} -j MASQUERADE",
        )
        bits = 32 if version == 4 else 128
        self.jumps = {
            (
                f"-A POSTROUTING -s {_host(prefix)}/{bits} ",
                f"-j {chain}",
            ): f"POSTROUTING -s {_host(prefix)} {comment} -j {chain}"
            for prefix in prefixes
        }

    def new(self) -> list[str]:
        """The lines that make everything, the chain included."""
        return [
            f"-N {self.chain}",
            *[f"-A {line}" for line in self.accepts.values()],
            f"-A {self.masquerade[1]}",
            *[f"-A {line}" for line in self.jumps.values()],
        ]

    def missing(self, saved: list[str]) -> list[str]:
        """The lines that make what `saved` lacks; a subnet's goes before the masquerade."""
        lines = [
            *[f"-I {line}" for shown, line in self.accepts.items() if not _shows(saved, shown)],
            *([] if _shows(saved, self.masquerade[0]) else [f"-A {self.masquerade[1]}"]),
            *[f"-A {line}" for shown, line in self.jumps.items() if not _shows(saved, shown)],
        ]
        if not _has_chain(saved, self.chain):
            return [f"-N {self.chain}", *lines]
        return lines


def _shows(saved: list[str], shown: tuple[str, str]) -> bool:
    start, end = shown
    return any(line.startswith(start) and line.endswith(end) for line in saved)


def _has_chain(saved: list[str], chain: str) -> bool:
    return any(line.startswith(f":{chain} ") for line in saved)


def ensure(attachment: Attachment, prefixes: list[Prefix]) -> None:
    """Make chain and rules, for each IP version in one process. Idempotent.

    Raises CniError 11 when the lock is not to be had, 102 when iptables refuses or is missing.
    """
    orphans.hold(attachment)
    for version, ours in _by_version(prefixes).items():
        rules = _Rules(attachment, version, ours)
        try:
            iptables.restore(version, _TABLE, rules.new())
        except CniError as error:
            try:
                saved = iptables.save(version, _TABLE)
            except CniError:
                saved = []
            if not _has_chain(saved, rules.chain):
                raise
            # Made before: by an earlier ADD, or for the container's other interface.
            lines = rules.missing(saved)
            if lines:
                try:
                    iptables.restore(version, _TABLE, lines)
                except CniError as second:
                    raise second from error


def check(attachment: Attachment, prefixes: list[Prefix]) -> None:
    """Raise CniError 103 naming the first rule that is missing."""
    for version, ours in _by_version(prefixes).items():
        rules = _Rules(attachment, version, ours)
        missing = rules.missing(iptables.save(version, _TABLE))
        if missing:
            raise CniError(
                CHECK_FAILED,
                f"masquerade: {iptables.program(version)} table {_TABLE} lacks {missing[0][3:]}",
                "; ".join(missing[1:]),
            )


def remove_legacy(
    attachment: Attachment, prefixes: list[Prefix] | None, families: list[int]
) -> None:
    """Remove the attachment's rules and chain from iptables-legacy. Idempotent.

    families: the IP versions that have a nat table there. Without the tool nothing is done.
    Raises CniError 11 or 102.
    """
    chain = attachment.go_masquerade_chain
    for version in families:
        if not iptables.find(version, "save", iptables.LEGACY):
            continue
        saved = iptables.save(version, _TABLE, iptables.LEGACY)
        jumps = _jumps(saved, chain)
        ours = jumps
        if prefixes:
            sources = [f" -s {source} " for p in prefixes for source in _sources(p)]
            ours = [line for line in jumps if any(source in line for source in sources)]
        _delete(version, saved, chain, jumps, ours)


def _sources(prefix: Prefix) -> tuple[str, str]:
    """The source of a jump: the address, or in the oldest form its subnet."""
    return f"{_host(prefix)}/{len(prefix.packed) * 8}", prefix.network().text()


def _jumps(saved: list[str], chain: str) -> list[str]:
    return [
        line
        for line in saved
        if line.startswith("-A POSTROUTING ") and line.endswith(f" -j {chain}")
    ]


def _delete(version: int, saved: list[str], chain: str, jumps: list[str], ours: list[str]) -> None:
    lines = ["-D" + line[2:] for line in ours]
    if len(ours) == len(jumps) and _has_chain(saved, chain):
        lines += [f"-F {chain}", f"-X {chain}"]
    if lines:
        iptables.restore(version, _TABLE, lines, iptables.LEGACY)


def gc_legacy(network: str, containers: set[str], families: list[int]) -> None:
    """Remove from iptables-legacy the chains of the network's other containers.

    containers: the IDs to keep. Raises CniError 11 or 102.
    """
    for version in families:
        if not iptables.find(version, "save", iptables.LEGACY):
            continue
        saved = iptables.save(version, _TABLE, iptables.LEGACY)
        start = iptables.quoted(_comment_text(network, "\0")).partition("\0")[0]
        stale: dict[str, None] = {}
        for line in saved:
            _, found, rest = line.partition(f"--comment {start}")
            if found and line.startswith("-A POSTROUTING "):
                stale[rest.partition("\\")[0]] = None
        for container_id in stale:
            if container_id not in containers:
                chain = Attachment(network, container_id, "").go_masquerade_chain
                jumps = _jumps(saved, chain)
                _delete(version, saved, chain, jumps, jumps)


def unusable() -> str:
    """Why iptables cannot be used here, or "" if it can."""
    try:
        iptables.save(4, _TABLE)
    except CniError as error:
        return error.msg
    return "" if iptables.find(4, "restore") else "iptables-restore is not installed"
