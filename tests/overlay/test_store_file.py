# SPDX-License-Identifier: Apache-2.0
"""The file store: what is read, what is refused, and that changes are seen."""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
from typing import Any

import pytest

from cni_vxlan_overlay.agent.addresses import Usage, usage
from cni_vxlan_overlay.agent.model import Offer
from cni_vxlan_overlay.agent.store import Event, Listing, StoreError, Unavailable
from cni_vxlan_overlay.agent.store.file import FileStore
from cni_vxlan_overlay.peers import Endpoint, vtep_mac

DOCUMENT: dict[str, Any] = {
    "Network": "10.244.0.0/16",
    "Backend": {"Type": "vxlan", "VNI": 3},
    "nodes": [
        {"name": f"node-{n}", "publicIP": f"192.168.50.{n}", "subnet": f"10.244.{n}.0/24"}
        for n in (1, 2)
    ],
}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """The file, with two nodes."""
    found = tmp_path / "nodes.json"
    found.write_text(json.dumps(DOCUMENT))
    return found


def rewrite(path: pathlib.Path, **keys: Any) -> None:
    """Replace the file by the document with other keys."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(DOCUMENT | keys))
    new.rename(path)


def offer(number: int, name: str = "") -> Offer:
    """What a node says of itself."""
    address = f"192.168.50.{number}"
    return Offer(name, (Endpoint(address, vtep_mac(3, address)),), 3)


def test_the_network(path: pathlib.Path) -> None:
    """net-conf.json's keys; a family is on when its network is there."""
    conf = asyncio.run(FileStore(str(path)).netconf())
    assert [network.text() for network in conf.networks] == ["10.244.0.0/16"]
    assert conf.backend.vni == 3
    rewrite(path, ipv6Network="fd00:10:244::/48")
    conf = asyncio.run(FileStore(str(path)).netconf())
    assert [network.text() for network in conf.networks] == ["10.244.0.0/16", "fd00:10:244::/48"]
    rewrite(path, Network="", ipv6Network="fd00:10:244::/48")
    conf = asyncio.run(FileStore(str(path)).netconf())
    assert [network.text() for network in conf.networks] == ["fd00:10:244::/48"]


def test_a_node_is_known_by_name_or_address(path: pathlib.Path) -> None:
    """The name goes first: addresses change."""
    assert asyncio.run(FileStore(str(path)).publish(offer(2))).name == "node-2"
    assert asyncio.run(FileStore(str(path), "node-1").publish(offer(2))).name == "node-1"
    assert asyncio.run(FileStore(str(path), "elsewhere").publish(offer(2))).name == "node-2"
    with pytest.raises(StoreError, match=r"no node 'node-9' or with the publicIP 192.168.50.9"):
        asyncio.run(FileStore(str(path), "node-9").publish(offer(9)))


