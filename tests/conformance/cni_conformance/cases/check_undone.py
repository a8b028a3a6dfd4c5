# SPDX-License-Identifier: Apache-2.0
"""CHECK after one thing was undone that ADD did to the kernel, whether in the result or not.

What that is, is found by comparison with an empty host and a new sandbox; so nothing has to be
known of a type, and what it makes for the first container alone is undone as well.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cni_conformance.mutations import Made, Mutation, declare

#: linux/rtnetlink.h
_TABLE_LOCAL = "255"
_TABLE_MAIN = "254"
_PROTO_KERNEL = "2"
#: linux/pkt_sched.h: the parent of filters of an ingress qdisc.
_INGRESS = 0xFFFF0000
#: linux/if.h
_FLAGS = {"PROMISC": 0x100, "ALLMULTI": 0x200}
#: Names in /proc/sys of settings that netlink messages call otherwise.
_PROC = {"arpfilter": "arp_filter", "nopolicy": "disable_policy"}
#: Settings that the kernel changes with the one that switches forwarding.
_FOLLOWS = re.compile(
    r"ipv4/conf/.*/(forwarding|accept_redirects)|ipv6/conf/(?!all/).*/forwarding"
)

Change = Callable[[IPRoute], object]


def _do(made: Made, inside: bool, change: Change) -> Callable[[], object]:
    if inside:
        return functools.partial(made.pod.sandbox.netlink, change)

    def on_host() -> object:
        with IPRoute() as netlink:
            return change(netlink)

    return on_host


def _index(netlink: IPRoute, name: str) -> int:
    index: int = netlink.link_lookup(ifname=name)[0]
    return index


def _places(made: Made, section: str) -> Iterator[tuple[bool, str, str]]:
    """(inside, where in words, line) of what ADD gained, the sandbox's first."""
    for inside, where in ((True, "in the sandbox"), (False, "on the host")):
        for line in made.gained(section, inside):
            yield inside, where, line


def _devices(made: Made) -> Iterator[Mutation]:
    known = {line.split()[0] for line in made.host_before.lines("link")}
    for line in made.gained("link", inside=False):
        name = line.split()[0]
        if name not in known:
            yield (
                f"the interface {name} was removed from the host",
                _do(made, False, functools.partial(_remove_link, name=name)),
            )


def _remove_link(netlink: IPRoute, name: str) -> object:
    return netlink.link("del", index=_index(netlink, name))


def _host_downs(made: Made) -> Iterator[Mutation]:
    before = {line.split()[0] for line in made.host_before.lines("link") if _is_up(line)}
    for line in made.gained("link", inside=False):
        name = line.split()[0]
        if _is_up(line) and name not in before:
            yield (
                f"the interface {name} of the host was set down",
                _do(made, False, functools.partial(_set_link, name=name, keys={"state": "down"})),
            )


def _is_up(link: str) -> bool:
    return "UP" in link.split()


def _host_addresses(made: Made) -> Iterator[Mutation]:
    for line in made.gained("address", inside=False):
        name, address = line.split()[:2]
        yield (
            f"{address} was removed from {name} on the host",
            _do(made, False, functools.partial(_remove_address, name=name, address=address)),
        )


def _remove_address(netlink: IPRoute, name: str, address: str) -> object:
    host, _, length = address.partition("/")
    return netlink.addr("del", index=_index(netlink, name), address=host, prefixlen=int(length))


def _routes(made: Made) -> Iterator[Mutation]:
    """But for those that come and go with an address by themselves."""
    for inside, where, line in _places(made, "route"):
        target, *words = line.split()
        keys = dict(zip(words[::2], words[1::2], strict=False))
        by_itself = keys["table"] == _TABLE_MAIN and keys["proto"] == _PROTO_KERNEL
        if keys["table"] != _TABLE_LOCAL and not by_itself:
            route = f"{target} of {keys['dev']} in table {keys['table']}"
            yield (
                f"the route {route} was removed {where}",
                _do(made, inside, functools.partial(_remove_route, target=target, keys=keys)),
            )


