# SPDX-License-Identifier: Apache-2.0
"""The etcd store against Debian's etcd: flannel's keys and values, races, leases, failures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import netaddr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_vxlan_overlay.agent.model import NetConf, Node, Offer
from cni_vxlan_overlay.agent.netconf import parse_netconf
from cni_vxlan_overlay.agent.store import (
    Changed,
    Event,
    Listing,
    Removed,
    StoreError,
    Unavailable,
    allocation,
)
from cni_vxlan_overlay.agent.store.annotations import Unusable
from cni_vxlan_overlay.agent.store.etcd import EtcdStore
from cni_vxlan_overlay.agent.store.lease_entry import Entry, key_of, subnets_of
from cni_vxlan_overlay.peers import Endpoint
from libcni.inet import Prefix
from tests.overlay.etcd import EtcdServer, certificates

PREFIX = "/coreos.com/network"
CONFIG = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1}}
DUAL = {**CONFIG, "EnableIPv6": True, "IPv6Network": "fd00:10:244::/48"}

Scenario = Callable[[EtcdStore], Awaitable[None]]


@pytest.fixture
def etcd(tmp_path: pathlib.Path) -> Iterator[EtcdServer]:
    """A server with the network's configuration."""
    server = EtcdServer(tmp_path / "etcd").start()
    server.put(f"{PREFIX}/config", json.dumps(CONFIG))
    yield server
    server.stop()


def offer(number: int, name: str = "", *preferred: str, ipv6: bool = False) -> Offer:
    """A node at 192.168.50.number."""
    endpoints = [Endpoint(f"192.168.50.{number}", f"0a:00:00:00:00:{number:02x}")]
    if ipv6:
        endpoints.append(Endpoint(f"2001:db8::{number}", f"0a:00:00:00:06:{number:02x}"))
    return Offer(name, tuple(endpoints), 1, tuple(map(Prefix.parse, preferred)))


def play(scenario: Scenario, *endpoints: str, **options: Any) -> None:
    """Run a scenario with a store."""

    async def run() -> None:
        store = EtcdStore(endpoints, PREFIX, **options)
        try:
            await asyncio.wait_for(scenario(store), 60)
        finally:
            await store.close()

    asyncio.run(run())


def published(etcd: EtcdServer, wanted: Offer, **options: Any) -> Node:
    """Publish once, by a store of its own."""
    found: list[Node] = []

    async def scenario(store: EtcdStore) -> None:
        found.append(await store.publish(wanted))

    play(scenario, etcd.url, **options)
    return found[0]


def texts(node: Node) -> list[str]:
    """Its subnets."""
    return [subnet.text() for subnet in node.peer.subnets]


@contextlib.asynccontextmanager
async def watching(store: EtcdStore) -> AsyncIterator[Callable[[], Awaitable[Event]]]:
    """The next event, whenever asked for."""
    async with contextlib.aclosing(store.watch()) as events:  # type: ignore[type-var]

        async def following() -> Event:
            return await asyncio.wait_for(anext(events), 15)

        yield following


# -- what is written and read -----------------------------------------------------------------


def test_entries_are_flannels(etcd: EtcdServer) -> None:
    """Key and value byte for byte as Go writes them, but for the name at the end."""
    node = published(etcd, offer(1, "one", "10.244.7.0/24"))
    assert texts(node) == ["10.244.7.0/24"]
    assert etcd.all(f"{PREFIX}/subnets/") == {
        "10.244.7.0-24": '{"PublicIP":"192.168.50.1","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"},"NodeName":"one"}'
    }


def test_two_families(etcd: EtcdServer) -> None:
    etcd.put(f"{PREFIX}/config", json.dumps(DUAL))
    node = published(etcd, offer(2, "", "10.244.7.0/24", "fd00:10:244:5::/64", ipv6=True))
    assert texts(node) == ["10.244.7.0/24", "fd00:10:244:5::/64"]
    assert etcd.all(f"{PREFIX}/subnets/") == {
        "10.244.7.0-24&fd00:10:244:5::-64": '{"PublicIP":"192.168.50.2","PublicIPv6":'
        '"2001:db8::2","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":'
        '"0a:00:00:00:00:02"},"BackendV6Data":{"VNI":1,"VtepMAC":"0a:00:00:00:06:02"}}'
    }


