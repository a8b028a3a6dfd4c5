# SPDX-License-Identifier: Apache-2.0
"""The etcd store where it gets difficult: races over two families, answers that are lost, members
without a leader, users whose roles change, entries of any form. On Debian's etcd, but where etcd
itself would never say what is to be survived.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import json
import logging
import pathlib
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.store import Changed, Listing, Removed, StoreError, Unavailable
from cni_vxlan_overlay.agent.store.annotations import Foreign, Unusable
from cni_vxlan_overlay.agent.store.etcd import EtcdStore
from cni_vxlan_overlay.agent.store.etcd_gateway import Refused
from cni_vxlan_overlay.agent.store.lease_entry import Entry, is_at, name_of, read_entry
from libcni.inet import Prefix
from tests.overlay.agents import Agent
from tests.overlay.cluster import Cluster
from tests.overlay.etcd import EtcdServer, free_port
from tests.overlay.test_store_etcd import (
    CONFIG,
    DUAL,
    PREFIX,
    entry,
    offer,
    play,
    published,
    texts,
    watching,
)

SUBNETS = f"{PREFIX}/subnets/"


@pytest.fixture
def etcd(tmp_path: pathlib.Path) -> Iterator[EtcdServer]:
    """A server with the network's configuration."""
    server = EtcdServer(tmp_path / "etcd").start()
    server.put(f"{PREFIX}/config", json.dumps(CONFIG))
    yield server
    server.stop()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def leases(etcd: EtcdServer, token: str = "") -> int:
    """How many leases there are."""
    return len(etcd.call("lease/leases", {}, token).get("leases", ()))


def enable_users(etcd: EtcdServer) -> None:
    """root, and "reader" who may read the network, but not write; passwords are as names."""
    for name in ("root", "reader"):
        etcd.call("auth/user/add", {"name": name, "password": name})
        etcd.call("auth/role/add", {"name": name})
        etcd.call("auth/user/grant", {"user": name, "role": name})
    permission = {"permType": "READ", "key": b64("/coreos.com/"), "range_end": b64("/coreos.com0")}
    etcd.call("auth/role/grant", {"name": "reader", "perm": permission})
    etcd.call("auth/enable", {})


def token_of_root(etcd: EtcdServer) -> str:
    token: str = etcd.call("auth/authenticate", {"name": "root", "password": "root"})["token"]
    return token


# -- races, and answers that are lost -----------------------------------------------------------


def test_twenty_at_once_share_no_subnet_of_either_family(etcd: EtcdServer) -> None:
    """Their keys differ if only one family is the same, so etcd alone would let them be."""
    narrow = {**DUAL, "Network": "10.244.0.0/18", "IPv6Network": "fd00:10:244::/58"}
    etcd.put(f"{PREFIX}/config", json.dumps(narrow))
    found: list[Node] = []

    async def scenario(_: EtcdStore) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stores = [EtcdStore([etcd.url], PREFIX) for _ in range(20)]
            for store in stores:
                stack.push_async_callback(store.close)
            waiting = [
                store.publish(offer(number, ipv6=True)) for number, store in enumerate(stores, 1)
            ]
            found.extend(await asyncio.gather(*waiting))

    play(scenario, etcd.url)
    counted = collections.Counter(text for node in found for text in texts(node))
    assert len(counted) == 40, [text for text, number in counted.items() if number > 1]
    assert set(etcd.all(SUBNETS)) == {node.uid for node in found}
    assert leases(etcd) == 20


def test_the_younger_of_two_overlapping_ones_gives_way(etcd: EtcdServer) -> None:
    """It took its key between our listing and our write: seen afterwards, in either order."""
    etcd.put(f"{PREFIX}/config", json.dumps(DUAL))
    first, second = (
        offer(number, "", "10.244.7.0/24", f"fd00:10:244:{number}::/64", ipv6=True)
        for number in (1, 2)
    )
    found: list[Node] = []

    async def scenario(one: EtcdStore) -> None:
        other = EtcdStore([etcd.url], PREFIX)
        found.extend(await asyncio.gather(one.publish(first), other.publish(second)))
        await other.close()

    play(scenario, etcd.url)
    subnets = [texts(node)[0] for node in found]
    assert len(set(subnets)) == 2
    assert "10.244.7.0/24" in subnets
    assert len(etcd.all(SUBNETS)) == leases(etcd) == 2


