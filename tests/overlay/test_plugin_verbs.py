# SPDX-License-Identifier: Apache-2.0
"""vxlan-overlay: versions, results, chains, foreign delegates, GC."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from libcni.version import SUPPORTED
from tests.netns.test_delegation import executable, without_macs
from tests.overlay.lone import BRIDGE, DATA, SUBNET_FILE, Lone, config, reserved
from tests.overlay.test_plugin_failures import AGENT, FLANNELD
from tests.rig.host import Host, Netns
from tests.rig.plugins import BASE_ENVIRONMENT, GO_BIN_DIR


@pytest.fixture(params=["embedded", "agent"])
def network(request: pytest.FixtureRequest, lone: Lone) -> dict[str, Any]:
    """A working configuration of each mode."""
    SUBNET_FILE.write_text(FLANNELD)
    return config() if request.param == "embedded" else dict(AGENT)


def plain(result: dict[str, Any]) -> Any:
    """A result without what is random: MACs and the name of the host's end."""
    text = json.dumps(without_macs(result))
    for interface in result.get("interfaces", []):
        if interface["name"].startswith("veth"):
            text = text.replace(interface["name"], "veth")
    return json.loads(text)


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_result_is_the_delegates(
    host: Host, lone: Lone, network: dict[str, Any], version: str
) -> None:
    """In each version what the bridge itself answers to the configuration that it was given."""
    netns = host.netns()
    document = {**network, "cniVersion": version}
    through = lone.call("ADD", document, netns).result()
    kept = json.loads((DATA / "c1:eth0").read_text())
    if version >= "0.4.0":
        lone.call("CHECK", {**document, "prevResult": through}, netns).succeeded()
    if version >= "1.1.0":
        lone.call("STATUS", document).succeeded()
        valid = [{"containerID": "c1", "ifname": "eth0"}]
        lone.call("GC", {**document, "cni.dev/valid-attachments": valid}).succeeded()
        lone.call("CHECK", {**document, "prevResult": through}, netns).succeeded()
    lone.call("DEL", {**document, "prevResult": through}, netns).succeeded()
    shutil.rmtree("/var/lib/cni/networks")
    assert kept["cniVersion"] == version
    alone = lone.run("bridge", "ADD", kept, netns=netns, container_id="c1").result()
    assert plain(through) == plain(alone)
    assert list(through) == list(alone)


