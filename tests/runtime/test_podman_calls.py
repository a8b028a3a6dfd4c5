# SPDX-License-Identifier: Apache-2.0
"""How podman really calls plugins, written down; and plugins exchanged under its containers."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

from tests.rig.host import Host, Netns
from tests.rig.podman import Podman
from tests.rig.recording import Call, Recording
from tests.rig.rules import rules
from tests.runtime.conftest import HOST, StartPodman, install
from tests.runtime.test_podman import PUBLISHED, V4, V6, finish, hostname

CHAIN = ["bridge", "portmap", "firewall", "tuning"]
#: As they are called: host-local by bridge.
ADDED = [*CHAIN[:1], "host-local", *CHAIN[1:]]
DELETED = [*reversed(CHAIN), "host-local"]
STORE = pathlib.Path("/var/lib/cni/networks")


def asked(calls: Sequence[Call]) -> list[str]:
    """The plugins that were asked for their versions and answered what podman needs."""
    found = []
    for call in calls:
        if call.command == "VERSION":
            assert call.status == 0 and call.stdin == {"cniVersion": "1.0.0"}
            assert call.variables["CNI_CONTAINERID"] == ""
            assert call.variables["CNI_PATH"] == call.variables["CNI_NETNS"] == "dummy"
            assert call.stdout["cniVersion"] == "1.0.0"
            assert "0.4.0" in call.stdout["supportedVersions"]
            found.append(call.plugin)
    return found


def of(calls: Sequence[Call], command: str, ifname: str = "eth0") -> dict[str, Call]:
    """The calls with a verb for an interface by plugin, in order."""
    chosen = [c for c in calls if (c.command, c.variables["CNI_IFNAME"]) == (command, ifname)]
    found = {call.plugin: call for call in chosen}
    assert len(found) == len(chosen), f"called twice: {[call.plugin for call in chosen]}"
    return found


def test_versions_are_asked_for_by_every_command(
    host: Host, start_podman: StartPodman, bin_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Of every plugin of every list: one wrong answer, and podman has no such network."""
    before = host.snapshot()
    recording = Recording(bin_dir, tmp_path)
    podman = start_podman(recording.directory)
    podman("network", "create", "one")
    recording.take()
    podman("network", "create", "two")
    assert asked(recording.take()) == CHAIN
    podman.run("web", "--network", "one")
    assert asked(recording.take()) == CHAIN * 2
    for command in (
        "network ls",
        "network inspect one",
        "network connect two web",
        "network reload web",
        "network disconnect two web",
    ):
        podman(*command.split())
        assert asked(recording.take()) == CHAIN * 2, command
    # When a container ends, conmon starts another podman, which asks too.
    for command in ("stop -t0 web", "start web", "restart -t0 web", "rm -f -t0 web"):
        podman(*command.split())
        count = collections.Counter(asked(recording.take()))
        assert set(count) == set(CHAIN) and min(count.values()) >= 2, (command, count)
    podman("network", "rm", "two")
    assert podman("network", "ls", "--noheading", "--format", "{{.Name}}").split() == [
        "one",
        "podman",
    ]
    finish(podman, host, before)