@contextlib.asynccontextmanager
async def swallowing(etcd: EtcdServer, path: bytes) -> AsyncIterator[str]:
    """An endpoint before etcd that has requests to a path done, and hangs up before the answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            there, back = await asyncio.open_connection(etcd.address, etcd.port)
            back.write(head.replace(b"keep-alive", b"close") + body)
            await back.drain()
            answer = await there.read()
            back.close()
            if path not in head.partition(b"\r\n")[0]:
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def test_a_write_whose_answer_is_lost(etcd: EtcdServer) -> None:
    """It is tried at the next endpoint, where it fails, as it has been done: nothing is undone."""

    async def scenario(_: EtcdStore) -> None:
        async with swallowing(etcd, b"/v3/kv/txn") as url:
            subnets = set()
            for mac in (1, 2):  # created, then changed
                store = EtcdStore([url, etcd.url], PREFIX)
                wanted = offer(1)
                wanted.endpoints[0].mac = f"0a:00:00:00:00:{mac:02x}"
                node = await store.publish(wanted)
                assert node.peer.endpoints[0].mac.endswith(f"{mac:02x}")
                assert await store.renew() > 0
                subnets.add(node.uid)
                await store.close()
            assert set(etcd.all(SUBNETS)) == subnets and len(subnets) == 1

    play(scenario, etcd.url)
    assert leases(etcd) == 1


# -- whose entry, whose lease -------------------------------------------------------------------


def test_a_changed_entry_leaves_no_lease_behind(etcd: EtcdServer) -> None:
    async def scenario(store: EtcdStore) -> None:
        for number in range(1, 6):
            await store.publish(offer(number))

    play(scenario, etcd.url)
    assert len(etcd.all(SUBNETS)) == leases(etcd) == 1


def test_a_lease_that_others_have_keys_under_is_not_revoked(etcd: EtcdServer) -> None:
    """An administrator put two reservations under one."""
    lease = etcd.call("lease/grant", {"TTL": "600"})["ID"]
    for number in (1, 2):
        document = {
            "key": b64(f"{SUBNETS}10.244.{number}.0-24"),
            "value": b64(f'{{"PublicIP":"192.168.50.{number}"}}'),
            "lease": lease,
        }
        etcd.call("kv/put", document)
    mine = published(etcd, offer(1))

    async def scenario(store: EtcdStore) -> None:
        await store.withdraw(mine)

    play(scenario, etcd.url)
    assert list(etcd.all(SUBNETS)) == ["10.244.2.0-24"]


def test_a_running_node_keeps_its_own_before_what_has_its_address(etcd: EtcdServer) -> None:
    """What a flannel node left behind at the address that this one gets now is older."""
    etcd.put(f"{SUBNETS}10.244.1.0-24", entry(7), ttl=600)
    etcd.put(f"{SUBNETS}10.244.2.0-24", '{"PublicIP":"192.168.50.7"}')  # a reservation

    async def scenario(store: EtcdStore) -> None:
        before = await store.publish(offer(5, "", "10.244.99.0/24"))
        after = await store.publish(offer(7))
        assert texts(after) == texts(before) == ["10.244.99.0/24"]

    play(scenario, etcd.url)
    assert set(etcd.all(SUBNETS)) == {"10.244.2.0-24", "10.244.99.0-24"}


def test_of_several_with_its_address_the_former_one_is_taken(etcd: EtcdServer) -> None:
    for number in (1, 2, 3):
        etcd.put(f"{SUBNETS}10.244.{number}.0-24", entry(7), ttl=600)
    assert texts(published(etcd, offer(7, "", "10.244.2.0/24"))) == ["10.244.2.0/24"]
    assert set(etcd.all(SUBNETS)) == {"10.244.2.0-24"}


def test_a_node_that_returns_with_another_address(etcd: EtcdServer) -> None:
    """Its agent was away meanwhile: it knows its subnet, and the entry is in its name."""
    mine = published(etcd, offer(1, "one"))
    for name in ("two", ""):
        other = published(etcd, offer(8, name, *texts(mine)))
        assert texts(other) != texts(mine)
        etcd.delete(SUBNETS + other.uid)
    again = published(etcd, offer(7, "one", *texts(mine)))
    assert (again.uid, again.age) == (mine.uid, mine.age)
    assert again.peer.endpoints == offer(7).endpoints
    assert list(etcd.all(SUBNETS)) == [mine.uid]


def test_flannel_takes_this_node_over_and_gives_it_back(etcd: EtcdServer) -> None:
    """It writes the entry without our name, and with its own MAC: same subnet, same age."""

    async def scenario(store: EtcdStore) -> None:
        mine = await store.publish(offer(1, "one"))
        async with watching(store) as following:
            assert isinstance(await following(), Listing)
            etcd.put(f"{SUBNETS}{mine.uid}", entry(1, 0x99), ttl=600)
            with pytest.raises(StoreError, match=f"{mine.uid}, .* was changed by another"):
                await following()
        with pytest.raises(StoreError, match=f"{mine.uid} was taken by another"):
            await store.renew()
        again = await store.publish(offer(1, "one"))
        assert (again.uid, again.age) == (mine.uid, mine.age)
        assert again.peer == mine.peer

    play(scenario, etcd.url)
    assert leases(etcd) == 1 + 1  # the first run's, which flannel took the key from


def test_an_overlay_of_ipv6_alone(etcd: EtcdServer) -> None:
    """Key and value as flannel writes them."""
    document = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fc00::/48"}
    etcd.put(f"{PREFIX}/config", json.dumps({**document, "Backend": {"Type": "vxlan"}}))
    wanted = offer(1, "", "fc00:0:0:5::/64", ipv6=True)
    wanted = type(wanted)("", wanted.endpoints[1:], 1, wanted.preferred)
    assert texts(published(etcd, wanted)) == ["fc00:0:0:5::/64"]
    assert etcd.all(SUBNETS) == {
        "0.0.0.0-0&fc00:0:0:5::-64": '{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1",'
        '"BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"0a:00:00:00:06:01"}}'
    }


# -- what entries may say -----------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = ("PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data", "NodeName")
PLAUSIBLE: dict[str, Any] = json.loads(entry(1))


@given(st.dictionaries(st.sampled_from(NAMES), JSON), st.sampled_from(("10.244.1.0-24", "x", "")))
def test_values_of_any_form(changes: dict[str, Any], key: str) -> None:
    """A node, or a word about why not; never anything else."""
    found = Entry(key, json.dumps({**PLAUSIBLE, **changes}).encode(), 1, 1, 1)
    assert is_at(found, ["192.168.50.1", "::1"]) in (True, False)
    assert isinstance(name_of(found), str)
    try:
        node = read_entry(found, 1)
    except (Unusable, Foreign) as error:
        assert str(error)
    else:
        assert node.peer.endpoints and node.name


@given(st.binary(max_size=60), st.binary(max_size=40))
def test_bytes_of_any_form(value: bytes, key: bytes) -> None:
    found = Entry(key.decode(errors="replace"), value)
    assert not is_at(found, ["192.168.50.1"])
    with pytest.raises((Unusable, Foreign)):
        read_entry(found, 1)


def test_addresses_that_are_no_text(etcd: EtcdServer) -> None:
    """They keep nobody from joining."""
    for number, value in enumerate(("[]", "{}", "5", "null", '["192.168.50.1"]'), 1):
        etcd.put(f"{SUBNETS}10.244.{number}.0-24", f'{{"PublicIP":{value},"NodeName":{value}}}')
    node = published(etcd, offer(1, "one"))
    assert texts(node)[0] not in {f"10.244.{number}.0/24" for number in range(1, 6)}


def test_subnets_outside_of_the_network(
    etcd: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    """They would lead away what is meant for others. A family that we have not is passed over."""
    for key in ("10.0.0.0-8", "0.0.0.0-1", "192.168.50.0-24", "0.0.0.0-0&fd00:10:244:1::-64"):
        etcd.put(SUBNETS + key, entry(9))
    etcd.put(f"{SUBNETS}10.244.9.0-24&fd00:10:244:9::-64", entry(9))

    async def scenario(store: EtcdStore) -> None:
        await store.netconf()
        async with watching(store) as following:
            listing = await following()
            assert isinstance(listing, Listing)
            assert [texts(node) for node in listing.nodes] == [["10.244.9.0/24"]]

    with caplog.at_level(logging.WARNING):
        play(scenario, etcd.url)
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == 4, words
    assert sum("outside the overlay's network 10.244.0.0/16" in text for text in words) == 3


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("/coreos.com/network", "/coreos.com/network/config"),
        ("coreos.com/network", "coreos.com/network/config"),
        ("//flannel//net/", "/flannel/net/config"),
        ("/", "/config"),
        ("", "config"),
    ],
)
def test_the_prefix_is_joined_as_flannel_does(etcd: EtcdServer, prefix: str, key: str) -> None:
    etcd.put(key, json.dumps({**CONFIG, "Network": "10.9.0.0/16"}))

    async def scenario(_: EtcdStore) -> None:
        store = EtcdStore([etcd.url], prefix)
        node = await store.publish(offer(1))
        assert texts(node)[0].startswith("10.9.")
        assert list(etcd.all(key.removesuffix("config") + "subnets/")) == [node.uid]
        async with watching(store) as following:
            listing = await following()
            assert isinstance(listing, Listing) and listing.nodes == (node,)
        await store.close()

    play(scenario, etcd.url)


def test_large_answers(etcd: EtcdServer) -> None:
    """6 MB of listing and 20 MB of events, more than gRPC's usual limit, in pieces of any size."""

    def put(number: int, size: int) -> None:
        value = entry(number)[:-1] + f',"more":"{"x" * size}"}}'
        etcd.put(f"{SUBNETS}10.244.{number}.0-24", value)

    for number in range(1, 61):
        put(number, 100_000)

    async def scenario(store: EtcdStore) -> None:
        await store.netconf()
        async with watching(store) as following:
            listing = await following()
            assert isinstance(listing, Listing) and len(listing.nodes) == 60
            for number in range(1, 21):
                put(number, 1_000_000)
            uids = []
            for _ in range(20):
                event = await following()
                assert isinstance(event, Changed)
                uids.append(event.node.uid)
            assert uids == [f"10.244.{number}.0-24" for number in range(1, 21)]

    play(scenario, etcd.url)


