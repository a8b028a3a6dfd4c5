# SPDX-License-Identifier: Apache-2.0
"""portmap: ports that a container has by the other backend, ours or Go's."""

from __future__ import annotations

from typing import Any

import pytest

from cni_portmap import across
from cni_portmap.mapping import Claim
from libcni import iptables
from libcni.attachment import Attachment
from libcni.nftables.transaction import open_socket
from libcni.types.errors import CONFLICT
from tests.netns.portmap_network import HOST, HOST6, Container, Node, mapping, node
from tests.rig.plugins import GO_BIN_DIR

__all__ = ["node"]

#: By whom the first container has its ports, and the backend of the second.
PAIRS = [("iptables", "nftables"), ("Go", "nftables"), ("Go", ""), ("nftables", "iptables")]


def hold(container: Container, maker: str, *mappings: dict[str, Any]) -> dict[str, Any]:
    """ADD by our plugin with a backend, or by Go's; the configuration."""
    backend = None if maker == "Go" else maker
    config = container.config(*mappings, backend=backend)
    directory = GO_BIN_DIR if maker == "Go" else None
    container.call("ADD", config, bin_dir=directory).result()
    return config


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping(8080), mapping(8080)),
        (mapping(8080, hostIP=HOST), mapping(8080)),
        (mapping(8080), mapping(8080, hostIP=HOST)),
        (mapping(8080, hostIP=HOST6), mapping(8080, hostIP=HOST6)),
        (mapping(8080), mapping(8000, 8000, hostPortEnd=8200)),
        (mapping(8080, protocol="udp"), mapping(8080, protocol="udp")),
    ],
)
@pytest.mark.parametrize(("maker", "backend"), PAIRS)
def test_taken(
    node: Node, maker: str, backend: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Both are named, nothing changes, and the port is to be had once it is let go."""
    ours, other = node.container(), node.container()
    hold(ours, maker, mapping(7000), first)
    before = set(node.host.run("nft", "-s", "list", "ruleset").splitlines())
    other.call("ADD", other.config(mapping(7001), second, backend=backend)).failed(
        CONFLICT,
        f"8080/{first['protocol']}",
        "network podnet, container container-3, interface eth0",
        "network podnet, container container-2",
    )
    assert set(node.host.run("nft", "-s", "list", "ruleset").splitlines()) == before
    ours.delete()
    other.add(mapping(7001), second, backend=backend)


def test_taken_within_a_range(node: Node) -> None:
    ours, other = node.container(), node.container()
    hold(ours, "iptables", mapping(7000), mapping(8000, 8000, hostPortEnd=8200), mapping(9000))
    for port in (8000, 8080, 8200):
        other.call("ADD", other.config(mapping(port))).failed(CONFLICT, f"{port}/tcp")
    other.add(mapping(7999), mapping(8201), mapping(7001))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping(8080), mapping(8081)),
        (mapping(8080), mapping(8080, protocol="udp")),
        (mapping(8080, hostIP=HOST), mapping(8080, hostIP="10.9.0.1")),
        (mapping(8080, hostIP=HOST), mapping(8080, hostIP=HOST6)),
    ],
)
@pytest.mark.parametrize(("maker", "backend"), PAIRS)
def test_not_taken(
    node: Node, maker: str, backend: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    ours, other = node.container(), node.container()
    hold(ours, maker, first)
    other.add(second, backend=backend)


@pytest.mark.parametrize(("maker", "backend"), PAIRS)
def test_the_container_s_other_network_is_no_other_container(
    node: Node, maker: str, backend: str
) -> None:
    ours = node.container()
    hold(ours, maker, mapping(8080))
    ours.add(mapping(8080), backend=backend, name="second")


def test_conditions_tell_containers_apart(node: Node) -> None:
    ours, other, third = node.container(), node.container(), node.container()
    ours.add(mapping(8080), conditionsV4=["-s", "192.0.2.1"], conditionsV6=["-s", "2001:db8::1"])
    other.add(mapping(8080), backend="nftables")
    third.add(mapping(8080), conditionsV4=["-s", "192.0.2.3"], conditionsV6=["-s", "2001:db8::3"])


def test_only_a_port_that_looks_taken_costs_a_process(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = node.container(), node.container()
    hold(ours, "Go", mapping(8080), mapping(5353, protocol="udp"))
    asked: list[int] = []

    def save(version: int, table: str, variant: str) -> list[str]:
        asked.append(version)
        return []

    monkeypatch.setattr(iptables, "save", save)
    own = Attachment("podnet", ours.container_id, "net1")
    stranger = Attachment("podnet", other.container_id, "eth0")
    sock = open_socket()
    for attachment, claim, expected in (
        (stranger, Claim(2, 6, b"", 8000, 80), []),
        (stranger, Claim(2, 6, b"", 8081), []),
        (stranger, Claim(2, 17, b"", 8080), []),
        (stranger, Claim(2, 6, b"", 5353), []),
        (own, Claim(2, 6, b"", 8080), []),
        (stranger, Claim(2, 6, b"", 8000, 81), [4]),
        (stranger, Claim(10, 17, b"", 5353), [6]),
    ):
        asked.clear()
        across.refuse_taken_by_iptables(sock, attachment, [claim])
        assert asked == expected, claim
    sock.close()
