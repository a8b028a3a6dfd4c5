# SPDX-License-Identifier: Apache-2.0
"""A netlink socket: batches in one system call, answers matched by sequence, dumps that hold.

It belongs to the network namespace that the thread was in when it was made, for good: enter a
namespace (`libcni.netns`), make a socket, and keep it.
"""

from __future__ import annotations

import posix
from _socket import AF_NETLINK, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket
from _struct import pack, unpack_from
from errno import EAGAIN, ENOBUFS, EPERM

from libcni.netlink.codec import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    Message,
    fields,
    malformed,
)
from libcni.types.errors import KERNEL, TRY_AGAIN_LATER, CniError

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

# linux/netlink.h
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSG_OVERRUN = 4
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
#: linux/err.h MAX_ERRNO
_MAX_ERRNO = 4095
#: linux/netfilter/nfnetlink.h: NFNL_MSG_BATCH_BEGIN and _END are answered only when they fail.
_NFNL_BATCH = (0x10, 0x11)
# asm-generic/socket.h
_SO_RCVTIMEO = 20
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

#: Seconds the kernel may take to answer what it has already been handed.
TIMEOUT = 15
#: Bytes; the answers to one batch wait in it. A dump fills it only as fast as it is read.
_RECEIVE_BUFFER = 1 << 20
#: Bytes that a socket sends at once unless told otherwise (net.core.wmem_default).
_SEND_BUFFER = 200_000
#: More than the largest datagram the kernel makes for a dump (32 KiB).
_DATAGRAM = 1 << 16
#: What a dump begins with is no larger (NLMSG_GOODSIZE). Reading it makes the kernel go on, by no
#: more than the buffer that it has seen.
_FIRST = 8192
#: Requests of one system call; the answers of more might not fit where the buffer is small.
_AT_ONCE = 64
#: Waits before a dump is tried again, in seconds; about a second in all.
_BACK_OFF = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.3)


class NetlinkError(CniError):
    """The kernel refused a request. errno: its number; text: its own words, often empty."""

    __slots__ = ("errno", "text")

    def __init__(self, doing: str, errno: int, text: str = "") -> None:
        reason = posix.strerror(errno)
        super().__init__(KERNEL, f"{doing}: {reason} ({text})" if text else f"{doing}: {reason}")
        self.errno = errno
        self.text = text


class Reply:
    """The answer to one request. error: errno or 0; items: the bodies of what it returned."""

    __slots__ = ("error", "items", "request", "text")

    def __init__(self, request: Message) -> None:
        self.request = request
        self.error = 0
        self.text = ""
        self.items: list[bytes] = []

    def check(self, *allowed: int) -> bool:
        """True when the request succeeded, False when it failed with one of the errnos allowed.

        Raises NetlinkError for any other failure.
        """
        if not self.error:
            return True
        if self.error in allowed:
            return False
        raise NetlinkError(self.request.doing, self.error, self.text)

    def item(self) -> bytes:
        """The first body of an answer that has to have one. Raises CniError 102 without."""
        if not self.items:
            raise malformed(f"{self.request.doing}: an answer that holds nothing")
        return self.items[0]


