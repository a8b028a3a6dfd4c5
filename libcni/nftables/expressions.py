# SPDX-License-Identifier: Apache-2.0
"""The expressions that nftables rules are made of.

Source: linux/netfilter/nf_tables.h, checked against what `nft --debug=netlink` shows; all of it
reads back as ordinary text in `nft list ruleset`. Registers 1 to 4 hold 16 bytes each.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Expression = dict[str, Any]

#: enum nft_payload_bases
LINK_HEADER = 0
NETWORK_HEADER = 1
#: enum nft_meta_keys
META_IIFNAME = 6
META_NFPROTO = 15
#: linux/netfilter.h and enum nft_verdicts
DROP = 0
ACCEPT = 1
RETURN = -5

#: Where an IP header holds its addresses: family -> (source offset, destination offset, length).
_ADDRESSES = {AF_INET: (12, 16, 4), AF_INET6: (8, 24, 16)}


def expression(name: str, attributes: dict[str, Any]) -> Expression:
    """One element of a rule's expression list."""
    return {"NFTA_EXPR_NAME": name, "NFTA_EXPR_DATA": attributes}


def meta(key: int, register: int = 1) -> Expression:
    """Load packet meta data (META_...) into a register."""
    return expression("meta", {"NFTA_META_KEY": key, "NFTA_META_DREG": register})


def payload(base: int, offset: int, length: int, register: int = 1) -> Expression:
    """Load `length` bytes at `offset` of a header (..._HEADER) into a register."""
    return expression(
        "payload",
        {
            "NFTA_PAYLOAD_DREG": register,
            "NFTA_PAYLOAD_BASE": base,
            "NFTA_PAYLOAD_OFFSET": offset,
            "NFTA_PAYLOAD_LEN": length,
        },
    )


def compare(data: bytes, negated: bool = False) -> Expression:
    """Go on with the rule only if register 1 equals `data` (or does not, if negated)."""
    return expression(
        "cmp",
        {
            "NFTA_CMP_SREG": 1,
            "NFTA_CMP_OP": int(negated),
            "NFTA_CMP_DATA": {"NFTA_DATA_VALUE": data},
        },
    )


def keep_bits(mask: bytes) -> Expression:
    """Register 1 = register 1 & mask."""
    return expression(
        "bitwise",
        {
            "NFTA_BITWISE_SREG": 1,
            "NFTA_BITWISE_DREG": 1,
            "NFTA_BITWISE_LEN": len(mask),
            "NFTA_BITWISE_MASK": {"NFTA_DATA_VALUE": mask},
            "NFTA_BITWISE_XOR": {"NFTA_DATA_VALUE": bytes(len(mask))},
        },
    )


def lookup(set_name: str, negated: bool = False) -> Expression:
    """Go on only if the value that starts in register 1 is in the set (or is not)."""
    return expression(
        "lookup",
        {
            "NFTA_LOOKUP_SREG": 1,
            "NFTA_LOOKUP_SET": set_name,
            "NFTA_LOOKUP_FLAGS": 1 if negated else None,
        },
    )


def verdict(code: int) -> Expression:
    """End the rule with ACCEPT, DROP or RETURN."""
    return expression(
        "immediate",
        {
            "NFTA_IMMEDIATE_DREG": 0,
            "NFTA_IMMEDIATE_DATA": {"NFTA_DATA_VERDICT": {"NFTA_VERDICT_CODE": code}},
        },
    )


def masquerade() -> Expression:
    """Translate the source address to that of the outgoing interface."""
    return expression("masq", {})


def counter() -> Expression:
    """Count the packets and bytes that come this far."""
    return expression("counter", {})


def family(number: int) -> list[Expression]:
    """Go on only for AF_INET or AF_INET6: what `ip` and `ip6` imply in an inet table."""
    return [meta(META_NFPROTO), compare(bytes((number,)))]


def source_address(number: int) -> Expression:
    """Load the source address of an AF_INET or AF_INET6 packet."""
    source, _, length = _ADDRESSES[number]
    return payload(NETWORK_HEADER, source, length)


def destination_in(
    number: int, network: bytes, length: int, negated: bool = False
) -> list[Expression]:
    """Go on only if the destination is in (or not in) the prefix of `length` bits."""
    _, destination, size = _ADDRESSES[number]
    expressions = [payload(NETWORK_HEADER, destination, size)]
    if length < size * 8:
        mask = ((1 << length) - 1) << (size * 8 - length)
        expressions.append(keep_bits(mask.to_bytes(size, "big")))
    expressions.append(compare(network, negated))
    return expressions
