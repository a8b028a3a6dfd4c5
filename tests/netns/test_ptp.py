# SPDX-License-Identifier: Apache-2.0
"""ptp on the real kernel: traffic, every verb, what CHECK notices, what a failure leaves."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from cni_ptp.pair import gateway_of
from libcni.types.errors import CniError
from libcni.types.result import IPConfig
from tests.netns import pods
from tests.netns.pods import Pod, pod_factory
from tests.rig.host import Host
from tests.rig.killed import killed_after
from tests.rig.plugins import GO_BIN_DIR, Runner, encode, environment

SUBNET, SUBNET6 = "10.72.0.0/24", "fd00:72::/64"
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "routed",
    "type": "ptp",
    "ipMasq": True,
    "mtu": 1400,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": SUBNET}], [{"subnet": SUBNET6}]],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "::/0"},
            {"dst": "10.90.0.0/16", "mtu": 1300, "priority": 7, "table": 100},
        ],
    },
}
STORE = pathlib.Path("/var/lib/cni/networks/routed")
changed = functools.partial(pods.changed, CONFIG)
reserved = functools.partial(pods.reserved, "routed")


@pytest.fixture
def pod(host: Host, run_plugin: Runner) -> Callable[..., Pod]:
    """Factory of pods, not yet attached."""
    return pod_factory(host, run_plugin, CONFIG)


def test_containers_reach_each_other_and_the_host(host: Host, pod: Callable[..., Pod]) -> None:
    one, two = pod().add(), pod().add()
    for position in (0, 1):
        one.netns.ping(two.addresses()[position])
        two.netns.ping(one.addresses()[position])
        host.ping(one.addresses()[position])
        one.netns.ping(one.result["ips"][position]["gateway"])
    for each in (one, two):
        each.call("CHECK", each.known).succeeded()
        each.call("STATUS").succeeded()
        each.call("DEL", each.known).succeeded()


def test_the_result_and_what_there_is(host: Host, pod: Callable[..., Pod]) -> None:
    """Interfaces with MAC and MTU, addresses of the container's, IPAM's routes."""
    one = pod().add()
    outer, inner = one.result["interfaces"]
    link = host.ip("link", "show", outer["name"])[0]
    assert outer == {"name": link["ifname"], "mac": link["address"], "mtu": 1400}
    assert inner["name"] == "eth0" and inner["sandbox"] == one.netns.path and inner["mtu"] == 1400
    assert [ip["interface"] for ip in one.result["ips"]] == [1, 1]
    assert one.result["routes"] == CONFIG["ipam"]["routes"]
    routes = one.netns.run("ip", "route").stdout.splitlines()
    address = one.addresses()[0]
    assert [line.strip() for line in routes] == [
        "default via 10.72.0.1 dev eth0",
        f"10.72.0.0/24 via 10.72.0.1 dev eth0 src {address}",
        f"10.72.0.1 dev eth0 scope link src {address}",
    ]
    assert "10.72.0.1/32" in host.run("ip", "address", "show", outer["name"])
    assert host.ip("route", "show", address)[0]["dev"] == outer["name"]
    assert link["ifalias"] == "cni:routed:pod-0:eth0"
    one.call("DEL", one.known).succeeded()


@pytest.mark.parametrize(
    "version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
)
def test_every_version(pod: Callable[..., Pod], version: str) -> None:
    one = pod(changed(cniVersion=version)).add()
    assert one.result["cniVersion"] == version
    if version >= "0.4.0":
        one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()


def test_outside_sees_the_host(host: Host, pod: Callable[..., Pod]) -> None:
    """Masqueraded: the other side has no route back to the container."""
    outside = host.netns()
    host.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1")
    host.run("ip", "link", "set", "out1", "netns", outside.name)
    host.run("ip", "address", "add", "192.0.2.1/24", "dev", "out0")
    host.run("ip", "link", "set", "out0", "up")
    outside.run("ip", "address", "add", "192.0.2.2/24", "dev", "out1")
    outside.run("ip", "link", "set", "out1", "up")
    one = pod().add()
    one.netns.ping("192.0.2.2")
    one.call("DEL", one.known).succeeded()


STATIC = {"address": "10.72.9.2/24", "gateway": "10.72.9.1"}
HOST = ("ip", "link", "set", "{veth}")
BREAKAGES: dict[str, tuple[bool, tuple[str, ...], str]] = {
    "address": (False, ("ip", "address", "flush", "dev", "eth0", "scope", "global"), "addresses"),
    "down": (False, ("ip", "link", "set", "eth0", "down"), "eth0"),
    "mtu": (False, ("ip", "link", "set", "eth0", "mtu", "1401"), "MTU of container"),
    "mac": (False, ("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01"), "MAC address"),
    "default": (False, ("ip", "route", "delete", "default"), "0.0.0.0/0"),
    "subnet": (False, ("ip", "route", "delete", SUBNET), SUBNET),
    "gateway": (False, ("ip", "-6", "route", "delete", "fd00:72::1"), "gateway fd00:72::1"),
    "table": (False, ("ip", "route", "flush", "table", "100"), "table 100"),
    "host down": (True, (*HOST, "down"), "up, found down"),
    "host mtu": (True, (*HOST, "mtu", "1401"), "MTU of host interface"),
    "host alias": (True, (*HOST, "alias", "x"), "alias of host interface"),
    "host mac": (True, (*HOST, "address", "02:00:00:00:00:01"), "MAC address of host"),
    "host address": (True, ("ip", "address", "delete", "10.72.0.1/32", "dev", "{veth}"), "10.72."),
    "host route": (True, ("ip", "route", "delete", "{address}"), "route to 10.72."),
    "forwarding": (True, ("sysctl", "-qw", "net.ipv4.ip_forward=0"), "ip_forward"),
    "masquerade": (True, ("nft", "delete", "table", "inet", "adder_ipmasq"), "adder_ipmasq"),
    "reservation": (True, ("rm", f"{STORE}/{{address}}"), "reserved"),
    "gone": (True, ("ip", "link", "delete", "{veth}"), "nothing"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_notices(host: Host, pod: Callable[..., Pod], name: str) -> None:
    on_host, words, culprit = BREAKAGES[name]
    one = pod().add()
    one.call("CHECK", one.known).succeeded()
    command = [word.format(veth=one.veth, address=one.addresses()[0]) for word in words]
    if on_host:
        host.run(*command)
    else:
        one.netns.run(*command)
    one.call("CHECK", one.known).failed(103, culprit)
    if "alias" in name:
        # By which DEL knows it: what bears another is another's.
        host.run("ip", "link", "set", one.veth, "alias", f"cni:routed:{one.name}:eth0")
    one.call("DEL", one.known).succeeded()
    assert one.veth not in host.link_names()


def test_check_minds_only_its_own(host: Host, pod: Callable[..., Pod]) -> None:
    one = pod().add()
    one.netns.run("ip", "address", "add", "10.9.9.9/24", "dev", "eth0")
    one.netns.run("ip", "route", "add", "10.8.0.0/16", "via", "10.9.9.1")
    host.run("ip", "route", "add", "10.8.0.0/16", "dev", one.veth)
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()


@pytest.mark.parametrize("missing", ["nothing", "prevResult", "namespace", "path", "all"])
def test_delete_with_what_is_left(host: Host, pod: Callable[..., Pod], missing: str) -> None:
    """And again: nothing of the attachment stays, masquerade included."""
    before = host.snapshot()
    one = pod().add()
    config = one.config if missing in ("prevResult", "all") else one.known
    if missing in ("namespace", "all"):
        one.netns.delete()
    for _ in range(2):
        options = {"netns": ""} if missing in ("path", "all") else {}
        one.call("DEL", config, **options).succeeded()
    assert reserved() == set()
    if one.netns is not None:
        one.netns.delete()
    host.assert_clean(before)


@pytest.mark.parametrize("alias", ["theirs", ""])
def test_delete_by_the_name_that_only_it_can_have(
    host: Host, pod: Callable[..., Pod], alias: str
) -> None:
    """Somebody changed the alias, and there is no prevResult; the next one gets the address."""
    one = pod(changed(ipam={"type": "static", "addresses": [STATIC]})).add()
    host.run("ip", "link", "set", one.veth, "alias", alias)
    one.call("DEL").succeeded()
    assert one.veth not in host.link_names()
    other = pod(one.config).add()
    other.call("DEL").succeeded()


def test_delete_leaves_a_pair_of_that_name_in_another_container(
    host: Host, pod: Callable[..., Pod]
) -> None:
    one, other = pod().add(), host.netns()
    one.call("DEL", one.known).succeeded()
    host.run("ip", "link", "add", one.veth, "type", "veth", "peer", "name", "p")
    host.run("ip", "link", "set", "p", "netns", other.name)
    one.netns.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
    one.call("DEL").succeeded()
    assert one.veth in host.link_names() and "eth0" in one.netns.link_names()
    host.run("ip", "link", "delete", one.veth)


def test_a_gateway_of_the_other_family() -> None:
    with pytest.raises(CniError, match="of the other family") as refusal:
        gateway_of(IPConfig("10.72.2.2/24", "fd00:72::1"))
    assert refusal.value.code == 104


def test_small_subnets_and_several_addresses(host: Host, pod: Callable[..., Pod]) -> None:
    """Of one address, of two, and two addresses with one gateway; sbr moves all routes away."""
    addresses = [
        {"address": "10.72.3.0/31", "gateway": "10.72.3.1"},
        {"address": "10.72.3.9/32", "gateway": "10.72.3.1"},
        {"address": "fd00:73::2/127", "gateway": "fd00:73::3"},
    ]
    one = pod(changed(ipam={"type": "static", "addresses": addresses, "routes": []})).add()
    for address in one.addresses():
        host.ping(address)
    one.call("CHECK", one.known).succeeded()
    separated = {"cniVersion": "1.1.0", "name": "routed", "type": "sbr", "prevResult": one.result}
    options: dict[str, Any] = {"netns": one.netns, "container_id": one.name}
    one.result = one.run("sbr", "ADD", separated, **options).result()
    assert not one.netns.run("ip", "route").stdout
    one.call("CHECK", one.known).succeeded()
    one.netns.run("ip", "route", "flush", "table", "100")
    one.call("CHECK", one.known).failed(103, "10.72.3.0/31")
    one.call("DEL", one.known).succeeded()


def test_an_add_that_fails_leaves_nothing(host: Host, pod: Callable[..., Pod]) -> None:
    """Before, in and after IPAM."""
    before = host.snapshot()
    taken = pod()
    taken.netns.run("ip", "link", "add", "eth0", "type", "bridge")
    taken.call("ADD").failed(101, 'container veth name ("eth0") already exists')
    full = changed(ipam={"type": "host-local", "subnet": "10.72.1.0/30", "exclude": ["10.72.1.2"]})
    pod(full).call("ADD").failed(7, "10.72.1.2 has no address")
    bare = changed(ipam={"type": "static", "addresses": [{"address": "10.72.2.2/24"}]})
    pod(bare).call("ADD").failed(104, "no gateway for 10.72.2.2/24")
    pod(changed(ipam={"type": "static"})).call("ADD").failed(104, "static gave no address")
    pod(changed(ipam=None)).call("ADD").failed(7, "ipam.type")
    pod(changed(mtu=10)).call("ADD").failed(7, "mtu: 10")
    pod(changed(mtu=1000)).call("ADD").failed(7, "mtu 1000", "IPv6 address fd00:72::", "1280")
    own = {"type": "static", "addresses": [{"address": "10.72.2.2/24", "gateway": "10.72.2.2"}]}
    pod(changed(ipam=own)).call("ADD").failed(104, "10.72.2.2 as the gateway of itself")
    bad = changed(ipam={**CONFIG["ipam"], "routes": [{"dst": "10.0.0.0/8", "gw": "192.0.2.9"}]})
    pod(bad).call("ADD").failed(102, "10.0.0.0/8")
    pod(changed(ipam={"type": "nonesuch"})).call("ADD").failed(7, "nonesuch")
    for namespace in host._namespaces:
        namespace.delete()
    host.assert_undone(before)


def test_ipv4_with_less_than_ipv6_takes(pod: Callable[..., Pod]) -> None:
    one = pod(changed(mtu=1000, ipam={"type": "host-local", "subnet": SUBNET})).add()
    assert one.result["interfaces"][1]["mtu"] == 1000
    one.call("CHECK", one.known).succeeded()


def test_killed_at_any_moment(host: Host, pod: Callable[..., Pod]) -> None:
    """SIGKILL during ADD, then DEL: nothing stays."""
    before = host.snapshot()
    for number in range(24):
        one = pod()
        killed_after(
            0.0007 * number,
            one.run.bin_dir / "ptp",
            environment("ADD", one.run.bin_dir, one.netns, one.name, "eth0"),
            encode(CONFIG),
        )
        one.call("DEL").succeeded()
        assert "eth0" not in one.netns.run("ip", "-br", "link").stdout
        one.netns.delete()
    assert reserved() == set()
    host.assert_clean(before)


def test_gc(host: Host, pod: Callable[..., Pod]) -> None:
    """What is valid stays whole; the rest goes, of this network alone."""
    keep, lose = pod().add(), pod().add()
    elsewhere = {"type": "host-local", "subnet": "10.73.0.0/24"}
    other = pod(changed(name="another", ipam=elsewhere)).add()
    keep.call("GC").failed(7, "valid-attachments")
    valid = [{"containerID": keep.name, "ifname": "eth0"}]
    config = {**CONFIG, "cni.dev/valid-attachments": valid}
    keep.call("GC", config).succeeded()
    assert lose.veth not in host.link_names()
    assert reserved() == set(keep.addresses())
    for each in (keep, other):
        each.call("CHECK", each.known).succeeded()
        each.call("DEL", each.known).succeeded()
    assert lose.addresses()[0] not in host.run("nft", "list", "ruleset")
    lose.call("DEL", lose.known).succeeded()


def remove_go_s_tables(host: Host) -> None:
    """iptables-nft leaves its empty ones."""
    script = "nft list tables | grep -v adder | while read line; do nft delete $line; done"
    host.run("sh", "-c", script)


@pytest.mark.parametrize("known", [True, False])
def test_what_go_made_is_checked_and_deleted(
    host: Host, pod: Callable[..., Pod], known: bool
) -> None:
    before = host.snapshot()
    config = changed(cniVersion="1.0.0", mtu=None)
    config["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    one = pod(config)
    one.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known if known else config).succeeded()
    assert one.veth not in host.link_names()
    assert reserved() == set()
    one.netns.delete()
    assert one.addresses()[0] not in host.run("nft", "list", "ruleset")
    host.run(
        "sh", "-c", "nft list tables | grep -v adder | while read line; do nft delete $line; done"
    )
    host.assert_clean(before)


def test_what_go_made_goes_after_tuning(host: Host, pod: Callable[..., Pod]) -> None:
    """Somebody gave the host end an alias, and prevResult has the MAC address of tuning."""
    config = changed(cniVersion="1.0.0", mtu=None, ipMasq=False)
    config["ipam"]["routes"] = []
    one = pod(config)
    one.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    result = pods.tuned_by_go(host, one, "0a:58:0a:f4:01:02")
    host.run("ip", "link", "set", one.veth, "alias", "theirs")
    one.call("DEL", {**config, "prevResult": result}).succeeded()
    assert one.veth not in host.link_names()


def test_go_deletes_what_ours_made(host: Host, pod: Callable[..., Pod]) -> None:
    host.expect_leftovers("Go's host-local does not know our index of owners")
    one = pod(changed(cniVersion="1.0.0", ipMasqBackend="iptables")).add()
    one.call("DEL", one.known, bin_dir=GO_BIN_DIR, path=GO_BIN_DIR).succeeded()
    assert one.veth not in host.link_names()
    assert reserved() == set()


def test_an_address_that_is_routed_elsewhere(host: Host, pod: Callable[..., Pod]) -> None:
    """Two networks with one subnet: refused, and the first goes on."""
    one = pod().add()
    other = pod(changed(name="another"))
    other.call("ADD").failed(101, f"route to {one.addresses()[0]}/32", one.veth)
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()


def test_an_interface_of_others_is_left_alone(host: Host, pod: Callable[..., Pod]) -> None:
    """DEL after an ADD that was refused because of it."""
    one = pod().add()
    other = Pod(one.run, one.netns, "stranger", changed(name="another"))
    other.call("ADD").failed(101, "eth0")
    other.call("DEL").succeeded()
    one.call("CHECK", one.known).succeeded()
    one.call("DEL", one.known).succeeded()


def test_status(pod: Callable[..., Pod]) -> None:
    pod(changed(ipam=None)).call("STATUS").failed(7, "ipam.type")
    full = changed(ipam={"type": "host-local", "subnet": "10.72.1.0/30", "exclude": ["10.72.1.2"]})
    pod(full).call("STATUS").failed(7, "ipam.subnet", "10.72.1.2 has no address")
    lone: dict[str, Any] = {"type": "static", "addresses": [{"address": "10.72.1.9/24"}]}
    pod(changed(ipam=lone)).call("ADD").failed(104, "no gateway")
    pod(changed(ipam=lone)).call("STATUS").failed(50, "ipam.addresses[0] has no gateway")
    # What takes the place of the configured ones, and one of which gives it its gateway.
    two = {"type": "static", "addresses": [*lone["addresses"], {"address": "10.73.1.9/24"}]}
    two["addresses"][1]["gateway"] = "10.73.1.1"
    asked = changed(ipam=two, args={"cni": {"ips": ["10.73.1.5/24"]}})
    pod(asked).call("STATUS").succeeded()
    pod(asked).add().call("DEL").succeeded()
    lone["addresses"][0]["gateway"] = "10.72.1.1"
    pod(changed(ipam=lone)).call("STATUS").succeeded()
