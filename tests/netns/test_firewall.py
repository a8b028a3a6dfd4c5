# SPDX-License-Identifier: Apache-2.0
"""firewall on the real kernel: real traffic past a FORWARD chain that drops, in each backend."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from cni_firewall import ipt, nft
from cni_firewall.record import pack, unpack
from libcni.inet import Prefix
from libcni.netlink.socket import NetlinkError
from tests.rig import isolation
from tests.rig.capabilities import CAP_NET_ADMIN, WITHOUT_NET_ADMIN, without
from tests.rig.host import Host, Netns
from tests.rig.plugins import GO_BIN_DIR, Runner
from tests.rig.xtables import path_with

BACKENDS = ["iptables", "nftables"]
#: What isolated needs of the host, which a namespace cannot load.
BRIDGED = pytest.mark.skipif(
    not os.path.isdir("/proc/sys/net/bridge"), reason="br_netfilter is not loaded"
)
#: What a plugin is started under so that it fails when all is done: writing the result does.
WITHOUT_STDOUT = ("sh", "-c", 'exec "$0" "$@" >/dev/full')
ISOLATED = pytest.param("isolated", marks=BRIDGED)
#: What administrators do so that nothing is forwarded unless it is asked for.
DROP = {
    "iptables": [["iptables", "-P", "FORWARD", "DROP"], ["ip6tables", "-P", "FORWARD", "DROP"]],
    "nftables": [],
}


class Pod:
    """A container on a bridge of the host's, with an address of each family."""

    def __init__(self, host: Host, run: Runner, bridge: int, number: int) -> None:
        self.host, self.run = host, run
        self.bridge = f"br{bridge}"
        self.name = f"pod-{bridge}-{number}"
        self.netns: Netns = host.netns()
        self.addresses = [f"10.{bridge}.0.{number}", f"fd00:{bridge}::{number}"]
        if self.bridge not in host.link_names():
            host.run("ip", "link", "add", self.bridge, "type", "bridge")
            host.run("ip", "address", "add", f"10.{bridge}.0.1/24", "dev", self.bridge)
            host.run("ip", "address", "add", f"fd00:{bridge}::1/64", "dev", self.bridge, "nodad")
            host.run("ip", "link", "set", self.bridge, "up")
        veth = f"v{bridge}-{number}"
        host.run("ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0",
                 "netns", self.netns.name)  # fmt: skip
        host.run("ip", "link", "set", veth, "master", self.bridge, "up")
        for address, length in zip(self.addresses, (24, 64), strict=True):
            flags = ["nodad"] if length == 64 else []
            self.netns.run("ip", "address", "add", f"{address}/{length}", "dev", "eth0", *flags)
        self.netns.run("ip", "link", "set", "eth0", "up")
        self.netns.run("ip", "route", "add", "default", "via", f"10.{bridge}.0.1")
        self.netns.run("ip", "route", "add", "default", "via", f"fd00:{bridge}::1")

    def config(self, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
        """With the result of the plugin before."""
        ips = [
            {"address": f"{address}/{length}", "interface": 1}
            | ({} if version >= "1.0.0" else {"version": "6" if ":" in address else "4"})
            for address, length in zip(self.addresses, (24, 64), strict=True)
        ]
        return {
            "cniVersion": version,
            "name": "pods",
            "type": "firewall",
            **keys,
            "prevResult": {
                "cniVersion": version,
                "interfaces": [
                    {"name": self.bridge, "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": self.netns.path},
                ],
                "ips": ips,
            },
        }

    def call(self, verb: str, config: dict[str, Any], **options: Any) -> Any:
        """Run the plugin."""
        options = {"netns": self.netns, "container_id": self.name, **options}
        return self.run("firewall", verb, config, **options)

    def reaches(self, address: str) -> bool:
        """Whether a ping is answered."""
        for _ in range(3):
            done = self.netns.run("ping", "-n", "-c1", "-W1", address, check=False)
            if done.returncode == 0:
                return True
        return False


@pytest.fixture
def forwarding(host: Host) -> Iterator[None]:
    """The host forwards; the tables that tools leave behind go at the end."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    yield
    host.run("nft", "flush", "ruleset")


@pytest.fixture
def pods(host: Host, run_plugin: Runner, forwarding: None) -> Any:
    """A function that makes a container on a bridge."""
    made: dict[int, int] = {}

    def make(bridge: int = 1) -> Pod:
        made[bridge] = made.get(bridge, 1) + 1
        return Pod(host, run_plugin, bridge, made[bridge])

    return make


def outside(host: Host) -> Netns:
    """The world, 192.0.2.2 and 2001:db8::2, which knows the way back."""
    netns = host.netns()
    host.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1",
             "netns", netns.name)  # fmt: skip
    host.run("ip", "address", "add", "192.0.2.1/24", "dev", "out0")
    host.run("ip", "address", "add", "2001:db8::1/64", "dev", "out0", "nodad")
    host.run("ip", "link", "set", "out0", "up")
    netns.run("ip", "address", "add", "192.0.2.2/24", "dev", "out1")
    netns.run("ip", "address", "add", "2001:db8::2/64", "dev", "out1", "nodad")
    netns.run("ip", "link", "set", "out1", "up")
    netns.run("ip", "route", "add", "default", "via", "192.0.2.1")
    netns.run("ip", "route", "add", "default", "via", "2001:db8::1")
    return netns


def ruleset(host: Host) -> str:
    """All of nftables, iptables' rules too."""
    return host.run("nft", "list", "ruleset")


def test_traffic_past_a_policy_that_drops(host: Host, pods: Any) -> None:
    """What the container begins passes, and nothing that others begin; not any more after DEL."""
    world = outside(host)
    one = pods()
    for command in DROP["iptables"]:
        host.run(*command)
    assert not one.reaches("192.0.2.2") and not one.reaches("2001:db8::2")
    config = one.config(backend="iptables")
    assert one.call("ADD", config).result() == config["prevResult"]
    assert one.reaches("192.0.2.2") and one.reaches("2001:db8::2")
    refused = world.run("ping", "-n", "-c1", "-W1", one.addresses[0], check=False)
    assert refused.returncode != 0
    one.call("CHECK", config).succeeded()
    one.call("DEL", config).succeeded()
    assert not one.reaches("192.0.2.2") and not one.reaches("2001:db8::2")
    assert "10.1.0." not in ruleset(host)


def test_what_is_begun_elsewhere_is_not_accepted(host: Host, pods: Any) -> None:
    """Which ADD and STATUS say, unless a rule of somebody else's may accept it."""
    world = outside(host)
    one = pods()
    config = one.config("1.1.0", backend="iptables")
    for command in DROP["iptables"]:
        host.run(*command)
    words = "chain ip filter FORWARD drops connections to "
    assert words in one.call("STATUS", config).succeeded().stderr
    reply = one.call("ADD", config)
    reply.result()
    assert words in reply.stderr and "CNI-ADMIN" in reply.stderr
    assert words in one.call("STATUS", config).succeeded().stderr
    ping = ["ping", "-n", "-c1", "-W1", one.addresses[0]]
    assert world.run(*ping, check=False).returncode != 0
    for tool in ("iptables", "ip6tables"):
        host.run(tool, "-A", "CNI-ADMIN", "-i", "out0", "-j", "ACCEPT")
    world.run(*ping)
    assert one.call("STATUS", config).succeeded().stderr == ""
    assert one.call("ADD", config).stderr == ""
    for tool in ("iptables", "ip6tables"):
        host.run(tool, "-F", "CNI-ADMIN")
        host.run(tool, "-A", "FORWARD", "-i", "out0", "-j", "ACCEPT")
    assert one.call("ADD", config).stderr == ""
    one.call("DEL", config).succeeded()


def test_what_nftables_cannot_help(host: Host, pods: Any) -> None:
    """An accept in a table of our own is no last word: said by ADD and STATUS."""
    outside(host)
    one = pods()
    for command in DROP["iptables"]:
        host.run(*command)
    config = one.config("1.1.0", backend="nftables")
    reply = one.call("ADD", config)
    reply.result()
    assert "chain ip filter FORWARD drops" in reply.stderr and '"iptables"' in reply.stderr
    one.call("STATUS", config).failed(50, "chain ip filter FORWARD")
    for command in DROP["iptables"]:
        host.run(*command[:-1], "ACCEPT")
    one.call("STATUS", config).succeeded()
    assert one.call("ADD", config).stderr == ""
    one.call("DEL", config).succeeded()


@pytest.mark.parametrize("backend", BACKENDS)
def test_policies_of_a_version_the_container_lacks(host: Host, pods: Any, backend: str) -> None:
    """Are none of its business; and STATUS does not know what containers there will be."""
    one = pods()
    config = one.config("1.1.0", backend=backend)
    host.run("ip6tables", "-P", "FORWARD", "DROP")
    both = one.call("ADD", config)
    assert "chain ip6 filter FORWARD drops" in both.stderr
    one.call("DEL", config).succeeded()
    del config["prevResult"]["ips"][1]
    assert one.call("ADD", config).stderr == ""
    reply = one.call("STATUS", config).succeeded()
    assert "chain ip6 filter FORWARD drops" in reply.stderr
    one.call("DEL", config).succeeded()


def test_what_others_begin_where_the_policy_drops(host: Host, pods: Any) -> None:
    """The iptables backend accepts what containers begin; the rest is for CNI-ADMIN, and said."""
    world = outside(host)
    one = pods()
    for command in DROP["iptables"]:
        host.run(*command)
    config = one.config("1.1.0", backend="iptables")
    reply = one.call("ADD", config)
    reply.result()
    said = f"chain ip filter FORWARD drops connections to {one.name} that others begin"
    assert said in reply.stderr and "chain ip6 filter FORWARD" in reply.stderr
    assert world.run("ping", "-n", "-c1", "-W1", one.addresses[0], check=False).returncode != 0
    reply = one.call("STATUS", config).succeeded()
    assert "drops connections to containers" in reply.stderr and "CNI-ADMIN" in reply.stderr
    host.run("iptables", "-A", "CNI-ADMIN", "-p", "icmp", "-j", "ACCEPT")
    host.run("ip6tables", "-A", "CNI-ADMIN", "-p", "icmpv6", "-j", "ACCEPT")
    assert world.run("ping", "-n", "-c1", "-W2", one.addresses[0], check=False).returncode == 0
    assert one.call("ADD", config).stderr == ""
    assert one.call("STATUS", config).succeeded().stderr == ""
    one.call("DEL", config).succeeded()


def test_rules_are_go_s(host: Host, pods: Any) -> None:
    """Chain for chain and rule for rule, but for the comments that say whose they are."""
    one, two = pods(), pods()
    one.call("ADD", one.config(), bin_dir=GO_BIN_DIR).result()
    two.call("ADD", two.config(backend="iptables")).result()
    saved = host.run("iptables-save", "-t", "filter").splitlines()
    shown = [line for line in saved if line.startswith("-A")]
    mark = f'-m comment --comment "cni:pods:{two.name}:eth0" '
    assert shown == [
        '-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD',
        '-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN',
        "-A CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT",
        "-A CNI-FORWARD -d 10.1.0.3/32 -m conntrack --ctstate RELATED,ESTABLISHED "
        f"{mark}-j ACCEPT",
        f"-A CNI-FORWARD -s 10.1.0.3/32 {mark}-j ACCEPT",
    ] or shown == [line.replace('"cni', "cni").replace('eth0"', "eth0") for line in shown]
    assert len(shown) == 6
    # Go's are as good, and are deleted by their addresses.
    one.call("CHECK", one.config(backend="iptables")).succeeded()
    one.call("DEL", one.config()).succeeded()
    two.call("DEL", two.config()).succeeded()
    assert "10.1.0." not in ruleset(host) and "fd00:1::" not in ruleset(host)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "1.0.0", "1.1.0"])
