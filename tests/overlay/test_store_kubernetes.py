# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes store against a server that serves Nodes over HTTP, and fails in every way.

See tests/overlay/api_server.py for what that server is. That an event means nothing is shown by
the next one: the test makes another change, and that is what comes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import pathlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_vxlan_overlay.agent.model import Node, Offer
from cni_vxlan_overlay.agent.store import (
    Changed,
    Event,
    Hints,
    Listing,
    Removed,
    Store,
    StoreError,
    Unavailable,
)
from cni_vxlan_overlay.agent.store.annotations import Foreign, Keys, Unusable, read_node
from cni_vxlan_overlay.agent.store.kubernetes import KubernetesStore
from cni_vxlan_overlay.peers import Endpoint
from libcni.inet import Prefix
from tests.overlay.api_server import ApiServer, event_line, in_thread, node, until

PREFIX = "flannel.alpha.coreos.com/"
V4 = Endpoint("192.168.50.1", "0a:00:00:00:00:01")
V6 = Endpoint("2001:db8::1", "0a:00:00:00:00:61")
OFFER = Offer("one", (V4,), 1)
NETCONF = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}
DUAL = NETCONF | {"EnableIPv6": True, "IPv6Network": "fd00:244::/48"}

Scenario = Callable[[ApiServer, KubernetesStore], Awaitable[None]]
Play = Callable[..., None]


def peer(number: int, vni: int = 1, **more: str) -> dict[str, Any]:
    """A node as flannel annotates it: 192.168.50.number with 10.244.number.0/24."""
    annotations = {
        PREFIX + "kube-subnet-manager": "true",
        PREFIX + "backend-type": "vxlan",
        PREFIX + "backend-data": f'{{"VNI":{vni},"VtepMAC":"0a:00:00:00:00:{number:02x}"}}',
        PREFIX + "public-ip": f"192.168.50.{number}",
    }
    changed = {PREFIX + key.replace("_", "-"): value for key, value in more.items()}
    return node(f"node{number}", f"10.244.{number}.0/24", annotations=annotations | changed)


