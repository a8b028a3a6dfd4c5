# SPDX-License-Identifier: Apache-2.0
"""What others change of what is ours in the kernel is put back, exactly, whatever it is."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
import time
from collections.abc import Callable

import pytest

from cni_vxlan_overlay.agent.kernel import Kernel
from cni_vxlan_overlay.agent.model import Node as StoreNode
from cni_vxlan_overlay.agent.reconciler import Reconciler
from cni_vxlan_overlay.fabric import Ground
from cni_vxlan_overlay.peers import Endpoint, Peer, vtep_mac
from cni_vxlan_overlay.vtep import AGENT, Vtep
from libcni.inet import Prefix
from tests.overlay.agents import SUBNET_FILE, Agent
from tests.overlay.cluster import Cluster, underlay_address
from tests.overlay.damage import DAMAGE, FOREIGN, add_foreign, damage, show_foreign
from tests.overlay.kernel_state import difference, expected, settled
from tests.overlay.stores import File, subnets
from tests.rig.host import Host

PEERS = {number: underlay_address(number) for number in range(1, 6)}
#: Seconds for a repair, on a machine that does other things too.
PATIENCE = 30.0


def file_of(path: pathlib.Path, *numbers: int, **backend: object) -> File:
    """A file with these nodes; nobody need be behind them."""
    store = File(path, **backend)
    for number in numbers:
        ipv4, ipv6 = subnets(number)
        store.nodes[f"node-{number}"] = {
            "name": f"node-{number}",
            "publicIP": underlay_address(number),
            "publicIPv6": underlay_address(number, True),
            "subnet": ipv4,
            "ipv6Subnet": ipv6,
        }
    store.write()
    return store


Start = Callable[..., Agent]


@pytest.fixture
def start(cluster: Cluster, tmp_path: pathlib.Path) -> Start:
    """Start an agent on the first node, whose peers are in a file."""

    def started(store: File, *options: str) -> Agent:
        node = cluster.node(1)
        return Agent(node, tmp_path / "log", [*store.options(node), *options]).start().ready()

    return started


@pytest.mark.parametrize("direct", [False, True], ids=["tunnel", "direct"])
def test_all_kinds_of_damage(start: Start, tmp_path: pathlib.Path, direct: bool) -> None:
    """One after the other, and all of them at once; what is others' stays as it is."""
    agent = start(file_of(tmp_path / "nodes", *PEERS, DirectRouting=direct))
    wanted = expected(1, PEERS[1], PEERS, direct)
    settled(agent, wanted, "the peers", PATIENCE)
    for tag, kind in enumerate(FOREIGN, 150):
        add_foreign(agent.node, kind, tag)
    failed = {}
    for kind in DAMAGE:
        before = [show_foreign(agent.node, other, tag) for tag, other in enumerate(FOREIGN, 150)]
        damage(agent.node, kind, PEERS[1], 2, PEERS[2])
        try:
            settled(agent, wanted, f"repair of {kind}", PATIENCE)
        except AssertionError as error:
            failed[kind] = str(error)[-3000:]
            agent.kill()
            agent.start()
            settled(agent, wanted, "a new start", PATIENCE)
        after = [show_foreign(agent.node, other, tag) for tag, other in enumerate(FOREIGN, 150)]
        if kind != "underlay":  # the kernel itself takes routes along with a link
            assert after == before, kind
    assert not failed, "\n".join(f"{kind}: {text}" for kind, text in failed.items())
    for kind in DAMAGE:
        damage(agent.node, kind, PEERS[1], 3, PEERS[3])
    settled(agent, wanted, "repair of all of it", PATIENCE)


def test_damage_while_nobody_looks(start: Start, tmp_path: pathlib.Path) -> None:
    """The agent is held, as by a machine without memory: nothing of it is missed."""
    agent = start(file_of(tmp_path / "nodes", *PEERS))
    wanted = expected(1, PEERS[1], PEERS)
    settled(agent, wanted, "the peers", PATIENCE)
    assert agent.process is not None
    for kinds in (
        ["route", "neighbour", "flooding"],
        ["device", "rules"],
        ["addresses", "routes"],
    ):
        agent.process.send_signal(signal.SIGSTOP)
        for kind in kinds:
            damage(agent.node, kind, PEERS[1], 2, PEERS[2])
        agent.process.send_signal(signal.SIGCONT)
        settled(agent, wanted, f"repair of {kinds}", PATIENCE)