def test_twice_and_every_version(pods: Any, backend: str, version: str) -> None:
    """An ADD that is repeated adds nothing."""
    one = pods()
    config = one.config(version, backend=backend)
    before = ""
    for _ in range(2):
        one.call("ADD", config).result()
        after = ruleset(one.host)
        assert before in ("", after)
        before = after
    one.call("DEL", config).succeeded()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", ["open", "same-bridge", ISOLATED])
def test_first_ones_at_once(host: Host, pods: Any, backend: str, policy: str) -> None:
    """Racing first ADDs all succeed, and make what they share once."""
    many = [pods() for _ in range(10)]
    config = {"backend": backend, "ingressPolicy": policy}
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(one.call, "ADD", one.config(**config)) for one in many]
        for call in calls:
            call.result().result()
    for one in many:
        one.call("CHECK", one.config(**config)).succeeded()
    for tool in ("iptables-save", "ip6tables-save"):
        lines = [line for line in host.run(tool).splitlines() if line.startswith("-A")]
        assert sorted(lines) == sorted(set(lines))
    with ThreadPoolExecutor(10) as pool:
        for reply in pool.map(lambda one: one.call("DEL", one.config(**config)), many):
            reply.succeeded()
    text = ruleset(host)
    assert "10.1.0." not in text and "fd00:1::" not in text