# -- watching -----------------------------------------------------------------------------------


def test_a_member_without_a_leader(tmp_path: pathlib.Path) -> None:
    """It would keep a watch open and say nothing: it ends, and a listing is not had there."""
    peers = [f"http://127.0.0.1:{free_port('127.0.0.1')}" for _ in range(2)]
    cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(peers))
    members = [
        EtcdServer(
            tmp_path / f"m{number}",
            "127.0.0.1",
            f"--name=m{number}",
            f"--initial-cluster={cluster}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
        )
        for number, peer in enumerate(peers)
    ]
    starting = [threading.Thread(target=member.start) for member in members]
    try:
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        members[0].put(f"{PREFIX}/config", json.dumps(CONFIG))

        async def scenario(store: EtcdStore) -> None:
            async with watching(store) as following:
                assert isinstance(await following(), Listing)
                members[0].put(f"{SUBNETS}10.244.9.0-24", entry(9))
                assert isinstance(await following(), Changed)
                members[1].stop()
                with pytest.raises(Unavailable):
                    await following()
            with pytest.raises(Unavailable):
                await store.netconf()

        play(scenario, members[0].url, timeout=3)
    finally:
        for member in members:
            member.stop()


@contextlib.asynccontextmanager
async def fake(
    watch: bytes | None, kv: bytes = b'{"header":{"revision":"7"}}'
) -> AsyncIterator[str]:
    """What answers every request with `kv`, and a watch with `watch`; None: never.

    Not etcd: it says what etcd does not.
    """
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = watch if b"/v3/watch" in head else kv
        if body is None:
            await ended.wait()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()


