# SPDX-License-Identifier: Apache-2.0
"""vxlan-overlay: ADDs that fail or are killed, DELs of whatever is left, in both modes."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.test_delegation import executable
from tests.overlay.lone import BRIDGE, DATA, DEVICE, SUBNET_FILE, Lone, answer, config, reserved
from tests.rig.host import Host, Netns
from tests.rig.plugins import GO_BIN_DIR

NetnsFactory = Callable[..., Netns]

#: As flanneld writes it.
FLANNELD = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""
AGENT = {"cniVersion": "1.1.0", "name": "overlay", "type": "vxlan-overlay"}


@pytest.fixture(params=["embedded", "agent"])
def network(request: pytest.FixtureRequest, lone: Lone) -> dict[str, Any]:
    """A working configuration of each mode."""
    SUBNET_FILE.write_text(FLANNELD)
    return config() if request.param == "embedded" else dict(AGENT)


#: What makes an ADD fail, at a later and later step: keys, code (0: any), what the error names.
FAILING: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    "delegate's name": ({"delegate": {"name": "x"}}, 7, ("name",)),
    "no such delegate": ({"delegate": {"type": "no-such-plugin"}}, 0, ("no-such-plugin",)),
    "delegate is itself": ({"delegate": {"type": "vxlan-overlay"}}, 7, ("vxlan-overlay",)),
    "delegate's configuration": ({"delegate": {"bridge": "a/b"}}, 7, ("a/b",)),
    "no such IPAM": ({"ipam": {"type": "no-such-plugin"}}, 0, ("no-such-plugin",)),
    "route in the container": (
        {"ipam": {"routes": [{"dst": "10.90.0.0/16", "gw": "192.0.2.1"}]}},
        102,
        ("10.90.0.0/16", "192.0.2.1"),
    ),
    "masquerade": ({"delegate": {"ipMasqBackend": "pf"}}, 7, ("pf",)),
}


@pytest.mark.parametrize("others", [False, True], ids=["first", "beside-another"])
@pytest.mark.parametrize("name", FAILING)
def test_failing_step(
    host: Host, lone: Lone, network: dict[str, Any], name: str, others: bool
) -> None:
    """Everything is as before; the overlay too, where nobody else is there to need it."""
    keys, code, culprits = FAILING[name]
    if others:
        lone.call("ADD", network, host.netns(), "other").result()
    before, addresses, kept = host.snapshot(), reserved(), lone.kept()
    netns = host.netns()
    inside = netns.snapshot()
    reply = lone.call("ADD", {**network, **keys}, netns)
    reply.failed(code or reply.json["code"], *culprits)
    if others:
        host.run("ip", "-6", "neigh", "flush", "dev", BRIDGE, "to", "fe80::/64")
    host.assert_undone(before)
    assert (reserved(), lone.kept()) == (addresses, kept)
    assert inside.difference(netns.snapshot()) == []


def test_no_place_for_the_delegates_configuration(
    host: Host, lone: Lone, network: dict[str, Any]
) -> None:
    """Refused before anything is made: a DEL would not know what to delete."""
    before = host.snapshot()
    netns = host.netns()
    broken = {**network, "dataDir": "/proc/nowhere"}
    lone.call("ADD", broken, netns).failed(5, "/proc/nowhere")
    host.assert_unchanged(before)


def test_an_add_that_is_refused_leaves_the_first_ones(
    host: Host, lone: Lone, network: dict[str, Any]
) -> None:
    """A second ADD of the same attachment: the interface is there. The first goes on working."""
    netns = host.netns()
    result = lone.call("ADD", network, netns).result()
    before, inside = host.snapshot(), netns.snapshot()
    reply = lone.call("ADD", network, netns)
    reply.failed(reply.json["code"], "eth0")
    host.assert_unchanged(before)
    assert inside.difference(netns.snapshot()) == []
    lone.call("CHECK", {**network, "prevResult": result}, netns).succeeded()
    lone.call("DEL", network, netns).succeeded()
    assert (lone.kept(), reserved()) == (set(), set())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_killed_add(
    host: Host, lone: Lone, network: dict[str, Any], number: signal.Signals
) -> None:
    """At moments spread over the whole of it. DEL leaves nothing of the attachment, and after
    SIGTERM there is nothing left for it to do."""
    netns = host.netns()
    # What may stay of a first attachment is there: bridge, device, forwarding, rule frames.
    lone.call("ADD", network, netns).result()
    lone.call("DEL", network, netns).succeeded()
    before, inside = host.snapshot(), netns.snapshot()
    whole = 60.0
    for _ in range(3):
        process, began = lone.start("ADD", network, netns), time.monotonic()
        answer(process).result()
        whole = min(whole, time.monotonic() - began)
        lone.call("DEL", network, netns).succeeded()
    killed = 0
    for moment in range(30):
        process = lone.start("ADD", network, netns)
        time.sleep(whole * moment / 30)
        process.send_signal(number)
        process.communicate(timeout=60)
        killed += process.returncode != 0
        if number == signal.SIGKILL or process.returncode == 0:
            known: Netns | str = netns if random.random() < 0.5 else ""
            lone.call("DEL", network, known).succeeded()
        assert (lone.kept(), reserved()) == (set(), set())
        host.assert_clean(before, BRIDGE)
        assert inside.difference(netns.snapshot()) == []
    assert killed, "no signal came at a moment that mattered"


def test_what_a_killed_add_was_writing_goes_too(
    host: Host, lone: Lone, network: dict[str, Any]
) -> None:
    """An unfinished file is removed by the attachment's DEL, and by no other's."""
    DATA.joinpath("c1:eth0:tmp").write_text("{")
    DATA.joinpath("c2:eth0:tmp").write_text("{")
    lone.call("DEL", network, "").succeeded()
    assert lone.kept() == {"c2:eth0:tmp"}
    collection = {**network, "cni.dev/valid-attachments": []}
    lone.call("GC", collection).succeeded()
    lone.call("DEL", network, "", "c2").succeeded()


def test_killed_first_add(host: Host, lone: Lone, network: dict[str, Any]) -> None:
    """The node's first: the next ADD finishes what it began, device and all."""
    netns = host.netns()
    for moment in range(12):
        process = lone.start("ADD", network, netns)
        time.sleep(0.003 * moment)
        process.kill()
        process.communicate(timeout=60)
        lone.call("DEL", network, netns).succeeded()
        result = lone.call("ADD", network, netns).result()
        lone.call("CHECK", {**network, "prevResult": result}, netns).succeeded()
        lone.call("DEL", network, netns).succeeded()
        for name in (DEVICE, BRIDGE):
            if name in host.link_names():
                host.run("ip", "link", "delete", name)