@pytest.mark.parametrize("nth", range(4))
def test_delete_after_somebody_removed_a_rule(host: Host, pods: Any, nth: int) -> None:
    """Where the others are is known; none of them is deleted twice."""
    first, one = pods(), pods()
    # What containers share is there already.
    first.call("ADD", first.config(backend="iptables")).result()
    one.call("ADD", one.config(backend="iptables")).result()
    rules = [
        item["rule"]
        for item in json.loads(host.run("nft", "-j", "-a", "list", "ruleset"))["nftables"]
        if "rule" in item and any(address in json.dumps(item) for address in one.addresses)
    ]
    assert len(rules) == 4
    rule = rules[nth]
    place = [rule["family"], rule["table"], rule["chain"], "handle", str(rule["handle"])]
    host.run("nft", "delete", "rule", *place)
    one.call("DEL", one.config(backend="iptables")).succeeded()
    text = ruleset(host)
    assert one.name not in text and not any(address in text for address in one.addresses)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("missing", ["nothing", "prevResult", "namespace", "configuration"])
def test_delete_with_what_is_left(host: Host, pods: Any, backend: str, missing: str) -> None:
    """By identity alone; another container's stay."""
    one, two = pods(), pods()
    for each in (one, two):
        each.call("ADD", each.config(backend=backend)).result()
    config, options = one.config(backend=backend), {}
    match missing:
        case "prevResult":
            del config["prevResult"]
        case "namespace":
            options["netns"] = ""
        case "configuration":
            config = {"cniVersion": "1.0.0", "name": "pods", "type": "firewall"}
    for _ in range(2):
        one.call("DEL", config, **options).succeeded()
    text = ruleset(host)
    assert one.name not in text and one.addresses[0] not in text and one.addresses[1] not in text
    two.call("CHECK", two.config(backend=backend)).succeeded()
    two.call("DEL", two.config(backend=backend)).succeeded()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_what_may_not_be_removed_is_told(
    host: Host, pods: Any, run_plugin: Runner, backend: str, verb: str
) -> None:
    """Without CAP_NET_ADMIN rules cannot even be seen: that is no success."""
    one = pods()
    config = one.config("1.1.0", backend=backend)
    one.call("ADD", config).result()
    before = ruleset(host)
    config["cni.dev/valid-attachments"] = []
    one.call(verb, config, under=WITHOUT_NET_ADMIN).failed(102, "Operation not permitted")
    for module in (ipt, nft):
        with pytest.raises(NetlinkError, match="not permitted"):
            without(CAP_NET_ADMIN, partial(module.gc, ("cni:pods:",), set()))
    assert ruleset(host) == before
    one.call(verb, config).succeeded()
    assert one.name not in ruleset(host)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bridges_kept_apart(host: Host, pods: Any, backend: str) -> None:
    """same-bridge: neighbours reach each other, other bridges with a policy do not; the world
    and a bridge without a policy do."""
    world = outside(host)
    one, near, far, free = pods(1), pods(1), pods(2), pods(3)
    for each in (one, near, far):
        each.call("ADD", each.config(backend=backend, ingressPolicy="same-bridge")).result()
        each.call("CHECK", each.config(backend=backend, ingressPolicy="same-bridge")).succeeded()
    free.call("ADD", free.config(backend=backend)).result()
    for position in (0, 1):
        assert one.reaches(near.addresses[position])
        assert not one.reaches(far.addresses[position])
        assert not far.reaches(one.addresses[position])
        assert free.reaches(one.addresses[position])
        assert one.reaches(("192.0.2.2", "2001:db8::2")[position])
    assert world.run("ping", "-n", "-c1", "-W2", one.addresses[0], check=False).returncode == 0
    for each in (one, near, far, free):
        each.call("DEL", each.config()).succeeded()