@pytest.fixture
def play(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run a scenario with a server and a store of the node "one" on it."""
    monkeypatch.setattr("cni_vxlan_overlay.agent.store.api_client._WATCH_PAUSE", 0.05)

    def run(scenario: Scenario, netconf: dict[str, Any] | None = None, **keywords: Any) -> None:
        path = tmp_path / "net-conf.json"
        path.write_text(json.dumps(netconf or NETCONF))

        async def main() -> None:
            async with ApiServer() as server:
                given = {"api_url": server.url, "node_name": "one"} | keywords
                store = KubernetesStore(netconf_path=str(path), **given)
                try:
                    async with asyncio.timeout(60):
                        await scenario(server, store)
                finally:
                    await store.close()

        asyncio.run(main())

    return run


class Watch:
    """A watch, whose events are asked for one by one."""

    def __init__(self, store: KubernetesStore) -> None:
        self._events = store.watch()

    async def next(self) -> Event:
        async with asyncio.timeout(20):
            return await anext(self._events)

    async def listing(self) -> dict[str, Node]:
        """The nodes of a Listing, which must come next, by name."""
        event = await self.next()
        assert isinstance(event, Listing)
        return {found.name: found for found in event.nodes}

    async def changed(self) -> Node:
        """The node of a Changed, which must come next."""
        event = await self.next()
        assert isinstance(event, Changed)
        return event.node

    async def removed(self) -> str:
        """The uid of a Removed, which must come next."""
        event = await self.next()
        assert isinstance(event, Removed)
        return event.uid

    async def close(self) -> None:
        close: Callable[[], Awaitable[None]] = self._events.aclose  # type: ignore[attr-defined]
        await close()


@contextlib.asynccontextmanager
async def watching(server: ApiServer, store: KubernetesStore) -> AsyncIterator[Watch]:
    """A watch whose Listing was read, and which the server serves."""
    watch = Watch(store)
    try:
        await watch.listing()
        pending = asyncio.ensure_future(watch.next())
        await until(lambda: server.watching() > 0)
        # The first `next` of the test takes over from the one that began the watch.
        original = watch.next

        async def first() -> Event:
            watch.next = original  # type: ignore[method-assign]
            async with asyncio.timeout(20):
                return await pending

        watch.next = first  # type: ignore[method-assign]
        yield watch
        if not pending.done():
            pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
    finally:
        await watch.close()


# Publishing


def test_publish_writes_what_flannel_writes(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        made = server.add(node("one", "10.244.1.0/24"), created="2024-05-01T00:00:00Z")
        found = await store.publish(OFFER)
        written = {k: v for k, v in server.annotations("one").items() if k.startswith(PREFIX)}
        assert written == {
            PREFIX + "kube-subnet-manager": "true",
            PREFIX + "backend-type": "vxlan",
            PREFIX + "backend-data": '{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"}',
            PREFIX + "public-ip": "192.168.50.1",
        }
        uid = made["metadata"]["uid"]
        assert (found.uid, found.name) == (uid, "one")
        assert found.age == f"2024-05-01T00:00:00Z {uid}"
        assert found.version == str(server.version)
        assert found.peer.endpoints == (V4,)
        assert found.peer.subnets == (Prefix.parse("10.244.1.0/24"),)
        patch = server.requests[-1]
        assert patch.path == "api/v1/nodes/one/status"
        assert patch.headers["content-type"] == "application/strategic-merge-patch+json"

    play(scenario)


def test_publish_of_both_families(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24", "fd00:244:0:1::/64"))
        found = await store.publish(Offer("one", (V4, V6), 7))
        annotations = server.annotations("one")
        assert annotations[PREFIX + "backend-v6-data"] == (
            '{"VNI":7,"VtepMAC":"0a:00:00:00:00:61"}'
        )
        assert annotations[PREFIX + "public-ipv6"] == "2001:db8::1"
        assert found.peer.endpoints == (V4, V6)
        assert [s.text() for s in found.peer.subnets] == ["10.244.1.0/24", "fd00:244:0:1::/64"]

    play(scenario, DUAL)


def test_publish_writes_nothing_that_is_there(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        first = await store.publish(OFFER)
        assert await store.publish(OFFER) == first
        assert server.count("patch") == 1

    play(scenario)


def test_publish_takes_over_from_flannel_without_a_write(play: Play) -> None:
    """A node that is moved from flannel keeps its annotations, if its MAC address is kept."""

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        offer = Offer("node1", (V4,), 1)
        assert (await store.publish(offer)).peer.endpoints == (V4,)
        assert server.count("patch") == 0

    play(scenario, node_name="node1")


def test_publish_writes_only_what_differs_and_nothing_of_others(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24", annotations={"example.org/note": "mine"}))
        await store.publish(OFFER)
        moved = Endpoint("192.168.50.9", V4.mac)
        found = await store.publish(Offer("one", (moved,), 1))
        assert found.peer.endpoints == (moved,)
        assert json.loads(server.requests[-1].body) == {
            "metadata": {"annotations": {PREFIX + "public-ip": "192.168.50.9"}}
        }
        assert server.annotations("one")["example.org/note"] == "mine"

    play(scenario)


def test_publish_removes_a_family_that_is_no_more(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        await store.publish(Offer("one", (V4, V6), 1))
        found = await store.publish(Offer("one", (V6,), 1))
        assert found.peer.endpoints == (V6,)
        assert PREFIX + "public-ip" not in server.annotations("one")
        assert PREFIX + "backend-data" not in server.annotations("one")

    play(scenario)


def test_overwriting_annotations_win(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        overwrites = {
            PREFIX + "public-ip-overwrite": "203.0.113.7",
            PREFIX + "public-ipv6-overwrite": "2001:db8::7",
        }
        server.add(node("one", "10.244.1.0/24", annotations=overwrites))
        found = await store.publish(Offer("one", (V4, V6), 1))
        assert [e.public_ip for e in found.peer.endpoints] == ["203.0.113.7", "2001:db8::7"]
        assert [e.mac for e in found.peer.endpoints] == [V4.mac, V6.mac]
        await store.publish(Offer("one", (V4, V6), 1))
        assert server.count("patch") == 1

    play(scenario)


@pytest.mark.parametrize("value", ["node.example.org", "2001:db8::1", "0.0.0.0", "239.1.1.1"])
def test_an_unusable_overwrite_is_named(play: Play, value: str) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        overwrite = {PREFIX + "public-ip-overwrite": value}
        server.add(node("one", "10.244.1.0/24", annotations=overwrite))
        with pytest.raises(StoreError, match=f"one: annotation .*public-ip-overwrite '{value}'"):
            await store.publish(OFFER)
        assert server.count("patch") == 0

    play(scenario)


def test_another_annotation_prefix(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        await store.publish(OFFER)
        annotations = server.annotations("one")
        assert annotations["net.example.org/blue-public-ip"] == "192.168.50.1"
        assert annotations["net.example.org/blue-kube-subnet-manager"] == "true"
        assert not any(key.startswith(PREFIX) for key in annotations)

    play(scenario, annotation_prefix="net.example.org/blue")


@pytest.mark.parametrize("prefix", ["", "flannel", "a.b/c/d", "Example.org", "a.b/C", "a.b c"])
def test_an_unusable_annotation_prefix_is_named(prefix: str) -> None:
    with pytest.raises(StoreError, match=f"annotation prefix '{prefix}'"):
        KubernetesStore(node_name="one", annotation_prefix=prefix)


@pytest.mark.parametrize(
    ("prefix", "full"),
    [("a.b", "a.b/"), ("a.b/", "a.b/"), ("a.b/c", "a.b/c-"), ("a.b/c-", "a.b/c-")],
)
def test_annotation_prefixes_are_joined_as_flannel_joins_them(prefix: str, full: str) -> None:
    assert Keys(prefix).managed == full + "kube-subnet-manager"


@pytest.mark.parametrize(
    ("cidrs", "parts"),
    [
        ((), ["no pod CIDR", "10.244.0.0/16", "kube-controller-manager", "--allocate-node-cidrs"]),
        (("fd00:244:0:1::/64",), ["no pod CIDR in 10.244.0.0/16"]),
        (("10.9.1.0/24",), ["10.9.1.0/24", "outside", "10.244.0.0/16", "--cluster-cidr"]),
        (("10.0.0.0/8",), ["10.0.0.0/8", "outside", "10.244.0.0/16"]),
        (("10.244.1.0/24", "10.244.2.0/24"), ["10.244.1.0/24", "10.244.2.0/24", "one of each"]),
        (("10.244.1.0",), ["'10.244.1.0'", "CIDR notation"]),
    ],
)
def test_unusable_pod_cidrs_say_what_to_mend(
    play: Play, cidrs: tuple[str, ...], parts: list[str]
) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", *cidrs))
        with pytest.raises(StoreError) as raised:
            await store.publish(OFFER)
        for part in ["node one", *parts]:
            assert part in str(raised.value)
        assert not isinstance(raised.value, Unavailable)
        assert server.count("patch") == 0

    play(scenario)


def test_a_pod_cidr_that_comes_later_is_found(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one"))
        with pytest.raises(StoreError):
            await store.publish(OFFER)
        server.change("one", {"spec": {"podCIDR": "10.244.5.0/24"}})
        assert (await store.publish(OFFER)).peer.subnets == (Prefix.parse("10.244.5.0/24"),)

    play(scenario)


def test_a_missing_second_pod_cidr_is_warned_of(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        assert len((await store.publish(OFFER)).peer.subnets) == 1
        assert "node one has no IPv6 pod CIDR" in caplog.text

    play(scenario, DUAL)


def test_a_node_without_annotations_at_all(play: Play) -> None:
    """flannel panics here: assignment to an entry of a nil map."""

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        bare = node("one", "10.244.1.0/24")
        del bare["metadata"]["annotations"]
        server.add(bare)
        server.add({"metadata": {"name": "empty"}})
        assert (await store.publish(OFFER)).peer.endpoints == (V4,)
        assert list(await Watch(store).listing()) == ["one"]

    play(scenario)


def test_an_unknown_node_is_named(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        for attempt in (store.publish(OFFER), store.ready(), store.hints()):
            with pytest.raises(StoreError, match=r'nodes "one" not found.*NODE_NAME') as raised:
                await attempt
            assert not isinstance(raised.value, Unavailable)

    play(scenario)


def test_no_node_name() -> None:
    with pytest.raises(StoreError, match="NODE_NAME"):
        KubernetesStore(node_name="")


def test_nothing_to_publish(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        with pytest.raises(StoreError, match="no underlay address"):
            await store.publish(Offer("one", (), 1))

    play(scenario)


def test_annotations_that_the_server_does_not_keep(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        made = server.add(node("one", "10.244.1.0/24"))
        server.fail("patch", 200, body=json.dumps(made).encode())
        with pytest.raises(StoreError, match=r"did not keep the annotations.*webhook"):
            await store.publish(OFFER)

    play(scenario)


def test_a_conflict_is_tried_again(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        server.fail("patch", 409, times=3)
        assert (await store.publish(OFFER)).peer.endpoints == (V4,)
        assert server.count("patch") == 4
        server.fail("patch", 409, times=100)
        with pytest.raises(Unavailable, match="writing to node one"):
            await store.publish(Offer("one", (V6,), 1))

    play(scenario)


# Condition, withdrawal, hints


def conditions(server: ApiServer) -> dict[str, dict[str, str]]:
    return {c["type"]: c for c in server.get("one")["status"]["conditions"]}


def test_ready_sets_the_condition_once(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        await store.ready()
        found = conditions(server)
        assert found["NetworkUnavailable"]["status"] == "False"
        assert found["NetworkUnavailable"]["reason"] == "VxlanOverlayIsUp"
        assert found["NetworkUnavailable"]["lastTransitionTime"].endswith("Z")
        assert found["Ready"] == {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        assert server.requests[-1].path == "api/v1/nodes/one/status"
        await store.ready()
        assert server.count("patch") == 1
        server.change(
            "one", {"status": {"conditions": [{"type": "NetworkUnavailable", "status": "True"}]}}
        )
        await store.ready()
        assert conditions(server)["NetworkUnavailable"]["status"] == "False"

    play(scenario)


def test_ready_on_a_node_without_conditions(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add({"metadata": {"name": "one"}})
        await store.ready()
        assert list(conditions(server)) == ["NetworkUnavailable"]

    play(scenario)


def test_ready_may_be_switched_off(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        await store.ready()
        assert not server.requests

    play(scenario, set_network_unavailable=False)


def test_withdraw_removes_ours_alone(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        theirs = {"example.org/note": "mine", PREFIX + "public-ip-overwrite": "203.0.113.7"}
        server.add(node("one", "10.244.1.0/24", annotations=theirs))
        before = server.annotations("one")
        await store.publish(Offer("one", (V4, V6), 1))
        await store.withdraw()
        assert server.annotations("one") == before
        await store.withdraw()
        assert server.count("patch") == 2

    play(scenario)


def test_withdraw_leaves_another_backend_and_a_missing_node_alone(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        await store.withdraw()
        annotations = {PREFIX + "kube-subnet-manager": "true", PREFIX + "backend-type": "host-gw"}
        server.add(node("one", "10.244.1.0/24", annotations=annotations))
        await store.withdraw()
        assert server.count("patch") == 0

    play(scenario)


def test_hints(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        chosen = {
            PREFIX + "node-public-ip": "192.0.2.4",
            PREFIX + "node-public-ipv6": "2001:DB8::4",
        }
        addresses = ("192.168.50.1", "2001:db8::1")
        server.add(node("one", annotations=chosen, internal_ips=addresses))
        assert await store.hints() == Hints(addresses, "127.0.0.1", "192.0.2.4", "2001:db8::4")

    play(scenario)


def test_hints_of_a_bare_node(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add({"metadata": {"name": "one"}})
        assert await store.hints() == Hints((), "127.0.0.1", "", "")
        server.annotate("one", {PREFIX + "node-public-ip": "eth1"})
        with pytest.raises(StoreError, match=r"node one: annotation .*/node-public-ip 'eth1'"):
            await store.hints()

    play(scenario)


# Configuration


def test_netconf_is_read_anew_and_errors_name_the_file(play: Play, tmp_path: pathlib.Path) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        path = tmp_path / "net-conf.json"
        assert (await store.netconf()).backend.vni == 1
        path.write_text(json.dumps(NETCONF | {"Backend": {"VNI": 9}, "SubnetLen": 99}))
        assert (await store.netconf()).backend.vni == 9
        path.write_text('{"Network": 1}')
        with pytest.raises(StoreError, match=rf"^{path}: Network.*not 1"):
            await store.netconf()
        path.unlink()
        with pytest.raises(StoreError, match=rf"{path} cannot be read.*ConfigMap"):
            await store.netconf()
        path.write_bytes(b"\xff")
        with pytest.raises(StoreError, match=rf"{path} cannot be read"):
            await store.netconf()

    play(scenario)


def kubeconfig(server: str, **user: str) -> str:
    """A kubeconfig; JSON is YAML."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": user}],
        }
    )


