# SPDX-License-Identifier: Apache-2.0
"""Back to the Go plugins: their DEL of what ours attached, and what it leaves."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.netns.bridge_network import BRIDGE, CONFIG, PodFactory, changed, pod, reserved
from tests.rig.host import Host
from tests.rig.plugins import Runner
from tests.rig.traffic import listen, source_of

__all__ = ["pod"]

MAPPING = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
MASQUERADED = changed(CONFIG, cniVersion="1.0.0", ipMasq=True)


@pytest.mark.parametrize("state", ["netns", "netns-without-result"])
def test_the_iptables_backend(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, state: str
) -> None:
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    one.add(changed(MASQUERADED, ipMasqBackend="iptables"))
    one.check(bin_dir=go_bin_dir).succeeded()
    if state == "netns":
        one.delete(bin_dir=go_bin_dir)
    else:
        one.call("DEL", one.config, bin_dir=go_bin_dir).succeeded()
    host.keep_files("/var/lib/cni/networks/podnet/.owners")  # an index that mends itself
    host.assert_clean(before, BRIDGE)
    assert reserved() == set()
    assert inside.difference(one.netns.snapshot()) == []


@pytest.mark.parametrize("known", [True, False], ids=["result", "no-result"])
def test_the_nftables_backend(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, known: bool
) -> None:
    """Go's first DEL fails, but as its last step; the next succeeds. An element of our set stays:
    of an address that is given out again, to a container of the same network."""
    one = pod()
    inside = one.netns.snapshot()
    one.add(MASQUERADED)
    one.check(bin_dir=go_bin_dir).succeeded()
    document = one.with_result() if known else one.config
    one.call("DEL", document, bin_dir=go_bin_dir).failed(999, "CNI-")
    assert reserved() == set()
    assert inside.difference(one.netns.snapshot()) == []
    assert host.link_names() == {"lo", BRIDGE}
    one.call("DEL", document, bin_dir=go_bin_dir).succeeded()
    address = one.address()
    assert address in host.run("nft", "list", "table", "inet", "adder_ipmasq")
    # Ours finishes it; so does a DEL before going back.
    one.delete()
    assert address not in host.run("nft", "list", "table", "inet", "adder_ipmasq")


#: By plugin: its keys, what shows what is left of an attachment, and how the README removes it.
LEFT: dict[str, tuple[dict[str, Any], str, str]] = {
    "portmap": (
        {"runtimeConfig": {"portMappings": [MAPPING]}},
        "nft list ruleset",
        "nft delete table inet adder_portmap",
    ),
    "firewall": (
        {"backend": "iptables"},
        "iptables-save -t filter; ip6tables-save -t filter; nft list ruleset",
        """for v in "" 6; do ip${v}tables-save -t filter | sed -n '/comment "cni:/s/^-A /-D /p' |
        xargs -rL1 ip${v}tables; done; nft delete table inet adder_firewall""",
    ),
    "bandwidth": (
        {"egressRate": 1_000_000, "egressBurst": 1_000_000},
        "ip -o link show type ifb",
        """ip -o link show type ifb | sed -n 's/^[0-9]*: \\([^:]*\\):.*alias cni:.*/\\1/p' |
        xargs -rn1 ip link del""",
    ),
}


@pytest.mark.parametrize("type_", list(LEFT))
def test_what_go_leaves_of_ours_and_how_it_goes(
    host: Host, pod: PodFactory, run_plugin: Runner, go_bin_dir: pathlib.Path, type_: str
) -> None:
    """As the README's table has it; should Go's DEL remove more one day, that is to be mended."""
    keys, show, cure = LEFT[type_]
    host.keep_files("/var/lib/cni/networks/podnet/.owners")
    one = pod()
    result = one.add(changed(CONFIG, cniVersion="1.0.0"))
    config = {"cniVersion": "1.0.0", "name": "podnet", "type": type_, **keys, "prevResult": result}
    options: dict[str, Any] = {"netns": one.netns, "container_id": one.container_id}
    run_plugin(type_, "ADD", config, **options).result()
    run_plugin(type_, "DEL", config, **options, bin_dir=go_bin_dir).succeeded()
    one.delete(bin_dir=go_bin_dir)
    assert "cni:podnet:" in host.run("sh", "-c", show)
    host.run("sh", "-c", cure)
    assert "cni:podnet:" not in host.run("sh", "-c", show)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_published_port_after_going_back(
    host: Host, pod: PodFactory, run_plugin: Runner, go_bin_dir: pathlib.Path, backend: str
) -> None:
    """What is left in nftables goes before Go's mapping of the same port to the next pod, where
    iptables' chains were there first."""
    for chain in ("PREROUTING", "OUTPUT"):
        for change in ("-A", "-D"):
            host.run("iptables", "-t", "nat", change, chain, "-j", "RETURN")
    config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "podnet", "type": "portmap"}
    config["runtimeConfig"] = {"portMappings": [MAPPING]}
    first, second = pod(), pod()
    for one in (first, second):
        options: dict[str, Any] = {"netns": one.netns, "container_id": one.container_id}
        go: dict[str, Any] = {"bin_dir": go_bin_dir}
        by = {} if one is first else go
        config["prevResult"] = one.add(changed(CONFIG, cniVersion="1.0.0"), **by)
        own = {"backend": backend} if one is first else {}
        run_plugin("portmap", "ADD", {**config, **own}, **options, **by).result()
        if one is first:
            run_plugin("portmap", "DEL", config, **options, **go).succeeded()
            one.delete(**go)
    with listen(second.netns, 80) as server:
        if backend == "nftables":
            with pytest.raises(OSError):
                source_of(server, None, "10.71.0.1", 8080)
            host.run("nft", "delete", "table", "inet", "adder_portmap")
        assert source_of(server, None, "10.71.0.1", 8080)