@BRIDGED
@pytest.mark.parametrize("backend", BACKENDS)
def test_containers_kept_apart(host: Host, pods: Any, backend: str) -> None:
    """isolated: bridged, and routed by the host from the bridge to itself."""
    one, near, far = pods(1), pods(1), pods(2)
    for each in (one, near, far):
        each.call("ADD", each.config(backend=backend, ingressPolicy="isolated")).result()
    assert not one.reaches(near.addresses[0]) and not one.reaches(near.addresses[1])
    for each, other in ((one, near), (near, one)):
        each.netns.run("ip", "route", "add", f"{other.addresses[0]}/32", "via", "10.1.0.1")
    host.run("sysctl", "-qw", "net.ipv4.conf.all.send_redirects=0")
    assert not one.reaches(near.addresses[0])
    assert not one.reaches(far.addresses[0])
    for each in (one, near, far):
        each.call("CHECK", each.config(backend=backend, ingressPolicy="isolated")).succeeded()
        each.call("DEL", each.config()).succeeded()
    host.run("sysctl", "-qw", "net.ipv4.conf.all.send_redirects=1")


BREAKAGES: dict[str, tuple[str, str, str]] = {
    "jump": ("iptables", "iptables -F FORWARD", "CNI-FORWARD"),
    "admin": ("iptables", "iptables -D CNI-FORWARD 1", "CNI-ADMIN"),
    "answers": ("iptables", "iptables -D CNI-FORWARD 2", "-d 10.1.0.2/32"),
    "sends": ("iptables", "iptables -D CNI-FORWARD 3", "-s 10.1.0.2/32"),
    "ipv6": ("iptables", "ip6tables -D CNI-FORWARD 3", "ip6tables"),
    "stage 1": ("iptables", "iptables -F CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE"),
    "stage 2": ("iptables", "iptables -F CNI-ISOLATION-STAGE-2", "-o br1"),
    "address": (
        "nftables",
        "nft delete element inet adder_firewall ipv4 { 10.1.0.2 }",
        "10.1.0.2",
    ),
    "address 6": ("nftables", "nft flush set inet adder_firewall ipv6", "fd00:1::2"),
    "rules": ("nftables", "nft flush chain inet adder_firewall forward", "rule 'ingressPolicy'"),
    "table": (
        "nftables",
        "nft delete table inet adder_firewall",
        "table inet adder_firewall is missing",
    ),
    "bridge": ("nftables", "nft flush set inet adder_firewall bridges", "bridge br1"),
    "inside": ("nftables", "nft flush set inet adder_firewall open_inside", "br1 in set"),
}


def test_check_notices_a_table_that_sleeps(host: Host, pods: Any) -> None:
    one = pods()
    config = one.config(backend="nftables")
    one.call("ADD", config).result()
    isolation.command("nft", "add table inet adder_firewall { flags dormant; }")
    one.call("CHECK", config).failed(103, "table adder_firewall is dormant")
    isolation.command("nft", "add table inet adder_firewall")
    one.call("CHECK", config).succeeded()
    one.call("DEL", config).succeeded()


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_notices(host: Host, pods: Any, name: str) -> None:
    backend, damage, words = BREAKAGES[name]
    one = pods()
    config = one.config(backend=backend, ingressPolicy="same-bridge")
    one.call("ADD", config).result()
    one.call("CHECK", config).succeeded()
    host.run(*damage.split())
    one.call("CHECK", config).failed(103, words)
    # And the next ADD mends it.
    one.call("ADD", config).result()
    one.call("CHECK", config).succeeded()
    one.call("DEL", config).succeeded()


@pytest.mark.parametrize("backend", BACKENDS)
def test_check_minds_only_its_own(host: Host, pods: Any, backend: str) -> None:
    one = pods()
    config = one.config(backend=backend)
    one.call("ADD", config).result()
    host.run("iptables", "-A", "FORWARD", "-s", "10.9.9.9", "-j", "DROP")
    host.run("iptables", "-N", "OTHER")
    one.call("CHECK", config).succeeded()
    one.call("DEL", config).succeeded()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gc(host: Host, pods: Any, backend: str) -> None:
    """What is valid stays, and what is another network's, or an administrator's."""
    keep, lose, other = pods(), pods(), pods()
    for each in (keep, lose):
        each.call("ADD", each.config("1.1.0", backend=backend)).result()
    other.call("ADD", other.config("1.1.0", backend=backend, name="another")).result()
    host.run("iptables", "-I", "CNI-FORWARD" if backend == "iptables" else "FORWARD", "-s",
             "10.9.9.9", "-j", "ACCEPT")  # fmt: skip
    config = {"cniVersion": "1.1.0", "name": "pods", "type": "firewall"}
    keep.call("GC", config).failed(7, "valid-attachments")
    valid = [{"containerID": keep.name, "ifname": "eth0"}]
    keep.call("GC", {**config, "cni.dev/valid-attachments": valid}).succeeded()
    text = ruleset(host)
    assert lose.name not in text and lose.addresses[0] not in text
    assert "10.9.9.9" in text
    keep.call("CHECK", keep.config(backend=backend)).succeeded()
    other.call("CHECK", other.config(backend=backend, name="another")).succeeded()
    for each in (keep, lose):
        each.call("DEL", each.config()).succeeded()
    other.call("DEL", other.config(name="another")).succeeded()


#: All of iptables that one IP version takes.
IPTABLES = ("iptables-restore", "iptables-save")