def test_a_kubeconfig_and_a_url_in_place_of_its_server(play: Play, tmp_path: pathlib.Path) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.token = "secret"
        server.add(node("one", "10.244.1.0/24"))
        path = tmp_path / "kubeconfig"
        for url, api_url in ((server.url, ""), ("http://127.0.0.1:1", server.url)):
            path.write_text(kubeconfig(url, token="secret"))
            other = KubernetesStore(
                node_name="one",
                kubeconfig=str(path),
                api_url=api_url,
                netconf_path=str(tmp_path / "net-conf.json"),
            )
            assert (await other.publish(OFFER)).name == "one"
            await other.close()
        with pytest.raises(Unavailable, match=r"401 Unauthorized.*token"):
            await store.publish(OFFER)

    play(scenario)


def self_signed(directory: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Files of a key and of a certificate for 127.0.0.1 that is its own authority."""
    assert shutil.which("openssl"), "apt-get install openssl"
    key, certificate = directory / f"{name}.key", directory / f"{name}.crt"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *options.split(), *names, *files], check=True, capture_output=True)
    return key, certificate


@pytest.mark.root
def test_in_a_pod(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service account's files, TLS, a rotated token, and a server that is not the cluster's.

    /run is the test's own.
    """
    key, certificate = self_signed(tmp_path, "cluster")
    _, other = self_signed(tmp_path, "other")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    account = pathlib.Path("/run/secrets/kubernetes.io/serviceaccount")
    account.mkdir(parents=True)
    (account / "namespace").write_text("kube-system")
    (account / "token").write_text("first")
    netconf = tmp_path / "net-conf.json"
    netconf.write_text(json.dumps(NETCONF))

    async def main() -> None:
        async with ApiServer(token="first", tls=tls) as server:
            server.add(node("one", "10.244.1.0/24"))
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.url.rpartition(":")[2])
            store = KubernetesStore(node_name="one", netconf_path=str(netconf))
            with pytest.raises(StoreError, match=r"certificates, keys or user"):
                await store.hints()
            (account / "ca.crt").write_bytes(certificate.read_bytes())
            await store.publish(OFFER)
            server.token = "second"
            with pytest.raises(Unavailable, match=r"401 .*token"):
                await store.hints()
            (account / "token").write_text("second")
            assert list(await Watch(store).listing()) == ["one"]
            await store.close()
            (account / "ca.crt").write_bytes(other.read_bytes())
            with pytest.raises(Unavailable, match="certificate verify failed"):
                await store.hints()
            await store.close()

    try:
        asyncio.run(main())
    finally:
        shutil.rmtree("/run/secrets")