DELETIONS = ["with prevResult", "without", "namespace gone", "no namespace", "twice", "no agent"]


@pytest.mark.parametrize("how", DELETIONS)
def test_delete(host: Host, lone: Lone, network: dict[str, Any], how: str) -> None:
    """Whatever DEL is not told, nothing of the attachment is left."""
    first = host.netns()
    lone.call("ADD", network, first, "other").result()
    netns = host.netns()
    before, kept = host.snapshot(), lone.kept()
    result = lone.call("ADD", network, netns).result()
    where: Netns | str = netns
    if how == "namespace gone":
        netns.delete()
    elif how == "no namespace":
        where = ""
    elif how == "no agent":
        SUBNET_FILE.unlink()
        shutil.rmtree(pathlib.Path("/run/flannel"))
    document = {**network, "prevResult": result} if how == "with prevResult" else network
    for _ in range(2 if how == "twice" else 1):
        lone.call("DEL", document, where).succeeded()
    if how == "no agent":
        SUBNET_FILE.parent.mkdir()
        SUBNET_FILE.write_text(FLANNELD)
    host.run("ip", "-6", "neigh", "flush", "dev", BRIDGE, "to", "fe80::/64")
    host.assert_clean(before, BRIDGE)
    assert lone.kept() == kept
    if how not in ("namespace gone", "no namespace"):
        assert netns.link_names() == {"lo"}


