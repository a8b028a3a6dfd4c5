# SPDX-License-Identifier: Apache-2.0
"""The chain that Kubernetes nodes have, on containerd: what it says to it, and that it works."""

from __future__ import annotations

import json
import pathlib
import re
import socket
from typing import Any

import pytest

from tests.netns.pods import reserved
from tests.rig.host import Host, Netns
from tests.rig.recording import Recording
from tests.rig.rules import rules
from tests.rig.traffic import is_refused, listen, send, source_of
from tests.runtime.conftest import HOST, HOST6, WORLD, WORLD6, StartContainerd, install

BRIDGE = "pods0"
MEGABIT = 1_000_000
ANNOTATIONS = {
    "kubernetes.io/ingress-bandwidth": "10M",
    "kubernetes.io/egress-bandwidth": "20M",
    "example.org/colour": "blue",
}
DNS = {"servers": ["10.96.0.10"], "searches": ["default.svc"], "options": ["ndots:5"]}
PORTS = [("TCP", 8080, 80), ("UDP", 8053, 53)]
CHAIN = ["bridge", "portmap", "firewall", "bandwidth", "tuning"]
STOPPED = [*reversed(CHAIN), "host-local"]


def network(version: str = "1.0.0") -> dict[str, Any]:
    """Each capability that containerd knows, declared by the plugin that wants it."""
    ranges = [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]]
    return {
        "cniVersion": version,
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": ranges,
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
                "capabilities": {"dns": True, "io.kubernetes.cri.pod-annotations": True},
            },
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
            {"type": "firewall"},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
        ],
    }


def limits(host: Host) -> dict[str, float]:
    """The rates of all token buckets of the host's interfaces, in bit/s, by kind of interface."""
    shown = json.loads(host.run("tc", "-j", "-d", "qdisc", "show"))
    return {
        re.sub(r"^(veth|bwp).*", r"\1", qdisc["dev"]): qdisc["options"]["rate"] * 8
        for qdisc in shown
        if qdisc["kind"] == "tbf"
    }


@pytest.mark.parametrize(
    "plugin_dir, version",
    [("ours", "1.0.0"), ("ours", "0.4.0"), ("ours", "0.3.1"), ("go", "1.0.0")],
    indirect=["plugin_dir"],
)
def test_the_whole_chain(
    host: Host, world: Netns, start_containerd: StartContainerd, version: str
) -> None:
    before = host.snapshot()
    runtime = start_containerd(network(version))
    pod = runtime.run("web", ports=PORTS, annotations=ANNOTATIONS, dns=DNS)
    other = runtime.run("other")
    inside, elsewhere = runtime.netns(pod), runtime.netns(other)
    servers = {"tcp": listen(inside, 80), "udp": listen(inside, 53, socket.SOCK_DGRAM)}
    # The world keeps its address, what is masqueraded comes from the bridge.
    for place, target, seen in (
        (world, HOST, WORLD),
        (world, HOST6, WORLD6),
        (None, HOST, HOST),
        (None, "127.0.0.1", "10.88.0.1"),
        (elsewhere, HOST, "10.88.0.1"),
        (inside, HOST, "10.88.0.1"),
    ):
        assert source_of(servers["tcp"], place, target, 8080) == seen
    send(world, HOST, 8053, b"hello")
    assert servers["udp"].recv(16) == b"hello"
    for target, port, seen in ((WORLD, 7000, HOST), (WORLD6, 7001, HOST6)):
        assert source_of(listen(world, port), inside, target, port) == seen
    assert limits(host) == {"veth": 10 * MEGABIT, "bwp": 20 * MEGABIT}
    name = inside.rpartition("/")[2]
    (eth0,) = host.ip("-n", name, "link", "show", "eth0")
    assert eth0["mtu"] == 1400
    somaxconn = host.run("ip", "netns", "exec", name, "sysctl", "-n", "net.core.somaxconn")
    assert somaxconn.strip() == "500"

    runtime.stop(pod)
    assert limits(host) == {} and is_refused(world, HOST, 8080)
    # Its port is free again, before it is removed.
    successor = runtime.run("successor", ports=PORTS)
    server = listen(runtime.netns(successor), 80)
    assert source_of(server, world, HOST, 8080) == WORLD
    runtime.remove(pod)
    assert source_of(server, world, HOST, 8080) == WORLD
    for each in (other, successor):
        runtime.stop(each)
        runtime.remove(each)
    assert reserved("pods") == set()
    runtime.close()
    host.keep_files("/run/")
    host.assert_clean(before, BRIDGE)