def test_a_watch_that_never_begins() -> None:
    """Somebody answers listings, but not this: an outage, not a silence."""

    async def scenario(_: EtcdStore) -> None:
        async with fake(None) as url:
            store = EtcdStore([url], PREFIX, timeout=0.5)
            async with watching(store) as following:
                assert isinstance(await following(), Listing)
                with pytest.raises(Unavailable, match=r"watch: no answer within 0\.5 s"):
                    await following()
            await store.close()

    play(scenario, "http://127.0.0.1:1")


def test_events_twice_and_in_another_order() -> None:
    """What is older than what is known already is passed over, per entry."""

    def event(number: int, revision: int, mac: int = 0) -> dict[str, Any]:
        kv = {"key": b64(f"{SUBNETS}10.244.{number}.0-24"), "mod_revision": str(revision)}
        if not mac:
            return {"type": "DELETE", "kv": kv}
        return {"kv": {**kv, "create_revision": "5", "value": b64(entry(number, mac))}}

    events = [
        event(1, 11, 0xA1), event(2, 10, 0xB1), event(1, 11, 0xA1), event(1, 9),
        event(2, 12), event(2, 10, 0xB1), event(1, 13, 0xA2),
    ]  # fmt: skip
    lines = [json.dumps({"result": {"events": [one]}}).encode() + b"\n" for one in events]

    async def scenario(_: EtcdStore) -> None:
        async with fake(b"".join(lines)) as url:
            store = EtcdStore([url], PREFIX)
            state: dict[str, str] = {}
            async with watching(store) as following:
                assert isinstance(await following(), Listing)
                with pytest.raises(Unavailable):
                    while True:
                        match await following():
                            case Changed(node):
                                state[node.uid] = node.peer.endpoints[0].mac
                            case Removed(uid):
                                state.pop(uid, None)
            assert state == {"10.244.1.0-24": "0a:00:00:00:00:a2"}
            await store.close()

    play(scenario, "http://127.0.0.1:1")


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b'{"result":5}\n',
        b'{"result":{"events":5}}\n',
        b'{"result":{"events":{"kv":{}}}}\n',
        b'{"result":{"events":[5]}}\n',
        b'{"result":{"events":[{"kv":5}]}}\n',
        b'{"result":{"events":[{"kv":{"key":5,"mod_revision":"many"}}]}}\n',
        b'{"result":{"events":[{"kv":{"key":"L2s=","value":"\\u0000"}}]}}\n',
        b'{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"result":{"canceled":true}}\n',
    ],
)
def test_lines_that_are_not_etcds(line: bytes) -> None:
    async def scenario(_: EtcdStore) -> None:
        async with fake(line) as url:
            store = EtcdStore([url], PREFIX)
            async with watching(store) as following:
                assert isinstance(await following(), Listing)
                with pytest.raises(Unavailable):
                    await following()
            await store.close()

    play(scenario, "http://127.0.0.1:1")


