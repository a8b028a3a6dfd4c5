# SPDX-License-Identifier: Apache-2.0
"""CHECK after one single change to what ADD had made: it has to notice."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2 import IPRoute

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding, Level, NotApplicable, case
from cni_conformance.state import State

#: A change, and in words what it was.
Mutation = tuple[str, Callable[[], object]]
#: linux/rtnetlink.h, RT_SCOPE_NOWHERE: to delete a route of whatever scope.
_ANY_SCOPE = 255
_SECTION = "SPEC 1.1.0, section 2, CHECK"


def _expect_noticed(
    bench: Bench, find: Callable[[Bench, Attachment, State], Iterator[Mutation]]
) -> None:
    """For each change that `find` has for a new container: CHECK succeeds before, fails after."""
    bench.warm_up()
    tried = 0
    while True:
        pod = bench.attachment()
        before = bench.state()
        pod.add().expect_result(bench.version)
        mutations = list(find(bench, pod, before))
        if tried >= len(mutations):
            pod.delete().expect_silence()
            break
        words, change = mutations[tried]
        pod.check().expect_silence()
        change()
        outcome = pod.check()
        if outcome.succeeded:
            raise Finding(f"CHECK to fail after {words}", outcome.came())
        outcome.expect_error()
        pod.delete().expect_silence()
        pod.discard()
        tried += 1
    if not tried:
        raise NotApplicable("its ADD makes nothing of that kind")


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


def _addresses(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    result = pod.result or {}
    for ip in result.get("ips", ()):
        position = ip.get("interface")
        if position is None:
            continue
        interface = result["interfaces"][position]
        if interface.get("sandbox"):
            text = f"{ip['address']} was removed from {interface['name']}"
            yield text, _remove_address(pod, interface["name"], ip["address"])


class _Remove:
    """Remove a link, or the route to a prefix."""

    def __init__(self, link: str = "", route: str = "") -> None:
        self._link, self._route = link, route

    def __call__(self, netlink: IPRoute) -> object:
        if self._link:
            return netlink.link("del", index=_index(netlink, self._link))
        family = socket.AF_INET6 if ":" in self._route else socket.AF_INET
        return netlink.route("del", dst=self._route, family=family, scope=_ANY_SCOPE)


def _interfaces(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    for interface in _inside(pod):
        name = interface["name"]
        if name == "lo":
            continue

        yield f"{name} was removed", functools.partial(pod.sandbox.netlink, _Remove(name))


def _routes(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    for route in (pod.result or {}).get("routes", ()):
        target = route["dst"]
        words = f"the route to {target} was removed"
        yield words, functools.partial(pod.sandbox.netlink, _Remove(route=target))


def _downs(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    for interface in _inside(pod):
        name = interface["name"]
        yield f"{name} was set down", _link(pod, name, state="down")


def _macs(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    for interface in _inside(pod):
        if interface.get("mac") and interface["name"] != "lo":
            words = f"the hardware address of {interface['name']} was changed"
            yield words, _link(pod, interface["name"], address="02:00:00:c0:ff:ee")


def _mtus(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    for interface in _inside(pod):
        if interface.get("mtu") and interface["name"] != "lo":
            mtu = interface["mtu"] - 100
            words = f"the MTU of {interface['name']} was changed to {mtu}"
            yield words, _link(pod, interface["name"], mtu=mtu)


def _ports(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    with IPRoute() as netlink:
        for interface in (pod.result or {}).get("interfaces", ()):
            if interface.get("sandbox"):
                continue
            for index in netlink.link_lookup(ifname=interface["name"]):
                if netlink.link("get", index=index)[0].get("master"):
                    words = f"{interface['name']} was taken off its bridge"
                    yield words, functools.partial(_take_off, interface["name"])


def _take_off(name: str) -> None:
    with IPRoute() as netlink:
        netlink.link("set", index=_index(netlink, name), master=0)


def _reservations(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    """Files that are named after an address of the result, below where plugins keep state."""
    for ip in (pod.result or {}).get("ips", ()):
        host = ip["address"].partition("/")[0]
        for name in (host, host.replace(":", "_")):
            for path in sorted(pathlib.Path("/var/lib/cni").rglob(name)):
                yield f"{path} was removed", functools.partial(os.unlink, path)


def _ruleset() -> list[dict[str, Any]]:
    """Rules, by their handles."""
    done = subprocess.run(
        ["nft", "-j", "-a", "list", "ruleset"], capture_output=True, text=True, check=True
    )
    return [item["rule"] for item in json.loads(done.stdout)["nftables"] if "rule" in item]


def _elements() -> list[tuple[str, str, str, Any]]:
    """(family, table, set or map, element) of all there are."""
    done = subprocess.run(
        ["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True
    )
    return [
        (body["family"], body["table"], body["name"], element)
        for item in json.loads(done.stdout)["nftables"]
        for kind, body in item.items()
        if kind in ("set", "map")
        for element in body.get("elem", ())
    ]


def _key(element: Any) -> Any:
    """The key alone: of a map's element the first of two, of one with a comment its value."""
    if isinstance(element, list):
        element = element[0]
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _nft(*commands: dict[str, Any]) -> None:
    subprocess.run(
        ["nft", "-j", "-f", "-"],
        input=json.dumps({"nftables": list(commands)}),
        text=True,
        check=True,
        capture_output=True,
    )