@pytest.mark.parametrize(
    ("subnets", "key"),
    [
        (["10.5.52.0/24"], "10.5.52.0-24"),
        (["10.5.52.0/24", "fc00::/64"], "10.5.52.0-24&fc00::-64"),
        (["fc00::/64"], "0.0.0.0-0&fc00::-64"),
    ],
)
def test_keys(subnets: list[str], key: str) -> None:
    prefixes = tuple(map(Prefix.parse, subnets))
    assert key_of(prefixes) == key
    assert subnets_of(key) == prefixes


@pytest.mark.parametrize(
    "key", ["", "x", "10.5.52.0", "10.5.52.0-33", "1.2.3.4.5-24", "10.5.52.0-24&x-64", "0.0.0.0-0"]
)
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(Unusable):
        subnets_of(key)


def test_a_flannel_node_is_a_peer(etcd: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    """And other backends, other VNIs and nonsense are passed over, each with one word."""
    entries = {
        "10.244.1.0-24": '{"PublicIP":"192.168.50.1","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"22:33:44:55:66:77"}}',
        "10.244.2.0-24": '{"PublicIP":"192.168.50.2","PublicIPv6":null,"BackendType":"host-gw"}',
        "10.244.3.0-24": '{"PublicIP":"192.168.50.3","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":2,"VtepMAC":"22:33:44:55:66:78"}}',
        "10.244.4.0-24": "{",
        "nonsense": "{}",
        "10.244.5.0-24": '{"PublicIP":"127.0.0.1","BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"22:33:44:55:66:79"}}',
    }
    for key, value in entries.items():
        etcd.put(f"{PREFIX}/subnets/{key}", value)

    async def scenario(store: EtcdStore) -> None:
        for _ in range(2):
            async with watching(store) as following:
                event = await following()
                assert isinstance(event, Listing)
                (node,) = event.nodes
                assert node.peer.endpoints == (Endpoint("192.168.50.1", "22:33:44:55:66:77"),)
                assert (node.uid, node.name) == ("10.244.1.0-24", "192.168.50.1")

    with caplog.at_level(logging.WARNING):
        play(scenario, etcd.url)
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == 5, words
    for word in ("'host-gw'", "VNI 2", "10.244.4.0-24", "nonsense", "127.0.0.1"):
        assert sum(word in text for text in words) == 1, word


def test_no_configuration(etcd: EtcdServer) -> None:
    etcd.delete(f"{PREFIX}/config")
    with pytest.raises(StoreError, match=r"etcdctl put /coreos\.com/network/config"):
        published(etcd, offer(1))
    etcd.put(f"{PREFIX}/config", '{"Network": "10.244.0.0"}')
    with pytest.raises(
        StoreError, match=r"^etcd's key /coreos.com/network/config: Network: .*10\.244\.0\.0"
    ):
        published(etcd, offer(1))


# -- which subnet ---------------------------------------------------------------------------------


def test_a_node_keeps_its_subnet(etcd: EtcdServer) -> None:
    """Found again by its address, without a write; the time of the lease goes on."""
    first = published(etcd, offer(1, "one"))
    revision = etcd.revision()
    assert texts(published(etcd, offer(1, "one"))) == texts(first)
    assert etcd.revision() == revision
    moved = Offer("one", (Endpoint("192.168.50.1", "0a:00:00:00:00:99"),), 1)
    again = published(etcd, moved)
    assert texts(again) == texts(first)
    assert again.peer.endpoints[0].mac == "0a:00:00:00:00:99"
    assert again.age == first.age
    assert len(etcd.all(f"{PREFIX}/subnets/")) == 1


def test_a_node_with_another_address_keeps_its_subnet(etcd: EtcdServer) -> None:
    """While it runs; the entry says the new address."""

    async def scenario(store: EtcdStore) -> None:
        before = await store.publish(offer(1, "one"))
        after = await store.publish(offer(7, "one"))
        assert texts(after) == texts(before)

    play(scenario, etcd.url)
    (value,) = etcd.all(f"{PREFIX}/subnets/").values()
    assert '"192.168.50.7"' in value


def test_what_was_had_before_is_preferred(etcd: EtcdServer) -> None:
    assert texts(published(etcd, offer(1, "", "10.244.99.0/24"))) == ["10.244.99.0/24"]
    # Another has it by now; it is of no length or network that is given out.
    assert texts(published(etcd, offer(2, "", "10.244.99.0/24"))) != ["10.244.99.0/24"]
    assert texts(published(etcd, offer(3, "", "10.244.98.0/25")))[0].endswith("/24")
    assert texts(published(etcd, offer(4, "", "10.9.98.0/24")))[0].startswith("10.244.")
    assert texts(published(etcd, offer(5, "", "10.244.0.0/24"))) != ["10.244.0.0/24"]


def test_twenty_at_once_get_twenty_subnets(etcd: EtcdServer) -> None:
    etcd.put(f"{PREFIX}/config", json.dumps({**CONFIG, "SubnetLen": 21}))
    found: list[Node] = []

    async def all_of_them(_: EtcdStore) -> None:
        stores = [EtcdStore([etcd.url], PREFIX) for _ in range(20)]
        try:
            found.extend(
                await asyncio.gather(
                    *[store.publish(offer(number)) for number, store in enumerate(stores, 1)]
                )
            )
        finally:
            for store in stores:
                await store.close()

    play(all_of_them, etcd.url)
    assert len({tuple(texts(node)) for node in found}) == 20
    assert len(etcd.all(f"{PREFIX}/subnets/")) == 20


def test_the_last_subnet_and_none(etcd: EtcdServer) -> None:
    etcd.put(
        f"{PREFIX}/config", json.dumps({**CONFIG, "Network": "10.244.0.0/28", "SubnetLen": 30})
    )
    got = {texts(published(etcd, offer(number)))[0] for number in (1, 2, 3)}
    assert got == {"10.244.0.4/30", "10.244.0.8/30", "10.244.0.12/30"}
    with pytest.raises(StoreError, match=r"no free subnet is left in 10\.244\.0\.0/28: 3 are"):
        published(etcd, offer(4))
    assert texts(published(etcd, offer(2)))[0] in got


def test_a_reservation_stays_one(etcd: EtcdServer) -> None:
    """A key without a lease that an administrator made for this node's address."""
    etcd.put(f"{PREFIX}/subnets/10.244.42.0-24", '{"PublicIP":"192.168.50.1"}')

    async def scenario(store: EtcdStore) -> None:
        assert texts(await store.publish(offer(1))) == ["10.244.42.0/24"]
        assert await store.renew() == 0

    play(scenario, etcd.url)
    assert '"VtepMAC":"0a:00:00:00:00:01"' in etcd.all(f"{PREFIX}/subnets/")["10.244.42.0-24"]


def test_an_entry_of_an_earlier_network_is_removed(etcd: EtcdServer) -> None:
    published(etcd, offer(1))
    etcd.put(f"{PREFIX}/config", json.dumps({**CONFIG, "Network": "10.77.0.0/16"}))
    (subnet,) = texts(published(etcd, offer(1)))
    assert subnet.startswith("10.77.")
    assert list(etcd.all(f"{PREFIX}/subnets/")) == [subnet.replace("/", "-")]


def test_one_address_for_two_nodes(etcd: EtcdServer) -> None:
    """The second is told, and takes nothing away."""
    published(etcd, offer(1, "one"))
    before = etcd.all(f"{PREFIX}/subnets/")
    with pytest.raises(StoreError, match=r"belongs to 'one', not to 'two': .* etcdctl del"):
        published(etcd, offer(1, "two"))
    assert etcd.all(f"{PREFIX}/subnets/") == before


NETWORKS = st.tuples(st.integers(16, 22), st.integers(24, 28))


@settings(deadline=None)
@given(NETWORKS, st.lists(st.tuples(st.integers(0, 65535), st.integers(17, 30)), max_size=12))
def test_free_subnets(lengths: tuple[int, int], drawn: list[tuple[int, int]]) -> None:
    """Exactly those that netaddr finds: aligned, in bounds, overlapping with none taken."""
    network, length = lengths
    document = {"Network": f"10.244.0.0/{network}", "SubnetLen": length}
    conf = parse_netconf(json.dumps(document))
    taken = [
        Prefix.parse(f"10.244.{number >> 8}.{number & 255}/{size}").network()
        for number, size in drawn
    ]
    occupied = netaddr.IPSet([prefix.text() for prefix in taken])
    expected = [
        str(subnet)
        for subnet in netaddr.IPNetwork(f"10.244.0.0/{network}").subnet(length)
        if occupied.isdisjoint(netaddr.IPSet([subnet]))
    ]
    first, last = conf.subnet_min[4], conf.subnet_max[4]
    expected = [
        text for text in expected if first.packed <= Prefix.parse(text).packed <= last.packed
    ]
    assert [subnet.text() for subnet in allocation.free(conf, 4, taken)] == expected
    found = allocation.draw(conf, taken)
    assert found is None if not expected else found is not None and found[0].text() in expected


def test_a_large_network_is_not_walked_through() -> None:
    """/64 of a /32: four thousand millions."""
    document = {
        "EnableIPv4": False,
        "EnableIPv6": True,
        "IPv6Network": "fd00::/32",
        "IPv6SubnetLen": 64,
    }
    conf: NetConf = parse_netconf(json.dumps(document))
    found = allocation.draw(conf, [Prefix.parse("fd00::/34")])
    assert found is not None and found[0].length == 64


# -- leases ------------------------------------------------------------------------------------


def test_a_lease_is_renewed_and_expires_without(etcd: EtcdServer) -> None:
    options = {"lease_seconds": 4, "renew_margin": 3.0}

    async def scenario(store: EtcdStore) -> None:
        await store.publish(offer(1))
        for _ in range(6):
            pause = await store.renew()
            assert 1 <= pause <= 2
            await asyncio.sleep(1)
        assert len(etcd.all(f"{PREFIX}/subnets/")) == 1
        other = EtcdStore([etcd.url], PREFIX)
        async with watching(other) as following:
            assert isinstance(await following(), Listing)
            event = await following()  # nobody renews now
            assert isinstance(event, Removed)
        await other.close()
        with pytest.raises(StoreError, match="has expired"):
            await store.renew()
        assert texts(await store.publish(offer(1)))

    play(scenario, etcd.url, **options)


def test_a_key_that_is_lost_is_noticed(etcd: EtcdServer) -> None:
    """By renewing and by watching; publishing takes the same subnet again, if it is free."""

    async def scenario(store: EtcdStore) -> None:
        mine = await store.publish(offer(1))
        async with watching(store) as following:
            assert isinstance(await following(), Listing)
            etcd.delete(f"{PREFIX}/subnets/{mine.uid}")
            with pytest.raises(StoreError, match="was removed from etcd"):
                await following()
        with pytest.raises(StoreError, match="was removed from etcd"):
            await store.renew()
        again = await store.publish(offer(1, "", *texts(mine)))
        assert texts(again) == texts(mine)
        assert await store.renew() > 0
        etcd.delete(f"{PREFIX}/subnets/{mine.uid}")
        other = '{"PublicIP":"192.168.50.9","BackendType":"vxlan",' + (
            '"BackendData":{"VNI":1,"VtepMAC":"22:33:44:55:66:79"}}'
        )
        etcd.put(f"{PREFIX}/subnets/{mine.uid}", other)
        with pytest.raises(StoreError, match="taken by another node"):
            await store.renew()
        assert texts(await store.publish(offer(1, "", *texts(mine)))) != texts(mine)

    play(scenario, etcd.url)


def test_withdrawing(etcd: EtcdServer) -> None:
    """By a store that has not published itself; others' entries stay; twice is as once."""
    mine, other = published(etcd, offer(1, "one")), published(etcd, offer(2, "two"))

    async def scenario(store: EtcdStore) -> None:
        for _ in range(2):
            await store.withdraw(mine)
        await store.withdraw(None)

    play(scenario, etcd.url)
    assert list(etcd.all(f"{PREFIX}/subnets/")) == [other.uid]


# -- watching, and what goes wrong -----------------------------------------------------------


def entry(number: int, mac: int = 0) -> str:
    """A value of flannel's."""
    return (
        f'{{"PublicIP":"192.168.50.{number}","BackendType":"vxlan","BackendData":'
        f'{{"VNI":1,"VtepMAC":"0a:00:00:00:00:{mac or number:02x}"}}}}'
    )


def test_events(etcd: EtcdServer) -> None:
    async def scenario(store: EtcdStore) -> None:
        await store.netconf()
        async with watching(store) as following:
            assert await following() == Listing((), str(etcd.revision()))
            etcd.put(f"{PREFIX}/subnets/10.244.9.0-24", entry(9))
            event = await following()
            assert isinstance(event, Changed)
            assert event.node.peer.endpoints[0].public_ip == "192.168.50.9"
            etcd.put(f"{PREFIX}/subnets/10.244.9.0-24", entry(9, 0x77))
            changed = await following()
            assert isinstance(changed, Changed)
            assert changed.node.peer.endpoints[0].mac == "0a:00:00:00:00:77"
            assert changed.node.age == event.node.age
            # What becomes useless is gone.
            etcd.put(f"{PREFIX}/subnets/10.244.9.0-24", '{"BackendType":"host-gw"}')
            assert await following() == Removed("10.244.9.0-24")
            etcd.put(f"{PREFIX}/subnets/10.244.8.0-24", entry(8), ttl=60)
            assert isinstance(await following(), Changed)
            etcd.delete(f"{PREFIX}/subnets/10.244.8.0-24")
            assert await following() == Removed("10.244.8.0-24")

    play(scenario, etcd.url)


def test_a_compacted_revision(etcd: EtcdServer) -> None:
    """What happened meanwhile is in the next listing."""

    async def scenario(store: EtcdStore) -> None:
        await store.netconf()
        events = store.watch()
        assert isinstance(await anext(events), Listing)
        # The listing is read; the watch is asked for only now.
        for number in (3, 4):
            etcd.put(f"{PREFIX}/subnets/10.244.{number}.0-24", entry(number))
        etcd.compact()
        with pytest.raises(Unavailable, match="compact"):
            await asyncio.wait_for(anext(events), 15)
        async with watching(store) as following:
            listing = await following()
            assert isinstance(listing, Listing) and len(listing.nodes) == 2

    play(scenario, etcd.url)


def test_a_server_that_comes_back_without_its_data(etcd: EtcdServer) -> None:
    """Its revisions begin anew: a listing says what there is, and events follow."""

    async def scenario(store: EtcdStore) -> None:
        mine = await store.publish(offer(1, "", "10.244.1.0/24"))
        async with watching(store) as following:
            assert isinstance(await following(), Listing)
            etcd.stop()
            with pytest.raises(Unavailable):
                await following()
        with pytest.raises(Unavailable, match=etcd.url):
            await store.netconf()
        etcd.lose_data()
        etcd.start()
        with pytest.raises(StoreError, match="no key"):
            await store.netconf()
        etcd.put(f"{PREFIX}/config", json.dumps(CONFIG))
        assert texts(await store.publish(offer(1, "", *texts(mine)))) == texts(mine)
        async with watching(store) as following:
            listing = await following()
            assert isinstance(listing, Listing) and len(listing.nodes) == 1
            etcd.put(f"{PREFIX}/subnets/10.244.9.0-24", entry(9))
            assert isinstance(await following(), Changed)

    play(scenario, etcd.url)


def test_a_dead_endpoint_is_passed_over(etcd: EtcdServer) -> None:
    async def scenario(store: EtcdStore) -> None:
        await store.publish(offer(1, "", "10.244.1.0/24"))
        async with watching(store) as following:
            assert isinstance(await following(), Listing)
            etcd.put(f"{PREFIX}/subnets/10.244.9.0-24", entry(9))
            assert isinstance(await following(), Changed)

    play(scenario, "http://127.0.0.1:1", etcd.url + "/")


async def _answering(content: bytes) -> tuple[asyncio.Server, str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(content)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\n{}\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"kvs": [',
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"kvs": [{"a":1}]',
        b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"kvs": ["a"]}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{"kvs": [{"key":"***"}]}\n',
        b"HTTP/1.1 503 X\r\nContent-Length: 46\r\n\r\n"
        b'{"error":"etcdserver: no leader","code":14}   ',
    ],
)
def test_answers_that_are_not_etcds(content: bytes) -> None:
    """A proxy, half an answer, garbage: the store is away, and nothing is known."""

    async def scenario(_: EtcdStore) -> None:
        server, url = await _answering(content)
        store = EtcdStore([url], PREFIX, timeout=2)
        with pytest.raises(Unavailable):
            await store.netconf()
        await store.close()
        server.close()

    play(scenario, "http://127.0.0.1:1")