def _remove_route(netlink: IPRoute, target: str, keys: dict[str, str]) -> object:
    numbers = {key: int(keys[key]) for key in ("table", "scope", "proto", "type", "family")}
    more: dict[str, Any] = {}
    if keys["via"] != "-":
        more["gateway"] = keys["via"]
    if keys["dev"] != "?":
        more["oif"] = _index(netlink, keys["dev"])
    if keys["priority"] != "0":
        more["priority"] = int(keys["priority"])
    if not target.startswith("default"):
        more["dst"] = target
    return netlink.route("del", **numbers, **more)


def _policy_rules(made: Made) -> Iterator[Mutation]:
    for inside, where, line in _places(made, "rule"):
        yield (
            f"the policy rule {line} was removed {where}",
            _do(made, inside, functools.partial(_remove_policy_rule, line=line)),
        )


def _remove_policy_rule(netlink: IPRoute, line: str) -> object:
    priority, _, rest = line.partition(": ")
    words = rest.split()
    keys = dict(zip(words[::2], words[1::2], strict=True))
    more: dict[str, Any] = {}
    for key, name in (("from", "src"), ("to", "dst")):
        address, _, length = keys[key].partition("/")
        if address != "all":
            more |= {name: address, f"{name}_len": int(length)}
    if keys["iif"] != "-":
        more["iifname"] = keys["iif"]
    table = int(keys["lookup"])
    return netlink.rule(
        "del", priority=int(priority), table=table, family=int(keys["family"]), **more
    )


def _neighbours(made: Made) -> Iterator[Mutation]:
    for inside, where, line in _places(made, "neighbour"):
        name, destination, _ = line.split()
        change = functools.partial(_remove_neighbour, name=name, destination=destination)
        yield (
            f"the neighbour {destination} of {name} was removed {where}",
            _do(made, inside, change),
        )


def _remove_neighbour(netlink: IPRoute, name: str, destination: str) -> object:
    return netlink.neigh("del", dst=destination, ifindex=_index(netlink, name))


def _forwarding(made: Made) -> Iterator[Mutation]:
    """But for the addresses of interfaces themselves, which the kernel enters."""
    own = {
        word.partition("=")[2]
        for state in (made.host, made.inside)
        for line in state.lines("link")
        for word in line.split()
        if word.startswith("address=")
    }
    for line in made.gained("fdb", inside=False):
        name, address, *destination = line.split()
        if address not in own:
            words = f"{address} was removed from the forwarding table of {name}"
            change = functools.partial(
                _remove_forwarding, name=name, address=address, destination=destination
            )
            yield words, _do(made, False, change)


def _remove_forwarding(
    netlink: IPRoute, name: str, address: str, destination: list[str]
) -> object:
    more = {"dst": destination[0]} if destination else {}
    return netlink.fdb("del", ifindex=_index(netlink, name), lladdr=address, **more)


def _disciplines(made: Made) -> Iterator[Mutation]:
    for inside, where, line in _places(made, "qdisc"):
        name, kind, parent = line.split()[:3]
        if kind in ("ingress", "clsact"):
            yield (
                f"the filters of the {kind} qdisc of {name} were removed {where}",
                _do(made, inside, functools.partial(_remove_filters, name=name)),
            )
        change = functools.partial(_remove_discipline, name=name, parent=parent[len("parent=") :])
        yield f"the {kind} qdisc of {name} was removed {where}", _do(made, inside, change)


def _remove_filters(netlink: IPRoute, name: str) -> object:
    return netlink.tc("del-filter", index=_index(netlink, name), parent=_INGRESS)


def _remove_discipline(netlink: IPRoute, name: str, parent: str) -> object:
    index = _index(netlink, name)
    for found in netlink.get_qdiscs(index=index):
        if found["index"] == index and found["parent"] == int(parent, 16):
            return netlink.tc("del", index=index, handle=found["handle"], parent=found["parent"])
    raise NetlinkError(2, f"{name} has no such qdisc")