def with_tools(
    pod: Any,
    directory: pathlib.Path,
    tools: tuple[str, ...],
    verb: str,
    config: dict[str, Any],
    variant: str = "nft",
) -> subprocess.CompletedProcess[bytes]:
    """Run the plugin where of iptables and ip6tables there are only these."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for tool in tools:
        shutil.copy(f"/usr/sbin/xtables-{variant}-multi", directory / tool)
    environment = {
        "CNI_CONTAINERID": pod.name, "CNI_NETNS": pod.netns.path, "CNI_IFNAME": "eth0",
        "CNI_PATH": str(pod.run.bin_dir), "PATH": f"{directory}:/usr/bin:/bin",
        "CNI_COMMAND": verb,
    }  # fmt: skip
    script = 'mount -t tmpfs tmpfs /usr/sbin && exec "$0" "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(pod.run.bin_dir / "firewall")],
        input=json.dumps(config).encode(),
        env=environment,
        capture_output=True,
        check=False,
    )


def test_one_tool_is_enough(host: Host, pods: Any, tmp_path: pathlib.Path) -> None:
    """Where there is no ip6tables, IPv4 works; DEL needs neither."""
    one = pods()
    config = one.config(backend="iptables")
    for verb in ("ADD", "CHECK", "DEL"):
        done = with_tools(one, tmp_path / "bin", IPTABLES, verb, config)
        assert done.returncode == 0, done
        assert ("10.1.0.2" in ruleset(host)) == (verb != "DEL")
        assert "fd00:1::2" not in ruleset(host)


@pytest.mark.parametrize("tools", [(), IPTABLES])
def test_check_without_a_tool_that_add_had(
    host: Host, pods: Any, tmp_path: pathlib.Path, tools: tuple[str, ...]
) -> None:
    """Nobody knows whether the rules are there; that is no success."""
    one = pods()
    config = one.config(backend="iptables")
    one.call("ADD", config).result()
    host.run("nft", "flush", "chain", "ip6", "filter", "CNI-FORWARD")
    done = with_tools(one, tmp_path / "bin", tools, "CHECK", config)
    error = json.loads(done.stdout)
    assert error["code"] == 103 and "tables-save is not installed" in error["msg"]
    del config["prevResult"]["ips"][1]
    done = with_tools(one, tmp_path / "bin", tools, "CHECK", config)
    assert (done.returncode == 0) == (tools == IPTABLES)
    done = with_tools(one, tmp_path / "bin", (), "DEL", config)
    assert done.returncode == 0 and one.name not in ruleset(host)


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_check_on_a_node_without_ip6tables(
    host: Host, pods: Any, tmp_path: pathlib.Path, variant: str
) -> None:
    """What ADD passed over, CHECK does; also when it is not known any more where rules are."""
    one = pods()
    config = one.config(backend="iptables")

    def call(verb: str) -> int:
        return with_tools(one, tmp_path / "bin", IPTABLES, verb, config, variant).returncode

    assert [call(verb) for verb in ("ADD", "CHECK", "ADD", "CHECK")] == [0, 0, 0, 0]
    host.run(f"iptables-{variant}", "-F", "CNI-FORWARD")
    assert [call(verb) for verb in ("CHECK", "ADD", "CHECK", "DEL")] == [1, 0, 0, 0]
    assert one.addresses[0] not in host.run(f"iptables-{variant}-save")


@pytest.mark.parametrize("policy", ["open", ISOLATED])
def test_iptables_legacy(host: Host, pods: Any, tmp_path: pathlib.Path, policy: str) -> None:
    """Where that is the system's: every verb, twice, and what Go's plugin made there."""
    variables = {"PATH": path_with("legacy", tmp_path)}

    def rules() -> list[str]:
        return [
            f"{tool}: {line}"
            for tool in ("iptables", "ip6tables")
            for line in host.run(f"/usr/sbin/{tool}-legacy-save").splitlines()
            if line.startswith("-A")
        ]

    keep, lose, gos = pods(), pods(), pods()
    keys = {"backend": "iptables", "ingressPolicy": policy}
    gos.call("ADD", gos.config(), bin_dir=GO_BIN_DIR, variables=variables).result()
    for each in (keep, lose, keep):
        each.call("ADD", each.config("1.1.0", **keys), variables=variables).result()
        each.call("CHECK", each.config("1.1.0", **keys), variables=variables).succeeded()
    assert len(rules()) == len(set(rules())) and "CNI-FORWARD" not in ruleset(host)
    host.run("/usr/sbin/iptables-legacy", "-D", "CNI-FORWARD", "-s", keep.addresses[0], "-m",
             "comment", "--comment", f"cni:pods:{keep.name}:eth0", "-j", "ACCEPT")  # fmt: skip
    keep.call("CHECK", keep.config(**keys), variables=variables).failed(103, keep.addresses[0])
    keep.call("ADD", keep.config(**keys), variables=variables).result()
    # An administrator's rule about the same address is none of ours or Go's.
    theirs = f"-A CNI-FORWARD -s {gos.addresses[0]}/32 -j DROP"
    host.run("/usr/sbin/iptables-legacy", *theirs.split())
    gos.call("DEL", gos.config(), variables=variables).succeeded()
    left = [line for line in rules() if gos.addresses[0] in line]
    assert left == [f"iptables: {theirs}"]
    valid = [{"containerID": keep.name, "ifname": "eth0"}]
    collect = {"cniVersion": "1.1.0", "name": "pods", "type": "firewall"}
    keep.call(
        "GC", {**collect, "cni.dev/valid-attachments": valid}, variables=variables
    ).succeeded()
    assert not [line for line in rules() if lose.addresses[0] in line or lose.name in line]
    keep.call("CHECK", keep.config(**keys), variables=variables).succeeded()
    for _ in range(2):
        keep.call("DEL", collect, netns="", variables=variables).succeeded()
        assert not [line for line in rules() if keep.addresses[0] in line or keep.name in line]
    lose.call("DEL", collect, variables=variables).succeeded()
    host.expect_leftovers("iptables-legacy keeps its shared chains")


def test_a_rule_of_the_administrator_s_stays(host: Host, pods: Any) -> None:
    """In our chain, about the container's address, but none that Go's plugin makes."""
    one = pods()
    one.call("ADD", one.config(), bin_dir=GO_BIN_DIR).result()
    theirs = ["-s 10.1.0.2/32 -j DROP", "-s 10.1.0.2/32 -p tcp -j ACCEPT",
              "-s 10.1.0.2/32 -m comment --comment mine -j ACCEPT"]  # fmt: skip
    for rule in theirs:
        host.run("iptables", "-A", "CNI-FORWARD", *rule.split())
    one.call("DEL", one.config()).succeeded()
    lines = host.run("iptables-save", "-t", "filter").splitlines()
    left = [line.replace('"', "") for line in lines if "10.1.0.2" in line]
    assert left == [f"-A CNI-FORWARD {rule}" for rule in theirs]
    assert "fd00:1::2" not in ruleset(host)


def test_check_notices_isolation_of_either_family(host: Host, pods: Any) -> None:
    """What a bridge carries is kept apart, whatever addresses this container has."""
    one = pods()
    config = one.config(backend="iptables", ingressPolicy="same-bridge")
    config["prevResult"]["ips"].pop()
    one.call("ADD", config).result()
    one.call("CHECK", config).succeeded()
    host.run("ip6tables", "-F", "CNI-ISOLATION-STAGE-2")
    one.call("CHECK", config).failed(103, "ip6tables", "-o br1")
    one.call("DEL", config).succeeded()


CHAINS = {
    "nftables": [
        ("inet filter forward", "nft add table inet filter"),
        ("ip6 filter forward", "nft add table ip6 filter"),
        ("ip odd wall", "nft add table ip odd"),
    ],
    "iptables": [("inet filter forward", "nft add table inet filter")],
}


@pytest.mark.parametrize(
    ("backend", "chain", "command"),
    [(backend, *case) for backend, cases in CHAINS.items() for case in cases],
)
def test_policies_of_other_tables(
    host: Host, pods: Any, backend: str, chain: str, command: str
) -> None:
    """STATUS looks at all, ADD at those that are called as usual; with rules it is a warning."""
    one = pods()
    config = one.config("1.1.0", backend=backend)
    one.call("STATUS", config).succeeded()
    host.run(*command.split())
    hook = "{ type filter hook forward priority 10; policy drop; }"
    host.run("nft", f"add chain {chain} {hook}")
    reply = one.call("STATUS", config)
    if "inet" in chain:
        reply.failed(50, f"chain {chain} drops")
    else:
        # Whose containers may have none of its IP version.
        assert f"chain {chain} drops" in reply.succeeded().stderr
    reply = one.call("ADD", config)
    reply.result()
    assert (f"chain {chain} drops" in reply.stderr) == ("filter" in chain)
    host.run("nft", f"add rule {chain} counter accept")
    reply = one.call("STATUS", config).succeeded()
    assert f"chain {chain} drops" in reply.stderr
    host.run("nft", f"add chain {chain} {hook.replace('drop', 'accept')}")
    assert one.call("STATUS", config).succeeded().stderr == ""
    assert one.call("ADD", config).stderr == ""
    one.call("DEL", config).succeeded()


LEGACY_DROPS = ("-P", "FORWARD", "DROP")


def test_a_policy_of_iptables_legacy_that_drops(
    host: Host, pods: Any, tmp_path: pathlib.Path
) -> None:
    """Where that is the system's; and it does pass where that is the backend."""
    variables = {"PATH": path_with("legacy", tmp_path)}
    one, near = pods(1), pods(2)
    host.run("iptables-legacy", *LEGACY_DROPS)
    said = "chain FORWARD of iptables-legacy drops"
    config = one.config("1.1.0", backend="nftables")
    for verb in ("STATUS", "ADD"):
        reply = one.call(verb, config, variables=variables)
        assert reply.rc == 0 and f"{said} what it does not accept" in reply.stderr
        assert '"backend": "iptables"' in reply.stderr and "ip6tables" not in reply.stderr
    assert not one.reaches(near.addresses[0]) and one.reaches(near.addresses[1])
    host.run("ip6tables-legacy", *LEGACY_DROPS)
    one.call("STATUS", config, variables=variables).failed(
        50, said.split(" drops")[0], "ip6tables-l"
    )
    lone = {**config, "prevResult": {**config["prevResult"]}}
    lone["prevResult"]["ips"] = config["prevResult"]["ips"][:1]
    assert "ip6tables" not in one.call("ADD", lone, variables=variables).stderr
    one.call("DEL", config).succeeded()
    config = one.config("1.1.0", backend="iptables")
    for verb in ("STATUS", "ADD"):
        reply = one.call(verb, config, variables=variables)
        assert reply.rc == 0 and f"{said} connections to" in reply.stderr
        assert "iptables -A CNI-ADMIN -m conntrack --ctstate DNAT" in reply.stderr
    assert one.reaches(near.addresses[0]) and one.reaches(near.addresses[1])
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        host.run(tool, "-A", "CNI-ADMIN", "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")
    for verb in ("STATUS", "ADD"):
        assert one.call(verb, config, variables=variables).stderr == ""
    one.call("DEL", config, variables=variables).succeeded()


