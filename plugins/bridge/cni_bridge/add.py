# SPDX-License-Identifier: Apache-2.0
"""ADD: bridge, veth pair, addresses, routes, masquerade.

The order keeps system calls few and mistakes cheap: the pair comes before IPAM, since "the
interface exists already" must not cost a live attachment its address; whatever fails runs the
undo stack, on which every step has put its inverse first.
"""

from __future__ import annotations

from errno import ENODEV

from cni_bridge.config import load
from cni_bridge.device import Changes, ensure_bridge
from cni_bridge.port import create_port, wait_up
from libcni.interface.container import announce, configure
from libcni.interface.elsewhere import Elsewhere
from libcni.interface.mtu import IPV6_MINIMUM, require_ipv6_mtu
from libcni.interrupt import checkpoint
from libcni.netlink.link import Link, find_link, get_link
from libcni.netlink.socket import Socket
from libcni.types.errors import KERNEL, TRY_AGAIN_LATER, CniError
from libcni.types.result import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_bridge.config import Config
    from cni_bridge.port import Port
    from libcni.inet import Prefix
    from libcni.skel.request import Request

#: Times to start over when a failing ADD of another container removes the bridge it had made.
_TRIES = 5


def add(request: Request) -> Result:
    """Attach the container. Leaves everything as it was when it fails (CniError)."""
    config = load(request)
    sock = Socket()
    changes = Changes(sock, config.bridge)
    request.undo.push(changes.revert)
    allocated = None
    if config.ipam and 0 < config.mtu < IPV6_MINIMUM:
        allocated = _addresses_first(request, config)
    bridge, port = _attach(sock, request, config, changes)
    try:
        return _connect(sock, request, config, bridge, port, changes, allocated)
    except CniError as error:
        if error.code == KERNEL and find_link(sock, index=bridge.index) is None:
            # The one gap: a failing first ADD looks for ports, finds none, and deletes.
            raise CniError(
                TRY_AGAIN_LATER, f"bridge {bridge.name} was removed while in use", error.msg
            ) from None
        raise


def _connect(
    sock: Socket,
    request: Request,
    config: Config,
    bridge: Link,
    port: Port,
    changes: Changes,
    allocated: tuple[Result, list[Prefix]] | None,
) -> Result:
    """Everything after the veth pair: addresses, gateway, masquerade, the container's side."""
    gateway: Link | None = None
    if config.spoof_check:
        from cni_bridge import spoofcheck

        request.undo.push(spoofcheck.undo, request.attachment)
        spoofcheck.ensure(request.attachment, port.link.name, port.container_mac)
    result: Result | None = None
    if config.ipam:
        result, gateways = allocated or _addresses(request, config)
        if gateways:
            from cni_bridge.gateway import ensure_gateways

            gateway = bridge
            if config.vlan:
                from cni_bridge.vlan_gateway import ensure_vlan_gateway

                gateway = ensure_vlan_gateway(sock, config, bridge, request.undo)
            ensure_gateways(sock, gateway, gateways, config.force_address, changes)
        if config.masquerade:
            from libcni import ipmasq

            addresses = [ip.address for ip in result.ips]
            request.undo.push(ipmasq.undo, request.attachment, addresses)
            ipmasq.ensure(request.attachment, addresses, config.masquerade_backend)
    checkpoint()
    index = port.container_index
    inside = configure(
        request.netns(),
        request.ifname,
        index,
        result,
        up=config.container_interface,
        dad=config.dad,
        loops=config.hairpin,
    )
    report = _report(sock, request, config, bridge, port, gateway, result or Result())
    if result is not None:
        with Elsewhere(port.link, config.bridge):
            announce(inside, index, port.container_mac)
    inside.close()
    return report


def _attach(sock: Socket, request: Request, config: Config, changes: Changes) -> tuple[Link, Port]:
    """The bridge, and the container's port on it."""
    name = request.attachment.host_veth_names()[0]
    for _ in range(_TRIES):
        replies = sock.batch([get_link(config.bridge), get_link(name)])
        found, taken = [Link(reply.items[0]) if reply.check(ENODEV) else None for reply in replies]
        bridge = ensure_bridge(sock, config, found, changes)
        port = create_port(sock, request, config, bridge, taken)
        if port is not None:
            return bridge, port
    raise CniError(
        TRY_AGAIN_LATER, f"bridge {config.bridge} was removed {_TRIES} times while in use"
    )


def _addresses(request: Request, config: Config) -> tuple[Result, list[Prefix]]:
    """The result of IPAM, completed, and the addresses that the host needs as gateway."""
    from cni_bridge.addressing import complete
    from libcni.invoke.delegate import delegate_add

    result = delegate_add(request, config.ipam)
    return result, complete(result, config)


def _addresses_first(request: Request, config: Config) -> tuple[Result, list[Prefix]]:
    """`_addresses` before there is a port. Raises CniError 7 for an IPv6 one.

    A bridge takes on the smallest MTU of its ports, and with less than IPv6 needs the kernel
    takes its IPv6 addresses away: not for a port that comes to nothing.
    """
    from libcni.interface.leftover import require_free_name

    require_free_name(request)
    result, gateways = _addresses(request, config)
    require_ipv6_mtu([ip.address for ip in result.ips], config.mtu)
    return result, gateways


def _report(
    sock: Socket,
    request: Request,
    config: Config,
    bridge: Link,
    port: Port,
    gateway: Link | None,
    result: Result,
) -> Result:
    """Wait until the port forwards, and say what there is now."""
    messages = [get_link(index=bridge.index), get_link(index=port.link.index)]
    stale = 0
    if config.ipam:
        from libcni.inet import Prefix
        from libcni.netlink.neigh import delete_neighbour

        # The host may remember the last owner of a recycled address for minutes.
        on = gateway or bridge
        forgotten = [
            delete_neighbour(on.index, Prefix.parse(ip.address).packed) for ip in result.ips
        ]
        messages = forgotten + messages
        stale = len(forgotten)
    replies = sock.batch(messages)[stale:]
    for reply in replies:
        reply.check()
    bridge, link = Link(replies[0].items[0]), Link(replies[1].items[0])
    if config.container_interface:
        link = wait_up(sock, link)
    result.interfaces = [
        Interface(bridge.name, bridge.mac, bridge.mtu),
        Interface(link.name, link.mac, link.mtu),
        Interface(request.ifname, port.container_mac, link.mtu, request.netns_path),
    ]
    if gateway is not None and gateway.index != bridge.index:
        result.interfaces.append(Interface(gateway.name, gateway.mac, gateway.mtu))
    if config.dns:
        from libcni.types.parsing import parse_dns

        result.dns = parse_dns(config.dns)
    return result