def test_what_the_plugins_are_told(
    host: Host, start_podman: StartPodman, bin_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    before = host.snapshot()
    recording = Recording(bin_dir, tmp_path)
    podman = start_podman(recording.directory)
    podman("network", "create", "--ipv6", "--subnet", V4, "--subnet", V6, "both")
    podman("network", "create", "--subnet", "10.92.0.0/24", "one")
    mac = "02:11:22:33:44:55"
    both = ("--ip", "10.91.0.77", "--ip6", "fd00:91::77", "--mac-address", mac)
    podman.run("web", "--network", "both", *both, *PUBLISHED, "-p", "127.0.0.1:8081:81/udp")
    added = recording.take()
    told = of(added, "ADD")
    assert list(told) == ADDED
    assert told["bridge"].args == {"IgnoreUnknown": "1", "K8S_POD_NAME": "web", "MAC": mac}
    assert told["bridge"].stdin["runtimeConfig"] == {"ips": ["10.91.0.77", "fd00:91::77"]}
    mappings = [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8081, "containerPort": 81, "protocol": "udp", "hostIP": "127.0.0.1"},
    ]
    assert mapped(told["portmap"]) == mappings
    for plugin in ("portmap", "firewall", "tuning"):
        assert told[plugin].stdin["prevResult"]["cniVersion"] == "0.4.0"

    podman("network", "connect", "--ip", "10.92.0.77", "one", "web")
    connected = recording.take()
    told = of(connected, "ADD", "eth1")
    assert list(told) == ADDED
    assert told["bridge"].args == {"IgnoreUnknown": "1", "K8S_POD_NAME": "web", "IP": "10.92.0.77"}
    assert "runtimeConfig" not in told["bridge"].stdin
    assert mapped(told["portmap"]) == mappings

    podman("network", "reload", "web")
    reloaded = recording.take()
    for ifname, addresses in (("eth0", ["10.91.0.77", "fd00:91::77"]), ("eth1", ["10.92.0.77"])):
        assert list(of(reloaded, "DEL", ifname)) == DELETED
        told = of(reloaded, "ADD", ifname)
        assert list(told) == ADDED
        # podman repeats itself, and host-local has to bear with it.
        assert told["bridge"].stdin["runtimeConfig"]["ips"] == addresses * 2
        assert [ip["address"].partition("/")[0] for ip in told["tuning"].stdout["ips"]] == (
            addresses
        )

    podman.remove("web")
    removed = recording.take()
    for ifname in ("eth0", "eth1"):
        assert list(of(removed, "DEL", ifname)) == DELETED
    for call in (*added, *connected, *reloaded, *removed):
        assert call.status == 0, call
        if call.command == "DEL":
            assert call.stdout is None and call.stdin["prevResult"]
            assert call.variables["CNI_NETNS"].startswith("/run/netns/netns-")
    finish(podman, host, before)


def mapped(call: Call) -> list[dict[str, Any]]:
    """The port mappings, all that it is told by the runtime; their order is podman's whim."""
    assert set(call.stdin["runtimeConfig"]) == {"portMappings"}
    return sorted(call.stdin["runtimeConfig"]["portMappings"], key=lambda one: one["hostPort"])


def attach(podman: Podman, name: str, port: int) -> str:
    """A container in both networks with ports of TCP and UDP; its short ID."""
    ports = ("-p", f"{port}:80", "-p", f"{port}:81/udp")
    made = podman.run(name, "--network", "one", *ports)
    podman("network", "connect", "two", name)
    return made[:12]


def test_ours_take_over_from_gos(
    host: Host,
    world: Netns,
    start_podman: StartPodman,
    bin_dir: pathlib.Path,
    go_bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """What Go's plugins attached lives on, and is removed to the last rule; others' stay."""
    before = host.snapshot()
    install(tmp_path, go_bin_dir)
    podman = start_podman(tmp_path)
    podman("network", "create", "--ipv6", "-o", "isolate=true", "one")
    podman("network", "create", "two")
    neighbour = attach(podman, "neighbour", 8081)
    host.keep_files("/run/", *[f"{STORE}/{name}/.owners" for name in ("one", "two")])
    # By now there is all that Go's plugins never remove.
    state, text, names = host.snapshot(), rules(), host.link_names()
    bridges = [podman.conflist(name)["plugins"][0]["bridge"] for name in ("one", "two")]
    host.keep(*bridges)  # they learn who is behind them
    leaver = attach(podman, "leaver", 8080)
    assert hostname(world, HOST, 8080) == leaver and rules() != text
    install(tmp_path, bin_dir)
    podman("network", "ls")
    assert hostname(world, HOST, 8080) == leaver
    podman.remove("leaver")
    assert rules() == text and host.link_names() == names
    host.assert_clean(state)
    assert hostname(world, HOST, 8081) == neighbour
    # Ours beside Go's, and one network of a container after the other.
    newcomer = attach(podman, "newcomer", 8080)
    assert hostname(world, HOST, 8080) == newcomer
    podman("network", "disconnect", "one", "neighbour")
    assert hostname(world, HOST, 8081) == neighbour
    podman.remove("neighbour", "newcomer")
    assert "CNI-DN-" not in rules() and neighbour not in rules()
    finish(podman, host, before)
