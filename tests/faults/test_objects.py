# SPDX-License-Identifier: Apache-2.0
"""Things that exist already, and things the kernel does not want."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from tests.faults.configs import BRIDGE, GATEWAY, STORE, network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner


def test_interface_exists_in_the_container(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).failed(101, "eth0")
    host.assert_unchanged(before)
    assert inside.difference(container.snapshot()) == []


def test_second_add_without_del_changes_nothing(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    first = run_plugin("bridge", "ADD", network(), netns=container).result()
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container).failed(101)
    host.assert_unchanged(before)
    assert inside.difference(container.snapshot()) == []
    container.ping(GATEWAY)
    assert first["ips"][0]["address"] in container.addresses("eth0")


@pytest.mark.parametrize("other_bridge", [BRIDGE, "faults1"], ids=["same-bridge", "another"])
@pytest.mark.parametrize("state", ["there", "detached", "bridge-deleted"])
def test_del_after_a_refused_add_leaves_the_others_interface(
    host: Host,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    other_bridge: str,
    state: str,
) -> None:
    """A runtime calls DEL after every failed ADD; the name is all that the two have in common."""
    container = netns()
    other = network(
        name="other",
        bridge=other_bridge,
        ipam={"type": "host-local", "subnet": "10.204.0.0/24"},
    )
    made = run_plugin("bridge", "ADD", other, netns=container).result()
    veth = made["interfaces"][1]["name"]
    if state == "detached":
        host.run("ip", "link", "set", veth, "nomaster")
    elif state == "bridge-deleted":
        host.run("ip", "link", "delete", other_bridge)
    run_plugin("bridge", "ADD", network(), netns=container).failed(101, "eth0")
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", "DEL", network(), netns=container).succeeded()
    host.assert_unchanged(before)
    assert inside.difference(container.snapshot()) == []
    if state == "there":
        container.ping("10.204.0.1")
        run_plugin("bridge", "CHECK", {**other, "prevResult": made}, netns=container).succeeded()
    run_plugin("bridge", "DEL", other, netns=container).succeeded()
    assert container.link_names() == {"lo"}


@pytest.mark.parametrize("kind", ["veth", "vxlan"])
def test_bridge_is_none(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, kind: str
) -> None:
    words = ["peer", "name", "other0"] if kind == "veth" else ["id", "7", "dstport", "4789"]
    host.run("ip", "link", "add", BRIDGE, "type", kind, *words)
    before = host.snapshot()
    error = run_plugin("bridge", "ADD", network(), netns=netns()).failed(101, BRIDGE)
    assert "bridge" in error["msg"]
    host.assert_unchanged(before)


def test_bridge_has_another_address(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "address", "add", "10.203.0.77/24", "dev", BRIDGE)
    host.run("ip", "link", "set", BRIDGE, "up")
    before = host.snapshot()
    run_plugin("bridge", "ADD", network(), netns=netns()).failed(
        101, BRIDGE, "10.203.0.77/24", "10.203.0.1/24"
    )
    host.assert_clean(before, "veth")


def test_addresses_are_exhausted(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    config = network(ipam={"type": "host-local", "subnet": "10.203.0.0/30"})
    run_plugin("bridge", "ADD", config, netns=netns(), container_id="c1").result()
    before = host.snapshot()
    container = netns()
    error = run_plugin("bridge", "ADD", config, netns=container, container_id="c2").failed(100)
    assert "10.203.0." in error["msg"]
    host.assert_unchanged(before)
    assert container.link_names() == {"lo"}


def test_result_of_an_ipam_without_addresses(
    host: Host,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    tmp_path: pathlib.Path,
) -> None:
    empty = tmp_path / "empty-ipam"
    empty.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"cniVersion":"1.1.0"}\'\n')
    empty.chmod(0o755)
    before = host.snapshot()
    config = network(ipam={"type": "empty-ipam"})
    answer = run_plugin(
        "bridge", "ADD", config, netns=netns(), path=f"{tmp_path}:{run_plugin.bin_dir}"
    )
    assert answer.rc == 1 and answer.json["code"] >= 100, answer
    host.assert_unchanged(before)


@pytest.mark.parametrize(
    "body",
    ["exit 3", "echo nonsense; exit 1", "echo nonsense", "kill -SEGV $$", "echo '[]'", "echo '{'"],
)
def test_ipam_that_misbehaves(
    host: Host,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    tmp_path: pathlib.Path,
    body: str,
) -> None:
    bad = tmp_path / "bad-ipam"
    bad.write_text(f"#!/bin/sh\ncat >/dev/null\n{body}\n")
    bad.chmod(0o755)
    before = host.snapshot()
    config = network(ipam={"type": "bad-ipam"})
    answer = run_plugin(
        "bridge", "ADD", config, netns=netns(), path=f"{tmp_path}:{run_plugin.bin_dir}"
    )
    assert answer.rc == 1, answer
    assert answer.json["code"] in (6, 104), answer.json
    assert "bad-ipam" in f"{answer.json}", answer.json
    host.assert_unchanged(before)


def test_nothing_is_reserved_by_a_failure(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    for number in range(5):
        run_plugin("bridge", "ADD", network(), netns=container, container_id=f"c{number}").failed(
            101
        )
    assert list(pathlib.Path(STORE).glob("10.*")) == []
