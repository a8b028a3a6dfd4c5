# SPDX-License-Identifier: Apache-2.0
"""Mappings with conditions in nft's language: a rule for each, made by `nft` itself.

Only nft's parser knows that language, so this takes a process, one for all rules of an ADD. They
are deleted in process. Two attachments may have the same port under conditions: telling their
packets apart is what conditions are for.
"""

from __future__ import annotations

import posix

from cni_portmap.mapping import NAMES, Claim, invalid
from cni_portmap.table import CONDITIONAL, TABLE, VERSIONS
from libcni.attachment import Attachment
from libcni.inet import ntop
from libcni.types.errors import CHECK_FAILED, KERNEL, CniError

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
    path = find_nft()
    if not path:
        raise CniError(KERNEL, "nft is not installed", "conditionsV4 and conditionsV6 need it")
    from libcni.invoke.spawn import spawn

    text = "\n".join([*lines, ""]).encode()
    outcome = spawn(path, ["-f", "-"], None, text, _TIMEOUT)
    if outcome.status:
        said = outcome.stderr.decode("utf-8", "replace").strip()
        shown = " and ".join(f"conditionsV{v} {' '.join(c)!r}" for v, c in conditions.items())
        raise invalid(f"nft refuses {shown}: {said.splitlines()[0] if said else ''}", said)


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


def check(attachment: Attachment, claims: list[Claim]) -> None:
    """Raise CniError 103 if there are not as many rules as there are claims."""
    from libcni.nftables import rules
    from libcni.nftables.transaction import open_socket

    comment = attachment.comment
    found = [r for r in TABLE.rules(open_socket(), CONDITIONAL) if rules.has_comment(r, comment)]
    for claim in claims:
        # Its address, which no rule of another attachment with this comment can have.
        if not any(claim.target in rule for rule in found):
            raise CniError(
                CHECK_FAILED, f"portmap: the rule of hostPort {claim.text(0)} is missing"
            )
    if len(found) < len(claims):
        raise CniError(
            CHECK_FAILED,
            f"portmap: chain {CONDITIONAL} has {len(found)} rules of the attachment",
            f"expected {len(claims)}",
        )