def test_a_policy_of_iptables_legacy_beside_iptables_nft(host: Host, pods: Any) -> None:
    """Which nothing of ours helps against, what was left there neither. Rules of its own may."""
    one = pods()
    config = one.config("1.1.0", backend="iptables")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        host.run(tool, *LEGACY_DROPS)
        host.run(tool, "-N", "CNI-FORWARD")
    said = "chain FORWARD of iptables-legacy drops what it does not accept"
    one.call("STATUS", config).failed(50, "chain FORWARD of iptables-legacy", "ip6tables-legacy")
    assert said in one.call("ADD", config).stderr
    host.run("iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT")
    assert said in one.call("STATUS", config).succeeded().stderr
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        host.run(tool, "-P", "FORWARD", "ACCEPT")
    for verb in ("STATUS", "ADD"):
        assert one.call(verb, config).stderr == ""
    one.call("DEL", config).succeeded()


def test_what_is_refused(host: Host, pods: Any) -> None:
    """And changes nothing."""
    one = pods()
    lone = one.config()
    del lone["prevResult"]
    one.call("ADD", lone).failed(7, "chained")
    inside = one.config(ingressPolicy="same-bridge")
    inside["prevResult"]["interfaces"].pop(0)
    one.call("ADD", inside).failed(7, "ingressPolicy", "eth0")
    assert "CNI-" not in ruleset(host) and "adder_firewall" not in ruleset(host)
    one.call("ADD", one.config(backend="firewalld")).failed(102, "firewalld is not reached")
    one.call("STATUS", one.config("1.1.0", backend="firewalld")).failed(50, "firewalld")