def test_a_server_that_does_not_answer() -> None:
    async def scenario(_: EtcdStore) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        store = EtcdStore([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], timeout=0.3)
        with pytest.raises(Unavailable):
            await store.netconf()
        await store.close()
        server.close()

    play(scenario, "http://127.0.0.1:1")


def test_half_lines_of_a_watch(etcd: EtcdServer) -> None:
    """Events that come in pieces are put together; one that breaks off is an outage."""
    event = json.dumps(
        {
            "result": {
                "events": [
                    {"kv": {"key": "L2NvcmVvcy5jb20vbmV0d29yay9zdWJuZXRzLzEwLjI0NC45LjAtMjQ=",
                            "value": "e30="},
                     "type": "DELETE"}
                ]
            }
        }
    ).encode() + b"\n"  # fmt: skip

    async def scenario(store: EtcdStore) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            if b"/v3/watch" in head:
                for part in (event[:7], event[7:-3], event[-3:] + event, event[:20]):
                    writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                    await writer.drain()
                    await asyncio.sleep(0.05)
            else:
                writer.write(b'1e\r\n{"header":{"revision":"7"}}   \r\n0\r\n\r\n')
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        slow = EtcdStore([f"http://127.0.0.1:{port}"], PREFIX)
        async with watching(slow) as following:
            assert await following() == Listing((), "7")
            for _ in range(2):
                assert await following() == Removed("10.244.9.0-24")
            with pytest.raises(Unavailable):
                await following()
        await slow.close()
        server.close()

    play(scenario, etcd.url)


