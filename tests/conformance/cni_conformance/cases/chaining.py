# SPDX-License-Identifier: Apache-2.0
"""prevResult in a list of plugins, and what later plugins may change."""

from __future__ import annotations

import json
from typing import Any

from pyroute2 import IPRoute

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding, case
from cni_conformance.wording import show

_PREV = "SPEC 1.1.0, section 2, ADD: prevResult; section 3, Adding an attachment"
_CHECK = "SPEC 1.1.0, section 2, CHECK"


def _core(result: dict[str, Any]) -> dict[str, Any]:
    """What a plugin that works on an interface has no business to drop."""
    return {
        "interfaces": [(i["name"], i.get("sandbox", "")) for i in result.get("interfaces", ())],
        "ips": [(ip["address"], ip.get("interface")) for ip in result.get("ips", ())],
        "routes": [(route["dst"], route.get("gw")) for route in result.get("routes", ())],
        "dns": {key: value for key, value in result.get("dns", {}).items() if value},
    }


@case(
    "chain-passes-on",
    "A chained plugin's result holds what prevResult did",
    section=_PREV,
    since="0.3.0",
    kinds=["chained"],
)
def chain_passes_on(bench: Bench) -> None:
    """Interfaces by name and sandbox, addresses, routes and DNS; it may add to them."""
    pod = bench.attachment()
    assert pod.base is not None
    result = _core(pod.attach_for_result())
    for key, wanted in _core(pod.base).items():
        came = result[key]
        if key == "dns" and came != wanted:
            raise Finding(f"dns as in prevResult: {show(wanted)}", show(came))
        missing = [item for item in wanted if key != "dns" and item not in came]
        if missing:
            raise Finding(f"{key} of prevResult in the result", f"without {show(missing)}")


@case(
    "chain-needs-prevresult",
    "Without prevResult a chained plugin says so, or passes",
    section=_PREV,
    since="0.3.0",
    kinds=["chained"],
    newest_only=True,
)
def chain_needs_prevresult(bench: Bench) -> None:
    """It has nothing to work on: an error object, or a result if it can do without."""
    outcome = bench.attachment().add(prev_result=None)
    if outcome.succeeded:
        outcome.document()
    else:
        outcome.expect_error()


def _later_plugin(pod: Attachment) -> dict[str, Any]:
    """Do what a later plugin of the list may do; its result.

    No address for a chained plugin: one that works on all addresses of prevResult, as a firewall
    does, cannot know which of them came later.
    """

    def work(netlink: IPRoute) -> None:
        netlink.link("add", ifname="later0", kind="veth", peer={"ifname": "later1"})
        for name in ("later0", "later1"):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
        index = netlink.link_lookup(ifname="later0")[0]
        netlink.addr("add", index=index, address="10.96.0.1", prefixlen=24)
        netlink.route("add", dst="10.95.0.0/16", gateway="10.96.0.2")
        netlink.rule("add", table=1234, priority=1234, src="10.96.0.0/24")

    pod.sandbox.netlink(work)
    result: dict[str, Any] = json.loads(json.dumps(pod.previous))
    interfaces = result.setdefault("interfaces", [])
    interfaces.append({"name": "later0", "sandbox": pod.sandbox.path})
    if pod.bench.profile.kind == "interface":
        ip: dict[str, Any] = {"address": "10.96.0.1/24", "interface": len(interfaces) - 1}
        if not pod.bench.is_at_least("1.0.0"):
            ip["version"] = "4"
        result.setdefault("ips", []).append(ip)
    result.setdefault("routes", []).append({"dst": "10.95.0.0/16", "gw": "10.96.0.2"})
    return result


@case(
    "check-later-plugin",
    "CHECK allows what a later plugin of the list added",
    section=_CHECK,
    since="0.4.0",
    kinds=["interface", "chained"],
)
def check_later_plugin(bench: Bench) -> None:
    """Another interface, address, route and rule in the sandbox, and in the final result."""
    pod = bench.attachment()
    pod.attach()
    pod.check(prev_result=_later_plugin(pod)).expect_silence()


@case(
    "check-foreign-changes",
    "CHECK does not complain about what others do on the host",
    section=_CHECK,
    since="0.4.0",
)
def check_foreign_changes(bench: Bench) -> None:
    """Links, addresses, routes, rules and containers that are none of its business."""
    pod = bench.attachment()
    pod.attach()
    with IPRoute() as netlink:
        netlink.link("add", ifname="foreign0", kind="veth", peer={"ifname": "foreign1"})
        index = netlink.link_lookup(ifname="foreign0")[0]
        netlink.link("set", index=index, state="up")
        netlink.addr("add", index=index, address="10.94.0.1", prefixlen=24)
        netlink.rule("add", table=4321, priority=4321, src="10.94.0.0/24")
    bench.attachment().attach()
    pod.check().expect_silence()


@case(
    "del-after-later-plugin",
    "DEL is not put off by what a later plugin of the list added",
    section="SPEC 1.1.0, section 2, DEL",
    since="0.4.0",
    kinds=["interface", "chained"],
)
def del_after_later_plugin(bench: Bench) -> None:
    """The final result is what prevResult holds."""
    pod = bench.attachment()
    pod.attach()
    pod.delete(prev_result=_later_plugin(pod)).expect_silence()


@case(
    "two-interfaces",
    "A container can have two interfaces of one network, each on its own",
    section="SPEC 1.1.0, section 2, Overview: (network, CNI_CONTAINERID, CNI_IFNAME)",
    since="0.4.0",
    newest_only=True,
    kinds=["interface"],
    applies=lambda profile: profile.ifname is None,
)
def two_interfaces(bench: Bench) -> None:
    """DEL of the one leaves the other, and both leave nothing."""
    bench.warm_up()
    first = bench.attachment()
    second = bench.attachment(first.sandbox)
    second.container_id, second.ifname = first.container_id, "eth1"
    before = bench.state()
    first.attach_for_result()
    second.add().expect_result(bench.version)
    first.delete().expect_silence()
    second.check().expect_silence()
    second.delete().expect_silence()
    bench.expect_unchanged(before, "the host as before both")
    first.expect_inside_unchanged()