class Socket:
    """A netlink socket of the namespace this thread is in. groups: multicast groups to hear."""

    __slots__ = ("_handle", "_protocol", "_sequence")

    def __init__(self, protocol: int = NETLINK_ROUTE, groups: int = 0) -> None:
        try:
            handle = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise NetlinkError("open a netlink socket", error.errno or 0) from error
        self._handle = handle
        self._protocol = protocol
        # Events carry the sequence number of whoever caused them: keep away from those.
        self._sequence = 1 << 30 if groups else 0
        for option, value in (
            (_NETLINK_EXT_ACK, 1),
            (_NETLINK_CAP_ACK, 1),
            (_NETLINK_GET_STRICT_CHK, 1),
        ):
            try:
                handle.setsockopt(_SOL_NETLINK, option, value)
            except OSError:
                pass  # an older kernel: errors without words, dumps without filters
        try:
            handle.setsockopt(SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except OSError:
            pass  # needs CAP_NET_ADMIN, and so does whatever would need the room
        self.set_timeout(TIMEOUT)
        if groups:
            handle.bind((0, groups))
        else:
            # Connected to the kernel, the socket takes messages from nobody else.
            handle.connect((0, 0))

    def set_timeout(self, seconds: float) -> None:
        """Bound each later wait for an answer; 0 for ever."""
        whole = int(seconds)
        # One option; Python's own settimeout() would poll before every read.
        self._handle.setsockopt(
            SOL_SOCKET, _SO_RCVTIMEO, pack("@ll", whole, int((seconds - whole) * 1_000_000))
        )

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._handle.fileno()

    def close(self) -> None:
        """Close. Idempotent; an open socket also closes with the process."""
        self._handle.close()

    def batch(self, messages: list[Message]) -> list[Reply]:
        """Send requests in one system call and collect the answer to each.

        The kernel does them in order and goes on after one that failed: a request that depends
        on an earlier one must name something that only that one can have made. Refusals are in
        the replies (see `Reply.check`). Raises NetlinkError when the answers were lost (ENOBUFS)
        and CniError 11 when none came in time; what was done is then unknown.
        """
        if not messages:
            return []
        if len(messages) <= _AT_ONCE or self._protocol == NETLINK_NETFILTER:
            # An nfnetlink transaction is whole or none.
            return self._exchange(messages)
        replies = []
        for start in range(0, len(messages), _AT_ONCE):
            replies += self._exchange(messages[start : start + _AT_ONCE])
        return replies

    def run(self, *messages: Message) -> list[Reply]:
        """`batch`, then raise the first refusal as NetlinkError."""
        replies = self.batch([*messages])
        for reply in replies:
            reply.check()
        return replies

    def request(self, message: Message) -> list[bytes]:
        """Send one request; returns the bodies of what it answered. Raises NetlinkError."""
        return self.run(message)[0].items

    def dump(self, message: Message) -> list[bytes]:
        """The bodies of all messages of a dump that nothing interrupted.

        A dump during which the kernel's list changed, or whose messages were lost, is done
        again after a short wait. Raises CniError 11 when that never ends, NetlinkError when the
        kernel refuses. Returns what matches the filter in the message, if the kernel knows it.
        """
        message.flags |= NLM_F_DUMP
        for wait in _BACK_OFF:
            reply, whole = self._dump(message)
            if whole:
                reply.check()
                return reply.items
            import time

            time.sleep(wait)
        raise CniError(
            TRY_AGAIN_LATER,
            f"{message.doing}: the kernel's list changed during each of {len(_BACK_OFF)} readings",
        )

    def beginning(self, message: Message) -> list[bytes]:
        """The first bodies of a dump, as many as one datagram holds.

        The kernel makes the others as they are read, so leaving them costs nothing; but then the
        socket is of no use any more but to be closed. Raises NetlinkError.
        """
        message.flags |= NLM_F_DUMP
        reply = Reply(message)
        first = self._send([message])
        for kind, flags, sequence, body in self.receive(size=_FIRST):
            if sequence == first and kind == _NLMSG_ERROR:
                _read_error(reply, flags, body)
            elif sequence == first and kind > _NLMSG_OVERRUN:
                reply.items.append(body)
        reply.check()
        return reply.items

    def receive(
        self, wait: bool = True, size: int = _DATAGRAM
    ) -> list[tuple[int, int, int, bytes]]:
        """Wait for one datagram: (type, flags, sequence, body) of each message in it.

        Without `wait`, none when nothing is there. size: of the buffer. Raises NetlinkError
        ENOBUFS when messages were lost, CniError 11 when time is up.
        """
        try:
            data = self._handle.recv(size, 0 if wait else MSG_DONTWAIT)
        except OSError as error:
            if error.errno == EAGAIN:
                if not wait:
                    return []
                raise CniError(
                    TRY_AGAIN_LATER, "the kernel did not answer in time", f"{TIMEOUT} s allowed"
                ) from None
            raise NetlinkError("read from netlink", error.errno or 0) from error
        messages = []
        offset = 0
        while offset + 16 <= len(data):
            size, kind, flags, sequence = unpack_from("=IHHI", data, offset)
            if size < 16:
                break
            messages.append((kind, flags, sequence, data[offset + 16 : offset + size]))
            offset += (size + 3) & ~3
        return messages

    def _send(self, messages: list[Message]) -> int:
        """Hand requests to the kernel; returns the sequence number of the first."""
        first = sequence = self._sequence + 1
        parts = []
        for message in messages:
            body = message.body
            parts.append(
                pack("=IHHII", 16 + len(body), message.type, message.flags, sequence, 0) + body
            )
            sequence += 1
        self._sequence = sequence - 1
        data = b"".join(parts)
        try:
            if len(data) > _SEND_BUFFER:
                self._handle.setsockopt(SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data))
            self._handle.send(data)
        except OSError as error:
            raise NetlinkError(messages[0].doing, error.errno or 0) from error
        return first

    def _exchange(self, messages: list[Message]) -> list[Reply]:
        replies = [Reply(message) for message in messages]
        first = self._send(messages)
        waiting = set(range(len(messages)))
        if self._protocol == NETLINK_NETFILTER:
            for position, message in enumerate(messages):
                if message.type in _NFNL_BATCH:
                    waiting.discard(position)
        while waiting:
            for kind, flags, sequence, body in self.receive():
                position = sequence - first
                if position < 0 or position >= len(replies):
                    continue  # left over from an exchange that was given up
                reply = replies[position]
                if kind == _NLMSG_ERROR:
                    _read_error(reply, flags, body)
                    waiting.discard(position)
                    if self._protocol == NETLINK_NETFILTER and (
                        messages[position].type in _NFNL_BATCH
                        or (reply.error == EPERM and not position)
                    ):
                        # Refused as a whole, the transaction or, without CAP_NET_ADMIN, all
                        # that one system call sent: nothing else is answered.
                        for other in waiting:
                            replies[other].error = reply.error
                            replies[other].text = reply.text
                        waiting.clear()
                        break
                elif kind == _NLMSG_DONE:
                    waiting.discard(position)
                elif kind == _NLMSG_OVERRUN:
                    raise NetlinkError(messages[position].doing, ENOBUFS)
                else:
                    reply.items.append(body)
                    if not flags & NLM_F_MULTI and not messages[position].flags & NLM_F_ACK:
                        waiting.discard(position)
        return replies

    def _dump(self, message: Message) -> tuple[Reply, bool]:
        """Read one dump to its end: the reply, and whether it can be trusted."""
        reply = Reply(message)
        whole = True
        first = self._send([message])
        while True:
            try:
                messages = self.receive()
            except NetlinkError as error:
                if error.errno != ENOBUFS:
                    raise
                whole = False
                continue
            for kind, flags, sequence, body in messages:
                if sequence != first:
                    continue
                if flags & NLM_F_DUMP_INTR:
                    whole = False
                if kind == _NLMSG_ERROR:
                    _read_error(reply, flags, body)
                    return reply, True
                if kind == _NLMSG_DONE:
                    if len(body) >= 4:
                        # What is not negative is no error, but what the dump has counted.
                        reply.error = _errno(body) if unpack_from("=i", body)[0] < 0 else 0
                        if flags & _NLM_F_ACK_TLVS:
                            reply.text = _text(body, 4)
                    return reply, whole
                if kind == _NLMSG_OVERRUN:
                    whole = False
                else:
                    reply.items.append(body)


def _read_error(reply: Reply, flags: int, body: bytes) -> None:
    """Read nlmsgerr: the errno, and the kernel's words behind the (perhaps cut) request."""
    reply.error = _errno(body)
    if flags & _NLM_F_ACK_TLVS:
        request = 16 if flags & _NLM_F_CAPPED else fields("=I", body, 4)[0]
        reply.text = _text(body, 4 + ((request + 3) & ~3))


def _errno(body: bytes) -> int:
    """The errno that an answer begins with, as its negative. Raises CniError 102 for none."""
    number: int = -fields("=i", body)[0]
    if not 0 <= number <= _MAX_ERRNO:
        raise malformed(f"an answer with the error {-number}")
    return number


def _text(body: bytes, offset: int) -> str:
    while offset + 4 <= len(body):
        size, number = unpack_from("=HH", body, offset)
        if size < 4:
            break
        if number == _NLMSGERR_ATTR_MSG:
            return body[offset + 4 : offset + size].rstrip(b"\0").decode("utf-8", "replace")
        offset += (size + 3) & ~3
    return ""
