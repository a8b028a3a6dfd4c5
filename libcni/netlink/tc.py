# SPDX-License-Identifier: Apache-2.0
"""Traffic control: a token bucket on a link, and sending on what comes in at another.

Rates are bytes/s, sizes bytes, times ticks of 64 ns as the kernel counts (net/pkt_sched.h,
PSCHED_SHIFT). Source: linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h.
"""

from __future__ import annotations

from _struct import pack

from libcni.netlink.codec import (
    CHANGE,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    Message,
    Reader,
    fields,
)
from libcni.netlink.socket import Socket
from libcni.netlink.tables.tc import TRAFFIC, TRAFFIC_ATTRIBUTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEW_QDISC, _DELETE_QDISC, _GET_QDISC = 36, 37, 38
_NEW_FILTER, _GET_FILTER = 44, 46
#: Parents, and the handles by which the reference's qdiscs are known.
ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_ROOT_HANDLE, INGRESS_HANDLE = 0x00010000, 0xFFFF0000
#: ETH_P_ALL in network byte order; with priority 1.
_ALL = 0x0300
_FIRST_OF_ALL = 1 << 16 | _ALL
_TICK = 64
_LARGEST = (1 << 32) - 1
#: TC_LINKLAYER_ETHERNET: the kernel then needs no table of transmission times.
_ETHERNET = 1
#: TC_U32_TERMINAL, one key that matches everything: struct tc_u32_sel, struct tc_u32_key.
_MATCH_ALL = pack("=BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
#: TC_ACT_STOLEN, TCA_EGRESS_REDIR.
_STOLEN, _REDIRECT = 4, 1

_READER = Reader(
    "TCA_KIND",
    "TCA_OPTIONS",
    "TCA_U32_SEL",
    "TCA_TBF_PARMS",
    "TCA_TBF_RATE64",
    "TCA_U32_ACT",
    "TCA_ACT_KIND",
    "TCA_ACT_OPTIONS",
    "TCA_MIRRED_PARMS",
)


class TokenBucket:
    """rate: bytes/s. buffer: ticks that the bucket's content takes at that rate. limit: bytes
    that may wait. Comparable."""

    __slots__ = ("buffer", "limit", "rate")

    def __init__(self, rate: int, buffer: int, limit: int) -> None:
        self.rate = rate
        self.buffer = buffer
        self.limit = limit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenBucket) and (self.rate, self.buffer, self.limit) == (
            other.rate,
            other.buffer,
            other.limit,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # In bits, as configurations and tc have it.
        burst = self.rate * 8 * self.buffer * _TICK // 1_000_000_000
        return f"rate {self.rate * 8} bit/s, burst {burst} bit, {self.limit} bytes may wait"


def token_bucket(rate: int, burst: int, latency: float) -> TokenBucket:
    """The bucket for a rate, with room for `burst` bytes at once and `latency` seconds of queue.

    What the kernel's fields cannot hold is cut to the largest that they can.
    """
    buffer = burst * 1_000_000_000 // rate // _TICK
    return TokenBucket(
        rate, max(min(buffer, _LARGEST), 1), min(int(rate * latency) + burst, _LARGEST)
    )


def new_token_bucket(index: int, bucket: TokenBucket) -> Message:
    """Make a link send at most so much; in the place of the bucket it may have. Idempotent."""
    values = (0, _ETHERNET, 0, 0, 0, min(bucket.rate, _LARGEST), 0, 0, 0, 0, 0, 0)
    options: dict[str, Any] = {"TCA_TBF_PARMS": (*values, bucket.limit, bucket.buffer, 0)}
    if bucket.rate > _LARGEST:
        options["TCA_TBF_RATE64"] = bucket.rate
    return _message(
        _NEW_QDISC,
        CHANGE | NLM_F_CREATE | NLM_F_REPLACE,
        f"limit link {index} to {bucket.rate} B/s",
        (index, _ROOT_HANDLE, ROOT, 0),
        {"TCA_KIND": "tbf", "TCA_OPTIONS": options},
    )


def new_ingress(index: int) -> Message:
    """Let what a link receives be looked at. EEXIST if that is so already."""
    return _message(
        _NEW_QDISC,
        CHANGE | NLM_F_CREATE | 0x200,
        f"make an ingress qdisc on link {index}",
        (index, INGRESS_HANDLE, INGRESS, 0),
        {"TCA_KIND": "ingress"},
    )


def new_redirection(index: int, target: int) -> Message:
    """Send all that a link with an ingress qdisc receives out of link `target` instead."""
    action = {
        "TCA_ACT_KIND": "mirred",
        "TCA_ACT_OPTIONS": {"TCA_MIRRED_PARMS": (0, 0, _STOLEN, 0, 0, _REDIRECT, target)},
    }
    return _message(
        _NEW_FILTER,
        CHANGE | NLM_F_CREATE | 0x200,
        f"redirect what link {index} receives to link {target}",
        (index, 0, INGRESS_HANDLE, _FIRST_OF_ALL),
        {
            "TCA_KIND": "u32",
            "TCA_OPTIONS": {
                "TCA_U32_CLASSID": 0x00010001,
                "TCA_U32_SEL": _MATCH_ALL,
                "TCA_U32_ACT": [action],
            },
        },
    )


def delete_qdisc(index: int, parent: int) -> Message:
    """Remove the qdisc at ROOT or INGRESS, with its filters. ENOENT or EINVAL if there is none."""
    handle = INGRESS_HANDLE if parent == INGRESS else 0
    return _message(
        _DELETE_QDISC, CHANGE, f"remove a qdisc of link {index}", (index, handle, parent, 0), {}
    )


def find_token_bucket(sock: Socket, index: int) -> TokenBucket | None:
    """The token bucket at a link's root, None if another qdisc is there. Raises NetlinkError."""
    for parent, _, values in _dump_qdiscs(sock, index):
        if parent == ROOT and values.get("TCA_KIND") == "tbf":
            options = _nest(values, "TCA_OPTIONS")
            parameters = options.get("TCA_TBF_PARMS")
            if parameters:
                rate = options.get("TCA_TBF_RATE64", parameters[5])
                return TokenBucket(rate, parameters[13], parameters[12])
    return None


def has_own_bucket(sock: Socket, index: int) -> bool:
    """True when the qdisc at a link's root is a token bucket as `new_token_bucket` makes it, and
    the reference: by its handle, which the kernel gives to none by itself. Raises NetlinkError."""
    return any(
        parent == ROOT and handle == _ROOT_HANDLE and values.get("TCA_KIND") == "tbf"
        for parent, handle, values in _dump_qdiscs(sock, index)
    )


def root_qdisc(sock: Socket, index: int) -> str:
    """The kind of qdisc at a link's root, as tc calls it; "" for none. Raises NetlinkError."""
    for parent, _, values in _dump_qdiscs(sock, index):
        if parent == ROOT:
            return values.get("TCA_KIND") or ""
    return ""


def has_ingress(sock: Socket, index: int) -> bool:
    """True when the link has an ingress qdisc. Raises NetlinkError."""
    return any(parent == INGRESS for parent, _, _ in _dump_qdiscs(sock, index))


def redirections(sock: Socket, index: int, entire: bool = False) -> list[int]:
    """The links to which filters of the link's ingress qdisc redirect. Raises NetlinkError.

    entire: only of the filters that pass nothing over.
    """
    message = _message(
        _GET_FILTER,
        NLM_F_REQUEST,
        f"list filters of link {index}",
        (index, 0, INGRESS_HANDLE, 0),
        {},
    )
    found = []
    for body in sock.dump(message):
        options = _nest(_READER.read(TRAFFIC_ATTRIBUTES, body, 20), "TCA_OPTIONS")
        if entire and not (fields("=I", body, 16)[0] & 0xFFFF == _ALL and _is_entire(options)):
            continue
        for action in options.get("TCA_U32_ACT") or ():
            parameters = _nest(action, "TCA_ACT_OPTIONS").get("TCA_MIRRED_PARMS")
            if parameters and parameters[5] == _REDIRECT:
                found.append(parameters[6])
    return found


def _is_entire(options: dict[str, Any]) -> bool:
    """True when the keys of a u32 filter, struct tc_u32_key behind a struct tc_u32_sel, have no
    mask, and what they match goes no further (TC_U32_TERMINAL)."""
    selector: bytes = options.get("TCA_U32_SEL") or b""
    return selector[:1] == _MATCH_ALL[:1] and not any(selector[16:])


def _nest(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The attributes in a nest; none where its kind is not known, so that it came as bytes."""
    nest = values.get(name)
    return nest if nest.__class__ is dict else {}


def _dump_qdiscs(sock: Socket, index: int) -> list[tuple[int, int, dict[str, Any]]]:
    """(parent, handle, attributes) of each qdisc of a link."""
    message = _message(
        _GET_QDISC, NLM_F_REQUEST, f"list qdiscs of link {index}", (index, 0, 0, 0), {}
    )
    found = []
    for body in sock.dump(message):
        link, handle, parent = fields("=iII", body, 4)
        # A kernel without strict checking lists those of all links.
        if link == index:
            found.append((parent, handle, _READER.read(TRAFFIC_ATTRIBUTES, body, 20)))
    return found


def _message(
    type: int,
    flags: int,
    doing: str,
    place: tuple[int, int, int, int],
    attributes: dict[str, Any],
) -> Message:
    """place: index, handle, parent, info of struct tcmsg."""
    return Message(type, flags, doing, TRAFFIC, (0, 0, 0, *place), attributes)
