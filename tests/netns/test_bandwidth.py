# SPDX-License-Identifier: Apache-2.0
"""bandwidth on the real kernel: measured throughput, every verb, what CHECK notices."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from errno import EIO, EOPNOTSUPP
from typing import Any

import pytest
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from cni_bandwidth.config import limits_of
from cni_bandwidth.delete import delete
from cni_bandwidth.ifb import go_name, names_of
from libcni.attachment import Attachment
from libcni.netlink import tc
from libcni.netlink.socket import NetlinkError
from libcni.skel.request import Request
from libcni.types.errors import CniError
from tests.rig.host import Host, Netns
from tests.rig.plugins import GO_BIN_DIR, Runner

ATTACHMENT = Attachment("pods", "container-1", "eth0")
IFB, GO_IFB = names_of(ATTACHMENT)[0], go_name(ATTACHMENT)
MEGABIT = 1_000_000
BOTH: dict[str, Any] = {
    "ingressRate": 8 * MEGABIT,
    "ingressBurst": 800_000,
    "egressRate": 16 * MEGABIT,
    "egressBurst": 800_000,
}


class Pod:
    """A container whose veth's other end is on the host, 10.9.0.1 and 10.9.0.2."""

    def __init__(self, host: Host, run: Runner) -> None:
        self.host, self.run = host, run
        self.netns: Netns = host.netns()
        host.run("ip", "link", "add", "hostend", "type", "veth", "peer", "name", "eth0",
                 "netns", self.netns.name)  # fmt: skip
        host.run("ip", "address", "add", "10.9.0.1/24", "dev", "hostend")
        host.run("ip", "link", "set", "hostend", "up")
        self.netns.run("ip", "address", "add", "10.9.0.2/24", "dev", "eth0")
        self.netns.run("ip", "link", "set", "eth0", "up")

    def config(self, version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
        """With the result of the plugin before."""
        return {
            "cniVersion": version,
            "name": "pods",
            "type": "bandwidth",
            **keys,
            "prevResult": {
                "cniVersion": version,
                "interfaces": [
                    {"name": "hostend", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": self.netns.path},
                ],
            },
        }

    def call(self, verb: str, config: dict[str, Any], **options: Any) -> Any:
        """Run the plugin."""
        return self.run("bandwidth", verb, config, **{"netns": self.netns, **options})

    def qdiscs(self, name: str) -> dict[str, dict[str, Any]]:
        """What `tc` shows, by kind."""
        shown = json.loads(self.host.run("tc", "-j", "-d", "qdisc", "show", "dev", name))
        return {qdisc["kind"]: qdisc for qdisc in shown}


@pytest.fixture
def pod(host: Host, run_plugin: Runner) -> Iterator[Pod]:
    """A container, not limited yet; no ifb device is left of it."""
    made = Pod(host, run_plugin)
    yield made
    assert not [name for name in host.link_names() if name.startswith("bwp")]


_SINK = """
import socket, sys, time
listener = socket.socket(); listener.bind((sys.argv[1], 0)); listener.listen()
print(listener.getsockname()[1], flush=True)
peer = listener.accept()[0]; peer.settimeout(30)
first = peer.recv(1 << 16); began = time.monotonic(); total = 0
while time.monotonic() - began < 2.5:
    total += len(peer.recv(1 << 16))
print(total * 8 / (time.monotonic() - began), flush=True)
"""
_SOURCE = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
end = time.monotonic() + 4
try:
    while time.monotonic() < end:
        peer.sendall(bytes(1 << 15))
except OSError:
    pass
"""


def throughput(pod: Pod, receives: bool) -> float:
    """bit/s that the container receives, or sends, over 2.5 s."""
    inside = ["nsenter", f"--net={pod.netns.path}", "--"]
    here, there = (inside, []) if receives else ([], inside)
    address = "10.9.0.2" if receives else "10.9.0.1"
    with subprocess.Popen(
        [*here, "python3", "-c", _SINK, address], stdout=subprocess.PIPE, text=True
    ) as sink:
        assert sink.stdout is not None
        port = sink.stdout.readline().strip()
        with subprocess.Popen([*there, "python3", "-c", _SOURCE, address, port]):
            return float(sink.stdout.readline())


def test_traffic_is_limited(pod: Pod) -> None:
    """Each direction to its own rate, and to no other; unlimited again after DEL."""
    config = pod.config(**BOTH)
    result = pod.call("ADD", config).result()
    assert [i["name"] for i in result["interfaces"]] == ["hostend", "eth0", IFB]
    received, sent = throughput(pod, True), throughput(pod, False)
    # What the bucket held at first comes on top: 0.8 of 20 and of 40 Mbit.
    assert 0.5 * 8 * MEGABIT < received < 1.2 * 8 * MEGABIT, received
    assert 0.5 * 16 * MEGABIT < sent < 1.2 * 16 * MEGABIT, sent
    pod.call("CHECK", {**config, "prevResult": result}).succeeded()
    pod.call("DEL", {**config, "prevResult": result}).succeeded()
    assert IFB not in pod.host.link_names()


def test_one_direction_alone(pod: Pod) -> None:
    """Without a limit on what it sends there is no further device."""
    config = pod.config(ingressRate=8 * MEGABIT)
    result = pod.call("ADD", config).result()
    assert result["interfaces"] == config["prevResult"]["interfaces"]
    assert set(pod.qdiscs("hostend")) == {"tbf"}
    pod.call("CHECK", config).succeeded()
    assert throughput(pod, False) > 16 * MEGABIT
    pod.call("DEL", config).succeeded()


def test_what_containerd_sends(pod: Pod) -> None:
    """Capitalised keys, and a burst that means none: a sane one is taken."""
    bandwidth = {
        "IngressRate": 10 * MEGABIT,
        "IngressBurst": 4294967295,
        "EgressRate": 10 * MEGABIT,
        "EgressBurst": 2147483647,
    }
    config = pod.config("0.4.0", runtimeConfig={"bandwidth": bandwidth})
    pod.call("ADD", config).result()
    for name in ("hostend", IFB):
        options = pod.qdiscs(name)["tbf"]["options"]
        assert options["rate"] == 10 * MEGABIT / 8
        burst = re.match(r"\d+", str(options["burst"]))
        assert burst is not None and abs(int(burst[0]) - 125_000) < 200, options
    pod.call("CHECK", config).succeeded()
    pod.call("DEL", config).succeeded()


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_no_limits(pod: Pod, version: str) -> None:
    """prevResult as it came, and nothing on the links."""
    for keys in ({}, {"runtimeConfig": {"bandwidth": {"IngressRate": 0, "IngressBurst": 0}}}):
        config = pod.config(version, **keys)
        result = pod.call("ADD", config).result()
        assert result["interfaces"] == config["prevResult"]["interfaces"]
        assert "tbf" not in pod.qdiscs("hostend")
        pod.call("DEL", config).succeeded()


def test_an_earlier_add_is_replaced(pod: Pod) -> None:
    """After a crash, say: other limits, one device."""
    pod.call("ADD", pod.config(**BOTH)).result()
    config = pod.config(ingressRate=MEGABIT, egressRate=2 * MEGABIT)
    pod.call("ADD", config).result()
    assert pod.qdiscs("hostend")["tbf"]["options"]["rate"] == MEGABIT / 8
    assert pod.qdiscs(IFB)["tbf"]["options"]["rate"] == 2 * MEGABIT / 8
    pod.call("CHECK", config).succeeded()
    pod.call("CHECK", pod.config(**BOTH)).failed(103, "hostend")
    pod.call("DEL", config).succeeded()


@pytest.mark.parametrize(
    ("rate", "burst"),
    [(8 * (2**32 - 1), 0), (8 * 2**32, 0), (40_000 * MEGABIT, 80 * MEGABIT), (8 * (2**58 - 1), 0)],
)
def test_rates_that_32_bits_do_not_hold(pod: Pod, rate: int, burst: int) -> None:
    """From 34 Gbit/s on; CHECK tells such rates from one another, and traffic passes."""
    config = pod.config(ingressRate=rate, ingressBurst=burst, egressRate=rate, egressBurst=burst)
    pod.call("ADD", config).result()
    for name in ("hostend", IFB):
        assert pod.qdiscs(name)["tbf"]["options"]["rate"] == rate // 8
    pod.call("CHECK", config).succeeded()
    pod.netns.run("ping", "-c", "1", "-w", "5", "10.9.0.1")
    other = pod.config(ingressRate=rate + 8 if rate < 2**40 else rate - 8, ingressBurst=burst)
    pod.call("CHECK", other).failed(103, f"found rate {rate} bit/s")
    pod.call("DEL", config).succeeded()


def test_a_high_rate_of_go_s(pod: Pod) -> None:
    config = pod.config(
        ingressRate=40_000 * MEGABIT,
        ingressBurst=80 * MEGABIT,
        egressRate=40_000 * MEGABIT,
        egressBurst=80 * MEGABIT,
    )
    pod.call("ADD", config, bin_dir=GO_BIN_DIR).result()
    pod.call("CHECK", config).succeeded()
    pod.call("DEL", config).succeeded()


@pytest.mark.parametrize("after", [{"ingressRate": MEGABIT}, {"egressRate": MEGABIT}, {}])
@pytest.mark.parametrize("before", [BOTH, {"ingressRate": MEGABIT}, {"egressRate": MEGABIT}])
def test_a_limit_that_is_not_wanted_any_more(
    pod: Pod, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """It is gone, and what it took: what stays is what the later ADD alone would have made."""
    pod.call("ADD", pod.config(**after)).result()
    alone = set(pod.qdiscs("hostend")), IFB in pod.host.link_names()
    pod.call("DEL", pod.config(**after)).succeeded()
    pod.call("ADD", pod.config(**before)).result()
    config = pod.config(**after)
    result = pod.call("ADD", config).result()
    assert (set(pod.qdiscs("hostend")), IFB in pod.host.link_names()) == alone
    assert (IFB in [entry["name"] for entry in result["interfaces"]]) == alone[1]
    pod.call("CHECK", config).succeeded()
    pod.call("DEL", config).succeeded()


def test_no_limits_leave_the_qdiscs_of_others(pod: Pod) -> None:
    bucket = ["root", "tbf", "rate", "1mbit", "burst", "10k", "latency", "25ms"]
    pod.host.run("tc", "qdisc", "add", "dev", "hostend", *bucket)
    pod.host.run("tc", "qdisc", "add", "dev", "hostend", "ingress")
    pod.call("ADD", pod.config()).result()
    assert {"tbf", "ingress"} <= set(pod.qdiscs("hostend"))


def test_no_limits_need_no_veth(pod: Pod) -> None:
    """Another interface is handed on; a bucket on a device that prevResult names is not ours."""
    pod.host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "switch")
    pod.host.run("tc", "qdisc", "add", "dev", "uplink", "root", "handle", "1:", "tbf",
                 "rate", "1mbit", "burst", "10k", "latency", "25ms")  # fmt: skip
    config = pod.config()
    config["prevResult"]["interfaces"][0]["name"] = "uplink"
    config["prevResult"]["interfaces"] += [{"name": "x" * 200}, {"name": "\0"}, {"name": ""}]
    for ifname in ("eth0", "eth7"):
        pod.call("ADD", config, ifname=ifname).result()
        pod.call("DEL", config, ifname=ifname).succeeded()
    assert "tbf" in pod.qdiscs("uplink")


BREAKAGES: dict[str, tuple[str, str]] = {
    "root": ("tc qdisc replace dev hostend root pfifo",
             "qdisc of hostend: expected tbf with rate 8000000 bit/s, burst 800000 bit, 125000 "
             "bytes may wait, found pfifo"),
    "rate": ("tc qdisc replace dev hostend root handle 1: tbf rate 9mbit burst 100kb latency 25ms",
             "found rate 9000000 bit/s"),
    "ingress": ("tc qdisc delete dev hostend ingress", "ingress qdisc of hostend"),
    "filter": ("tc filter delete dev hostend ingress", "redirection of what hostend receives"),
    "filter for one address": (
        "sh -c 'tc filter delete dev hostend ingress; tc filter add dev hostend ingress "
        "protocol all prio 1 u32 match ip dst 1.2.3.4/32 action mirred egress redirect dev "
        f"{IFB}'",
        "of a part of it"),
    "filter for one protocol": (
        "sh -c 'tc filter delete dev hostend ingress; tc filter add dev hostend ingress "
        "protocol ip prio 1 u32 match u32 0 0 action mirred egress redirect dev "
        f"{IFB}'",
        "of a part of it"),
    "ifb MTU": (f"ip link set {IFB} mtu 1400", f"MTU of {IFB}: expected 1500, found 1400"),
    "ifb": (f"ip link delete {IFB}", "ifb device"),
    "ifb down": (f"ip link set {IFB} down", "up, found down"),
    "ifb rate": (f"tc qdisc delete dev {IFB} root", f"qdisc of {IFB}"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_notices(pod: Pod, name: str) -> None:
    damage, words = BREAKAGES[name]
    config = pod.config(**BOTH)
    pod.call("ADD", config).result()
    pod.call("CHECK", config).succeeded()
    pod.host.run(*shlex.split(damage))
    pod.call("CHECK", config).failed(103, words)
    pod.call("DEL", config).succeeded()


def test_delete_takes_the_qdiscs_off_the_veth(pod: Pod) -> None:
    untouched = pod.qdiscs("hostend")
    for keys in (BOTH, {"ingressRate": MEGABIT}, {"egressRate": MEGABIT}):
        config = pod.config(**keys)
        pod.call("ADD", config).result()
        assert {"tbf", "ingress"} & set(pod.qdiscs("hostend"))
        pod.call("DEL", config).succeeded()
        assert set(pod.qdiscs("hostend")) == set(untouched)


def test_delete_leaves_the_qdiscs_of_others(pod: Pod) -> None:
    """A bucket that is none of ours, whatever is configured; an ingress that leads elsewhere."""
    bucket = ["root", "tbf", "rate", "1mbit", "burst", "10k", "latency", "25ms"]
    pod.host.run("tc", "qdisc", "add", "dev", "hostend", *bucket)
    pod.host.run("tc", "qdisc", "add", "dev", "hostend", "ingress")
    for keys in ({"egressRate": MEGABIT}, BOTH):
        pod.call("DEL", pod.config(**keys)).succeeded()
        assert {"tbf", "ingress"} <= set(pod.qdiscs("hostend"))


@pytest.mark.parametrize("keys", [BOTH, {"ingressRate": MEGABIT}, {"egressRate": MEGABIT}])
def test_delete_by_identity_alone(pod: Pod, keys: dict[str, Any]) -> None:
    """What runtimeConfig said at ADD is not known at DEL; the veth may well stay."""
    pod.call("ADD", pod.config(runtimeConfig={"bandwidth": keys})).result()
    bare = {"cniVersion": "1.0.0", "name": "pods", "type": "bandwidth"}
    for _ in range(2):
        pod.call("DEL", bare).succeeded()
        assert set(pod.qdiscs("hostend")) == {"noqueue"}


@pytest.mark.parametrize("number", [0, 3])
def test_delete_without_the_path_of_the_namespace(pod: Pod, number: int) -> None:
    """A veth that one of our plugins made is found by its name and alias; a stranger's, of the
    same name, is left alone."""
    name = ATTACHMENT.host_veth_names()[number]
    pod.host.run("ip", "link", "set", "hostend", "down")
    pod.host.run("ip", "link", "set", "hostend", "name", name, "alias", ATTACHMENT.alias, "up")
    config = pod.config(**BOTH)
    config["prevResult"]["interfaces"][0]["name"] = name
    pod.call("ADD", config).result()
    bare = {"cniVersion": "1.0.0", "name": "pods", "type": "bandwidth"}
    pod.host.run("ip", "link", "set", name, "alias", "somebody's")
    pod.call("DEL", bare, netns="").succeeded()
    assert "tbf" in pod.qdiscs(name)
    pod.call("DEL", bare).succeeded()
    pod.host.run("ip", "link", "set", name, "alias", ATTACHMENT.alias)
    pod.call("ADD", config).result()
    pod.call("DEL", bare, netns="").succeeded()
    assert set(pod.qdiscs(name)) == {"noqueue"}


def test_delete_leaves_who_has_the_namespace_now(pod: Pod) -> None:
    """A late DEL of a container that is gone, whose path of the namespace another one has."""
    other = Attachment("pods", "container-2", "eth0")
    pod.call("ADD", pod.config(**BOTH), container_id="container-2").result()
    pod.host.run("ip", "link", "set", "hostend", "alias", other.alias)
    bare = {"cniVersion": "1.0.0", "name": "pods", "type": "bandwidth"}
    pod.call("DEL", bare).succeeded()
    assert {"tbf", "ingress"} <= set(pod.qdiscs("hostend"))
    pod.call("DEL", bare, container_id="container-2").succeeded()
    assert set(pod.qdiscs("hostend")) == {"noqueue"}


@pytest.mark.parametrize("missing", ["prevResult", "namespace", "path", "configuration"])
def test_delete_with_what_is_left(pod: Pod, missing: str) -> None:
    config = pod.config(**BOTH)
    pod.call("ADD", config).result()
    options: dict[str, Any] = {}
    match missing:
        case "prevResult":
            del config["prevResult"]
        case "namespace":
            pod.netns.delete()
        case "path":
            options["netns"] = ""
        case "configuration":
            config = {key: config[key] for key in ("cniVersion", "name", "type")}
    for _ in range(2):
        pod.call("DEL", config, **options).succeeded()
    assert IFB not in pod.host.link_names()


@pytest.mark.parametrize(
    "keys",
    [
        {"ingressRate": "1M"},
        {"ingressRate": [1]},
        {"ingressRate": MEGABIT, "ingressBurst": "1M"},
        {"runtimeConfig": {"bandwidth": {"egressRate": "5"}}},
        {"runtimeConfig": {"bandwidth": "5"}},
        {"runtimeConfig": [5]},
    ],
    ids=json.dumps,
)
def test_delete_with_limits_that_are_none(pod: Pod, keys: dict[str, Any]) -> None:
    """Nobody has checked them: they may have been edited since, or ADD has refused them."""
    pod.call("ADD", pod.config(**BOTH)).result()
    pod.call("DEL", pod.config(**keys)).succeeded()
    assert IFB not in pod.host.link_names()


def test_delete_with_a_namespace_that_is_refused(pod: Pod) -> None:
    """The device needs the identity alone; the plugin's own namespace leads to no veth."""
    config = pod.config(**BOTH)
    pod.call("ADD", config).result()
    pod.call("DEL", config, netns="/proc/self/ns/net").succeeded()
    assert IFB not in pod.host.link_names()


def test_delete_goes_on_after_a_failure(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says of the qdiscs is told, once the device is gone."""
    config = pod.config(**BOTH)
    pod.call("ADD", config).result()
    request = Request("DEL", "bandwidth", config, "1.0.0", ATTACHMENT, pod.netns.path)
    failure = NetlinkError("list qdiscs", EIO)

    def fail(*args: object) -> None:
        raise failure

    monkeypatch.setattr(tc, "has_own_bucket", fail)
    with pytest.raises(NetlinkError, match="list qdiscs"):
        delete(request)
    assert IFB not in pod.host.link_names()
    # As a kernel says it that has no traffic control.
    failure.errno = EOPNOTSUPP
    delete(request)


def test_delete_without_limits_looks_at_no_qdisc(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    for name in ("has_own_bucket", "redirections"):
        monkeypatch.setattr(tc, name, lambda *args: looked.append(args))
    config = pod.config()
    delete(Request("DEL", "bandwidth", config, "1.0.0", ATTACHMENT, pod.netns.path))
    assert looked == []


def test_two_interfaces_of_one_container(pod: Pod) -> None:
    """Each has its own device, and loses only that."""
    pod.host.run("ip", "link", "add", "second", "type", "veth", "peer", "name", "eth1",
                 "netns", pod.netns.name)  # fmt: skip
    other = pod.config(**BOTH)
    other["prevResult"]["interfaces"] = [
        {"name": "second"},
        {"name": "eth1", "sandbox": pod.netns.path},
    ]
    pod.call("ADD", pod.config(**BOTH)).result()
    result = pod.call("ADD", other, ifname="eth1").result()
    assert result["interfaces"][-1]["name"] != IFB
    pod.call("DEL", other, ifname="eth1").succeeded()
    pod.call("CHECK", pod.config(**BOTH)).succeeded()
    pod.call("DEL", pod.config(**BOTH)).succeeded()


def test_gc(pod: Pod) -> None:
    """Of this network, what is not valid; a stranger's device stays."""
    config = pod.config("1.1.0", **BOTH)
    pod.call("ADD", config).result()
    pod.host.run("ip", "link", "add", "ifbother", "type", "ifb")
    pod.host.run("ip", "link", "set", "ifbother", "alias", "cni:other:x:eth0")
    pod.call("GC", config).failed(7, "valid-attachments")
    valid = [{"containerID": "container-1", "ifname": "eth0"}]
    pod.call("GC", {**config, "cni.dev/valid-attachments": valid}).succeeded()
    pod.call("CHECK", config).succeeded()
    pod.call("GC", {**config, "cni.dev/valid-attachments": []}).succeeded()
    assert IFB not in pod.host.link_names()
    assert "ifbother" in pod.host.link_names()
    pod.call("DEL", config).succeeded()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ingressBurst": 8000}, "ingressRate is not given"),
        ({"egressRate": 4}, "egressRate 4 is less than one byte"),
        ({"egressRate": 8, "egressBurst": 8 * (2**32 - 1)}, "cannot be more than 4GB"),
        ({"ingressRate": 2**63}, "ingressRate 9223372036854775808"),
    ],
)
def test_limits_that_cannot_be(pod: Pod, keys: dict[str, int], words: str) -> None:
    for verb in ("ADD", "STATUS"):
        pod.call(verb, pod.config("1.1.0", **keys)).failed(7, words)
    assert "tbf" not in pod.qdiscs("hostend")


def test_interfaces_that_cannot_be_limited(pod: Pod) -> None:
    """Said which, and nothing is left on any link."""
    config = pod.config(**BOTH)
    lone = json.loads(json.dumps(config))
    del lone["prevResult"]
    pod.call("ADD", lone).failed(7, "chained")
    lone["prevResult"] = {"cniVersion": "1.0.0"}
    pod.call("ADD", lone).failed(7, "no interfaces provided")
    pod.call("ADD", config, ifname="eth7").failed(7, "eth7 has no veth peer")
    config["prevResult"]["interfaces"][0]["name"] = "other"
    pod.call("ADD", config).failed(7, "eth0", "hostend")
    pod.netns.run("ip", "link", "add", "in0", "type", "veth", "peer", "name", "in1")
    pod.call("ADD", config, ifname="in0").failed(7, "veth peer of in0 is not in host ns")
    assert set(pod.qdiscs("hostend")) == {"noqueue"}


def test_what_go_made(pod: Pod) -> None:
    """Checked and deleted by ours; ours deleted by the next DEL of ours after Go's."""
    config = pod.config(**BOTH)
    result = pod.call("ADD", config, bin_dir=GO_BIN_DIR).result()
    assert GO_IFB in pod.host.link_names()
    known = {**config, "prevResult": result}
    pod.call("CHECK", known).succeeded()
    pod.call("DEL", config).succeeded()
    assert GO_IFB not in pod.host.link_names()


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        (8 * MEGABIT, 800_000, (1_000_000, 100_000, 125_000)),
        (8 * MEGABIT, 0, (1_000_000, 100_000, 125_000)),
        (800_000, 0, (100_000, 65_536, 68_036)),
        (8 * MEGABIT, 2**32 - 1, (1_000_000, 100_000, 125_000)),
    ],
)
def test_the_bucket_of_a_limit(rate: int, burst: int, expected: tuple[int, int, int]) -> None:
    """rate in bytes/s, the buffer as the time for the burst, the limit with 25 ms of queue."""
    limit, none = limits_of({"ingressRate": rate, "ingressBurst": burst})
    assert none is None and limit is not None
    bucket = limit.bucket()
    bytes_per_second, burst_bytes, queue = expected
    assert (bucket.rate, bucket.limit) == (bytes_per_second, queue)
    assert bucket.buffer == burst_bytes * 1_000_000_000 // bytes_per_second // 64