def test_more_events_than_there_is_room_for(start: Start, tmp_path: pathlib.Path) -> None:
    """The kernel drops events when nobody takes them: then all of it is read."""
    agent = start(file_of(tmp_path / "nodes", *PEERS))
    wanted = expected(1, PEERS[1], PEERS)
    settled(agent, wanted, "the peers", PATIENCE)
    node = agent.node
    node.run("ip", "link", "add", "other", "type", "bridge")
    node.run("ip", "link", "set", "other", "up")
    lines = [
        f"route {verb} 10.{high}.{low}.0/24 dev other\n"
        for verb in ("add", "delete")
        for high in range(100, 220)
        for low in range(256)
    ]
    node.write("/run/flood", "".join(lines))
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    for _ in range(3):
        node.run("ip", "-batch", "/run/flood")
    damage(node, "routes", PEERS[1], 2, PEERS[2])
    damage(node, "forwarding", PEERS[1], 2, PEERS[2])
    agent.process.send_signal(signal.SIGCONT)
    settled(agent, wanted, "what was removed behind it", 60)
    agent.until(lambda: "events of the kernel were lost" in agent.text(), "a word about it")
    damage(node, "forwarding", PEERS[1], 3, PEERS[3])
    settled(agent, wanted, "what is removed later", PATIENCE)


def test_a_route_that_others_took(start: Start, tmp_path: pathlib.Path) -> None:
    """`ip route replace` by another program: its own now, said, and ours when it goes."""
    agent = start(file_of(tmp_path / "nodes", *PEERS))
    wanted = expected(1, PEERS[1], PEERS)
    settled(agent, wanted, "the peers", PATIENCE)
    node = agent.node
    node.run("ip", "route", "replace", "10.244.2.0/24", "via", "192.168.50.254", "proto", "static")
    agent.until(lambda: "a route to 10.244.2.0/24 is there already" in agent.text(), "a word")
    assert node.ip("route", "show", "10.244.2.0/24")[0]["gateway"] == "192.168.50.254"
    node.run("ip", "route", "delete", "10.244.2.0/24")
    settled(agent, wanted, "our own", PATIENCE)
    assert "no longer: a route to 10.244.2.0/24" in agent.text()


def test_the_subnet_file_is_put_back(start: Start, tmp_path: pathlib.Path) -> None:
    """Without it no pod can be attached, and nobody else would write it."""
    agent = start(file_of(tmp_path / "nodes", *PEERS))
    before = agent.subnet_file()
    agent.node.run("rm", SUBNET_FILE)
    agent.until(lambda: agent.subnet_file() == before, "the file", PATIENCE)


def test_offload_that_is_configured_later(start: Start, tmp_path: pathlib.Path) -> None:
    """The device is there already, and need not go for it; nor need the agent be told twice."""
    agent = start(file_of(tmp_path / "nodes", *PEERS))
    settled(agent, expected(1, PEERS[1], PEERS), "the peers", PATIENCE)
    node = agent.node
    index = node.ip("link", "show", "adder.1")[0]["ifindex"]
    agent.kill()
    file_of(tmp_path / "nodes", *PEERS, TxChecksumOffload="off")
    agent.start()

    def is_off() -> bool:
        return "tx-checksum-ip-generic: off" in node.run("ethtool", "-k", "adder.1")

    agent.until(is_off, "the offload", PATIENCE)
    assert node.ip("link", "show", "adder.1")[0]["ifindex"] == index


def test_many_kills_at_any_moment(start: Start, tmp_path: pathlib.Path) -> None:
    """Each life leaves what the next can go on from; nothing is ever half there for good."""
    agent = start(file_of(tmp_path / "nodes", *PEERS))
    wanted = expected(1, PEERS[1], PEERS)
    settled(agent, wanted, "the peers", PATIENCE)
    for number in range(8):
        agent.kill()
        damage(agent.node, ("devices", "routes", "neighbours", "rules")[number % 4], PEERS[1], 2,
               PEERS[2])  # fmt: skip
        agent.start()
        time.sleep(0.25 + 0.1 * number)
    settled(agent, wanted, "the end", PATIENCE)


