# SPDX-License-Identifier: Apache-2.0
"""Which interface is the underlay: what the operator says, then what the cluster knows.

In this order: --iface, --iface-regex, --iface-can-reach; the node's InternalIP; the route to the
API server; the default route. Everybody's NAT interface with the same address on all machines
is what a default route alone would lead to.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from cni_vxlan_overlay.agent.settings import Settings
from cni_vxlan_overlay.underlay import Underlay, find_underlay
from libcni.inet import ntop
from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import dump_links
from libcni.netlink.socket import Socket
from libcni.types.errors import CniError

log = logging.getLogger(__name__)


class NoUnderlay(Exception):
    """No interface can be the underlay; the text says what was tried."""


def choose(
    settings: Settings, families: set[bool], internal: Iterable[str] = (), api_server: str = ""
) -> Underlay:
    """The underlay of this node now, with addresses of `families` (True for IPv6) if it has them.

    internal: the node's own addresses as its cluster knows them. api_server: an address, for
    the route there. Raises NoUnderlay.
    """
    sock = Socket()
    tried: list[str] = []
    for choice in _choices(sock, settings, internal, api_server):
        # An underlay without the family of the pods will do: either carries both.
        for wanted in (families, {False, True} - families):
            try:
                if wanted:
                    return find_underlay(sock, choice, [], wanted)
            except CniError as error:
                tried.append(f"{choice or 'default route'}: {error.msg}")
    words = "; ".join(dict.fromkeys(tried)) or "nothing matches --iface-regex"
    raise NoUnderlay(f"no interface can carry the overlay: {words}; name one by --iface")


def _choices(
    sock: Socket, settings: Settings, internal: Iterable[str], api_server: str
) -> Iterable[str]:
    """In the order of preference; what was asked for explicitly is not second-guessed."""
    if settings.iface or settings.iface_regex or settings.iface_can_reach:
        yield from settings.iface
        for pattern in settings.iface_regex:
            yield from _matching(sock, pattern)
        if settings.iface_can_reach:
            yield f"reach {settings.iface_can_reach}"
        return
    yield from internal
    if api_server:
        yield f"reach {api_server}"
    yield ""


def _matching(sock: Socket, pattern: str) -> list[str]:
    """Addresses that the expression matches, then names of interfaces, as flannel does."""
    expression = re.compile(pattern)
    addresses = [ntop(address.prefix.packed) for address in dump_addresses(sock)]
    names = [link.name for link in dump_links(sock)]
    return [text for text in (*addresses, *names) if expression.search(text)]
