# SPDX-License-Identifier: Apache-2.0
"""The expressions that nftables rules are made of.

Source: linux/netfilter/nf_tables.h, checked against what `nft --debug=netlink` shows; all of it
reads back as ordinary text in `nft list ruleset`. Registers 1 to 4 hold 16 bytes each.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from _struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Expression = dict[str, Any]

#: enum nft_payload_bases
LINK_HEADER = 0
NETWORK_HEADER = 1
TRANSPORT_HEADER = 2
#: enum nft_meta_keys
META_IIFNAME = 6
META_NFPROTO = 15
META_L4PROTO = 16
#: linux/netfilter.h and enum nft_verdicts
DROP = 0
ACCEPT = 1
JUMP = -3
RETURN = -5

#: Where an IP header holds its addresses: family -> (source offset, destination offset, length).
ADDRESSES = {AF_INET: (12, 16, 4), AF_INET6: (8, 24, 16)}


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


def jump(chain: str) -> Expression:
    """Go on in another chain, and come back at its end."""
    data = {"NFTA_VERDICT_CODE": JUMP, "NFTA_VERDICT_CHAIN": chain}
    return expression(
        "immediate",
        {"NFTA_IMMEDIATE_DREG": 0, "NFTA_IMMEDIATE_DATA": {"NFTA_DATA_VERDICT": data}},
    )


def translate_by(map_name: str) -> Expression:
    """Look up the value that starts in register 1; go on only if found, with its data there."""
    return expression(
        "lookup",
        {"NFTA_LOOKUP_SET": map_name, "NFTA_LOOKUP_SREG": 1, "NFTA_LOOKUP_DREG": 1},
    )


def destination_nat(number: int, port_register: int) -> Expression:
    """Translate the destination to the AF_INET or AF_INET6 address in register 1, and a port.

    A packet of the other family passes.
    """
    return expression(
        "nat",
        {
            "NFTA_NAT_TYPE": 1,
            "NFTA_NAT_FAMILY": number,
            "NFTA_NAT_REG_ADDR_MIN": 1,
            "NFTA_NAT_REG_PROTO_MIN": port_register,
        },
    )


def destination_is_local() -> list[Expression]:
    """Go on only if the routing tables say that the destination is an address of this host."""
    # NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR; RTN_LOCAL in the order of the processor.
    result = {"NFTA_FIB_DREG": 1, "NFTA_FIB_RESULT": 3, "NFTA_FIB_FLAGS": 2}
    return [expression("fib", result), compare(pack("=I", 2))]


def destination_was_translated() -> list[Expression]:
    """Go on only if the connection's destination was translated (ct status dnat)."""
    # NFT_CT_STATUS, IPS_DST_NAT.
    return [
        expression("ct", {"NFTA_CT_DREG": 1, "NFTA_CT_KEY": 2}),
        keep_bits(pack("=I", 0x20)),
        compare(bytes(4), negated=True),
    ]


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
    source, _, length = ADDRESSES[number]
    return payload(NETWORK_HEADER, source, length)


def destination_address(number: int, register: int = 1) -> Expression:
    """Load the destination address of an AF_INET or AF_INET6 packet."""
    _, destination, length = ADDRESSES[number]
    return payload(NETWORK_HEADER, destination, length, register)


def source_in(number: int, network: bytes, length: int, negated: bool = False) -> list[Expression]:
    """Go on only if the source is in (or not in) the prefix of `length` bits."""
    return _in(ADDRESSES[number][0], ADDRESSES[number][2], network, length, negated)


def destination_in(
    number: int, network: bytes, length: int, negated: bool = False
) -> list[Expression]:
    """Go on only if the destination is in (or not in) the prefix of `length` bits."""
    return _in(ADDRESSES[number][1], ADDRESSES[number][2], network, length, negated)


def _in(offset: int, size: int, network: bytes, length: int, negated: bool) -> list[Expression]:
    expressions = [payload(NETWORK_HEADER, offset, size)]
    if length < size * 8:
        mask = ((1 << length) - 1) << (size * 8 - length)
        expressions.append(keep_bits(mask.to_bytes(size, "big")))
    expressions.append(compare(network, negated))
    return expressions
