# SPDX-License-Identifier: Apache-2.0
"""`vxlan-overlayd check`: does every peer answer through the tunnel, and if not, why.

A peer's VTEP has the network address of its subnet, so that its kernel answers itself. A full
packet that comes back says that both ways are open for packets of that size.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import errno
import json
import math
import sys
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from cni_vxlan_overlay.agent.node_state import (
    NodeState,
    NoState,
    PeerState,
    SubnetState,
    read_node_state,
)
from cni_vxlan_overlay.agent.probe import SMALLEST, NotSent, Prober
from cni_vxlan_overlay.agent.settings import COMMANDS
from cni_vxlan_overlay.agent.status_command import (
    BROKEN,
    NO_STATE,
    WHOLE,
    console,
    fail,
    parser,
    plain_table,
)
from libcni.inet import ntop

#: Peers that are asked at the same time.
_AT_ONCE = 64
#: Tries before an answer counts as missing: one packet may be lost.
_TRIES = 2


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one peer's address. rtt: seconds, None if it does not work. reason: then why,
    with what to do."""

    peer: str
    address: str
    rtt: float | None
    reason: str = ""


def run(argv: list[str]) -> int:
    """Probe, and print the table, or JSON; the exit status."""
    options = _options(argv)
    try:
        answers = asyncio.run(_check(options))
    except (NoState, NetlinkError) as error:
        return fail("check", error)
    except PermissionError:
        words = "it has to be run as root, or with CAP_NET_RAW and CAP_NET_ADMIN"
        print(f"vxlan-overlayd check: {words}", file=sys.stderr)
        return NO_STATE
    if options.output == "json":
        print(json.dumps(document(answers), indent=2))
    else:
        show(answers)
    return WHOLE if all(answer.rtt is not None for answer in answers) else BROKEN


def _options(argv: list[str]) -> argparse.Namespace:
    made = parser("check", COMMANDS["check"])
    made.add_argument(
        "--timeout", type=_seconds, default=2.0, help="seconds for each answer (default 2)"
    )
    made.add_argument("--peer", action="append", help="only this one; may be repeated")
    return made.parse_args(argv)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, and at most 60")
    return value


async def _check(options: argparse.Namespace) -> list[Answer]:
    state = await read_node_state(options.state_file)
    names = [peer.node.name for peer in state.peers]
    for name in options.peer or ():
        if name not in names:
            raise NoState(f"there is no peer {name!r}; there are: {', '.join(names) or 'none'}")
    limit = asyncio.Semaphore(_AT_ONCE)
    async with Prober() as prober:
        inquiry = Inquiry(state, prober, options.timeout)

        async def ask(peer: PeerState, subnet: SubnetState) -> Answer:
            async with limit:
                return await inquiry.ask(peer, subnet)

        return list(
            await asyncio.gather(
                *[
                    ask(peer, subnet)
                    for peer in state.peers
                    if not options.peer or peer.node.name in options.peer
                    for subnet in peer.subnets
                ]
            )
        )


