# SPDX-License-Identifier: Apache-2.0
"""ADD: `lo` up. The reference acts on `lo` whatever CNI_IFNAME says, and so does this."""

from __future__ import annotations

from cni_loopback.device import INDEX, NAME, is_up, open_socket, set_up
from libcni.inet import is_loopback
from libcni.netlink.addr import dump_addresses
from libcni.netlink.socket import Socket
from libcni.types.errors import CONFLICT, CniError
from libcni.types.result import Interface, IPConfig, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request


def add(request: Request) -> Result:
    """Bring `lo` up; idempotent.

    Returns prevResult when there is one, else `lo` with its first IPv4 and IPv6 address. Raises
    CniError 101 when `lo` has an address that is not a loopback address. On failure `lo` is as
    it was.
    """
    sock = open_socket(request.netns())
    if not is_up(sock):
        request.undo.push(set_up, sock, False)
    link = set_up(sock, True)
    addresses = _addresses(sock)
    previous = request.prev_result()
    if previous is not None:
        return previous
    interface = Interface(NAME, link.mac, link.mtu, request.netns_path)
    ips = [IPConfig(text, interface=0) for text in addresses]
    return Result([interface], ips)


def _addresses(sock: Socket) -> list[str]:
    """The first address of each family, IPv4 first."""
    first: dict[int, str] = {}
    for address in dump_addresses(sock, INDEX):
        if not is_loopback(address.prefix.packed):
            raise CniError(
                CONFLICT,
                f"interface {NAME} has the address {address.prefix.text()}",
                "every address on lo has to be a loopback address",
            )
        first.setdefault(address.family, address.prefix.text())
    return [first[family] for family in sorted(first)]