def _rules(bench: Bench, pod: Attachment, before: State) -> Iterator[Mutation]:
    """What ADD gained in nftables: rules (those of iptables-nft too), and elements of sets."""
    for rule in _ruleset():
        if _is_new(rule, before):
            place = {key: rule[key] for key in ("family", "table", "chain", "handle")}
            words = f"the rule {json.dumps(rule['expr'])} of {rule['table']} was removed"
            yield words, functools.partial(_nft, {"delete": {"rule": place}})
    for family, table, name, element in _elements():
        text = f"element {family} {table} {name} {json.dumps(element, sort_keys=True)}"
        known = any(re.match(p, f"nft: {text}") for p in bench.profile.bookkeeping)
        if text not in before.lines("nft") and not known:
            place = {"family": family, "table": table, "name": name, "elem": [_key(element)]}
            words = f"{json.dumps(element)} was removed from {table} {name}"
            yield words, functools.partial(_nft, {"delete": {"element": place}})


def _is_new(rule: dict[str, Any], before: State) -> bool:
    expression = [{"counter": None} if "counter" in part else part for part in rule["expr"]]
    comment = f" # {rule['comment']}" if "comment" in rule else ""
    place = f"rule {rule['family']} {rule['table']} {rule['chain']}"
    return f"{place} {json.dumps(expression)}{comment}" not in before.lines("nft")


def _declare(
    id: str,
    what: str,
    find: Callable[[Bench, Attachment, State], Iterator[Mutation]],
    level: Level,
    text: str,
    kinds: tuple[str, ...] = ("interface",),
) -> None:
    def run(bench: Bench) -> None:
        _expect_noticed(bench, find)

    run.__doc__ = text
    case(
        id,
        f"CHECK notices {what}",
        section=_SECTION,
        level=level,
        since="0.4.0",
        kinds=kinds,
        newest_only=True,
        seconds=120,
    )(run)


_declare(
    "check-address-removed",
    "that an address of the result is gone",
    _addresses,
    "required",
    "Each address in turn: CHECK must return an error if one is missing.",
)
_declare(
    "check-interface-removed",
    "that an interface of the result is gone",
    _interfaces,
    "required",
    "Each interface in the sandbox in turn.",
)
_declare(
    "check-route-removed",
    "that a route of the result is gone",
    _routes,
    "required",
    "Each route in turn.",
)
_declare(
    "check-link-down",
    "that an interface in the sandbox is down",
    _downs,
    "recommended",
    "It is there but not in a valid state.",
)
_declare(
    "check-mac-changed",
    "another hardware address than the result's",
    _macs,
    "recommended",
    "Where the result has one.",
)
_declare(
    "check-mtu-changed",
    "another MTU than the result's",
    _mtus,
    "recommended",
    "Where the result has one, which it may from 1.1.0 on.",
)
_declare(
    "check-off-the-bridge",
    "that the host's end was taken off its bridge",
    _ports,
    "recommended",
    "It is in the result, and no longer does what it is for.",
)
_declare(
    "check-reservation-removed",
    "that an address of the result is no longer reserved",
    _reservations,
    "recommended",
    "The next container would get the same. Files that are named after the address are removed.",
    ("interface", "ipam"),
)
_declare(
    "check-rule-removed",
    "that a rule that ADD made is gone",
    _rules,
    "recommended",
    "Each rule and each element of a set that ADD gained in nftables (as iptables-nft makes them "
    "too) is removed in turn.",
    ("interface", "chained"),
)
