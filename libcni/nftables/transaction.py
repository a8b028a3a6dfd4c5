# SPDX-License-Identifier: Apache-2.0
"""Atomic changes of the nftables rule set.

A commit either happens as a whole or not at all. It may be bound to a generation of the rule
set: if anybody has changed the rule set since that generation was read, the kernel refuses the
commit (ERESTART) and the caller looks again. Source: linux/netfilter/nfnetlink.h,
net/netfilter/nfnetlink.c.

Closing the socket waits for the kernel's destruction of whatever was deleted in this network
namespace just before, 8-16 ms of RCU grace period. Who deletes keeps the socket open until it
has started its other waits, so that they run side by side; see `libcni.ipmasq`.
"""

from __future__ import annotations

import posix
from _struct import pack
from errno import (
    EAFNOSUPPORT,
    EAGAIN,
    EBUSY,
    EINTR,
    EINVAL,
    EOPNOTSUPP,
    EPROTONOSUPPORT,
    ERESTART,
)

from libcni.netlink.codec import NLM_F_REQUEST, Message, fields
from libcni.netlink.socket import NETLINK_NETFILTER, NetlinkError, Reply, Socket
from libcni.netlink.tables.nft import GENERATION
from libcni.types.errors import TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: enum nfproto: the families of tables
INET = 1
IPV4 = 2
BRIDGE = 7
IPV6 = 10

#: NFNL_SUBSYS_NFTABLES as the high byte of a message type
NFTABLES = 10 << 8
_NEW_RULE = NFTABLES | 6
_GET_GENERATION = NFTABLES | 16
#: The multicast group NFNLGRP_NFTABLES.
_CHANGES = 7
_BATCH_BEGIN = 16
_BATCH_END = 17
_NFNL_BATCH_GENID = 1
#: The layout of the two messages around a batch; their res_id is the subsystem.
_BATCH = (">BBH", {"NFNL_BATCH_GENID": (_NFNL_BATCH_GENID, ">I")})
#: How many messages one commit takes; `Socket.batch` sends no more in one system call.
LIMIT = 60

#: Refusals after which the same change may succeed, after another look at the rule set.
TRANSIENT = (ERESTART, EAGAIN, EBUSY, EINTR)
#: Refusals of a kernel that has no nftables, or not what was asked of it.
UNSUPPORTED = (EOPNOTSUPP, EPROTONOSUPPORT, EAFNOSUPPORT)
#: Refusals of any question to a kernel without nftables; EINVAL is nfnetlink's own, for a part
#: of it that is not there. A lack of CAP_NET_ADMIN (EPERM) says nothing of what there is.
MISSING = (EINVAL, *UNSUPPORTED)


def open_socket() -> Socket:
    """An nfnetlink socket of this thread's network namespace. Raises NetlinkError."""
    return Socket(NETLINK_NETFILTER)


def find_socket() -> Socket | None:
    """`open_socket`, or None in a kernel without nfnetlink. Raises NetlinkError."""
    try:
        return open_socket()
    except NetlinkError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise


def is_missing() -> bool:
    """True if this kernel has no nftables; a refusal of another kind (EPERM) does not say so."""
    sock = find_socket()
    if sock is None:
        return True
    try:
        return sock.batch([get_generation()])[0].error in MISSING
    finally:
        sock.close()


def listen() -> Socket:
    """A socket that hears of everybody's changes in this namespace. Raises NetlinkError."""
    return Socket(NETLINK_NETFILTER, groups=1 << (_CHANGES - 1))


def rules_heard(sock: Socket) -> list[bytes]:
    """The rules that were made since `listen` or the last call, raw; without waiting.

    A commit has told of all of its changes by the time that it is over. Raises NetlinkError
    ENOBUFS when the kernel had more to tell than the socket takes.
    """
    heard = []
    while events := sock.receive(wait=False):
        heard += [body for kind, _, _, body in events if kind == _NEW_RULE]
    return heard


def get_generation() -> Message:
    """Ask for the generation of the rule set; read the answer by `generation`."""
    return Message(
        _GET_GENERATION, NLM_F_REQUEST, "nftables: generation", GENERATION, (0, 0, 0), {}
    )


def generation(reply: Reply) -> int:
    """The number that `get_generation` asked for, never 0. Raises NetlinkError."""
    reply.check()
    # nfgenmsg, then NFTA_GEN_ID, which the kernel always sends first.
    number: int = fields(">I", reply.item(), 8)[0]
    return number


def commit(sock: Socket, messages: list[Message], generation: int = 0) -> list[Reply]:
    """Do all of the messages or none; returns the reply to each.

    All succeeded, or nothing changed: then at least one reply has an errno. generation: refuse
    with ERESTART when the rule set is no longer of it; 0 for any. At most LIMIT messages.
    """
    begin = Message(
        _BATCH_BEGIN,
        NLM_F_REQUEST,
        "nftables: begin a transaction",
        _BATCH,
        (0, 0, NFTABLES >> 8),
        {"NFNL_BATCH_GENID": generation or None},
    )
    end = Message(_BATCH_END, NLM_F_REQUEST, "", _BATCH, (0, 0, NFTABLES >> 8), {})
    replies = sock.batch([begin, *messages, end])
    if replies[0].error:
        # Refused as a whole; replies that the kernel had sent before do not count.
        for reply in replies:
            reply.error = replies[0].error
    return replies[1:-1]


def refused(replies: list[Reply], *allowed: int) -> set[int]:
    """The errnos of a commit's replies, all of which are among those allowed; empty: it is done.

    Raises NetlinkError for the first refusal that is not.
    """
    errors = set()
    for reply in replies:
        if reply.error:
            if reply.error not in allowed:
                reply.check()
            errors.add(reply.error)
    return errors


def attempts(doing: str) -> Iterator[None]:
    """Loop over the attempts at a change that others' changes may thwart, about 2 s in all.

    Raises CniError 11 when the attempts are used up.
    """
    for attempt in range(200):
        if attempt > 4:
            import time

            # Not in step with the others that wait.
            time.sleep(0.002 + posix.getrandom(1)[0] / 16000)
        yield
    raise CniError(TRY_AGAIN_LATER, f"{doing}: the rule set keeps changing")


def comment_of(text: str) -> bytes:
    """User data that `nft` shows as the comment of a table, chain, rule or element.

    It is a list of (type, length, value); 0 is the comment of all of these (libnftnl/udata.h).
    At most 127 bytes of text; the rest is cut.
    """
    value = text.encode()[:127] + b"\0"
    return pack("=BB", 0, len(value)) + value