class Inquiry:
    """Asks peers, and finds out why one does not answer. timeout: seconds for each answer."""

    def __init__(self, state: NodeState, prober: Prober, timeout: float) -> None:
        self._state = state
        self._prober = prober
        self._timeout = timeout

    async def ask(self, peer: PeerState, subnet: SubnetState) -> Answer:
        """One address of a peer."""
        address = ntop(subnet.subnet.packed)
        name = peer.node.name
        if peer.problem:  # what answers there is somebody else
            return Answer(name, address, None, f"it is not used: {peer.problem}")
        device = next((d for d in self._state.devices if d.name == subnet.device), None)
        if device is not None and device.problem:  # an answer could come by another way
            reason = f"device {device.name} {device.problem}{self._repair()}"
            return Answer(name, address, None, reason)
        code = 0
        try:
            rtt = await self._echo(address, self._state.mtu)
            if rtt is not None:
                return Answer(name, address, rtt)
        except NotSent as error:
            code = error.code
        reason = self._local(subnet)
        if not reason and code not in (0, errno.EMSGSIZE):
            reason = self._unsent(code, address)
        return Answer(name, address, None, reason or await self._why(peer, subnet, address))

    async def _echo(self, address: str, size: int) -> float | None:
        for _ in range(_TRIES):
            rtt = await self._prober.echo(address, size, self._timeout)
            if rtt is not None:
                return rtt
        return None

    def _local(self, subnet: SubnetState) -> str:
        """What is wrong with the entries on this node, "" if nothing is."""
        for what, is_there in (
            ("route", subnet.route),
            ("neighbour", subnet.neighbour),
            ("forwarding entry", subnet.forwarding),
        ):
            if is_there is False:
                return f"its {what} is missing here, or not as it should be{self._repair()}"
        return ""

    def _repair(self) -> str:
        if self._state.is_running:
            return "; the agent runs and repairs this: see its log if it stays so"
        return "; the agent does not run: start vxlan-overlayd"

    def _unsent(self, code: int, address: str) -> str:
        """Why the kernel does not send, though all that is ours is there."""
        match code:
            case errno.EPERM:
                return "the firewall of this node drops it: look at the output chains"
            # The latter two: routes of the types blackhole and prohibit.
            case errno.ENETUNREACH | errno.EHOSTUNREACH | errno.EINVAL | errno.EACCES:
                return (
                    "another route or rule of this node takes its packets: see `ip route get "
                    f"{address}`"
                )
        return f"it could not be sent: {NotSent(code)}"

    async def _why(self, peer: PeerState, subnet: SubnetState, address: str) -> str:
        """Why there is no answer to a full packet from a peer for which all is well here."""
        endpoint = peer.node.peer.endpoint_for(
            subnet.subnet, [device.is_ipv6 for device in self._state.devices]
        )
        if endpoint is None:
            return "this node and that one have no address of the same family"
        public = endpoint.public_ip
        (passes, code), (reached, public_code) = await asyncio.gather(
            self._small(address), self._small(public)
        )
        if passes:
            return await self._limit(
                address, (70 if endpoint.is_ipv6 else 50) * bool(subnet.device)
            )
        if code:
            return self._unsent(code, address)
        if public_code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return f"there is no route to its underlay address {public}"
        if not reached:
            return (
                f"no answer from its underlay address {public}: the node is down or cut off, or "
                "does not answer pings"
            )
        if not subnet.device:
            return (
                f"{public} answers, but nothing behind it, where a direct route leads: does the "
                "network between the nodes let pods' addresses through, and does the agent run "
                "on the other one?"
            )
        return (
            f"{public} answers, but nothing comes through the tunnel: no reply on "
            f"UDP/{self._state.port} from there; is that port open between the nodes, and "
            "does the agent run on the other one?"
        )

    async def _small(self, address: str) -> tuple[bool, int]:
        """Whether it answers small packets; the errno if they could not be sent, else 0."""
        try:
            return await self._echo(address, SMALLEST) is not None, 0
        except NotSent as error:
            return False, error.code

    async def _limit(self, address: str, overhead: int) -> str:
        """What becomes of a peer that answers small packets. overhead: bytes that the tunnel
        adds; the configuration speaks of the underlay's MTU."""
        largest = await self._largest(address)
        with contextlib.suppress(NotSent):
            if await self._echo(address, self._state.mtu) is not None:
                return (
                    "packets of all sizes come through, but some are lost: look at errors and "
                    "load of the underlay on both nodes"
                )
        return (
            f"packets of {largest} bytes come through, larger ones do not: the MTU on the "
            f"way is smaller than this overlay's {self._state.mtu} needs; set MTU in "
            f"{self._state.source} to {largest + overhead}"
        )

    async def _largest(self, address: str) -> int:
        """The largest packet that comes back; the smallest does, the full one does not."""
        good, bad = SMALLEST, self._state.mtu
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                answered = await self._echo(address, middle) is not None
            except NotSent:
                answered = False
            good, bad = (middle, bad) if answered else (good, middle)
        return good


def document(answers: list[Answer]) -> dict[str, Any]:
    """All of it for scripts; keys are added to, and do not change."""
    return {
        "ok": all(answer.rtt is not None for answer in answers),
        "peers": [
            {
                "name": answer.peer,
                "address": answer.address,
                "ok": answer.rtt is not None,
                "rttMilliseconds": None if answer.rtt is None else round(answer.rtt * 1000, 3),
                "reason": answer.reason,
            }
            for answer in answers
        ],
    }


def show(answers: list[Answer]) -> None:
    """The table."""
    out = console()
    if not answers:
        out.print("there are no other nodes yet: nothing to check")
        return
    table = plain_table("NODE", "ADDRESS", "RESULT")
    for answer in answers:
        result = answer.reason
        if answer.rtt is not None:
            digits = max(0, 2 - math.floor(math.log10(max(answer.rtt * 1000, 0.001))))
            result = f"ok, {answer.rtt * 1000:.{min(digits, 3)}f} ms"
        table.add_row(answer.peer, answer.address, result)
    out.print(table)
