# SPDX-License-Identifier: Apache-2.0
"""Mappings with conditions in nft's language: a rule for each, made by `nft` itself.

Only nft's parser knows that language, so this takes a process, one for all rules of an ADD. They
are deleted in process. Two attachments may have the same port under conditions: telling their
packets apart is what conditions are for.
"""

from __future__ import annotations

import posix

from cni_portmap.mapping import NAMES, Claim, invalid
from cni_portmap.record import DIGEST
from cni_portmap.table import CONDITIONAL, TABLE, VERSIONS
from libcni.attachment import Attachment
from libcni.inet import ntop
from libcni.types.errors import CHECK_FAILED, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.invoke.spawn import Outcome

_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_TIMEOUT = 30.0
#: What would end a rule and begin another command.
_FORBIDDEN = frozenset(";\n\r#\\`\0")


def find_nft() -> str:
    """The path of `nft`, or ""."""
    own = posix.environ.get(b"PATH", b"").decode("utf-8", "replace")
    for directory in f"{own}:{_DIRECTORIES}".split(":"):
        path = f"{directory}/nft"
        if directory.startswith("/") and posix.access(path, posix.X_OK):
            return path
    return ""


def ensure(attachment: Attachment, claims: list[Claim], conditions: dict[int, list[str]]) -> None:
    """Make the rules; there are none of the attachment. Raises CniError 7 when nft refuses."""
    outcome = _run(["-f", "-"], _rules(attachment, claims, conditions))
    if outcome.status:
        said = outcome.stderr.decode("utf-8", "replace").strip()
        shown = " and ".join(f"conditionsV{v} {' '.join(c)!r}" for v, c in conditions.items())
        raise invalid(f"nft refuses {shown}: {said.splitlines()[0] if said else ''}", said)


def listed(attachment: Attachment) -> list[str]:
    """The rules that there are of the attachment, as `put_back` takes them. Raises CniError."""
    outcome = _run(["list", "chain", "inet", TABLE.name, CONDITIONAL], [])
    if outcome.status:
        said = outcome.stderr.decode("utf-8", "replace").strip()
        raise CniError(KERNEL, f"nft does not list chain {CONDITIONAL}", said)
    mark = f'comment "{attachment.comment}"'
    return [
        f"add rule inet {TABLE.name} {CONDITIONAL} {line.strip()}"
        for line in outcome.stdout.decode("utf-8", "replace").split("\n")
        if line.endswith(mark)
    ]


def put_back(lines: list[str]) -> None:
    """Make the rules that `listed` found. Raises CniError 102."""
    outcome = _run(["-f", "-"], lines)
    if outcome.status:
        said = outcome.stderr.decode("utf-8", "replace").strip()
        raise CniError(KERNEL, "nft does not take its own rules again", said)


def _rules(
    attachment: Attachment, claims: list[Claim], conditions: dict[int, list[str]]
) -> list[str]:
    """The commands that make the rules. Raises CniError 7."""
    lines = []
    for claim in claims:
        version = VERSIONS[claim.family]
        words = " ".join(conditions[version])
        if not _FORBIDDEN.isdisjoint(words):
            raise invalid(f"conditionsV{version}: {words!r} is more than conditions")
        lines.append(
            f"add rule inet {TABLE.name} {CONDITIONAL} meta nfproto ipv{version} {words} "
            f'{_match(claim)} {_translation(claim)} comment "{attachment.comment}"'
        )
    return lines


def _run(arguments: list[str], lines: list[str]) -> Outcome:
    path = find_nft()
    if not path:
        raise CniError(KERNEL, "nft is not installed", "conditionsV4 and conditionsV6 need it")
    from libcni.invoke.spawn import spawn

    text = "\n".join([*lines, ""]).encode()
    return spawn(path, arguments, None, text, _TIMEOUT)


def _match(claim: Claim) -> str:
    ip = "ip" if VERSIONS[claim.family] == 4 else "ip6"
    last = claim.port + claim.count - 1
    ports = f"{claim.port}-{last}" if claim.count > 1 else str(claim.port)
    address = f"{ip} daddr {ntop(claim.address)} " if claim.address else ""
    return f"{address}{NAMES[claim.protocol]} dport {ports}"


def _translation(claim: Claim) -> str:
    address = ntop(claim.target)
    if claim.family != 2:
        address = f"[{address}]"
        ip = "ip6"
    else:
        ip = "ip"
    if claim.count == 1:
        return f"dnat {ip} to {address}:{claim.target_port}"
    if claim.port == claim.target_port:
        return f"dnat {ip} to {address}"
    pairs = ", ".join(
        f"{claim.port + offset} : {claim.target_port + offset}" for offset in range(claim.count)
    )
    return f"dnat {ip} to {address}:{NAMES[claim.protocol]} dport map {{ {pairs} }}"


def _found(attachment: Attachment) -> list[bytes]:
    """The attachment's rules, raw."""
    from libcni.nftables import rules
    from libcni.nftables.transaction import open_socket

    comment = attachment.comment
    return [r for r in TABLE.rules(open_socket(), CONDITIONAL) if rules.has_comment(r, comment)]


def digest(attachment: Attachment, claims: list[Claim], conditions: dict[int, list[str]]) -> bytes:
    """What tells whether the rules are those that ADD made of these conditions.

    Only nft knows how a rule looks that it makes: so ADD remembers how the kernel shows them.
    Raises NetlinkError, CniError 7.
    """
    from _sha512 import sha512

    from libcni.nftables.rules import constant_part

    hashed = sha512("\n".join(_rules(attachment, claims, conditions)).encode())
    for rule in _found(attachment):
        hashed.update(constant_part(rule))
    return hashed.digest()[:DIGEST]


def check(attachment: Attachment, claims: list[Claim]) -> None:
    """Raise CniError 103 for a claim without a rule, or if there are not as many.

    Their conditions are compared by `digest`, where the record has it.
    """
    found = _found(attachment)
    for claim in claims:
        if not any(_is_for(claim, rule) for rule in found):
            raise CniError(
                CHECK_FAILED, f"portmap: the rule of hostPort {claim.text(0)} is missing"
            )
    if len(found) < len(claims):
        raise CniError(
            CHECK_FAILED,
            f"portmap: chain {CONDITIONAL} has {len(found)} rules of the attachment",
            f"expected {len(claims)}",
        )


def _is_for(claim: Claim, rule: bytes) -> bool:
    """True if a raw rule has the port of the host and, if they are in it, where it leads."""
    ports = [claim.port]
    if claim.count == 1:
        ports.append(claim.target_port)
    return claim.target in rule and all(port.to_bytes(2, "big") in rule for port in ports)