@pytest.mark.parametrize("kvs", ["5", "{}5", '{"a":1}', '"text"', "[5]", "[[]]"])
def test_listings_that_are_not_etcds(kvs: str) -> None:
    async def scenario(_: EtcdStore) -> None:
        async with fake(b"", f'{{"kvs":{kvs}}}'.encode()) as url:
            store = EtcdStore([url], PREFIX)
            with pytest.raises(Unavailable):
                await store.netconf()
            async with watching(store) as following:
                with pytest.raises(Unavailable):
                    await following()
            await store.close()

    play(scenario, "http://127.0.0.1:1")


# -- users, and what etcd refuses ---------------------------------------------------------------


def test_a_user_who_may_not_write(etcd: EtcdServer) -> None:
    """The error names endpoint, key and reason; the lease for it is given back."""
    enable_users(etcd)

    async def scenario(store: EtcdStore) -> None:
        for _ in range(3):
            with pytest.raises(Refused) as refused:
                await store.publish(offer(1, "", "10.244.7.0/24"))
            for words in (etcd.url, f"{SUBNETS}10.244.7.0-24", "permission denied"):
                assert words in str(refused.value)

    play(scenario, etcd.url, username="reader", password="reader")
    assert leases(etcd, token_of_root(etcd)) == 0


