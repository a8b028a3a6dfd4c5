# SPDX-License-Identifier: Apache-2.0
"""Containers of podman's CNI backend with our plugins: its own networks, as it makes them.

With Go's plugins in the same place where that shows that a failure is ours and not the rig's.
"""

from __future__ import annotations

import ipaddress
import pathlib
import socket
import time

import pytest

from tests.netns.pods import reserved
from tests.rig.host import Host, Netns
from tests.rig.podman import Podman, PodmanError
from tests.rig.snapshot import Snapshot
from tests.rig.traffic import Place, fetch, listen, send, source_of, within
from tests.runtime.conftest import HOST, HOST6, WORLD, WORLD6, StartPodman

PORT = 8080
PUBLISHED = ("-p", f"{PORT}:80")
V4, V6 = "10.91.0.0/24", "fd00:91::/64"


def hostname(place: Place, address: str, port: int = PORT) -> str:
    """The short ID of the container that answers there."""
    return fetch(place, address, port, "/hostname")


def is_kept_away(place: Place, address: str) -> bool:
    """Whether what is sent to a container's server gets lost."""
    try:
        within(place, lambda: socket.create_connection((address, 80), 1)).close()
    except TimeoutError:
        return True
    return False


def links(host: Host, podman: Podman, name: str) -> dict[str, str]:
    """The MAC addresses of the container's interfaces by their names."""
    netns = podman.netns(name).rpartition("/")[2]
    found = host.ip("-n", netns, "link", "show")
    return {link["ifname"]: link["address"] for link in found if link["ifname"] != "lo"}


def finish(podman: Podman, host: Host, before: Snapshot, *keep: str) -> None:
    """Remove everything; the host is as it was."""
    podman.close()
    host.keep_files("/run/")
    host.assert_clean(before, *keep)


def test_a_network_as_it_comes(
    host: Host, world: Netns, start_podman: StartPodman, plugin_dir: pathlib.Path
) -> None:
    before = host.snapshot()
    podman = start_podman(plugin_dir)
    podman("network", "create", "one")
    plugins = podman.conflist("one")["plugins"]
    assert [plugin["type"] for plugin in plugins] == ["bridge", "portmap", "firewall", "tuning"]
    name = podman.run("web", "--network", "one", *PUBLISHED, "-p", "127.0.0.1:8081:81/udp")[:12]
    other = podman.run("other", "--network", "one")[:12]
    here, there = podman.netns("web"), podman.netns("other")
    gateway = podman.network("web", "one")["Gateway"]
    for place, target in (
        (world, HOST),
        (None, HOST),
        (None, "127.0.0.1"),
        (None, gateway),
        (there, HOST),
        (there, gateway),
        (here, HOST),
    ):
        assert hostname(place, target) == name
    datagrams = listen(here, 81, socket.SOCK_DGRAM)
    send(None, "127.0.0.1", 8081, b"hello")
    assert datagrams.recv(16) == b"hello"
    # Each reaches the other at its own address.
    assert hostname(there, podman.network("web", "one")["IPAddress"], 80) == name
    assert hostname(here, podman.network("other", "one")["IPAddress"], 80) == other
    # And the world, which sees the host.
    assert source_of(listen(world, 7000), here, WORLD, 7000) == HOST
    podman.remove("web", "other")
    assert reserved("one") == set()
    podman("network", "rm", "one")
    finish(podman, host, before)


def test_dual_stack_mtu_and_isolation(
    host: Host, world: Netns, start_podman: StartPodman, plugin_dir: pathlib.Path
) -> None:
    before = host.snapshot()
    podman = start_podman(plugin_dir)
    options = ("--ipv6", "-o", "isolate=true")
    subnets = ("--subnet", V4, "--subnet", V6)
    podman("network", "create", *options, *subnets, "-o", "mtu=1400", "one")
    podman("network", "create", *options, "two")
    podman("network", "create", "--ipv6", "open")
    name = podman.run("web", "--network", "one", *PUBLISHED)[:12]
    podman.run("friend", "--network", "one")
    podman.run("stranger", "--network", "two")
    podman.run("visitor", "--network", "open")
    network = podman.network("web", "one")
    addresses = [network["IPAddress"], network["GlobalIPv6Address"]]
    friend, stranger = podman.netns("friend"), podman.netns("stranger")
    for address, subnet in zip(addresses, (V4, V6), strict=True):
        assert ipaddress.ip_address(address) in ipaddress.ip_network(subnet)
        assert hostname(friend, address, 80) == name
        # Only isolated networks are kept from each other.
        assert hostname(podman.netns("visitor"), address, 80) == name
        assert is_kept_away(stranger, address)
    for target in (HOST, HOST6):
        assert hostname(world, target) == name
        assert hostname(friend, target) == name
    for target, port, seen in ((WORLD, 7000, HOST), (WORLD6, 7001, HOST6)):
        assert source_of(listen(world, port), podman.netns("web"), target, port) == seen
    assert "mtu 1400" in podman.inside("web", "ip", "link", "show", "eth0")
    bridge = podman.conflist("one")["plugins"][0]["bridge"]
    ports = host.ip("link", "show", "master", bridge)
    assert {link["mtu"] for link in (*ports, *host.ip("link", "show", "dev", bridge))} == {1400}
    assert len(ports) == 2
    finish(podman, host, before)


