# SPDX-License-Identifier: Apache-2.0
"""Several at once: the first ADDs of a node, and whole crowds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from tests.faults.configs import BRIDGE, network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Reply, Runner, encode, environment, reply

ROUNDS = 100
CROWD = 20


def together(
    runner: Runner, command: str, calls: list[tuple[Netns, str]], config: dict[str, Any]
) -> list[Reply]:
    """Run one verb for all containers at the same time."""
    data = encode(config)
    processes = []
    for container, name in calls:
        process = subprocess.Popen(
            [runner.bin_dir / "bridge"],
            env=environment(command, runner.bin_dir, container, name, "eth0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()
        process.stdin = None
    replies = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        replies.append(reply(process.returncode, stdout, stderr))
    return replies


def test_two_first_adds_create_the_bridge_once(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    pods = [(netns("a"), "a"), (netns("b"), "b")]
    before = host.snapshot()
    for number in range(ROUNDS):
        results = [r.result() for r in together(run_plugin, "ADD", pods, network())]
        addresses = {result["ips"][0]["address"] for result in results}
        assert len(addresses) == 2, f"round {number}: {addresses}"
        bridges = {json.dumps(result["interfaces"][0]) for result in results}
        assert len(bridges) == 1, f"round {number}: {bridges}"
        ports = {link["ifname"] for link in host.ip("link", "show", "master", BRIDGE)}
        assert ports == {result["interfaces"][1]["name"] for result in results}
        if number == 0:
            pods[0][0].ping(results[1]["ips"][0]["address"].partition("/")[0])
        for answer in together(run_plugin, "DEL", pods, network()):
            answer.succeeded()
        host.run("ip", "link", "delete", BRIDGE)
    host.assert_clean(before)


def test_a_crowd_comes_and_goes(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    pods = [(netns(), f"pod{number}") for number in range(CROWD)]
    before = host.snapshot()
    results = [r.result() for r in together(run_plugin, "ADD", pods, network())]
    assert len({result["ips"][0]["address"] for result in results}) == CROWD
    for (container, _), result in zip(pods, results, strict=True):
        assert result["ips"][0]["address"] in container.addresses("eth0")
    for answer in together(run_plugin, "DEL", pods, network()):
        answer.succeeded()
    host.assert_clean(before, BRIDGE)


def test_adds_and_dels_mixed(host: Host, netns: Callable[..., Netns], run_plugin: Runner) -> None:
    old = [(netns(), f"old{number}") for number in range(8)]
    new = [(netns(), f"new{number}") for number in range(8)]
    before = host.snapshot()
    together(run_plugin, "ADD", old, network())
    removing = [
        subprocess.Popen(
            [run_plugin.bin_dir / "bridge"],
            env=environment("DEL", run_plugin.bin_dir, container, name, "eth0"),
            stdin=subprocess.PIPE,
        )
        for container, name in old
    ]
    for process in removing:
        assert process.stdin is not None
        process.stdin.write(encode(network()))
        process.stdin.close()
    results = [r.result() for r in together(run_plugin, "ADD", new, network())]
    assert [process.wait(60) for process in removing] == [0] * 8
    assert len({result["ips"][0]["address"] for result in results}) == 8
    assert all("eth0" in container.link_names() for container, _ in new)
    for answer in together(run_plugin, "DEL", new, network()):
        answer.succeeded()
    host.assert_clean(before, BRIDGE)