@pytest.mark.parametrize("plugin_dir", ["ours"], indirect=True)
def test_what_the_plugins_are_told(
    host: Host, start_containerd: StartContainerd, bin_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    before = host.snapshot()
    recording = Recording(bin_dir, tmp_path)
    runtime = start_containerd(network(), recording.directory)
    pod = runtime.run("web", ports=PORTS, annotations=ANNOTATIONS, dns=DNS)
    added = recording.take()
    assert {call.command for call in added} == {"ADD"} and not any(c.status for c in added)
    assert sorted(call.plugin for call in added) == sorted([*CHAIN, "host-local", "loopback"])
    told = {call.plugin: call for call in added}
    assert told["loopback"].stdin == {"cniVersion": "0.3.1", "name": "cni-loopback",
                                      "type": "loopback"}  # fmt: skip
    bridge = told["bridge"]
    assert bridge.args == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "default",
        "K8S_POD_NAME": "web",
        "K8S_POD_UID": "web-uid",
        "K8S_POD_INFRA_CONTAINER_ID": pod,
    }
    assert bridge.variables["CNI_PATH"] == str(recording.directory)
    told_by_runtime = {plugin: call.stdin.get("runtimeConfig") for plugin, call in told.items()}
    assert told_by_runtime == {
        "loopback": None,
        "bridge": {
            "dns": {"Servers": DNS["servers"], "Searches": DNS["searches"],
                    "Options": DNS["options"]},
            "io.kubernetes.cri.pod-annotations": ANNOTATIONS,
        },
        "host-local": told_by_runtime["bridge"],
        "portmap": {
            "portMappings": [
                {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
                {"HostPort": 8053, "ContainerPort": 53, "Protocol": "udp", "HostIP": ""},
            ]
        },
        "firewall": None,
        # A burst of 2^32 - 1 is how it says that none was asked for.
        "bandwidth": {
            "bandwidth": {
                "IngressRate": 10 * MEGABIT,
                "IngressBurst": 2**32 - 1,
                "EgressRate": 20 * MEGABIT,
                "EgressBurst": 2**32 - 1,
            }
        },
        "tuning": None,
    }  # fmt: skip

    runtime.stop(pod)
    stopped = recording.take()
    assert [call.plugin for call in stopped] == ["loopback", *STOPPED]
    assert all("prevResult" in call.stdin for call in stopped if call.plugin != "loopback")
    assert {call.variables["CNI_NETNS"] for call in stopped} == {bridge.variables["CNI_NETNS"]}
    runtime.remove(pod)
    removed = recording.take()
    assert [call.plugin for call in removed] == ["loopback", *STOPPED]
    assert not any("prevResult" in call.stdin for call in removed)
    assert {call.variables["CNI_NETNS"] for call in removed} == {""}
    for call in (*stopped, *removed):
        assert (call.command, call.status, call.stdout) == ("DEL", 0, None), call
        assert call.stdin.get("runtimeConfig") == told_by_runtime[call.plugin]
    runtime.close()
    host.keep_files("/run/")
    host.assert_clean(before, BRIDGE)


@pytest.mark.parametrize("plugin_dir", ["go"], indirect=True)
def test_ours_take_over_from_gos(
    host: Host,
    world: Netns,
    start_containerd: StartContainerd,
    plugin_dir: pathlib.Path,
    bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """What Go's plugins attached lives on, and is removed to the last rule; others' stay."""
    before = host.snapshot()
    install(tmp_path, plugin_dir)
    runtime = start_containerd(network(), tmp_path)
    host.keep(BRIDGE)
    host.keep_files("/run/", "/var/lib/cni/networks/pods/.owners")
    neighbour = runtime.run("neighbour", ports=[("TCP", 8081, 80)], annotations=ANNOTATIONS)
    # By now there is all that Go's plugins never remove.
    state, text, limited = host.snapshot(), rules(), limits(host)
    names = host.link_names()
    leaver = runtime.run("leaver", ports=PORTS, annotations=ANNOTATIONS)
    assert rules() != text
    install(tmp_path, bin_dir)
    servers = {pod: listen(runtime.netns(pod), 80) for pod in (neighbour, leaver)}
    assert source_of(servers[leaver], world, HOST, 8080) == WORLD
    runtime.stop(leaver)
    assert rules() == text
    assert is_refused(world, HOST, 8080)
    runtime.remove(leaver)
    host.assert_clean(state)
    assert rules() == text and limits(host) == limited and host.link_names() == names
    assert source_of(servers[neighbour], world, HOST, 8081) == WORLD
    runtime.stop(neighbour)
    runtime.remove(neighbour)
    assert limits(host) == {} and neighbour not in rules()
    runtime.close()
    host.assert_clean(before, BRIDGE)