# -- the reconciler itself, in the test's own namespace ------------------------------------------


def vtep() -> Vtep:
    """A device over whatever leads to the underlay: none."""
    return Vtep(AGENT, 1, 8472, "192.168.50.1", 0, 1430, [])


def peer(number: int) -> StoreNode:
    """A peer without IPv6."""
    public = underlay_address(number)
    subnet = Prefix.parse(f"10.{100 + number // 250}.{number % 250}.0/24")
    return StoreNode(
        str(number), Peer(str(number), [Endpoint(public, vtep_mac(1, public))], [subnet])
    )


@contextlib.asynccontextmanager
async def reconciling(kernel: Kernel):  # type: ignore[no-untyped-def]
    """A reconciler at work."""
    reconciler = Reconciler(kernel)
    tasks = [asyncio.create_task(work) for work in (reconciler.run(), reconciler.follow())]
    try:
        yield reconciler
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await kernel.close()


def test_nothing_is_done_before_anything_is_wanted(host: Host) -> None:
    """An agent that waits for its store, for however long, leaves the data path as it is."""
    host.share("adder.1")
    host.run("ip", "link", "add", "adder.1", "type", "vxlan", "id", "1", "dstport", "8472",
             "local", "192.168.50.1", "nolearning")  # fmt: skip
    host.run("ip", "link", "set", "adder.1", "alias", vtep().alias)

    async def wait() -> None:
        async with reconciling(Kernel()) as reconciler:
            reconciler.wake(read=True)
            await asyncio.sleep(0.2)
            await reconciler.once()
            reconciler.wake(read=True)
            await asyncio.sleep(0.2)
            assert not reconciler.synced.is_set()

    asyncio.run(wait())
    assert "adder.1" in host.link_names()


def test_what_happens_while_the_kernel_is_read_or_written(host: Host) -> None:
    """Entries are removed all the time, also between dump and batch: in the end all are there."""
    host.share("adder.1")
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    host.run("ip", "address", "add", "192.168.50.1/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")
    peers = [peer(number) for number in range(2, 200)]

    async def work() -> None:
        async with reconciling(Kernel()) as reconciler:

            def want() -> None:
                reconciler.want([vtep()], Ground({False: "adder.1"}), peers)

            want()
            await asyncio.wait_for(reconciler.synced.wait(), 30)
            for _ in range(15):
                damages = [
                    await asyncio.create_subprocess_exec(*words.split())
                    for words in (
                        "ip neigh flush dev adder.1 nud permanent",
                        "ip route flush proto 97",
                    )
                ]
                reconciler.wake(read=True)
                for process in damages:
                    await process.wait()
                await asyncio.sleep(0.02)
            deadline = asyncio.get_running_loop().time() + 30
            kernel = Kernel()
            kernel.devices = dict(reconciler._kernel.devices)
            try:
                while (await kernel.read()) != reconciler.wanted:
                    assert asyncio.get_running_loop().time() < deadline
                    await asyncio.sleep(0.1)
            finally:
                await kernel.close()

    asyncio.run(work())


def test_nothing_flaps_where_nothing_changes(start: Start, tmp_path: pathlib.Path) -> None:
    """An agent at rest sends nothing to the kernel, whatever happens beside it."""
    agent = start(file_of(tmp_path / "nodes", *PEERS))
    wanted = expected(1, PEERS[1], PEERS)
    settled(agent, wanted, "the peers", PATIENCE)
    log = (tmp_path / "monitor").open("wb")
    agent.node.start("ip", "monitor", "link", "address", "route", "neigh", log=log)
    time.sleep(0.5)
    add_foreign(agent.node, "route", 150)
    add_foreign(agent.node, "rules", 151)
    (tmp_path / "nodes").touch()
    time.sleep(3)
    log.close()
    lines = (tmp_path / "monitor").read_text().splitlines()
    assert [line for line in lines if "adder" in line] == []
    assert difference(agent, wanted) == []
