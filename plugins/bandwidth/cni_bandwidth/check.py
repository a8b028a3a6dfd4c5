# SPDX-License-Identifier: Apache-2.0
"""CHECK: both limits are in force; nothing else is looked at."""

from __future__ import annotations

from cni_bandwidth.config import limits_of
from cni_bandwidth.ifb import find_ifbs
from cni_bandwidth.pair import find_host_end
from libcni.interface.verify import differs
from libcni.netlink import tc
from libcni.netlink.socket import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bandwidth.config import Limit
    from libcni.skel.request import Request


def check(request: Request) -> None:
    """Raise CniError 103 naming the link, what was expected and what was found."""
    result = request.require_prev_result()
    receive, send = limits_of(request.config)
    if receive is None and send is None:
        return
    sock = Socket()
    host = find_host_end(sock, request, result)
    if receive is not None:
        _check_bucket(sock, host.name, host.index, receive)
    if send is None:
        return
    devices = find_ifbs(sock, request.attachment)
    if not devices:
        raise differs(f"ifb device for what {request.ifname} sends", "one", "none")
    ifb = devices[0]
    if not ifb.is_up:
        raise differs(f"ifb device {ifb.name}", "up", "down")
    if ifb.mtu != host.mtu:
        raise differs(f"MTU of {ifb.name}", host.mtu, ifb.mtu)
    _check_bucket(sock, ifb.name, ifb.index, send)
    if not tc.has_ingress(sock, host.index):
        raise differs(f"ingress qdisc of {host.name}", "one", "none")
    if ifb.index not in tc.redirections(sock, host.index, entire=True):
        found = "of a part of it" if ifb.index in tc.redirections(sock, host.index) else "none"
        raise differs(f"redirection of what {host.name} receives", f"to {ifb.name}", found)


def _check_bucket(sock: Socket, name: str, index: int, limit: Limit) -> None:
    wanted, found = limit.bucket(), tc.find_token_bucket(sock, index)
    if found is None:
        kind = tc.root_qdisc(sock, index) or "none"
        raise differs(f"qdisc of {name}", f"tbf with {wanted}", kind)
    # Go, and kernels with another tick, round the buffer in their own ways, by a microsecond.
    near = abs(wanted.buffer - found.buffer) * 64 <= 1000 + wanted.buffer // 1000
    if wanted.rate != found.rate or wanted.limit != found.limit or not near:
        raise differs(f"qdisc of {name}", f"tbf with {wanted}", f"{found}")