def test_a_password_before_users_are_enabled(etcd: EtcdServer) -> None:
    """It is not needed yet; and used from when it is."""

    async def scenario(store: EtcdStore) -> None:
        mine = await store.publish(offer(1))
        enable_users(etcd)
        assert await store.renew() > 0
        assert (await store.publish(offer(1))).uid == mine.uid

    play(scenario, etcd.url, username="root", password="root")


def test_roles_change_while_the_agent_runs(tmp_path: pathlib.Path) -> None:
    """Signed tokens are of the roles as they were: etcd calls them invalid arguments then."""
    key = tmp_path / "key.pem"
    words = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    subprocess.run([*words, "-out", key], check=True, capture_output=True)
    public = tmp_path / "public.pem"
    words = ["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)]
    subprocess.run(words, check=True, capture_output=True)
    signed = f"--auth-token=jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl=10m"
    etcd = EtcdServer(tmp_path / "etcd", "127.0.0.1", signed).start()
    try:
        etcd.put(f"{PREFIX}/config", json.dumps(CONFIG))
        enable_users(etcd)

        async def scenario(store: EtcdStore) -> None:
            await store.publish(offer(1))
            for name in ("new", "newer"):
                document = {"name": name, "password": "x"}
                etcd.call("auth/user/add", document, token_of_root(etcd))
                assert await store.renew() > 0
                async with watching(store) as following:
                    assert isinstance(await following(), Listing)

        play(scenario, etcd.url, username="root", password="root")
    finally:
        etcd.stop()


def test_tokens_are_lost_when_etcd_restarts(etcd: EtcdServer) -> None:
    enable_users(etcd)

    async def scenario(store: EtcdStore) -> None:
        await store.publish(offer(1))
        etcd.stop()
        with pytest.raises(Unavailable):
            await store.renew()
        await asyncio.to_thread(etcd.start)
        assert await store.renew() > 0

    play(scenario, etcd.url, username="root", password="root")


@pytest.mark.parametrize(
    "url",
    [
        "http://", "https://:2379", "http://127.0.0.1:x", "http://127.0.0.1:99999", "http://[::1",
        "127.0.0.1:2379", "unix:///run/etcd", "",
    ],
)  # fmt: skip
def test_endpoints_that_cannot_be(url: str) -> None:
    """Said at once, by their option and value."""
    with pytest.raises(StoreError, match="--etcd-endpoints: ") as wrong:
        EtcdStore(["http://127.0.0.1:2379", url])
    assert repr(url.rstrip("/")) in str(wrong.value)


def test_networks_as_prefixes() -> None:
    """What `read_entry` is given of our networks decides which subnets a node has."""
    found = Entry("10.244.9.0-24&fd00:10:244:9::-64", entry(9).encode(), 1, 1, 1)
    for networks, subnets in (
        (["10.244.0.0/16"], ["10.244.9.0/24"]),
        (["fd00:10:244::/48"], ["fd00:10:244:9::/64"]),
        (["10.244.0.0/16", "fd00:10:244::/48"], ["10.244.9.0/24", "fd00:10:244:9::/64"]),
        ([], ["10.244.9.0/24", "fd00:10:244:9::/64"]),
    ):
        assert texts(read_entry(found, 1, tuple(map(Prefix.parse, networks)))) == subnets
    with pytest.raises(Unusable, match="outside"):
        read_entry(found, 1, (Prefix.parse("10.244.9.0/25"),))


@pytest.mark.parametrize(
    "option", ["--etcd-endpoints=http://127.0.0.1:x", "--etcd-cafile=/nowhere/ca.pem"]
)
def test_options_that_cannot_be_in_the_agent(
    cluster: Cluster, tmp_path: pathlib.Path, option: str
) -> None:
    """It says so and ends; `cleanup` does what it can without the store."""
    agent = Agent(cluster.node(1), tmp_path / "log", [])
    for command in ("run", "cleanup"):
        done = agent.command(command, option)
        assert done.returncode == 1
        assert option.partition("=")[2] in done.stderr
        assert "Traceback" not in done.stderr
    assert "removed: no device" in done.stderr
