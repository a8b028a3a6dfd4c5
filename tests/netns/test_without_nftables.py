# SPDX-License-Identifier: Apache-2.0
"""Every verb of the plugins that use nftables, on a kernel that has only iptables-legacy."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from libcni.netns_lock import NamespaceLock
from tests.netns.portmap_network import Node, mapping, node
from tests.netns.test_firewall import WITHOUT_STDOUT, forwarding, pods
from tests.rig import old_kernel, plugins
from tests.rig.host import Host, Netns
from tests.rig.plugins import Reply, Runner
from tests.rig.xtables import path_with

__all__ = ["forwarding", "node", "pods"]
#: The IP versions that a container has addresses of.
VERSIONS = pytest.mark.parametrize("versions", [(4, 6), (4,), (6,)])


@pytest.fixture
def bin_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """The plugins on such a kernel."""
    return old_kernel.make(tmp_path / "plugins")


@pytest.fixture
def variables(tmp_path: pathlib.Path) -> dict[str, str]:
    """iptables is iptables-legacy, as it has to be there."""
    tools = tmp_path / "tools"
    tools.mkdir()
    return {"PATH": path_with("legacy", tools)}


def only(config: dict[str, Any], versions: tuple[int, ...]) -> dict[str, Any]:
    """The configuration without the addresses of other IP versions, as of a 1.1.0 runtime."""
    ips = [
        ip for ip in config["prevResult"]["ips"] if (6 if ":" in ip["address"] else 4) in versions
    ]
    return {**config, "cniVersion": "1.1.0", "prevResult": {**config["prevResult"], "ips": ips}}


def lines(host: Host, table: str, *words: str) -> list[str]:
    """The rules of iptables-legacy that have any of the words."""
    found = []
    for tool in ("iptables-legacy-save", "ip6tables-legacy-save"):
        found += host.run(tool, "-t", table).splitlines()
    return [line for line in found if any(word in line for word in words)]


def nobody(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a GC that takes none for valid."""
    return {**config, "cni.dev/valid-attachments": []}


def through_the_verbs(
    call: Callable[..., Reply], config: dict[str, Any], made: Callable[[], list[str]], ends: str
) -> list[str]:
    """Every verb, ADD failing before and after one that does not; what that has made.

    call: as call(verb, config, under=...). made: the attachment's rules. ends: "DEL" or "GC".
    """
    call("STATUS", config).succeeded()
    assert call("ADD", config, under=WITHOUT_STDOUT).rc == 1
    assert not made()
    reply = call("ADD", config)
    reply.result()
    assert reply.stderr == ""
    before = made()
    call("CHECK", config).succeeded()
    reply = call("ADD", config, under=WITHOUT_STDOUT)
    assert reply.rc == 1 and "undo" not in reply.stderr, reply.stderr
    assert made() == before, "what a live container has"
    call("CHECK", config).succeeded()
    if ends == "GC":
        call("GC", nobody(config)).succeeded()
    else:
        call("DEL", {key: config[key] for key in ("cniVersion", "name", "type")}).succeeded()
    assert not made()
    call("DEL", config).succeeded()
    return before


@VERSIONS
@pytest.mark.parametrize("ends", ["DEL", "GC"])
def test_portmap(
    node: Node, variables: dict[str, str], versions: tuple[int, ...], ends: str
) -> None:
    ours = node.container()
    config = only(ours.config(mapping(8080)), versions)
    call = functools.partial(ours.call, variables=variables)
    made = through_the_verbs(
        call, config, lambda: lines(node.host, "nat", "CNI-DN-", "--dports 8080"), ends
    )
    assert len(made) >= 3 * len(versions)


@VERSIONS
@pytest.mark.parametrize("ends", ["DEL", "GC"])
@pytest.mark.parametrize("policy", ["open", "same-bridge"])
def test_firewall(
    host: Host,
    pods: Any,
    variables: dict[str, str],
    versions: tuple[int, ...],
    ends: str,
    policy: str,
) -> None:
    one = pods()
    config = only(one.config(ingressPolicy=policy), versions)
    call = functools.partial(one.call, variables=variables)
    made = through_the_verbs(call, config, lambda: lines(host, "filter", *one.addresses), ends)
    assert len(made) == 2 * len(versions)


@pytest.mark.parametrize("kernel", ["old", "new"])
def test_firewall_that_does_not_get_to_look(
    host: Host, pods: Any, tmp_path: pathlib.Path, variables: dict[str, str], kernel: str
) -> None:
    """What a live container has stays, as far as anybody knows."""
    one = pods()
    if kernel == "new":
        one.run = Runner(plugins.our_bin_dir(tmp_path), host)
    config = one.config()
    one.call("ADD", config, variables=variables).result()
    if kernel == "new":
        host.run("nft", "delete", "table", "inet", "adder_firewall")
    before = lines(host, "filter", *one.addresses)
    assert len(before) == 4
    with NamespaceLock():
        one.call("ADD", config, variables=variables).failed(11, "lock")
    assert lines(host, "filter", *one.addresses) == before
    one.call("DEL", config, variables=variables).succeeded()


def test_bridge(host: Host, netns: Any, run_plugin: Runner, variables: dict[str, str]) -> None:
    red: Netns = netns("red")
    config = {
        "cniVersion": "1.1.0",
        "name": "podnet",
        "type": "bridge",
        "bridge": "old0",
        "ipMasq": True,
        "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]},
    }

    def call(verb: str, config: dict[str, Any] = config, **options: Any) -> Any:
        return run_plugin("bridge", verb, config, netns=red, variables=variables, **options)

    def made() -> list[str]:
        return lines(host, "nat", "10.77.0.")

    call("STATUS").succeeded()
    assert call("ADD", under=WITHOUT_STDOUT).rc == 1
    assert not made()
    config["prevResult"] = call("ADD").result()
    assert made()
    call("CHECK").succeeded()
    call("GC", nobody(config)).succeeded()
    assert not made()
    call("DEL").succeeded()