# -- firewalld ---------------------------------------------------------------------------------


@pytest.fixture
def firewalld(host: Host, tmp_path: pathlib.Path, forwarding: None) -> Iterator[dict[str, str]]:
    """A firewalld in the test's namespace, on a bus of its own; the variables to find it by."""
    bus = tmp_path / "bus"
    configuration = tmp_path / "bus.conf"
    configuration.write_text(
        "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN' "
        "'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'>\n"
        f"<busconfig><type>system</type><listen>unix:path={bus}</listen>"
        "<auth>EXTERNAL</auth><policy context='default'><allow send_destination='*' "
        "eavesdrop='true'/><allow eavesdrop='true'/><allow own='*'/></policy></busconfig>\n"
    )
    variables = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"}
    environment = {**os.environ, **variables}
    daemon = subprocess.Popen(["dbus-daemon", f"--config-file={configuration}", "--nofork"])
    settings = tmp_path / "firewalld"
    settings.mkdir()
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(
            ["firewalld", "--nofork", "--nopid", f"--system-config={settings}"],
            env=environment,
            stdout=log,
            stderr=log,
        )
    query = ["busctl", f"--address=unix:path={bus}", "call", "org.freedesktop.DBus",
             "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner", "s",
             "org.fedoraproject.FirewallD1"]  # fmt: skip
    try:
        deadline = time.monotonic() + 40
        while b"true" not in subprocess.run(query, capture_output=True, check=False).stdout:
            assert service.poll() is None and time.monotonic() < deadline, (
                tmp_path / "log"
            ).read_text()
            time.sleep(0.2)
        yield variables
    finally:
        service.terminate()
        service.wait()
        daemon.terminate()
        daemon.wait()
        shutil.rmtree("/run/firewalld", ignore_errors=True)


