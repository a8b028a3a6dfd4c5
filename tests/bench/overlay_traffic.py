# SPDX-License-Identifier: Apache-2.0
"""What pods notice of the overlay: its throughput, and whether anything is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator

from tests.bench.crowd import Lab, crowd, lab, wait
from tests.bench.figure import Figure
from tests.bench.measure import median
from tests.bench.rows import Bench
from tests.overlay.agents import AGENT_CONFIG, Agent, routes
from tests.overlay.cluster import Node, Pod
from tests.overlay.stores import Kubernetes, subnets

#: Pings a second.
_RATE = 100
_DEVICE = "adder.1"
#: What an agent says when its node has its subnet.
_LIVES = "this node has"
#: Medians of the same thing differ by a twentieth on a machine that is busy otherwise.
_NOISE = 0.95


def _joined(laboratory: Lab, store: Kubernetes, dual: bool) -> list[tuple[Agent, Pod]]:
    """Two nodes with an agent and a pod each, which reach each other."""
    agents = [laboratory.agent(laboratory.node(), store).start() for _ in range(2)]
    used = 2 if dual else 1
    for agent, other in zip(agents, reversed(agents), strict=True):
        agent.ready(60)
        there = set(subnets(other.node.number)[:used])
        agent.until(lambda: routes(agent.node) >= there, f"{there}")  # noqa: B023
    pods = [agent.node.attach("pod", AGENT_CONFIG) for agent in agents]
    pods[0].reaches(pods[1])
    return list(zip(agents, pods, strict=True))


def _by_hand(laboratory: Lab, mtu: int, model: Node | None = None) -> list[Pod]:
    """Two nodes joined by the same device, made with iproute2, and a pod on each.

    model: a node whose nftables rules they get, too.
    """
    nodes = [laboratory.node() for _ in range(2)]
    pods = []
    for node in nodes:
        node.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        vxlan = f"type vxlan id 1 dev eth0 local {node.address} dstport 8472 nolearning"
        _ip(node, f"link add {_DEVICE} mtu {mtu} {vxlan}")
        _ip(node, f"address add 10.244.{node.number}.0/32 dev {_DEVICE}")
        _ip(node, f"link set {_DEVICE} up")
        pod = node.pod("pod")
        _ip(node, f"link add cni0 mtu {mtu} type bridge")
        _ip(node, f"address add 10.244.{node.number}.1/24 dev cni0")
        _ip(node, f"link add pod0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pod.name}")
        _ip(node, "link set pod0 master cni0 up")
        _ip(node, "link set cni0 up")
        address = f"10.244.{node.number}.2"
        pod.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        pod.run("ip", "link", "set", "eth0", "up")
        pod.run("ip", "route", "add", "default", "via", f"10.244.{node.number}.1")
        pod.result = {"ips": [{"address": f"{address}/24"}]}
        pods.append(pod)
        if model is not None:
            rules = model.run("nft", "list", "ruleset")
            mine = rules.replace(f"10.244.{model.number}.", f"10.244.{node.number}.")
            node.write("/run/rules", mine)
            node.run("nft", "-f", "/run/rules")
    for node, other in (nodes, nodes[::-1]):
        mac = other.ip("link", "show", _DEVICE)[0]["address"]
        hop = f"10.244.{other.number}.0"
        node.run("bridge", "fdb", "append", mac, "dev", _DEVICE, "dst", other.address)
        _ip(node, f"neighbour add {hop} lladdr {mac} dev {_DEVICE} nud permanent")
        _ip(node, f"route add {hop}/24 via {hop} dev {_DEVICE} onlink")
    pods[0].reaches(pods[1])
    return pods


def _ip(node: Node, words: str) -> None:
    node.run("ip", *words.split())


@contextlib.contextmanager
def _iperf_server(pod: Pod) -> Iterator[None]:
    words = pod.command("iperf3", "--server", "--json")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.kill()


def _throughput(here: Pod, there: Pod, seconds: int) -> float:
    """Bits a second of one TCP connection, as received."""
    words = ["iperf3", "--client", there.addresses()[0], "--time", str(seconds), "--json"]
    told = json.loads(here.run(*words, timeout=seconds + 30))
    return float(told["end"]["sum_received"]["bits_per_second"])


def throughput(bench: Bench) -> list[Figure]:
    """TCP between pods on two nodes."""
    with lab(bench.ours) as laboratory:
        return figures_of_throughput(laboratory, max(5, bench.rounds // 3), 2)


def figures_of_throughput(laboratory: Lab, rounds: int, seconds: int) -> list[Figure]:
    """The agents' tunnel and two made by hand, in turns: so many runs of so many seconds each."""
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(crowd(0))
        joined = _joined(laboratory, store, dual=False)
        model = joined[0][0].node
        mtu = model.ip("link", "show", _DEVICE)[0]["mtu"]
        sides = {
            "ours": [pod for _, pod in joined],
            "by hand": _by_hand(laboratory, mtu, model),
            "by hand, no rules": _by_hand(laboratory, mtu),
        }
        for agent, _ in joined:
            stack.callback(agent.kill)
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for _, there in sides.values():
            stack.enter_context(_iperf_server(there))
        time.sleep(0.5)
        for number in range(rounds + 1):
            for name in random.sample(list(sides), len(sides)):
                here, there = sides[name]
                measured = _throughput(here, there, seconds)
                if number:  # the first warms up
                    taken[name].append(measured / 1e9)
    runs = f"{rounds} runs of {seconds} s each, all in turns; MTU {mtu}"
    why = {
        "ours": runs,
        "by hand": "the same device by ip and bridge, on two more nodes with the same nftables "
        "rules (masquerade, as of --ip-masq)",
        "by hand, no rules": "the kernel does not even track connections there",
    }
    figures = [
        Figure(
            f"overlay-tcp-{re.sub('[^a-z]+', '-', name)}",
            f"TCP pod to pod: {name}",
            why[name],
            "Gbit/s",
            median(samples),
            details={"samples": samples},
        )
        for name, samples in taken.items()
    ]
    for name, target in (("by hand", _NOISE), ("by hand, no rules", None)):
        ratios = sorted(
            ours / by_hand for ours, by_hand in zip(taken["ours"], taken[name], strict=True)
        )
        figures.append(
            Figure(
                f"{figures[list(taken).index(name)].key}-ratio",
                f"TCP pod to pod: ours against {name}",
                f"median of the rounds' own ratios, which are {ratios[0]:.2f} to {ratios[-1]:.2f}"
                + ("" if target else ": what tracking connections costs, in any overlay"),
                "x",
                median(ratios),
                target,
                at_least=True,
                details={"ratios": ratios},
            )
        )
    return figures