# -- who may -------------------------------------------------------------------------------------


def test_users(etcd: EtcdServer) -> None:
    """A password; a wrong one is refused; a token that has expired is taken anew."""
    etcd.call("auth/user/add", {"name": "root", "password": "secret"})
    etcd.call("auth/role/add", {"name": "root"})
    etcd.call("auth/user/grant", {"user": "root", "role": "root"})
    etcd.call("auth/enable", {})

    async def scenario(store: EtcdStore) -> None:
        assert await store.publish(offer(1))
        store._gateway._token = "expired.1"
        assert await store.renew() > 0
        async with watching(store) as following:
            assert isinstance(await following(), Listing)

    play(scenario, etcd.url, username="root", password="secret")

    async def refused(store: EtcdStore) -> None:
        with pytest.raises(StoreError, match=r"authentication failed|user name is empty"):
            await store.netconf()

    play(refused, etcd.url, username="root", password="wrong")
    play(refused, etcd.url)


def test_tls(tmp_path: pathlib.Path) -> None:
    """Both sides show certificates; a server of another authority is not spoken to."""
    certificates(tmp_path)
    files = {name: str(tmp_path / name) for name in ("ca.pem", "client.pem", "client.key")}
    server = EtcdServer(
        tmp_path / "etcd",
        "127.0.0.1",
        f"--cert-file={tmp_path}/server.pem",
        f"--key-file={tmp_path}/server.key",
        f"--trusted-ca-file={tmp_path}/ca.pem",
        "--client-cert-auth",
    ).start()
    try:

        async def scenario(store: EtcdStore) -> None:
            with pytest.raises(StoreError, match="etcdctl put") as missing:
                await store.netconf()
            assert not isinstance(missing.value, Unavailable)

        play(
            scenario,
            server.url,
            cafile=files["ca.pem"],
            certfile=files["client.pem"],
            keyfile=files["client.key"],
        )

        async def unknown(store: EtcdStore) -> None:
            with pytest.raises(Unavailable, match="certificate"):
                await store.netconf()

        async def unnamed(store: EtcdStore) -> None:
            with pytest.raises(Unavailable):  # the server just hangs up
                await store.netconf()

        play(unknown, server.url)
        play(unnamed, server.url, cafile=files["ca.pem"])
    finally:
        server.stop()


def test_options_that_cannot_be() -> None:
    with pytest.raises(StoreError, match="names no endpoint"):
        EtcdStore([])
    with pytest.raises(StoreError, match=r"'127\.0\.0\.1:2379' does not begin with http"):
        EtcdStore(["127.0.0.1:2379"])
    with pytest.raises(StoreError, match=r"/nowhere/ca\.pem"):
        EtcdStore(["https://127.0.0.1:2379"], cafile="/nowhere/ca.pem")
    assert Entry("10.244.1.0-24", b"").lease == 0
