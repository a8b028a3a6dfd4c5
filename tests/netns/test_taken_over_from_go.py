# SPDX-License-Identifier: Apache-2.0
"""From the Go plugins: our DEL of a whole chain that theirs attached, to the last rule."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.netns.pods import changed, reserved
from tests.netns.portmap_network import mapping
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner
from tests.rig.rules import rules
from tests.rig.xtables import path_with

BRIDGE = "br-test"
MEGABIT = 1_000_000
CHAIN: list[dict[str, Any]] = [
    {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd00:71::/64"}]],
        },
    },
    {"type": "portmap"},
    {"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge"},
    {
        "type": "bandwidth",
        "ingressRate": MEGABIT,
        "ingressBurst": MEGABIT,
        "egressRate": MEGABIT,
        "egressBurst": MEGABIT,
    },
    {
        "type": "tuning",
        "sysctl": {"net.core.somaxconn": "500"},
        "mtu": 1400,
        "promisc": True,
        "allmulti": True,
    },
]


class Attachment:
    """A container and its way through the chain."""

    def __init__(
        self, run: Runner, netns: Netns, name: str, port: int, variables: dict[str, str]
    ) -> None:
        self.netns, self.name = netns, name
        self._run, self._variables = run, variables
        mappings = [mapping(port), mapping(port, 53, protocol="udp")]
        self.chain = [
            {"cniVersion": "1.0.0", "name": "podnet", **plugin}
            | ({"runtimeConfig": {"portMappings": mappings}} if n == 1 else {})
            for n, plugin in enumerate(CHAIN)
        ]
        self.result: dict[str, Any] = {}

    def call(self, config: dict[str, Any], verb: str, **options: Any) -> Any:
        """Run one plugin for it."""
        options = {"netns": self.netns, "variables": self._variables, **options}
        return self._run(config["type"], verb, config, container_id=self.name, **options)

    def add(self, bin_dir: pathlib.Path) -> None:
        """ADD of every plugin has to succeed."""
        for config in self.chain:
            before = {"prevResult": self.result} if self.result else {}
            self.result = self.call({**config, **before}, "ADD", bin_dir=bin_dir).result()

    def delete(self, known: bool, netns: Netns | str) -> None:
        """DEL of every plugin by ours; known: with prevResult."""
        for config in reversed(self.chain):
            document = changed(config, prevResult=self.result if known else None)
            if not known:
                document.pop("runtimeConfig", None)
            self.call(document, "DEL", netns=netns).succeeded()


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("state", ["all", "no-netns", "no-result"])
def test_nothing_is_left_of_it_and_all_of_others(
    host: Host,
    run_plugin: Runner,
    go_bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    variant: str,
    state: str,
) -> None:
    variables = {"PATH": path_with(variant, tmp_path)}
    one, two = (
        Attachment(run_plugin, host.netns(), f"pod-{port}", port, variables)
        for port in (8080, 8081)
    )
    # A neighbour first: from then on there is all that Go's plugins never remove.
    one.add(go_bin_dir)
    host.keep(BRIDGE)
    host.keep_files("/var/lib/cni/networks/podnet/.owners", "/run/cni")
    before, text, inside = host.snapshot(), rules(variant), two.netns.snapshot()
    names = host.link_names()
    two.add(go_bin_dir)
    assert rules(variant) != text
    for config in (two.chain[0], *two.chain[2:]):
        # Not portmap's: Go's own CHECK fails there too.
        two.call({**config, "prevResult": two.result}, "CHECK").succeeded()
    two.delete(known=state != "no-result", netns="" if state == "no-netns" else two.netns)
    if state == "no-result":
        # What accepts a container's traffic names nothing but its addresses.
        address = two.result["ips"][0]["address"].partition("/")[0]
        left = [line for line in rules(variant).splitlines() if line not in text.splitlines()]
        assert all("CNI-FORWARD" in line for line in left if line.startswith("-A")), left
        assert any(address in line for line in left)
        two.call({**two.chain[2], "prevResult": two.result}, "DEL").succeeded()
    assert rules(variant) == text and host.link_names() == names
    host.assert_clean(before)
    assert inside.difference(two.netns.snapshot()) == []
    host.ping(one.result["ips"][0]["address"].partition("/")[0])
    one.delete(known=True, netns=one.netns)
    assert reserved() == set()
    assert list(pathlib.Path("/run/cni/tuning").iterdir()) == []
    assert "pod-8080" not in rules(variant) and "10.71.0." not in rules(variant)
    if variant == "legacy":
        host.expect_leftovers("iptables-legacy keeps its shared chains")