def test_a_token_in_a_file_that_is_rotated(play: Play, tmp_path: pathlib.Path) -> None:
    """The kubelet replaces the token's file; the next 401 has it read again."""
    token = tmp_path / "token"
    token.write_text("first")

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.token = "first"
        server.add(node("one", "10.244.1.0/24"))
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig(server.url, tokenFile=str(token)))
        other = KubernetesStore(
            node_name="one", kubeconfig=str(path), netconf_path=str(tmp_path / "net-conf.json")
        )
        await other.publish(OFFER)
        server.token = "second"
        token.write_text("second")
        await other.ready()
        watch = Watch(other)
        assert list(await watch.listing()) == ["one"]
        await watch.close()
        await other.close()

    play(scenario)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{",
        "clusters: [",
        json.dumps({"clusters": [], "contexts": [], "users": []}),
        json.dumps({"clusters": [], "contexts": [], "users": [], "current-context": "x"}),
        kubeconfig("http://127.0.0.1:1").replace('"cluster": "c"', '"cluster": "d"'),
        kubeconfig("http://127.0.0.1:1").replace('"server"', '"certificate-authority"'),
        kubeconfig("http://127.0.0.1:1", **{"client-certificate": "/nowhere"}),
    ],
)
def test_an_unusable_kubeconfig_is_a_store_error(
    play: Play, tmp_path: pathlib.Path, content: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        with pytest.raises(StoreError, match=r"[Kk]ube") as raised:
            await store.hints()
        assert not isinstance(raised.value, Unavailable)

    play(scenario, kubeconfig=str(path), api_url="")


def test_no_configuration_at_all(
    play: Play, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        with pytest.raises(
            StoreError, match=r"no usable Kubernetes configuration.*service account"
        ):
            await store.hints()

    play(scenario, api_url="")


def test_it_is_a_store() -> None:
    store: Store = KubernetesStore(node_name="one", api_url="http://127.0.0.1:1")
    assert store.kind == "kubernetes"
    assert asyncio.run(store.renew()) == 0.0
    asyncio.run(store.close())


# Watching


def test_a_listing_then_changes(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.99.0/24"))
        server.add(peer(1))
        async with watching(server, store) as watch:
            added = server.add(peer(2))
            found = await watch.changed()
            assert found.uid == added["metadata"]["uid"]
            assert found.peer.endpoints == (Endpoint("192.168.50.2", "0a:00:00:00:00:02"),)
            assert found.version == added["metadata"]["resourceVersion"]
            server.annotate("node2", {PREFIX + "public-ip": "192.168.50.77"})
            assert (await watch.changed()).peer.endpoints[0].public_ip == "192.168.50.77"
            server.delete("node2")
            assert await watch.removed() == found.uid

    play(scenario)


def test_the_listing_has_all_pages_of_one_moment(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        for number in range(1203):
            cidr = f"10.244.{number % 256}.0/24"
            server.add(
                peer(1)
                | {
                    "metadata": peer(1)["metadata"] | {"name": f"n{number:04}"},
                    "spec": {"podCIDRs": [cidr]},
                }
            )
        watch = Watch(store)
        event = await watch.next()
        assert isinstance(event, Listing)
        assert event.revision == str(server.version)
        assert [n.name for n in event.nodes] == [f"n{number:04}" for number in range(1203)]
        assert [s.query["limit"] for s in server.requests] == ["500"] * 3
        await watch.close()

    play(scenario)


def test_nothing_is_missed_between_listing_and_watch(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        watch = Watch(store)
        assert await watch.listing() == {}
        server.add(peer(1))
        server.add(peer(2))
        server.delete("node1")
        assert (await watch.changed()).name == "node1"
        assert (await watch.changed()).name == "node2"
        await watch.removed()
        assert server.requests[-1].query["resourceVersion"] == "1000"
        await watch.close()

    play(scenario)


def test_what_does_not_matter_is_not_told(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        server.add(node("bystander", "10.244.99.0/24"))
        async with watching(server, store) as watch:
            heartbeat = {"status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "now"}]}}
            server.change("node1", heartbeat)
            server.change("bystander", heartbeat)
            server.bookmark()
            server.send_event("SURPRISE", peer(3))
            server.delete("bystander")
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"

    play(scenario)


def test_either_family_changing_is_told(play: Play) -> None:
    """flannel misses a change of one family while the other stays."""

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        data = '{"VNI":1,"VtepMAC":"0a:00:00:00:01:01"}'
        server.add(peer(1, public_ipv6="2001:db8::11", backend_v6_data=data))
        async with watching(server, store) as watch:
            server.annotate("node1", {PREFIX + "public-ipv6": "2001:db8::12"})
            assert [e.public_ip for e in (await watch.changed()).peer.endpoints] == [
                "192.168.50.1",
                "2001:db8::12",
            ]
            server.annotate("node1", {PREFIX + "public-ip": "192.168.50.12"})
            assert (await watch.changed()).peer.endpoints[0].public_ip == "192.168.50.12"
            server.change("node1", {"spec": {"podCIDRs": ["10.244.1.0/24", "fd00:244:0:1::/64"]}})
            assert len((await watch.changed()).peer.subnets) == 2

    play(scenario, DUAL)


def test_nodes_that_cease_and_resume(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        uid = server.add(peer(1))["metadata"]["uid"]
        async with watching(server, store) as watch:
            server.annotate("node1", {PREFIX + "kube-subnet-manager": None})
            assert await watch.removed() == uid
            server.annotate("node1", {PREFIX + "kube-subnet-manager": "true"})
            assert (await watch.changed()).uid == uid
            server.annotate("node1", {PREFIX + "backend-type": "host-gw"})
            assert await watch.removed() == uid

    play(scenario)


def test_other_backends_and_vnis_are_skipped_with_one_warning(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1, backend_type="host-gw"))
        server.add(peer(2, vni=2))
        server.add(peer(3, backend_data='{"VtepMAC":"0a:00:00:00:00:03"}'))
        watch = Watch(store)
        assert list(await watch.listing()) == ["node3"]
        for name in ("node1", "node2"):
            for beat in ("a", "b"):
                server.annotate(name, {"example.org/beat": beat})
        server.add(peer(4))
        assert (await watch.changed()).name == "node4"
        server.compact()
        server.send_gone()
        assert list(await watch.listing()) == ["node3", "node4"]
        await watch.close()
        said = [
            (r.levelno, r.getMessage()) for r in caplog.records if "left out" in r.getMessage()
        ]
        assert said == [
            (logging.WARNING, "node node1 is left out: backend type 'host-gw' instead of 'vxlan'"),
            (logging.WARNING, "node node2 is left out: VNI 2 instead of 1"),
        ]

    play(scenario)


def test_the_published_vni_is_the_one_that_counts(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.99.0/24"))
        server.add(peer(1, vni=7))
        await store.publish(Offer("one", (V4,), 7))
        assert sorted(await Watch(store).listing()) == ["node1", "one"]

    play(scenario)


BROKEN = [
    ("backend-data", "{", "not valid JSON"),
    ("backend-data", "[1]", "JSON object"),
    ("backend-data", '{"VNI":1}', "VtepMAC None"),
    ("backend-data", '{"VNI":1,"VtepMAC":"0a:00:00:00:00"}', "no MAC address"),
    ("backend-data", '{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}', "no MAC address"),
    ("backend-data", '{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}', "no MAC address"),
    ("backend-data", '{"VNI":"1","VtepMAC":"0a:00:00:00:00:01"}', "VNI '1'"),
    ("backend-data", None, "neither annotation"),
    ("public-ip", None, "public-ip is missing"),
    ("public-ip", "192.168.50.256", "IPv4 address"),
    ("public-ip", "2001:db8::1", "IPv4 address"),
    ("public-ip", "127.0.0.1", "no packet"),
    ("public-ip", "0.0.0.0", "no packet"),
    ("public-ip", "224.0.0.1", "no packet"),
]


@pytest.mark.parametrize(("key", "value", "reason"), BROKEN)
def test_an_unparsable_node_is_loud_and_absent_and_stops_nothing(
    play: Play, caplog: pytest.LogCaptureFixture, key: str, value: str | None, reason: str
) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        uid = server.add(peer(1))["metadata"]["uid"]
        good = server.annotations("node1")[PREFIX + key]
        async with watching(server, store) as watch:
            server.annotate("node1", {PREFIX + key: value})
            assert await watch.removed() == uid
            server.annotate("node1", {"example.org/beat": "a"})
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"
            said = [r for r in caplog.records if r.levelno == logging.ERROR]
            assert len(said) == 1
            assert "node node1 is left out" in said[0].getMessage()
            assert reason in said[0].getMessage()
            server.annotate("node1", {PREFIX + key: good})
            assert (await watch.changed()).uid == uid
        assert set(await Watch(store).listing()) == {"node1", "node2"}

    play(scenario)


def test_unparsable_nodes_do_not_spoil_a_listing(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        server.add(peer(2, backend_data="nonsense"))
        outside = peer(3)
        outside["spec"]["podCIDRs"] = ["0.0.0.0/0"]
        server.add(outside)
        unassigned = peer(4)
        unassigned["spec"] = {}
        server.add(unassigned)
        odd = peer(5)
        odd |= {"spec": ["no object"], "status": 5}
        server.add(odd)
        assert list(await Watch(store).listing()) == ["node1"]
        for name, part in (
            ("2", "not valid"),
            ("3", "0.0.0.0/0 is outside"),
            ("4", "no pod CIDR"),
        ):
            assert f"node node{name} is left out until this is mended: " in caplog.text
            assert part in caplog.text

    play(scenario)


# Faults


def test_duplicated_events(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.faults.duplicate = True
        async with watching(server, store) as watch:
            uid = server.add(peer(1))["metadata"]["uid"]
            assert (await watch.changed()).uid == uid
            server.annotate("node1", {PREFIX + "public-ip": "192.168.50.77"})
            assert (await watch.changed()).peer.endpoints[0].public_ip == "192.168.50.77"
            server.delete("node1")
            assert await watch.removed() == uid
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"

    play(scenario)


def test_reordered_events_of_one_node(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        async with watching(server, store) as watch:
            server.hold()
            for last in (77, 78, 79):
                server.annotate("node1", {PREFIX + "public-ip": f"192.168.50.{last}"})
            server.release(lambda lines: lines[::-1])
            assert (await watch.changed()).peer.endpoints[0].public_ip == "192.168.50.79"
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"

    play(scenario)


def test_a_deletion_that_overtakes_a_change(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        uid = server.add(peer(1))["metadata"]["uid"]
        async with watching(server, store) as watch:
            server.hold()
            server.annotate("node1", {PREFIX + "public-ip": "192.168.50.77"})
            server.delete("node1")
            server.add(peer(2))
            server.release(lambda lines: [lines[1], lines[0], lines[2]])
            assert await watch.removed() == uid
            assert (await watch.changed()).name == "node2"

    play(scenario)


def test_a_node_that_comes_back_under_its_name(play: Play) -> None:
    """The new node's ADDED overtakes the old one's DELETED, or that is lost."""

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        old = server.add(peer(1))["metadata"]["uid"]
        async with watching(server, store) as watch:
            server.hold()
            server.annotate("node1", {PREFIX + "public-ip": "192.168.50.77"})
            server.delete("node1")
            new = server.add(peer(1))["metadata"]["uid"]
            assert new != old
            server.release(lambda lines: [lines[2], lines[0], lines[1]])
            assert await watch.removed() == old
            assert (await watch.changed()).uid == new
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"

    play(scenario)


def test_a_late_event_of_a_node_that_was_gone_before_the_listing(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        ghost = server.add(peer(1))
        server.delete("node1")
        async with watching(server, store) as watch:
            server.send_event("MODIFIED", ghost)
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"

    play(scenario)


@pytest.mark.parametrize("as_event", [True, False])
def test_410_gone_is_followed_by_a_listing(play: Play, as_event: bool) -> None:
    """Once as an ERROR event of a watch that goes on, once as the answer to the next watch."""

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        async with watching(server, store) as watch:
            server.hold()
            server.add(peer(2))
            server.delete("node1")
            server.skip_versions(1)
            server.release(lambda lines: [])
            server.compact()
            if as_event:
                server.send_gone()
            else:
                server.end_watches()
            assert list(await watch.listing()) == ["node2"]
            server.add(peer(3))
            assert (await watch.changed()).name == "node3"

    play(scenario)


@pytest.mark.parametrize("event", [True, False])
def test_410_at_once_is_followed_by_one_listing_not_by_many(play: Play, event: bool) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.fail("watch", 410, times=1000, event=event)
        watch = Watch(store)
        await watch.listing()
        await watch.listing()
        with pytest.raises(Unavailable, match="right after a listing"):
            await watch.next()
        assert server.count("list") == 2

    play(scenario)


def test_a_listing_that_expires_half_way_is_begun_again(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        for number in range(1, 7):
            server.add(peer(number))
        more = base64.urlsafe_b64encode(b'[1,"node4"]').decode()
        page = {"metadata": {"continue": more, "resourceVersion": "1"}, "items": [peer(9)]}
        server.fail("list", 200, body=json.dumps(page).encode())
        watch = Watch(store)
        assert list(await watch.listing()) == [f"node{number}" for number in range(1, 7)]
        server.fail("list", 410, times=100)
        with pytest.raises(Unavailable, match="listing nodes"):
            await Watch(store).next()
        await watch.close()

    play(scenario)


def test_an_ended_watch_goes_on_where_it_was(play: Play) -> None:
    """A server ends each watch after a while; nothing is listed again."""

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        async with watching(server, store) as watch:
            server.add(peer(1))
            assert (await watch.changed()).name == "node1"
            server.end_watches()
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"
            server.end_watches()
            server.bookmark()
            server.delete("node1")
            await watch.removed()
            assert server.count("list") == 1
            assert server.count("watch") >= 2

    play(scenario)


def test_watches_end_by_themselves(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        async with watching(server, store) as watch:
            await until(lambda: server.count("watch") > 1)
            server.add(peer(1))
            assert (await watch.changed()).name == "node1"
            assert server.count("list") == 1
            assert server.requests[-1].query["timeoutSeconds"] == "1"

    play(scenario, watch_seconds=1)


def test_bookmarks_move_the_version_to_go_on_from(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        async with watching(server, store) as watch:
            assert server.requests[-1].query["allowWatchBookmarks"] == "true"
            server.skip_versions(500)
            server.bookmark()
            server.compact()
            server.end_watches()
            await until(lambda: server.count("watch") == 2)
            assert server.requests[-1].query["resourceVersion"] == "1500"
            server.add(peer(1))
            assert (await watch.changed()).name == "node1"
            assert server.count("list") == 1

    play(scenario)


HALF = event_line("ADDED", peer(9))[:200]


@pytest.mark.parametrize(
    "fault",
    [
        lambda server: server.drop_watches(),
        lambda server: server.drop_watches(reset=True),
        lambda server: server.drop_watches(HALF),
        lambda server: server.drop_watches(HALF, reset=True),
        lambda server: server.end_watches(HALF),
        lambda server: server.send_raw(b"nonsense\n"),
        lambda server: server.send_raw(b"\n"),
        lambda server: server.send_raw(b'{"type": "ADDED"}\n'),
        lambda server: server.send_raw(b'{"type": "ADDED", "object": [1]}\n'),
        lambda server: server.send_raw(b'{"type": "ERROR", "object": {"code": 500}}\n'),
        lambda server: server.send_raw(b'{"type": "ERROR", "object": {}}\n'),
        lambda server: server.send_raw(b'{"type": "ERROR", "object": "x"}\n'),
        lambda server: server.send_raw(b"\xff\xfe\n"),
    ],
)
def test_a_broken_watch_is_unavailable_and_the_next_begins_with_a_listing(
    play: Play, fault: Callable[[ApiServer], None]
) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        async with watching(server, store) as watch:
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"
            fault(server)
            with pytest.raises(Unavailable, match="watching nodes"):
                await watch.next()
        await until(lambda: server.watching() == 0)
        again = Watch(store)
        assert list(await again.listing()) == ["node1", "node2"]
        server.delete("node2")
        await again.removed()
        await again.close()

    play(scenario)


def test_events_without_a_usable_object_mean_nothing(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        async with watching(server, store) as watch:
            for odd in ({}, {"metadata": None}, {"metadata": {"resourceVersion": 5}}):
                for kind in ("ADDED", "DELETED", "BOOKMARK"):
                    server.send_event(kind, odd)
            server.add(peer(2))
            assert (await watch.changed()).name == "node2"

    play(scenario)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def test_lines_in_pieces_are_put_together(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        async with watching(server, store) as watch:
            server.hold()
            server.add(peer(1))
            server.add(peer(2))
            server.release(lambda lines: cut(b"".join(lines), 100))
            assert (await watch.changed()).name == "node1"
            assert (await watch.changed()).name == "node2"

    play(scenario)


def test_a_slow_server_that_comes_to_an_end_is_waited_for(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        server.faults.drip = 0.0001
        watch = Watch(store)
        assert list(await watch.listing()) == ["node1"]
        server.add(peer(2))
        assert (await watch.changed()).name == "node2"
        await watch.close()

    play(scenario)


@pytest.mark.parametrize("verb", ["get", "list", "watch", "patch"])
def test_a_server_that_does_not_answer_is_unavailable(play: Play, verb: str) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        server.faults.delay[verb] = 30.0
        await expect_unavailable(store, verb, "is not reached: .*no answer|[Tt]imeout")
        server.faults.delay.clear()
        await store.publish(OFFER)

    play(scenario, timeout=1.0)


async def expect_unavailable(store: KubernetesStore, verb: str, match: str) -> None:
    """What uses the verb raises Unavailable with a text that matches."""
    with pytest.raises(Unavailable, match=match):
        if verb in ("get", "patch"):
            await store.publish(OFFER)
        else:
            watch = Watch(store)
            if verb == "watch":
                await watch.listing()
            await watch.next()


def test_a_listing_that_drips_for_ever_is_unavailable(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cni_vxlan_overlay.agent.store.api_client._ANSWER_SECONDS", 0.3)

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(peer(1))
        server.faults.drip = 0.01
        await expect_unavailable(store, "list", "did not come to its end")

    play(scenario)


def test_a_watch_that_the_server_forgot_is_unavailable(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stands, and nothing comes, not even the end that was asked for."""
    monkeypatch.setattr("cni_vxlan_overlay.agent.store.api_client._WATCH_GRACE", -0.8)

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.faults.mute_watches = True
        await expect_unavailable(store, "watch", "did not come to its end")

    play(scenario, watch_seconds=1)


def test_watches_that_end_at_once_are_begun_with_pauses(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cni_vxlan_overlay.agent.store.api_client._WATCH_PAUSE", 20.0)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.faults.end_watches = True
        watch = Watch(store)
        await watch.listing()
        monkeypatch.setattr("cni_vxlan_overlay.agent.store.api_client.asyncio.sleep", noted)
        pending = asyncio.ensure_future(watch.next())
        while server.count("watch") < 5:
            await sleep(0.001)
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        monkeypatch.undo()
        assert sum(pause > 10 for pause in pauses) >= 4

    play(scenario)


@pytest.mark.parametrize("verb", ["get", "list", "watch", "patch"])
@pytest.mark.parametrize(
    ("code", "match"),
    [
        (401, "401 .*token or certificate"),
        (403, "403 .*role needs"),
        (429, "429"),
        (500, "500"),
        (503, "503"),
        (504, "504"),
    ],
)
def test_refusals_are_unavailable(play: Play, verb: str, code: int, match: str) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        server.fail(verb, code)
        await expect_unavailable(store, verb, match)
        await store.publish(OFFER)

    play(scenario)


@pytest.mark.parametrize("verb", ["get", "list", "watch", "patch"])
def test_forbidden_verbs_say_what_the_role_needs(play: Play, verb: str) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        server.forbidden = {verb}
        await expect_unavailable(store, verb, "get, list and watch on nodes")

    play(scenario)


@pytest.mark.parametrize("verb", ["get", "list", "patch"])
@pytest.mark.parametrize(
    ("code", "body", "content_type"),
    [
        (200, b"<html>Welcome to the captive portal</html>", "text/html"),
        (200, b"", "application/json"),
        (200, b"[]", "application/json"),
        (200, b'"x"', "application/json"),
        (200, b'{"items": null', "application/json"),
        (502, b"Bad gateway", ""),
        (502, b"Bad gateway", "text/plain"),
        (502, b"Bad gateway", "application/json"),
        (502, b"[]", "application/json"),
        (502, b"{}", "application/json"),
    ],
)
def test_answers_of_something_else_are_unavailable(
    play: Play, verb: str, code: int, body: bytes, content_type: str
) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        server.fail(verb, code, body=body, content_type=content_type)
        with pytest.raises(StoreError) as raised:
            if verb == "list":
                await Watch(store).next()
            else:
                await store.publish(OFFER)
        if body != b"[]" or verb == "list" or code != 200:
            assert isinstance(raised.value, Unavailable)

    play(scenario)


def test_a_listing_without_a_version_or_items_is_unavailable(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.faults.no_version = True
        with pytest.raises(Unavailable, match="listing nodes"):
            await Watch(store).next()
        server.faults.no_version = False
        server.fail("list", 200, body=b'{"metadata": {"resourceVersion": "5"}, "items": null}')
        with pytest.raises(Unavailable, match="listing nodes"):
            await Watch(store).next()

    play(scenario)


def test_a_listing_is_whole_or_not_at_all(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        page = {"metadata": {"continue": "x", "resourceVersion": "1"}, "items": [peer(1)]}
        server.fail("list", 200, body=json.dumps(page).encode())
        server.fail("list", 500)
        with pytest.raises(Unavailable, match="listing nodes"):
            await Watch(store).next()

    play(scenario)


def test_short_and_empty_listings_are_passed_on_as_they_are(play: Play) -> None:
    """Whether to believe them is for the caller, who knows what there was before."""

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        for number in (1, 2, 3):
            server.add(peer(number))
        server.faults.listing = lambda nodes: nodes[:1]
        assert list(await Watch(store).listing()) == ["node1"]
        server.faults.listing = lambda nodes: []
        assert await Watch(store).listing() == {}
        server.faults.listing = None
        assert len(await Watch(store).listing()) == 3

    play(scenario)


def test_a_server_that_goes_away_and_comes_back(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        await store.publish(OFFER)
        async with watching(server, store) as watch:
            await server.stop()
            with pytest.raises(Unavailable, match="watching nodes: API server is not reached"):
                await watch.next()
        for verb in ("get", "list"):
            await expect_unavailable(store, verb, "is not reached")
        for attempt in (store.ready(), store.withdraw(), store.hints()):
            with pytest.raises(Unavailable, match="is not reached"):
                await attempt
        await server.start()
        server.add(peer(2))
        assert list(await Watch(store).listing()) == ["node2", "one"]

    play(scenario)


def test_an_address_where_nobody_listens(play: Play) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        await expect_unavailable(store, "get", "reading node one: API server is not reached")

    play(scenario, api_url=f"http://127.0.0.1:{port}")


def test_a_wrong_url_is_a_store_error(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        with pytest.raises(StoreError):
            await Watch(store).next()

    play(scenario, api_url="no url")


def test_closing_gives_connections_back_and_is_idempotent(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        server.add(node("one", "10.244.1.0/24"))
        async with watching(server, store):
            pass
        await until(lambda: server.watching() == 0)
        await store.close()
        await store.close()
        assert (await store.publish(OFFER)).name == "one"

    play(scenario)


def test_a_cancelled_watch_gives_its_connection_back(play: Play) -> None:
    async def scenario(server: ApiServer, store: KubernetesStore) -> None:
        async def follow() -> None:
            async for _ in store.watch():
                pass

        task = asyncio.ensure_future(follow())
        await until(lambda: server.watching() == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.watching() == 0)

    play(scenario)


def test_the_server_in_a_thread_of_its_own(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net-conf.json").write_text(json.dumps(NETCONF))

    async def main(server: ApiServer) -> None:
        store = KubernetesStore(
            node_name="one", api_url=server.url, netconf_path=str(tmp_path / "net-conf.json")
        )
        watch = Watch(store)
        assert await watch.listing() == {}
        await asyncio.to_thread(server.add, peer(1))
        assert (await watch.changed()).name == "node1"
        await watch.close()
        await store.close()

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    with in_thread(ApiServer(), sock) as server:
        asyncio.run(main(server))


# Any object whatever

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
NAMES = [
    "kube-subnet-manager",
    "backend-type",
    "backend-data",
    "backend-v6-data",
    "public-ip",
    "public-ipv6",
]
VALUES = (
    JSON | st.sampled_from(["true", "vxlan", "null", "10.1.1.1", "fd00::1"]) | JSON.map(json.dumps)
)
ANNOTATIONS = st.dictionaries(st.sampled_from([PREFIX + name for name in NAMES]), VALUES)


@given(
    ANNOTATIONS | JSON,
    st.fixed_dictionaries({}, optional={"podCIDR": VALUES, "podCIDRs": VALUES}) | JSON,
    st.booleans(),
)
def test_no_node_object_can_crash_the_conversion(annotations: Any, spec: Any, whole: bool) -> None:
    base = peer(1)
    if whole and isinstance(annotations, dict):
        annotations = base["metadata"]["annotations"] | annotations
    meta = base["metadata"] | {"uid": "u", "annotations": annotations}
    networks = (Prefix.parse("10.244.0.0/16"), Prefix.parse("fd00:244::/48"))
    try:
        found = read_node(base | {"metadata": meta, "spec": spec}, Keys(PREFIX[:-1]), 1, networks)
    except (Unusable, Foreign) as reason:
        assert str(reason)
    else:
        assert found is None or (found.uid == "u" and found.peer.endpoints and found.peer.subnets)