def _attributes(made: Made) -> Iterator[Mutation]:
    """Of the interface that a chained plugin was given, and of others that were there before."""
    for before, now in made.replaced("link", inside=True):
        name = now.split()[0]
        earlier = dict(word.partition("=")[::2] for word in before.split())
        for word in now.split()[1:]:
            key, _, value = word.partition("=")
            if key in ("mtu", "txqlen", "address") and earlier.get(key) not in (None, value):
                keys: dict[str, Any] = {key: earlier[key]}
                if key != "address":
                    keys = {key: int(earlier[key])}
                text = f"{key} of {name} was set back to {earlier[key]}"
            elif key in _FLAGS and key not in earlier:
                keys = {"flags": 0, "change": _FLAGS[key]}
                text = f"{key} of {name} was switched off again"
            else:
                continue
            yield text, _do(made, True, functools.partial(_set_link, name=name, keys=keys))


def _set_link(netlink: IPRoute, name: str, keys: dict[str, Any]) -> object:
    return netlink.link("set", index=_index(netlink, name), **keys)


def _sysctls(made: Made) -> Iterator[Mutation]:
    """But for what the kernel sets when `ip_forward`, or `forwarding` of `all`, is."""
    for inside, where in ((True, "in the sandbox"), (False, "on the host")):
        for before, now in made.replaced("sysctl", inside):
            name = now.partition("=")[0]
            if _FOLLOWS.fullmatch(name):
                continue
            folder, _, last = name.rpartition("/")
            path = f"/proc/sys/net/{folder}/{_PROC.get(last, last)}"
            change = functools.partial(_write, path, before.partition("=")[2])
            if inside:
                change = functools.partial(made.pod.sandbox.within, change)
            yield f"{name} was set back {where}", change


def _write(path: str, value: str) -> object:
    return pathlib.Path(path).write_text(value)


_ALL = ("interface", "ipam", "chained")

declare(
    "check-device-removed",
    "that an interface that ADD made on the host is gone",
    _devices,
    "A bridge, a tunnel or the host's end carries what the container sends. Each interface that "
    "the host has since ADD is removed in turn.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-host-link-down",
    "that an interface that ADD set up on the host is down",
    _host_downs,
    "It is there, and nothing goes through it. Each interface that ADD made or set up on the host "
    "is set down in turn.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-host-address-removed",
    "that an address that ADD gave to the host is gone",
    _host_addresses,
    "It is the container's gateway, as a rule. Each address that the host has since ADD is "
    "removed in turn.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-other-route-removed",
    "that a route that ADD made, in whichever table, is gone",
    _routes,
    "Not all routes are in the result: those on the host, those to other nodes, those in a table "
    "of their own. Each that came with ADD is removed in turn, but for the ones that the kernel "
    "makes.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-policy-rule-removed",
    "that a policy routing rule that ADD made is gone",
    _policy_rules,
    "Without it nothing is looked up in the table that it leads to. Each rule that came with ADD "
    "is removed in turn.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-neighbour-removed",
    "that a permanent neighbour that ADD entered is gone",
    _neighbours,
    "Nobody would answer who is asked for it, as in an overlay that learns nothing. Each is "
    "removed in turn.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-fdb-removed",
    "that a forwarding entry that ADD made is gone",
    _forwarding,
    "An overlay that learns nothing no longer knows which node a hardware address is on. Each "
    "permanent entry that came with ADD is removed in turn.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-qdisc-removed",
    "that traffic shaping that ADD set up is gone",
    _disciplines,
    "The container takes all of the line again. Each queueing discipline that came with ADD is "
    "removed in turn, and of one for what comes in the filters alone as well.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-attribute-undone",
    "that an attribute of an interface is as it was before ADD",
    _attributes,
    "MTU, hardware address, length of the queue, promiscuous and all-multicast mode: each that "
    "ADD changed on an interface that was there is set back in turn.",
    kinds=_ALL,
    shared=True,
)
declare(
    "check-sysctl-undone",
    "that a sysctl is as it was before ADD",
    _sysctls,
    "Each that ADD changed, on the host or in the sandbox, is set back in turn: a host that no "
    "longer forwards, for one, cuts off all containers.",
    kinds=_ALL,
    shared=True,
)
