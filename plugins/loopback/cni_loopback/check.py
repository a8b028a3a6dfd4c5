# SPDX-License-Identifier: Apache-2.0
"""CHECK: `lo` is up and has its addresses."""

from __future__ import annotations

from cni_loopback.device import INDEX, NAME, is_up, open_socket
from libcni.netlink.addr import dump_addresses
from libcni.types.errors import CHECK_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.skel.request import Request
    from libcni.types.result import Result


def check(request: Request) -> None:
    """Raise CniError 103 when `lo` is down in the container's namespace, or lacks an address.

    The addresses are those that prevResult has on it.
    """
    sock = open_socket(request.netns())
    if not is_up(sock):
        raise CniError(
            CHECK_FAILED,
            f"interface {NAME} in {request.netns_path} is down",
            "ADD had brought it up",
        )
    previous = request.prev_result()
    expected = _expected(previous) if previous is not None else []
    there = {address.prefix.text() for address in dump_addresses(sock, INDEX)} if expected else ()
    for address in expected:
        if address not in there:
            raise CniError(
                CHECK_FAILED,
                f"interface {NAME} in {request.netns_path} has no address {address}",
                "prevResult has it",
            )


def _expected(result: Result) -> list[str]:
    """The addresses that the result has on `lo` of the sandbox."""
    return [
        ip.address
        for ip in result.ips
        if ip.interface is not None
        and 0 <= ip.interface < len(result.interfaces)
        and result.interfaces[ip.interface].name == NAME
        and result.interfaces[ip.interface].sandbox
    ]