def test_delete_before_add(host: Host, lone: Lone, network: dict[str, Any]) -> None:
    """Nothing to delete is success, without a subnet file, and nothing is made."""
    SUBNET_FILE.unlink()
    before = host.snapshot()
    lone.call("DEL", network, host.netns()).succeeded()
    lone.call("DEL", network, "").succeeded()
    host.assert_undone(before)


def test_delete_with_another_configuration(
    host: Host, lone: Lone, network: dict[str, Any]
) -> None:
    """DEL is given what ADD was, whatever has become of configuration and subnet."""
    netns = host.netns()
    before = host.snapshot()
    first = {**network, "delegate": {"bridge": "br-old"}, "ipam": {"dataDir": "/run/old"}}
    host.share("br-old")
    lone.call("ADD", first, netns).result()
    assert list(pathlib.Path("/run/old/overlay").glob("10.244.1.*"))
    SUBNET_FILE.write_text(FLANNELD.replace("244.1.", "244.9."))
    lone.call("DEL", {**network, "delegate": "nonsense", "subnet": 7}, netns).succeeded()
    assert list(pathlib.Path("/run/old/overlay").glob("10.244.*")) == []
    shutil.rmtree("/run/old")
    SUBNET_FILE.write_text(FLANNELD)
    host.assert_clean(before, "br-old", DEVICE)
    assert lone.kept() == set()
    assert netns.link_names() == {"lo"}


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "garbage", "list", "another network"])
def test_delete_without_what_was_kept(
    host: Host, lone: Lone, network: dict[str, Any], damage: str
) -> None:
    """A file that says nothing does not keep DEL from its work; afterwards it is gone."""
    netns = host.netns()
    before = host.snapshot()
    lone.call("ADD", network, netns).result()
    path = DATA / "c1:eth0"
    if damage == "gone":
        path.unlink()
    else:
        whole = path.read_text()
        other = {**json.loads(whole), "name": "another", "bridge": "br-another"}
        path.write_text(
            {
                "empty": "",
                "half": whole[: len(whole) // 2],
                "garbage": "\0\xff" * 99,
                "list": "[]",
                "another network": json.dumps(other),
            }[damage]
        )
    lone.call("DEL", network, netns).succeeded()
    host.assert_clean(before, BRIDGE, DEVICE)
    assert (lone.kept(), reserved()) == (set(), set())


def test_two_attachments_of_one_container(host: Host, lone: Lone, network: dict[str, Any]) -> None:
    """Each interface has its own configuration, address and end."""
    netns = host.netns()
    one = lone.call("ADD", network, netns).result()
    second = {**network, "delegate": {"hairpinMode": True}}
    two = lone.call("ADD", second, netns, ifname="net1").result()
    assert one["ips"][0]["address"] != two["ips"][0]["address"]
    assert lone.kept() == {"c1:eth0", "c1:net1"}
    lone.call("DEL", network, netns).succeeded()
    assert lone.kept() == {"c1:net1"}
    assert netns.link_names() == {"lo", "net1"}
    lone.call("CHECK", {**second, "prevResult": two}, netns, ifname="net1").succeeded()
    lone.call("DEL", second, netns, ifname="net1").succeeded()
    assert (lone.kept(), reserved()) == (set(), set())


def flannels(document: dict[str, Any]) -> dict[str, Any]:
    """What the flannel plugin keeps of an attachment: the delegate's configuration."""
    return {
        "cniVersion": "0.3.1",
        "hairpinMode": True,
        "ipMasq": document.get("ipMasq", False),
        "ipam": {
            "ranges": [[{"subnet": "10.244.1.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
            "type": "host-local",
        },
        "isDefaultGateway": True,
        "isGateway": True,
        "mtu": 1450,
        "name": "overlay",
        "type": "bridge",
    }


@pytest.mark.parametrize("masquerade", [False, True])
def test_attachments_of_flannels_plugin(
    host: Host, lone: Lone, netns: NetnsFactory, masquerade: bool
) -> None:
    """Made by Go's bridge as flannel calls it, with its file, which our DEL reads and removes."""
    SUBNET_FILE.write_text(FLANNELD)
    container = netns()
    before = host.snapshot()
    document = flannels({"ipMasq": masquerade})
    lone.run("bridge", "ADD", document, netns=container, container_id="c1", bin_dir=GO_BIN_DIR)
    host.at_end(("bridge", "overlay", "c1", "eth0"), None)
    (DATA / "c1").write_text(json.dumps(document))
    lone.call("DEL", AGENT, container).succeeded()
    assert (lone.kept(), reserved()) == (set(), set())
    assert container.link_names() == {"lo"}
    host.assert_clean(before, BRIDGE)


def test_our_attachment_beside_one_of_flannels(host: Host, lone: Lone) -> None:
    """One container, an interface by each: DEL of ours leaves flannel's alone."""
    SUBNET_FILE.write_text(FLANNELD)
    netns = host.netns()
    document = flannels({})
    lone.run("bridge", "ADD", document, netns=netns, container_id="c1").result()
    host.at_end(("bridge", "overlay", "c1", "eth0"), None)
    (DATA / "c1").write_text(json.dumps(document))
    lone.call("ADD", AGENT, netns, ifname="net1").result()
    lone.call("DEL", AGENT, netns, ifname="net1").succeeded()
    assert lone.kept() == {"c1"}
    assert netns.link_names() == {"lo", "eth0"}
    lone.call("DEL", AGENT, netns).succeeded()
    assert (lone.kept(), reserved()) == (set(), set())


@pytest.fixture
def failing(lone: Lone, tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A directory with a foreign delegate `flaky`, which fails while a file exists; that file."""
    directory, switch = tmp_path / "plugins", tmp_path / "fail"
    shutil.copytree(lone.run.bin_dir, directory, symlinks=True)
    executable(
        directory / "flaky",
        f'if [ "$CNI_COMMAND" = DEL ] && [ -e {switch} ]; then',
        """  echo '{"cniVersion":"1.1.0","code":11,"msg":"not now, says flaky"}'""",
        "  exit 1",
        "fi",
        f'exec {lone.run.bin_dir}/bridge "$@"',
    )
    return directory, switch


def test_a_delegates_failed_del_is_tried_again(
    host: Host, lone: Lone, network: dict[str, Any], failing: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """Its configuration is kept until it has succeeded; masquerade and the rest go at once."""
    directory, switch = failing
    netns = host.netns()
    before = host.snapshot()
    document = {**network, "delegate": {"type": "flaky"}}
    lone.call("ADD", document, netns, path=directory).result()
    switch.touch()
    for _ in range(2):
        lone.call("DEL", document, netns, path=directory).failed(11, "not now, says flaky")
        assert lone.kept() == {"c1:eth0"}
    assert reserved()
    switch.unlink()
    # Even when the configuration does not name that delegate any more.
    lone.call("DEL", network, netns, path=directory).succeeded()
    assert (lone.kept(), reserved()) == (set(), set())
    host.at_end(("vxlan-overlay", "overlay", "c1", "eth0"), None)
    host.assert_clean(before, BRIDGE, DEVICE)


def test_many_at_random(host: Host, lone: Lone, network: dict[str, Any]) -> None:
    """Crowds of ADDs and DELs, some killed; in the end nothing is left."""
    randomness = random.Random(20)
    pods = [(host.netns(), f"c{number}") for number in range(8)]
    lone.call("ADD", network, pods[0][0], "c0").result()
    lone.call("DEL", network, pods[0][0], "c0").succeeded()
    before = host.snapshot()
    for _ in range(6):
        calls = [lone.start("ADD", network, pod, name) for pod, name in pods]
        time.sleep(randomness.random() / 10)
        for call in randomness.sample(calls, 3):
            call.kill()
        for call in calls:
            call.communicate(timeout=60)
        calls = [lone.start("DEL", network, pod, name) for pod, name in pods]
        time.sleep(randomness.random() / 10)
        for call in randomness.sample(calls, 3):
            call.kill()
        for call in calls:
            call.communicate(timeout=60)
        for pod, name in pods:
            lone.call("DEL", network, pod, name).succeeded()
        assert reserved() == set()
        assert lone.kept() == set()
        host.run("ip", "-6", "neigh", "flush", "dev", BRIDGE, "to", "fe80::/64")
        host.assert_clean(before, BRIDGE)
