# SPDX-License-Identifier: Apache-2.0
"""What the result of ADD says, and whether the kernel agrees."""

from __future__ import annotations

import ipaddress
from typing import Any

from pyroute2 import IPRoute

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding, NotApplicable, case
from cni_conformance.wording import listed, show

_SECTION = "SPEC 1.1.0, section 5, ADD Success"


def _inside(pod: Attachment, ifname: str) -> tuple[dict[str, Any], set[str]]:
    """The link in the sandbox and its addresses. Raises Finding when it is not there."""

    def look(netlink: IPRoute) -> tuple[dict[str, Any], set[str]] | None:
        found = netlink.link_lookup(ifname=ifname)
        if not found:
            return None
        link = netlink.link("get", index=found[0])[0]
        addresses = {
            f"{a.get('local') or a.get('address')}/{a['prefixlen']}"
            for a in netlink.get_addr(index=found[0])
        }
        return {"mac": link.get("address"), "mtu": link.get("mtu")}, addresses

    answer = pod.sandbox.netlink(look)
    if answer is None:
        raise Finding(f"an interface {ifname} in the sandbox", "none")
    return answer


@case(
    "result-interface",
    "The result lists the interface of the sandbox by name and sandbox",
    section=_SECTION,
    since="0.3.0",
    kinds=["interface"],
)
def result_interface(bench: Bench) -> None:
    """CNI_IFNAME with CNI_NETNS as `sandbox`, the MAC address that it has, and its MTU if any."""
    pod = bench.attachment()
    result = pod.attach_for_result()
    listed = [i for i in result.get("interfaces", ()) if i.get("sandbox")]
    named = [i for i in listed if i["name"] == pod.ifname and i["sandbox"] == pod.sandbox.path]
    if len(named) != 1:
        raise Finding(
            f"one interface {pod.ifname} with the sandbox {pod.sandbox.path}",
            show(result.get("interfaces", [])),
        )
    link, _ = _inside(pod, pod.ifname)
    for key in ("mac", "mtu"):
        if named[0].get(key) and named[0][key] != link[key]:
            raise Finding(f"{key} {show(link[key])}, as the kernel has it", show(named[0][key]))


@case(
    "result-mtu",
    "The result has the MTU of the interface",
    section=_SECTION,
    level="recommended",
    since="1.1.0",
    kinds=["interface"],
)
def result_mtu(bench: Bench) -> None:
    """`mtu` came with 1.1.0; all properties known to the plugin should be provided."""
    pod = bench.attachment()
    result = pod.attach_for_result()
    for interface in result.get("interfaces", ()):
        if interface["name"] == pod.ifname and not interface.get("mtu"):
            raise Finding(f'"mtu" of {pod.ifname}', show(interface))


@case(
    "result-ifname",
    "The interface gets the name that CNI_IFNAME asks for",
    section="SPEC 1.1.0, section 2, Parameters, CNI_IFNAME",
    newest_only=True,
    kinds=["interface"],
    applies=lambda profile: profile.ifname is None,
)
def result_ifname(bench: Bench) -> None:
    """A name of full length; if the plugin cannot use it, it has to fail."""
    pod = bench.attachment()
    pod.ifname = "net-15-letters_"
    result = pod.add().expect_result(bench.version)
    _inside(pod, pod.ifname)
    names = {i["name"] for i in result.get("interfaces", ()) if i.get("sandbox")}
    if pod.ifname not in names:
        raise Finding(f"{pod.ifname} in the result", show(result))
    pod.delete().expect_silence()


@case(
    "result-addresses",
    "Every address of the result is on the interface that it names",
    section=_SECTION,
    since="0.3.0",
    kinds=["interface"],
)
def result_addresses(bench: Bench) -> None:
    """`interface` is an index of `interfaces`, and the kernel has the address there."""
    pod = bench.attachment()
    result = pod.attach_for_result()
    interfaces = result.get("interfaces", [])
    for ip in result.get("ips", ()):
        index = ip.get("interface")
        if index is None or not 0 <= index < len(interfaces):
            came = "none" if index is None else show(index)
            raise Finding(f"`interface` of {ip['address']}: an index of `interfaces`", came)
        if interfaces[index].get("sandbox"):
            _, addresses = _inside(pod, interfaces[index]["name"])
            wanted = str(ipaddress.ip_interface(ip["address"]))
            if wanted not in addresses:
                came = listed(sorted(addresses))
                raise Finding(f"{wanted} on {interfaces[index]['name']}", came)


@case(
    "result-abbreviated",
    "An IPAM plugin's result has no interfaces and no index of one",
    section="SPEC 1.1.0, section 5, Delegated plugins (IPAM)",
    since="0.3.0",
    kinds=["ipam"],
)
def result_abbreviated(bench: Bench) -> None:
    """It does not know of interfaces."""
    result = bench.attachment().attach_for_result()
    if result.get("interfaces"):
        raise Finding("no `interfaces`", show(result))
    if any("interface" in ip for ip in result.get("ips", ())):
        raise Finding("no `interface` of an address", show(result))


@case(
    "result-unique-addresses",
    "Two containers get different addresses",
    section=_SECTION,
    newest_only=True,
    kinds=["interface", "ipam"],
    applies=lambda profile: profile.exhaust is not None,
)
def result_unique_addresses(bench: Bench) -> None:
    """Of one network, on one host."""
    pods = [bench.attachment() for _ in range(3)]
    if pods[0].config.get("ipam", {}).get("type") == bench.recorder.type:
        raise NotApplicable("the IPAM plugin of its profile is not beside it")
    results = [pod.attach_for_result() for pod in pods]
    addresses = [ip["address"] for result in results for ip in result.get("ips", ())]
    if len(set(addresses)) != len(addresses):
        raise Finding("different addresses", ", ".join(addresses))
