# SPDX-License-Identifier: Apache-2.0
"""CHECK after one single change to what the result of ADD says: it should notice."""

from __future__ import annotations

import functools
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2 import IPRoute

from cni_conformance.bench import Attachment
from cni_conformance.mutations import Made, Mutation, declare

#: linux/rtnetlink.h, RT_SCOPE_NOWHERE: to delete a route of whatever scope.
_ANY_SCOPE = 255


def _inside(pod: Attachment) -> list[dict[str, Any]]:
    """Interfaces in the sandbox, of the result."""
    found = (pod.result or {}).get("interfaces", ())
    return [interface for interface in found if interface.get("sandbox")]


def _index(netlink: IPRoute, name: str) -> int:
    index: int = netlink.link_lookup(ifname=name)[0]
    return index


def _link(pod: Attachment, name: str, **keys: Any) -> Callable[[], object]:
    """Change a link of the sandbox."""

    def change() -> object:
        return pod.sandbox.netlink(
            lambda netlink: netlink.link("set", index=_index(netlink, name), **keys)
        )

    return change


def _remove_address(pod: Attachment, name: str, address: str) -> Callable[[], object]:
    host, _, length = address.partition("/")

    def change(netlink: IPRoute) -> object:
        return netlink.addr(
            "del", index=_index(netlink, name), address=host, prefixlen=int(length)
        )

    return lambda: pod.sandbox.netlink(change)


def _addresses(made: Made) -> Iterator[Mutation]:
    result = made.pod.result or {}
    for ip in result.get("ips", ()):
        position = ip.get("interface")
        if position is None:
            continue
        interface = result["interfaces"][position]
        if interface.get("sandbox"):
            text = f"{ip['address']} was removed from {interface['name']}"
            yield text, _remove_address(made.pod, interface["name"], ip["address"])


class _Remove:
    """Remove a link, or the route to a prefix."""

    def __init__(self, link: str = "", route: str = "") -> None:
        self._link, self._route = link, route

    def __call__(self, netlink: IPRoute) -> object:
        if self._link:
            return netlink.link("del", index=_index(netlink, self._link))
        family = socket.AF_INET6 if ":" in self._route else socket.AF_INET
        return netlink.route("del", dst=self._route, family=family, scope=_ANY_SCOPE)


def _interfaces(made: Made) -> Iterator[Mutation]:
    for interface in _inside(made.pod):
        name = interface["name"]
        if name == "lo":
            continue

        yield f"{name} was removed", functools.partial(made.pod.sandbox.netlink, _Remove(name))


def _routes(made: Made) -> Iterator[Mutation]:
    for route in (made.pod.result or {}).get("routes", ()):
        target = route["dst"]
        words = f"the route to {target} was removed"
        yield words, functools.partial(made.pod.sandbox.netlink, _Remove(route=target))


def _downs(made: Made) -> Iterator[Mutation]:
    for interface in _inside(made.pod):
        name = interface["name"]
        yield f"{name} was set down", _link(made.pod, name, state="down")


def _macs(made: Made) -> Iterator[Mutation]:
    for interface in _inside(made.pod):
        if interface.get("mac") and interface["name"] != "lo":
            words = f"the hardware address of {interface['name']} was changed"
            yield words, _link(made.pod, interface["name"], address="02:00:00:c0:ff:ee")


def _mtus(made: Made) -> Iterator[Mutation]:
    for interface in _inside(made.pod):
        if interface.get("mtu") and interface["name"] != "lo":
            mtu = interface["mtu"] - 100
            words = f"the MTU of {interface['name']} was changed to {mtu}"
            yield words, _link(made.pod, interface["name"], mtu=mtu)


def _ports(made: Made) -> Iterator[Mutation]:
    with IPRoute() as netlink:
        for interface in (made.pod.result or {}).get("interfaces", ()):
            if interface.get("sandbox"):
                continue
            for index in netlink.link_lookup(ifname=interface["name"]):
                if netlink.link("get", index=index)[0].get("master"):
                    words = f"{interface['name']} was taken off its bridge"
                    yield words, functools.partial(_take_off, interface["name"])


def _take_off(name: str) -> None:
    with IPRoute() as netlink:
        netlink.link("set", index=_index(netlink, name), master=0)


def _reservations(made: Made) -> Iterator[Mutation]:
    """Files that are named after an address of the result, below where plugins keep state."""
    for ip in (made.pod.result or {}).get("ips", ()):
        host = ip["address"].partition("/")[0]
        for name in (host, host.replace(":", "_")):
            for path in sorted(pathlib.Path("/var/lib/cni").rglob(name)):
                yield f"{path} was removed", functools.partial(os.unlink, path)


declare(
    "check-address-removed",
    "that an address of the result is gone",
    _addresses,
    "A container without its address cannot be reached. Each address is removed in turn; CHECK "
    "should return an error if an address that the plugin made is missing.",
)
declare(
    "check-interface-removed",
    "that an interface of the result is gone",
    _interfaces,
    "A container without its interface has no network. Each interface in the sandbox is removed "
    "in turn.",
)
declare(
    "check-route-removed",
    "that a route of the result is gone",
    _routes,
    "Without its route a container does not reach what is behind it. Each route is removed in "
    "turn.",
)
declare(
    "check-link-down",
    "that an interface in the sandbox is down",
    _downs,
    "It is there but not in a valid state: nothing goes through it.",
)
declare(
    "check-mac-changed",
    "another hardware address than the result's",
    _macs,
    "Where the result has one: what others have learned or filter by is no longer true.",
)
declare(
    "check-mtu-changed",
    "another MTU than the result's",
    _mtus,
    "Where the result has one, which it may from 1.1.0 on.",
)
declare(
    "check-off-the-bridge",
    "that the host's end was taken off its bridge",
    _ports,
    "It is in the result, and no longer does what it is for.",
)
declare(
    "check-reservation-removed",
    "that an address of the result is no longer reserved",
    _reservations,
    "The next container would get the same. Files that are named after the address are removed.",
    kinds=("interface", "ipam"),
)