def cnitool(lone: Lone, netns: Netns, verb: str, plugins: pathlib.Path) -> str:
    """Run the list `overlay` of /etc/cni/net.d as a runtime would."""
    done = subprocess.run(
        [lone.run.bin_dir / "cnitool", verb, "overlay", netns.path],
        env={**BASE_ENVIRONMENT, "CNI_PATH": os.fspath(plugins)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_in_a_list(
    host: Host, lone: Lone, network: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """The plugin after it gets the result as prevResult, and so does our own CHECK and DEL."""
    directory = tmp_path / "plugins"
    shutil.copytree(lone.run.bin_dir, directory, symlinks=True)
    executable(
        directory / "recorder",
        f'tee "{tmp_path}/$CNI_COMMAND" | if [ "$CNI_COMMAND" = ADD ]; then',
        "python3 -c 'import json, sys",
        """print(json.dumps(json.load(sys.stdin)["prevResult"]))'""",
        "else cat >/dev/null; fi",
    )
    network_of_list = {k: v for k, v in network.items() if k not in ("cniVersion", "name")}
    plugins = [network_of_list, {"type": "recorder"}]
    directory_of_lists = pathlib.Path("/etc/cni/net.d")
    directory_of_lists.mkdir()
    (directory_of_lists / "10-overlay.conflist").write_text(
        json.dumps({"cniVersion": "1.1.0", "name": "overlay", "plugins": plugins})
    )
    netns = host.netns()
    result = json.loads(cnitool(lone, netns, "add", directory))
    seen = json.loads((tmp_path / "ADD").read_text())["prevResult"]
    assert seen["ips"][0]["address"] == "10.244.1.2/24"
    assert plain(result) == plain(seen)
    cnitool(lone, netns, "check", directory)
    assert json.loads((tmp_path / "CHECK").read_text())["prevResult"] == result
    cnitool(lone, netns, "del", directory)
    assert (lone.kept(), reserved(), netns.link_names()) == (set(), set(), {"lo"})
    shutil.rmtree("/etc/cni/net.d")
    shutil.rmtree("/var/lib/cni/results", ignore_errors=True)


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_gos_plugins_as_delegates(
    host: Host, lone: Lone, network: dict[str, Any], kind: str
) -> None:
    """Executed from CNI_PATH, as flannel does: Go's with Go's host-local; masquerade is ours."""
    document = {**network, "cniVersion": "1.0.0", "delegate": {"type": kind}}
    netns = host.netns()
    before = host.snapshot()
    result = lone.call("ADD", document, netns, path=GO_BIN_DIR).result()
    assert result["ips"][0]["address"] == "10.244.1.2/24"
    kept = json.loads((DATA / "c1:eth0").read_text())
    assert kept["ipMasq"] is False
    assert masqueraded(host) == {"10.244.1.2"}
    known = {**document, "prevResult": result}
    # Go's CHECK does not find a route again that was given without a gateway, whoever asks:
    # what it says to our configuration is what we say.
    go = {**kept, "prevResult": result}
    theirs = lone.run(
        kind, "CHECK", go, netns=netns, container_id="c1", bin_dir=GO_BIN_DIR, path=GO_BIN_DIR
    )
    ours = lone.call("CHECK", known, netns, path=GO_BIN_DIR)
    assert (ours.rc, ours.json["msg"]) == (theirs.rc, theirs.json["msg"])
    host.run("nft", "flush", "ruleset")
    lone.call("CHECK", known, netns, path=GO_BIN_DIR).failed(103, "masquerade")
    lone.call("DEL", known, netns, path=GO_BIN_DIR).succeeded()
    host.at_end(("vxlan-overlay", "overlay", "c1", "eth0"), None)
    assert (lone.kept(), reserved(), netns.link_names()) == (set(), set(), {"lo"})
    host.assert_clean(before, BRIDGE, "adder.7")


def test_what_gos_ptp_masqueraded_for_flannel(host: Host, lone: Lone) -> None:
    """It removes that itself, as it was asked to make it."""
    SUBNET_FILE.write_text(FLANNELD)
    netns = host.netns()
    before = host.snapshot()
    document = {
        **AGENT,
        "cniVersion": "1.0.0",
        "type": "ptp",
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]},
    }
    lone.run("ptp", "ADD", document, netns=netns, container_id="c1", bin_dir=GO_BIN_DIR).result()
    host.at_end(("ptp", "overlay", "c1", "eth0"), None)
    (DATA / "c1").write_text(json.dumps(document))
    lone.call("DEL", {**AGENT, "cniVersion": "1.0.0"}, netns, path=GO_BIN_DIR).succeeded()
    assert (lone.kept(), reserved(), netns.link_names()) == (set(), set(), {"lo"})
    host.assert_clean(before)


def test_gos_bridge_needs_no_iptables_to_go(
    host: Host, lone: Lone, network: dict[str, Any]
) -> None:
    """What we masquerade is ours to remove: the delegate is not asked to."""
    document = {**network, "cniVersion": "1.0.0"}
    netns = host.netns()
    result = lone.call("ADD", document, netns, path=GO_BIN_DIR).result()
    known = {**document, "prevResult": result}
    nowhere = {"PATH": "/nowhere"}
    lone.call("DEL", known, netns, path=GO_BIN_DIR, variables=nowhere).succeeded()
    assert "10.244.1.2" not in host.run("nft", "list", "ruleset")
    assert (lone.kept(), reserved()) == (set(), set())


def collect(lone: Lone, document: dict[str, Any], *valid: str, **more: Any) -> None:
    """GC that keeps eth0 of these containers."""
    keep = [{"containerID": name, "ifname": "eth0"} for name in valid]
    lone.call("GC", {**document, "cni.dev/valid-attachments": keep}, **more).succeeded()


def masqueraded(host: Host) -> set[str]:
    """The pods' addresses that nftables knows."""
    rules = host.run("nft", "list", "ruleset")
    return {address for address in (f"10.244.1.{n}" for n in range(2, 9)) if address in rules}


@pytest.mark.parametrize("valid", [(), ("c1", "c3"), ("c0", "c1", "c2", "c3")], ids=len)
def test_gc(host: Host, lone: Lone, network: dict[str, Any], valid: tuple[str, ...]) -> None:
    """All, some, none: what is not valid is gone, the rest works on; and a second time."""
    pods = [host.netns() for _ in range(4)]
    results = [
        lone.call("ADD", network, pod, f"c{number}").result() for number, pod in enumerate(pods)
    ]
    addresses = [result["ips"][0]["address"].partition("/")[0] for result in results]
    for _ in range(2):
        collect(lone, network, *valid)
        assert lone.kept() == {f"{name}:eth0" for name in valid}
        alive = {addresses[int(name[1])] for name in valid}
        assert (reserved(), masqueraded(host)) == (alive, alive)
    for number, (pod, result) in enumerate(zip(pods, results, strict=True)):
        if f"c{number}" in valid:
            known = {**network, "prevResult": result}
            lone.call("CHECK", known, pod, f"c{number}").succeeded()
        else:
            assert pod.link_names() == {"lo"}


def test_gc_is_told_what_is_valid(host: Host, lone: Lone, network: dict[str, Any]) -> None:
    """A missing list is no empty list."""
    netns = host.netns()
    result = lone.call("ADD", network, netns).result()
    lone.call("GC", network).failed(7, "cni.dev/valid-attachments")
    lone.call("CHECK", {**network, "prevResult": result}, netns).succeeded()


def test_gc_leaves_other_networks_alone(host: Host, lone: Lone) -> None:
    """Though they share the directory; and finds what an earlier configuration made."""
    SUBNET_FILE.write_text(FLANNELD)
    here, there = host.netns(), host.netns()
    other = {**AGENT, "name": "other", "delegate": {"bridge": "cni1"}}
    host.share("cni1", "br-old")
    lone.call("ADD", other, there, "c2").result()
    old = {**AGENT, "delegate": {"bridge": "br-old"}, "ipam": {"dataDir": "/run/old"}}
    lone.call("ADD", old, here, "c1").result()
    assert list(pathlib.Path("/run/old/overlay").glob("10.*"))
    collect(lone, dict(AGENT))
    assert list(pathlib.Path("/run/old/overlay").glob("10.*")) == []
    assert here.link_names() == {"lo"}
    assert there.link_names() == {"lo", "eth0"}
    assert lone.kept() == {"c2:eth0"}
    assert reserved("other")
    shutil.rmtree("/run/old")


def test_gc_with_flannels_files(host: Host, lone: Lone) -> None:
    """Named by container only: gone with the container."""
    SUBNET_FILE.write_text(FLANNELD)
    for name in ("c1", "c2"):
        (DATA / name).write_text(json.dumps({"name": "overlay", "type": "bridge"}))
    (DATA / "c3").write_text("garbage")
    collect(lone, dict(AGENT), "c1")
    assert lone.kept() == {"c1", "c3"}
    (DATA / "c1").unlink()
    (DATA / "c3").unlink()


def test_a_failed_gc_is_tried_again(
    host: Host, lone: Lone, network: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """The delegate's error is ours; masquerade goes all the same, configurations stay."""
    directory, switch = tmp_path / "plugins", tmp_path / "fail"
    shutil.copytree(lone.run.bin_dir, directory, symlinks=True)
    executable(
        directory / "flaky",
        f'if [ "$CNI_COMMAND" = GC ] && [ -e {switch} ]; then',
        """  echo '{"cniVersion":"1.1.0","code":11,"msg":"not now, says flaky"}'""",
        "  exit 1",
        "fi",
        f'exec {lone.run.bin_dir}/bridge "$@"',
    )
    document = {**network, "delegate": {"type": "flaky", "isGateway": True}}
    lone.call("ADD", document, host.netns(), path=directory).result()
    host.at_end(("vxlan-overlay", "overlay", "c1", "eth0"), None)
    switch.touch()
    failing = {**document, "cni.dev/valid-attachments": []}
    lone.call("GC", failing, path=directory).failed(11, "not now, says flaky")
    assert lone.kept() == {"c1:eth0"}
    switch.unlink()
    collect(lone, document, path=directory)
    assert (lone.kept(), reserved(), masqueraded(host)) == (set(), set(), set())


def test_gc_with_a_delegate_that_knows_none(
    host: Host, lone: Lone, network: dict[str, Any]
) -> None:
    """Go's plugins of before 1.1.0 take GC for nonsense, and that is said; what is ours is
    collected all the same."""
    document = {**network, "cniVersion": "1.0.0"}
    netns = host.netns()
    result = lone.call("ADD", document, netns, path=GO_BIN_DIR).result()
    collection = {**network, "cni.dev/valid-attachments": []}
    reply = lone.call("GC", collection, path=GO_BIN_DIR)
    reply.failed(reply.json["code"])
    assert masqueraded(host) == set()
    lone.call("DEL", {**document, "prevResult": result}, netns, path=GO_BIN_DIR).succeeded()


@pytest.mark.parametrize(
    ("keys", "culprits"),
    [
        ({"ipam": {"type": "no-such-plugin"}}, ("no-such-plugin",)),
        ({"delegate": {"type": "no-such-plugin"}}, ("no-such-plugin",)),
        ({"delegate": {"bridge": "lo"}}, ("lo",)),
    ],
    ids=["IPAM", "delegate", "bridge"],
)
def test_status_asks_the_delegate(
    lone: Lone, network: dict[str, Any], keys: dict[str, Any], culprits: tuple[str, ...]
) -> None:
    """Its answer is ours."""
    reply = lone.call("STATUS", {**network, **keys})
    reply.failed(reply.json["code"], *culprits)


def test_status_of_a_node_that_is_full(host: Host, lone: Lone, network: dict[str, Any]) -> None:
    """No address is left: the delegate's IPAM says so."""
    small = FLANNELD.replace("10.244.1.1/24", "10.244.1.1/30")
    SUBNET_FILE.write_text(small)
    if "subnet" in network:
        network["subnet"] = "10.244.1.0/30"
    lone.call("STATUS", network).succeeded()
    lone.call("ADD", network, host.netns()).result()
    lone.call("STATUS", network).failed(50, "10.244.1.")


def test_check_allows_an_address_that_a_later_plugin_added(host: Host, lone: Lone) -> None:
    """On an interface of its own, it is in the final result and no business of ours."""
    netns, document = host.netns(), config(ipMasq=True)
    result = lone.call("ADD", document, netns).result()
    result["interfaces"].append({"name": "later0", "sandbox": netns.path})
    later = {"address": "10.96.0.1/24", "interface": len(result["interfaces"]) - 1}
    result["ips"].append(later)
    known = {**document, "prevResult": result}
    lone.call("CHECK", known, netns).succeeded()
    host.run("nft", "flush ruleset")
    lone.call("CHECK", known, netns).failed(103, "masquerade")