def sources(variables: dict[str, str], zone: str) -> list[str]:
    """The sources of a zone, as firewalld says."""
    done = subprocess.run(
        ["firewall-cmd", f"--zone={zone}", "--list-sources"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(done.stdout.split())


def test_sources_of_a_zone(host: Host, pods: Any, firewalld: dict[str, str]) -> None:
    """Chosen when it runs; CHECK notices what was taken out; DEL takes them out, twice."""
    one = pods()
    config = one.config()
    own = sorted([f"{one.addresses[0]}/32", f"{one.addresses[1]}/128"])
    for _ in range(2):
        one.call("ADD", config, variables=firewalld).result()
        assert sources(firewalld, "trusted") == own
    one.call("CHECK", config, variables=firewalld).succeeded()
    one.call("STATUS", {**config, "cniVersion": "1.1.0"}, variables=firewalld).succeeded()
    subprocess.run(
        ["firewall-cmd", "--zone=trusted", f"--remove-source={own[0]}"],
        env={**os.environ, **firewalld}, capture_output=True, check=True,
    )  # fmt: skip
    one.call("CHECK", config, variables=firewalld).failed(103, own[0], "trusted")
    for _ in range(2):
        one.call("DEL", config, variables=firewalld).succeeded()
        assert sources(firewalld, "trusted") == []
        assert one.name not in ruleset(host)
    elsewhere = one.config(firewalldZone="nonesuch")
    one.call("ADD", elsewhere, variables=firewalld).failed(102, "nonesuch", one.addresses[0])
    public = one.config(backend="firewalld", firewalldZone="public")
    one.call("ADD", public, variables=firewalld).result()
    assert sources(firewalld, "public") == own
    one.call("DEL", public, variables=firewalld).succeeded()


def test_sources_are_found_by_identity(host: Host, pods: Any, firewalld: dict[str, str]) -> None:
    """Without prevResult, whatever the configuration is by now; GC takes out what is not valid."""
    one, two, other, gos = pods(), pods(), pods(), pods()
    zoned = {"backend": "firewalld", "firewalldZone": "public"}
    own = sorted([f"{one.addresses[0]}/32", f"{one.addresses[1]}/128"])
    one.call("ADD", one.config(**zoned), variables=firewalld).result()
    assert sources(firewalld, "public") == own
    bare = {"cniVersion": "1.1.0", "name": "pods", "type": "firewall"}
    for config in ({**bare, "backend": "iptables"}, bare):
        one.call("DEL", config, netns="", variables=firewalld).succeeded()
        assert sources(firewalld, "public") == [] and one.name not in ruleset(host)
    # Another ADD without a DEL: with another address, in another zone.
    one.call("ADD", one.config(**zoned), variables=firewalld).result()
    moved = one.config()
    moved["prevResult"]["ips"] = [{"address": "10.1.0.77/24", "interface": 1}]
    one.call("ADD", moved, variables=firewalld).result()
    assert sources(firewalld, "public") == []
    assert sources(firewalld, "trusted") == ["10.1.0.77/32"]
    two.call("ADD", two.config("1.1.0"), variables=firewalld).result()
    other.call("ADD", other.config("1.1.0", name="another"), variables=firewalld).result()
    gos.call("ADD", gos.config(), bin_dir=GO_BIN_DIR, variables=firewalld).result()
    valid = [{"containerID": two.name, "ifname": "eth0"}]
    collect = {**bare, "cni.dev/valid-attachments": valid}
    two.call("GC", collect, variables=firewalld).succeeded()
    left = sources(firewalld, "trusted")
    assert "10.1.0.77/32" not in left
    for each in (two, other, gos):
        assert {f"{each.addresses[0]}/32", f"{each.addresses[1]}/128"} <= set(left)
    # What Go's plugin made is known from prevResult only.
    gos.call("DEL", gos.config(), variables=firewalld).succeeded()
    two.call("DEL", bare, variables=firewalld).succeeded()
    other.call("DEL", {**bare, "name": "another"}, variables=firewalld).succeeded()
    assert sources(firewalld, "trusted") == []


def test_sources_that_another_has_by_now(host: Host, pods: Any, firewalld: dict[str, str]) -> None:
    """An address outlives who had it first: DEL and GC of that one leave it to the next."""
    old, new = pods(), pods()
    bare = {"cniVersion": "1.1.0", "name": "pods", "type": "firewall", "backend": "firewalld"}
    for zone in ("trusted", "public"):
        keys = {"backend": "firewalld", "firewalldZone": zone}
        before = old.config(backend="firewalld")
        old.call("ADD", before, variables=firewalld).result()
        taken = new.config(**keys)
        taken["prevResult"]["ips"][0] = before["prevResult"]["ips"][0]
        own = sorted([f"{old.addresses[0]}/32", f"{new.addresses[1]}/128"])
        new.call("ADD", taken, variables=firewalld).result()
        valid = [{"containerID": new.name, "ifname": "eth0"}]
        for verb, config in (
            ("DEL", {**before, "firewalldZone": zone}),
            ("DEL", {**before, "firewalldZone": zone}),
            ("DEL", bare),
            ("GC", {**bare, "cni.dev/valid-attachments": valid}),
        ):
            old.call(verb, config, variables=firewalld).succeeded()
            assert sources(firewalld, zone) == own, (verb, config)
            new.call("CHECK", taken, variables=firewalld).succeeded()
        new.call("DEL", taken, variables=firewalld).succeeded()
        assert sources(firewalld, zone) == []
    # All of them, and GC first: nothing is left in the record of the old one.
    zoned = old.config(backend="firewalld")
    old.call("ADD", zoned, variables=firewalld).result()
    new.call("ADD", {**zoned, "cniVersion": "1.0.0"}, variables=firewalld).result()
    own = sorted([f"{old.addresses[0]}/32", f"{old.addresses[1]}/128"])
    old.call("GC", {**bare, "cni.dev/valid-attachments": valid}, variables=firewalld).succeeded()
    assert sources(firewalld, "trusted") == own
    new.call("DEL", bare, variables=firewalld).succeeded()
    assert sources(firewalld, "trusted") == []


@pytest.mark.parametrize("policy", ["same-bridge", ISOLATED])
def test_policies_with_firewalld(
    host: Host, pods: Any, firewalld: dict[str, str], policy: str
) -> None:
    """Sources are firewalld's business, bridges iptables'."""
    one, near, far = pods(1), pods(1), pods(2)
    for each in (one, near, far):
        config = each.config(ingressPolicy=policy)
        each.call("ADD", config, variables=firewalld).result()
        each.call("CHECK", config, variables=firewalld).succeeded()
    assert f"{far.addresses[0]}/32" in sources(firewalld, "trusted")
    # With br_netfilter, netfilter has a say about what is bridged, too.
    assert one.reaches(near.addresses[0]) or policy == "isolated"
    assert not one.reaches(far.addresses[0]) and not far.reaches(one.addresses[1])
    assert ("-i br1 -o br1" in host.run("iptables-save")) == (policy == "isolated")
    host.run("iptables", "-F", "CNI-ISOLATION-STAGE-2")
    config = one.config(ingressPolicy=policy)
    one.call("CHECK", config, variables=firewalld).failed(103, "CNI-ISOLATION-STAGE")
    for each in (one, near, far):
        each.call("DEL", each.config(ingressPolicy=policy), variables=firewalld).succeeded()
    assert sources(firewalld, "trusted") == []


@pytest.mark.parametrize("record", [None, b"", b"public", b"public\0", b"public\0\4\1", b"\0\5"])
def test_records_of_sources_that_are_none(record: bytes | None) -> None:
    assert unpack(record) is None


def test_records_of_sources() -> None:
    addresses = [Prefix(bytes([10, 1, 0, 2]), 32), Prefix(bytes(15) + b"\1", 128)]
    assert unpack(pack("öffentlich", addresses)) == ("öffentlich", addresses)
