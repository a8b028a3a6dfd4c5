# SPDX-License-Identifier: Apache-2.0
"""portmap: ports of containers that are gone, for which nobody has called DEL."""

from __future__ import annotations

from typing import Any

import pytest

from libcni.attachment import Attachment
from libcni.types.errors import CONFLICT
from tests.netns.portmap_network import (
    HOST,
    Container,
    Node,
    elements,
    listen,
    mapping,
    node,
    source_of,
)
from tests.rig.plugins import GO_BIN_DIR, Runner

__all__ = ["node"]
BACKENDS = ["nftables", "iptables"]


def comments() -> set[str]:
    """Whose elements there are."""
    return {comment for found in elements().values() for comment in found}


def chains(node: Node) -> str:
    """The chains that iptables has for containers."""
    saved = node.host.run("iptables-save", "-t", "nat") + node.host.run("ip6tables-save")
    return "\n".join(line for line in saved.splitlines() if "CNI-DN-" in line)


def with_address_of(heir: Container, late: Container) -> None:
    """One container has gone without a DEL, another is given its addresses."""
    late.netns.delete()
    for old, new in ((heir.address, late.address), (heir.address6, late.address6)):
        length = "64" if ":" in old else "24"
        heir.netns.run("ip", "address", "delete", f"{old}/{length}", "dev", "eth0")
        flags = ["nodad"] if ":" in old else []
        heir.netns.run("ip", "address", "add", f"{new}/{length}", "dev", "eth0", *flags)
    for version, gateway in (("-4", "10.9.0.1"), ("-6", "fd00:9::1")):
        heir.netns.run("ip", version, "route", "replace", "default", "via", gateway)
    heir.address, heir.address6 = late.address, late.address6


@pytest.mark.parametrize("before", [*BACKENDS, "go"])
@pytest.mark.parametrize("now", BACKENDS)
def test_whoever_has_the_address_now_gets_the_port(node: Node, before: str, now: str) -> None:
    late, heir = node.container(), node.container()
    wanted = [mapping(8080), mapping(8081, hostIP=HOST)]
    if before == "go":
        go = Runner(GO_BIN_DIR, node.host)
        config = late.config(*wanted, mapping(9000))
        go("portmap", "ADD", config, netns=late.netns, container_id=late.container_id).result()
    else:
        late.add(*wanted, mapping(9000), backend=before)
    with_address_of(heir, late)
    config = heir.add(*wanted, backend=now)
    assert late.container_id not in chains(node)
    assert not [comment for comment in comments() if late.container_id in comment]
    server = listen(heir.netns, 80)
    for port in (8080, 8081):
        assert source_of(server, node.client, HOST, port) == "10.8.0.2"
    heir.call("CHECK", config).succeeded()
    late.delete()
    heir.call("CHECK", config).succeeded()


class Known:
    """A container whose veth is known by its attachment, as our bridge makes them."""

    def __init__(self, node: Node, container: Container) -> None:
        self.node, self.container = node, container
        self.attachment = Attachment("podnet", container.container_id, "eth0")
        self.name = self.attachment.host_veth_names()[0]
        port = container.container_id.replace("container-", "port")
        run = node.host.run
        run("ip", "link", "set", port, "down")
        run("ip", "link", "set", port, "name", self.name, "alias", self.attachment.alias, "up")
        node.host.keep(self.name)

    def config(self, *mappings: dict[str, Any], **keys: Any) -> dict[str, Any]:
        """With that end in the result."""
        config = self.container.config(*mappings, **keys)
        config["prevResult"]["interfaces"].append({"name": self.name})
        return config


@pytest.mark.parametrize("now", BACKENDS)
def test_whoever_has_lost_its_veth_is_gone(node: Node, now: str) -> None:
    late, other = node.container(), node.container()
    known = Known(node, late)
    config = known.config(mapping(8080), mapping(9000), mapping(5353, protocol="udp"))
    late.call("ADD", config).result()
    late.call("CHECK", config).succeeded()
    before = node.host.snapshot()
    wanted = other.config(mapping(8080), mapping(9000), backend=now)
    other.call("ADD", wanted).failed(CONFLICT, "8080/tcp", late.container_id)
    # Renamed, it is still there.
    node.host.run("ip", "link", "set", known.name, "down")
    node.host.run("ip", "link", "set", known.name, "name", "elsewhere", "up")
    other.call("ADD", wanted).failed(CONFLICT, "8080/tcp", late.container_id)
    node.host.run("ip", "link", "set", "elsewhere", "down")
    node.host.run("ip", "link", "set", "elsewhere", "name", known.name, "up")
    node.host.assert_unchanged(before, known.name, "elsewhere")
    node.host.run("ip", "link", "delete", known.name)
    other.call("ADD", wanted).result()
    assert not [comment for comment in comments() if late.container_id in comment]
    assert source_of(listen(other.netns, 80), node.client, HOST, 8080) == "10.8.0.2"
    other.call("CHECK", wanted).succeeded()
    other.delete()


def test_silence_proves_nothing(node: Node) -> None:
    """A result that names no end on the host, or another's: macvlan's, or one of Go's bridge."""
    late, other = node.container(), node.container()
    config = late.config(mapping(8080))
    config["prevResult"]["interfaces"].append({"name": "veth01234567"})
    late.call("ADD", config).result()
    late.netns.delete()
    other.call("ADD", other.config(mapping(8080))).failed(CONFLICT, "8080/tcp")
    late.delete()


def test_many_who_are_gone(node: Node) -> None:
    """One after the other; a live one among them keeps its port, and has the ADD refused."""
    gone = [node.container() for _ in range(4)]
    for number, late in enumerate(gone):
        known = Known(node, late)
        late.call("ADD", known.config(mapping(8080 + number))).result()
        node.host.run("ip", "link", "delete", known.name)
    alive, other = node.container(), node.container()
    alive.add(mapping(8090))
    wanted = other.config(mapping(8080, hostPortEnd=8099))
    other.call("ADD", wanted).failed(CONFLICT, "8090/tcp", alive.container_id)
    alive.delete()
    other.call("ADD", wanted).result()
    assert len(elements()["ports4"]) == 20
    other.delete()
