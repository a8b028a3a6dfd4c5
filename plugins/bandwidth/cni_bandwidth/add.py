# SPDX-License-Identifier: Apache-2.0
"""ADD: a token bucket for each direction that is limited."""

from __future__ import annotations

from errno import EEXIST, ENODEV

from cni_bandwidth.config import limits_of
from cni_bandwidth.ifb import create_ifb, find_ifbs
from cni_bandwidth.pair import find_host_end, host_end_or_none, named_host_ends
from cni_bandwidth.qdisc import remove, remove_bucket, remove_redirection
from libcni.netlink import tc
from libcni.netlink.link import delete_link
from libcni.netlink.socket import Socket
from libcni.types.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.attachment import Attachment
    from libcni.netlink.link import Link
    from libcni.skel.request import Request
    from libcni.types.result import Result


def add(request: Request) -> Result:
    """Limit the container's traffic; returns prevResult, with the ifb device if there is one.

    Replaces what an earlier ADD made, also by nothing. Raises CniError; then nothing of it stays.
    """
    result = request.chained_result()
    receive, send = limits_of(request.config)
    sock = Socket()
    if receive is None and send is None:
        _remove_earlier(sock, request, result)
        return result
    host = find_host_end(sock, request, result)
    if receive is None:
        remove_bucket(sock, host)
    else:
        request.undo.push(remove, sock, host.index, tc.ROOT)
        sock.run(tc.new_token_bucket(host.index, receive.bucket()))
    if send is None:
        devices = find_ifbs(sock, request.attachment)
        remove_redirection(sock, host, devices)
        _delete(sock, devices)
    else:
        _remove_ifbs(sock, request.attachment)
        request.undo.push(_remove_ifbs, sock, request.attachment)
        ifb = create_ifb(sock, request.attachment, host.mtu)
        request.undo.push(remove, sock, host.index, tc.INGRESS)
        remove(sock, host.index, tc.INGRESS)
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


def _remove_earlier(sock: Socket, request: Request, result: Result) -> None:
    """The limits of an earlier ADD. Most containers never have any: for them it asks for a few
    links by their names, and does not enter the namespace."""
    devices = find_ifbs(sock, request.attachment)
    if not devices and all(link.qdisc != "tbf" for link in named_host_ends(sock, result)):
        return
    host = host_end_or_none(sock, request)
    if host is not None:
        remove_bucket(sock, host)
        remove_redirection(sock, host, devices)
    _delete(sock, devices)


def _remove_ifbs(sock: Socket, attachment: Attachment) -> None:
    _delete(sock, find_ifbs(sock, attachment))


def _delete(sock: Socket, devices: list[Link]) -> None:
    for link in devices:
        sock.batch([delete_link(index=link.index)])[0].check(ENODEV)