def test_static_addresses(host: Host, start_podman: StartPodman, plugin_dir: pathlib.Path) -> None:
    """One address comes by CNI_ARGS, two by the capability `ips`."""
    before = host.snapshot()
    podman = start_podman(plugin_dir)
    podman("network", "create", "--ipv6", "--subnet", V4, "--subnet", V6, "both")
    podman("network", "create", "--subnet", "10.92.0.0/24", "one")
    for name, network, v4, v6, mac in (
        ("single", "one", "10.92.0.77", "", "02:11:22:33:44:01"),
        ("dual", "both", "10.91.0.77", "fd00:91::77", "02:11:22:33:44:02"),
    ):
        asked = ["--ip", v4, "--mac-address", mac, *(["--ip6", v6] if v6 else [])]
        podman.run(name, "--network", network, *asked)
        told = podman.network(name, network)
        assert (told["IPAddress"], told["GlobalIPv6Address"], told["MacAddress"]) == (v4, v6, mac)
        shown = podman.inside(name, "ip", "address", "show", "eth0")
        assert f"link/ether {mac}" in shown and f"inet {v4}/24" in shown
        assert f"inet6 {v6}/64" in shown or not v6
        host.ping(v4)
    host.ping("fd00:91::77")
    # An address that another one has is refused by name, and nothing is left of the attempt.
    busy = host.snapshot()
    with pytest.raises(PodmanError, match=r"10\.92\.0\.77"):
        podman.run("late", "--network", "one", "--ip", "10.92.0.77")
    podman.remove("late")
    changes = busy.difference(host.snapshot())
    # podman's own files; and who is there, the kernel learns whenever somebody speaks.
    assert not [c for c in changes if not c[2:].startswith(("file: /run/", "neighbour: "))]
    # What was given back can be asked for again.
    podman.remove("single")
    podman.run("late", "--network", "one", "--ip", "10.92.0.77")
    host.ping("10.92.0.77")
    finish(podman, host, before)


def test_connect_reload_and_disconnect(
    host: Host, world: Netns, start_podman: StartPodman, plugin_dir: pathlib.Path
) -> None:
    """The published port stays reachable as long as a network is left that leads to it."""
    before = host.snapshot()
    podman = start_podman(plugin_dir)
    for network in ("one", "two"):
        podman("network", "create", network)
    name = podman.run("web", "--network", "one", *PUBLISHED)[:12]
    podman.run("peer", "--network", "two")
    podman("network", "connect", "--mac-address", "02:11:22:33:44:55", "two", "web")
    macs = links(host, podman, "web")
    assert set(macs) == {"eth0", "eth1"} and macs["eth1"] == "02:11:22:33:44:55"
    addresses = {n: podman.network("web", n)["IPAddress"] for n in ("one", "two")}
    assert hostname(podman.netns("peer"), addresses["two"], 80) == name
    assert hostname(world, HOST) == name

    # Somebody flushes the rules, as a restart of firewalld does: this is what reload is for.
    host.run("nft", "flush", "ruleset")
    podman("network", "reload", "--all")
    assert links(host, podman, "web") == macs
    assert {n: podman.network("web", n)["IPAddress"] for n in ("one", "two")} == addresses
    assert hostname(podman.netns("peer"), addresses["two"], 80) == name
    assert hostname(world, HOST) == name
    assert hostname(None, "127.0.0.1") == name

    podman("network", "disconnect", "one", "web")
    assert set(links(host, podman, "web")) == {"eth1"}
    assert reserved("one") == set()
    assert hostname(world, HOST) == name
    podman("network", "connect", "one", "web")
    podman("network", "disconnect", "two", "web")
    assert hostname(world, HOST) == name
    assert len(reserved("one")) == len(reserved("two")) == 1
    finish(podman, host, before)


def test_stop_start_and_a_container_that_dies(
    host: Host, world: Netns, start_podman: StartPodman
) -> None:
    """On the network that podman has without being told."""
    podman = start_podman()
    before = host.snapshot()
    host.keep_files("/run/")
    name = podman.run("web", *PUBLISHED)[:12]
    assert hostname(world, HOST) == name
    podman("stop", "-t0", "web")
    host.assert_clean(before, "cni-podman0")
    podman("start", "web")
    assert hostname(world, HOST) == name
    # Nobody is there but conmon, which has podman clean up.
    host.run("kill", "-9", podman("inspect", "--format", "{{.State.Pid}}", "web"))
    deadline = time.monotonic() + 20
    while podman("inspect", "--format", "{{.State.Status}}", "web") != "exited":
        assert time.monotonic() < deadline, "podman did not clean up after the container"
        time.sleep(0.05)
    host.assert_clean(before, "cni-podman0")
    finish(podman, host, before, "cni-podman0")
