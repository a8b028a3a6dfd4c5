# SPDX-License-Identifier: Apache-2.0
"""ADD: a token bucket for each direction that is limited."""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENODEV, ENOENT

from cni_bandwidth.config import limits_of
from cni_bandwidth.ifb import create_ifb, find_ifbs
from cni_bandwidth.pair import find_host_end
from libcni.netlink import tc
from libcni.netlink.link import delete_link
from libcni.netlink.socket import Socket
from libcni.types.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.skel.request import Request
    from libcni.types.result import Result


def add(request: Request) -> Result:
    """Limit the container's traffic; returns prevResult, with the ifb device if there is one.

    Replaces what an earlier ADD made. Raises CniError; then nothing of it stays.
    """
    result = request.chained_result()
    receive, send = limits_of(request.config)
    if receive is None and send is None:
        return result
    sock = Socket()
    host = find_host_end(sock, request, result)
    if receive is not None:
        request.undo.push(_remove_qdisc, sock, host.index, tc.ROOT)
        sock.run(tc.new_token_bucket(host.index, receive.bucket()))
    if send is not None:
        _remove_ifbs(sock, request.attachment)
        request.undo.push(_remove_ifbs, sock, request.attachment)
        ifb = create_ifb(sock, request.attachment, host.mtu)
        request.undo.push(_remove_qdisc, sock, host.index, tc.INGRESS)
        _remove_qdisc(sock, host.index, tc.INGRESS)
        replies = sock.batch(
            [
                tc.new_token_bucket(ifb.index, send.bucket()),
                tc.new_ingress(host.index),
                tc.new_redirection(host.index, ifb.index),
            ]
        )
        replies[0].check()
        replies[1].check(EEXIST)
        replies[2].check()
        result.interfaces.append(Interface(ifb.name, ifb.mac, ifb.mtu))
    return result


def _remove_qdisc(sock: Socket, index: int, parent: int) -> None:
    sock.batch([tc.delete_qdisc(index, parent)])[0].check(ENOENT, EINVAL, ENODEV)


def _remove_ifbs(sock: Socket, attachment: Attachment) -> None:
    for link in find_ifbs(sock, attachment):
        sock.batch([delete_link(index=link.index)])[0].check(ENODEV)
