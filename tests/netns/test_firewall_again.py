# SPDX-License-Identifier: Apache-2.0
"""firewall's ADD without a DEL before: with other addresses, and one that fails."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.netns.test_firewall import (
    BACKENDS,
    WITHOUT_STDOUT,
    firewalld,
    forwarding,
    pods,
    ruleset,
    sources,
)
from tests.rig.host import Host

__all__ = ["firewalld", "forwarding", "pods"]


def other(config: dict[str, Any], *addresses: str) -> dict[str, Any]:
    """The configuration with another container's addresses."""
    ips = [{"address": address, "interface": 1} for address in addresses]
    return {**config, "prevResult": {**config["prevResult"], "ips": ips}}


def uncounted(host: Host) -> str:
    """The rule set without the packets that passed meanwhile."""
    return re.sub(r"packets \d+ bytes \d+", "", ruleset(host))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("known", [True, False])
def test_other_addresses(host: Host, pods: Any, backend: str, known: bool) -> None:
    """Of the earlier ones nothing is left by DEL, whose prevResult does not name them."""
    one = pods()
    config = one.config(backend=backend)
    one.call("ADD", config).result()
    again = other(config, "10.1.0.77/24")
    one.call("ADD", again).result()
    if backend == "nftables":
        assert not [address for address in one.addresses if address in ruleset(host)]
    one.call("CHECK", again).succeeded()
    if not known:
        del again["prevResult"]
    one.call("DEL", again).succeeded()
    text = ruleset(host)
    left = [each for each in (*one.addresses, "10.1.0.77", one.name) if each in text]
    assert not left


def test_more_addresses_than_a_record_has_room_for(host: Host, pods: Any) -> None:
    """They are searched."""
    one = pods()
    config = one.config(backend="nftables")
    many = other(config, *[f"fd00:1::1:{number}/64" for number in range(20)])
    one.call("ADD", many).result()
    one.call("ADD", many).result()
    one.call("CHECK", many).succeeded()
    fewer = other(config, "fd00:1::1:7/64", "10.1.0.77/24")
    one.call("ADD", fewer).result()
    assert ruleset(host).count("fd00:1::1:") == 1
    one.call("ADD", many).result()
    one.call("DEL", fewer).succeeded()
    assert "fd00:1::1:" not in ruleset(host) and one.name not in ruleset(host)


@pytest.mark.parametrize("command", ["flush set", "delete set"])
def test_what_an_earlier_version_did_not_record(host: Host, pods: Any, command: str) -> None:
    """DEL finds it by prevResult, or searches; ADD makes the set that the table lacks."""
    one, two, three = pods(), pods(), pods()
    for each in (one, two, three):
        each.call("ADD", each.config(backend="nftables")).result()
    host.run("nft", *command.split(), "inet", "adder_firewall", "accepted")
    one.call("DEL", one.config(backend="nftables")).succeeded()
    two.call("DEL", {"cniVersion": "1.0.0", "name": "pods", "type": "firewall"}).succeeded()
    assert not [each for each in (one, two) if each.addresses[0] in ruleset(host)]
    three.call("CHECK", three.config(backend="nftables")).succeeded()
    three.call("ADD", three.config(backend="nftables")).result()
    one.call("ADD", one.config(backend="nftables")).result()
    text = ruleset(host)
    # Each address, and the record of them.
    assert text.count(f":{one.name}:") == text.count(f":{three.name}:") == 3
    for each in (one, three):
        each.call("DEL", each.config()).succeeded()
    assert "cni:pods:" not in ruleset(host)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("addresses", [[], ["10.1.0.77/24"]])
def test_a_failed_add_leaves_what_was_there(
    host: Host, pods: Any, backend: str, addresses: list[str]
) -> None:
    """The container is live. Where there was nothing, nothing is left."""
    one, two = pods(), pods()
    config = one.config(backend=backend)
    again = other(config, *addresses) if addresses else config
    one.call("ADD", config).result()
    before = uncounted(host)
    assert one.call("ADD", again, under=WITHOUT_STDOUT).rc != 0
    one.call("CHECK", config).succeeded()
    if backend == "nftables" or not addresses:
        assert uncounted(host) == before
    # The same of one that would have taken over an address.
    assert two.call("ADD", two.config(backend=backend), under=WITHOUT_STDOUT).rc != 0
    assert two.name not in ruleset(host)
    if backend == "nftables":
        taken = {**config, "prevResult": {**config["prevResult"]}}
        assert two.call("ADD", taken, under=WITHOUT_STDOUT).rc != 0
        assert uncounted(host) == before
    one.call("CHECK", config).succeeded()
    one.call("DEL", again).succeeded()
    assert one.name not in ruleset(host)


@pytest.mark.parametrize("zone", ["trusted", "public"])
def test_a_failed_add_leaves_the_sources(
    host: Host, pods: Any, firewalld: dict[str, str], zone: str
) -> None:
    """Zone and addresses of the ADD before."""
    one, two = pods(), pods()
    config = one.config(backend="firewalld")
    own = sorted([f"{one.addresses[0]}/32", f"{one.addresses[1]}/128"])
    one.call("ADD", config, variables=firewalld).result()
    for again in (config, other(config, "10.1.0.77/24"), two.config(backend="firewalld")):
        failing = {**again, "firewalldZone": zone}
        name = two.name if again["prevResult"]["ips"][0]["address"] == "10.1.0.3/24" else one.name
        reply = one.call(
            "ADD", failing, variables=firewalld, under=WITHOUT_STDOUT, container_id=name
        )
        assert reply.rc != 0
        assert sources(firewalld, "trusted") == own and sources(firewalld, "public") == []
        one.call("CHECK", config, variables=firewalld).succeeded()
    bare = {"cniVersion": "1.0.0", "name": "pods", "type": "firewall"}
    one.call("DEL", bare, variables=firewalld).succeeded()
    assert sources(firewalld, "trusted") == [] and "cni:pods:" not in ruleset(host)