def pings(bench: Bench) -> list[Figure]:
    """Packets between pods while everything but the kernel fails."""
    with lab(bench.ours) as laboratory:
        return figures_of_pings(laboratory, 8)


def figures_of_pings(laboratory: Lab, deaths: int) -> list[Figure]:
    """Pings of both families while so many agents die with the store there, as many while it is
    away, and as many when it is back."""
    with crowd(0, dual=True) as store:
        joined = _joined(laboratory, store, dual=True)
        (one, here), (two, there) = joined
        logs = [laboratory.scratch / f"pings-{number}" for number in range(2)]
        with contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(_pings(here, address, log))
                for address, log in zip(there.addresses(), logs, strict=True)
            ]
            endings = itertools.cycle(itertools.product(("kill", "stop"), (one, two)))
            for change in (None, store.down, store.up):
                if change is not None:
                    change()
                for how, agent in itertools.islice(endings, deaths):
                    getattr(agent, how)()
                    lives = agent.text().count(_LIVES)
                    agent.start()
                    wait(lambda: agent.text().count(_LIVES) > lives, "another life", agent)  # noqa: B023
            for process in running:
                process.send_signal(signal.SIGINT)
                process.wait(20)
        for agent, _ in joined:
            agent.kill()
    sent = lost = 0
    for log in logs:
        received = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", log.read_text())}
        transmitted = int(re.findall(r"(\d+) packets transmitted", log.read_text())[0])
        last = max(received, default=0)
        # The very last one may have been on its way when ping was told to stop.
        sent += last if transmitted == last + 1 else transmitted
        lost += (last if transmitted == last + 1 else transmitted) - len(received)
    return [
        Figure(
            "overlay-pings-lost",
            f"pings lost, {_RATE} a second of each family",
            f"of {sent:,}, while agents were killed or stopped, and started, {3 * deaths} times, "
            f"{deaths} of them while the store was away",
            "",
            lost,
            0,
            details={"sent": sent, "deaths": 3 * deaths},
        )
    ]


@contextlib.contextmanager
def _pings(pod: Pod, address: str, log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """Ping an address until it is told to stop."""
    words = pod.command("ping", "-n", "-i", f"{1 / _RATE:g}", address)
    with log.open("wb") as output, subprocess.Popen(words, stdout=output) as process:
        try:
            yield process
        finally:
            process.kill()