def test_messages_are_what_pyroute2_reads() -> None:
    """Field by field."""
    bucket = tc.token_bucket(1_000_000, 100_000, 0.025)
    made = _decoded(tc.new_token_bucket(7, bucket))
    assert (made["index"], made["parent"], made["handle"]) == (7, 0xFFFFFFFF, 0x10000)
    assert made.get_attr("TCA_KIND") == "tbf"
    parameters = made.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    assert (parameters["rate"], parameters["limit"]) == (bucket.rate, bucket.limit)
    assert (parameters["buffer"], parameters["peak"]) == (bucket.buffer, 0)
    made = _decoded(tc.new_ingress(7))
    assert (made["parent"], made["handle"]) == (0xFFFFFFF1, 0xFFFF0000)
    assert made.get_attr("TCA_KIND") == "ingress"
    made = _decoded(tc.new_redirection(7, 9))
    assert (made["parent"], made["info"]) == (0xFFFF0000, 1 << 16 | socket.htons(3))
    options = made.get_attr("TCA_OPTIONS")
    assert options.get_attr("TCA_U32_SEL")["nkeys"] == 1
    action = options.get_attr("TCA_U32_ACT").get_attr("TCA_ACT_PRIO_1")
    mirred = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    assert (mirred["ifindex"], mirred["eaction"], mirred["action"]) == (9, 1, 4)
    for parent in (tc.ROOT, tc.INGRESS):
        assert _decoded(tc.delete_qdisc(7, parent))["parent"] == parent


def _decoded(message: Any) -> Any:
    size = 16 + len(message.body)
    header = size.to_bytes(4, "little") + message.type.to_bytes(2, "little") + bytes(10)
    made = tcmsg(header + message.body)
    made.decode()
    return made


def test_a_key_that_is_given_goes_before_runtimeconfig() -> None:
    """Also one that says 0, as in Go: the configuration then wants no limit."""
    asked = {"runtimeConfig": {"bandwidth": {"ingressRate": 8 * MEGABIT}}}
    for key in ("ingressRate", "ingressBurst", "egressRate", "egressBurst"):
        assert limits_of({key: 0, **asked}) == (None, None)
    assert limits_of(asked)[0] is not None


def test_refusals_are_errors() -> None:
    with pytest.raises(CniError, match="egressRate is not given"):
        limits_of({"egressBurst": 8})
