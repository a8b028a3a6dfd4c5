# SPDX-License-Identifier: Apache-2.0
"""loopback on the real kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from libcni.version import SUPPORTED
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner


def config(version: str = "1.1.0", **keys: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "cni-loopback", "type": "loopback", **keys}


def is_up(netns: Netns) -> bool:
    return "LOOPBACK,UP" in netns.run("ip", "link", "show", "dev", "lo").stdout


@pytest.mark.parametrize("version", SUPPORTED)
def test_add_and_del_in_every_version(
    netns: Callable[..., Netns], run_plugin: Runner, version: str
) -> None:
    container = netns()
    result = run_plugin("loopback", "ADD", config(version), netns=container).result()
    assert result["cniVersion"] == version
    assert is_up(container)
    if version < "0.3.0":
        assert result["ip4"]["ip"] == "127.0.0.1/8"
        assert result["ip6"]["ip"] == "::1/128"
    else:
        (interface,) = result["interfaces"]
        assert interface["name"] == "lo"
        assert interface["sandbox"] == container.path
        assert [ip["address"] for ip in result["ips"]] == ["127.0.0.1/8", "::1/128"]
        assert all(ip["interface"] == 0 for ip in result["ips"])
    if version >= "0.4.0":
        document = config(version, prevResult=result)
        run_plugin("loopback", "CHECK", document, netns=container).succeeded()
        container.run("ip", "link", "set", "lo", "down")
        run_plugin("loopback", "CHECK", document, netns=container).failed(103, "lo")
    run_plugin("loopback", "DEL", config(version), netns=container).succeeded()
    assert not is_up(container)
    run_plugin("loopback", "DEL", config(version), netns=container).succeeded()


def test_check_misses_an_address(netns: Callable[..., Netns], run_plugin: Runner) -> None:
    container = netns()
    result = run_plugin("loopback", "ADD", config(), netns=container).result()
    document = config(prevResult=result)
    run_plugin("loopback", "CHECK", document, netns=container).succeeded()
    container.run("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
    run_plugin("loopback", "CHECK", document, netns=container).failed(103, "lo", "127.0.0.1/8")


def test_acts_on_lo_whatever_the_interface_name(
    netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    run_plugin("loopback", "ADD", config(), netns=container, ifname="eth7").result()
    assert is_up(container)


def test_hands_a_previous_result_on(netns: Callable[..., Netns], run_plugin: Runner) -> None:
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x", "mtu": 1400}],
        "ips": [{"address": "10.1.2.3/24", "interface": 0}],
    }
    reply = run_plugin("loopback", "ADD", config(prevResult=previous), netns=netns())
    assert reply.result() == previous


def test_refuses_a_foreign_address_and_leaves_lo_down(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    container.run("ip", "address", "add", "10.0.0.1/32", "dev", "lo")
    reply = run_plugin("loopback", "ADD", config(), netns=container)
    reply.failed(101, "lo", "10.0.0.1/32")
    assert not is_up(container)


@pytest.mark.parametrize("path", ["", "/run/netns/gone", "/proc/1073741824/ns/net"])
def test_del_succeeds_when_the_namespace_is_gone(run_plugin: Runner, path: str) -> None:
    run_plugin("loopback", "DEL", config(), netns=path).succeeded()


def test_status_and_gc_succeed_without_doing_anything(run_plugin: Runner) -> None:
    run_plugin("loopback", "STATUS", config()).succeeded()
    document = {**config(), "cni.dev/valid-attachments": []}
    run_plugin("loopback", "GC", document).succeeded()