def test_an_address_that_others_would_miss(
    path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, as an error: the file says another address than the underlay has."""
    store = FileStore(str(path), "node-1")
    with caplog.at_level(logging.ERROR):
        asyncio.run(store.publish(offer(1)))
        assert not caplog.records
        asyncio.run(store.publish(offer(7)))
        asyncio.run(store.publish(offer(7)))
    (record,) = caplog.records
    assert "node-1 is at 192.168.50.1" in record.getMessage()
    assert "here it is 192.168.50.7" in record.getMessage()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "an object with `Network` and `nodes`"),
        ("{", "nodes.json"),
        ("", "nodes.json"),
        (json.dumps({**DOCUMENT, "nodes": {}}), "`nodes` is missing"),
        (json.dumps({"Network": "10.244.0.0/16"}), "`nodes` is missing"),
        (json.dumps({"nodes": []}), "Network"),
        (json.dumps({**DOCUMENT, "nodes": [{"name": "x"}]}), r"nodes\[0\] has no publicIP"),
        (json.dumps({**DOCUMENT, "nodes": [DOCUMENT["nodes"][0]] * 2}), "another node 'node-1'"),
        (json.dumps({**DOCUMENT, "Backend": {"VNI": "x"}}), "VNI"),
    ],
)
def test_what_cannot_be_used_is_named(path: pathlib.Path, content: str, words: str) -> None:
    """A file that is wrong anywhere is not used at all."""
    path.write_text(content)
    with pytest.raises(StoreError, match=words) as refusal:
        asyncio.run(FileStore(str(path)).publish(offer(1)))
    assert not isinstance(refusal.value, Unavailable)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"Network": ""}, "Network is missing; give one, or set EnableIPv4 to false"),
        ({"Backend": {"Type": "host-gw"}}, "Backend.Type 'host-gw': only \"vxlan\" is supported"),
        ({"Backend": {"MTU": 70}}, "Backend.MTU 70: 576 to 65535, or 0 for the underlay's"),
        ({"Backend": 7}, "Backend: an object is expected, not 7"),
    ],
)
def test_errors_name_the_file_that_was_read(
    path: pathlib.Path, keys: dict[str, object], words: str
) -> None:
    """Not net-conf.json, whose keys these are: there is none."""
    rewrite(path, **keys)
    with pytest.raises(StoreError) as refusal:
        asyncio.run(FileStore(str(path)).netconf())
    assert str(refusal.value) == f"{path}: {words}"


def test_warnings_name_the_file_once(path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is asked what it says, until it says something else."""
    rewrite(
        path, Backend={"VNI": 3, "DirectRoute": True}, IPv6Network="fd00::/48", EnableIPv6=False
    )
    store = FileStore(str(path))
    for _ in range(2):
        asyncio.run(store.netconf())
        asyncio.run(store.publish(offer(1)))
    assert caplog.messages == [
        f"{path}: IPv6Network fd00::/48 is ignored, as EnableIPv6 is not true",
        f"{path}: unknown key Backend.DirectRoute is ignored",
    ]
    rewrite(path, Netwerk=1)
    asyncio.run(store.netconf())
    assert caplog.messages[2:] == [f"{path}: unknown key Netwerk is ignored"]


def test_a_file_that_is_not_there(path: pathlib.Path) -> None:
    path.unlink()
    with pytest.raises(Unavailable, match=r"nodes\.json: No such file"):
        asyncio.run(FileStore(str(path)).netconf())


def test_changes_are_told_and_repetitions_are_not(path: pathlib.Path) -> None:
    """A listing for each change, whole; an error when it goes, or goes wrong."""

    async def play() -> None:
        events = FileStore(str(path)).watch()

        async def following() -> set[str]:
            event: Event = await asyncio.wait_for(anext(events), 10)
            assert isinstance(event, Listing)
            return {node.name for node in event.nodes}

        assert await following() == {"node-1", "node-2"}
        rewrite(path, nodes=DOCUMENT["nodes"][:1])
        assert await following() == {"node-1"}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 1.2)
        # A generator that was cancelled has ended; the agent asks for another.
        events = FileStore(str(path)).watch()
        await anext(events)
        path.write_text("{")
        with pytest.raises(StoreError):
            await asyncio.wait_for(anext(events), 10)

    asyncio.run(play())


def test_addresses_in_use(tmp_path: pathlib.Path) -> None:
    """By host-local's files, in whatever network; other files are no addresses."""
    for name in (
        "10.244.1.2",
        "10.244.1.9",
        "10.244.2.5",
        "fd00::5",
        "lock",
        "last_reserved_ip.0",
    ):
        (tmp_path / "cbr0").mkdir(exist_ok=True)
        (tmp_path / "cbr0" / name).touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "10.244.1.3").touch()
    assert usage(["10.244.1.0/24", "fd00::/120", "10.244.9.0/30"], str(tmp_path)) == [
        Usage("10.244.1.0/24", 3, 250),
        Usage("fd00::/120", 1, 253),
        Usage("10.244.9.0/30", 0, 1),
    ]
    assert usage(["10.244.1.0/24"], str(tmp_path / "none")) == [Usage("10.244.1.0/24", 0, 253)]
