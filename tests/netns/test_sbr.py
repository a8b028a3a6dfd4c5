# SPDX-License-Identifier: Apache-2.0
"""sbr on the real kernel, after ptp, bridge or macvlan: traffic, every verb, failures.

The container has a first interface with a default route of its own, which leads nowhere.
"""

from __future__ import annotations

import copy
import json
import subprocess
from typing import Any

import pytest

from tests.rig.host import Host, Netns
from tests.rig.killed import killed_after
from tests.rig.plugins import GO_BIN_DIR, Runner, encode, environment
from tests.rig.snapshot import Snapshot

FIRST: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "second",
    "type": "bridge",
    "bridge": "br1",
    "isGateway": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.75.0.0/24"}], [{"subnet": "fd00:75::/64"}]],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "::/0"},
            {"dst": "10.91.0.0/16", "mtu": 1300, "priority": 7},
        ],
    },
}
GATEWAYS = ("10.75.0.1", "fd00:75::1")


class Pod:
    """A container with `net1` of a bridge, and sbr after it."""

    def __init__(self, run: Runner, netns: Netns, **keys: Any) -> None:
        self.run, self.netns = run, netns
        self.first = copy.deepcopy(FIRST)
        self.config = {
            "cniVersion": "1.1.0",
            "name": "second",
            "type": "sbr",
            **keys,
        }
        self.before: dict[str, Any] = {}
        self.result: dict[str, Any] = {}

    def attach(self, **options: Any) -> Pod:
        """The plugin before."""
        self.netns.run("ip", "link", "add", "net0", "type", "veth", "peer", "name", "net0p")
        self.netns.run("ip", "address", "add", "10.76.0.2/24", "dev", "net0")
        for name in ("net0", "net0p", "lo"):
            self.netns.run("ip", "link", "set", name, "up")
        self.netns.run("ip", "route", "add", "default", "via", "10.76.0.1")
        self.before = self.call("ADD", "bridge", **options).result()
        return self

    def call(
        self,
        verb: str,
        type: str = "sbr",
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Run a plugin of the list."""
        options = {"netns": self.netns, "container_id": "pod", "ifname": "net1", **options}
        return self.run(
            type, verb, config or (self.first if type == "bridge" else self.config), **options
        )

    def add(self, **options: Any) -> Pod:
        """ADD of sbr has to succeed."""
        config = {**self.config, "prevResult": self.before}
        self.result = self.call("ADD", config=config, **options).result()
        return self

    @property
    def known(self) -> dict[str, Any]:
        """The configuration with the result as prevResult."""
        return {**self.config, "prevResult": self.result}

    def rules(self) -> list[tuple[str, str]]:
        """(source, table) of the rules that the kernel has not made."""
        found = self.netns.ip("rule", "show") + self.netns.ip("-6", "rule", "show")
        return [(r["src"], r["table"]) for r in found if r["src"] != "all"]

    def table(self, name: str, *family: str) -> set[str]:
        """The routes of a table."""
        text = self.netns.run("ip", *family, "route", "show", "table", name, check=False).stdout
        return {line.strip() for line in text.splitlines()}

    def addresses(self) -> list[str]:
        """Without prefix lengths."""
        return [ip["address"].partition("/")[0] for ip in self.before["ips"]]


@pytest.fixture
def pod(host: Host, run_plugin: Runner) -> Pod:
    """A container with `net1`, sbr not yet called."""
    return Pod(run_plugin, host.netns()).attach()


def state(pod: Pod) -> Snapshot:
    """The container's network."""
    return pod.netns.snapshot()


def test_what_is_sent_from_an_address_goes_out_there(host: Host, pod: Pod) -> None:
    host.run("ip", "link", "add", "far", "type", "bridge")
    host.run("ip", "address", "add", "192.0.2.1/32", "dev", "far")
    host.run("ip", "link", "set", "far", "up")
    four, six = pod.addresses()
    # Both interfaces have a default route; the first one's counts.
    pod.netns.run("ip", "route", "delete", "default", "via", GATEWAYS[0], check=False)
    words = ("ping", "-n", "-c1", "-W1", "-I", four, "192.0.2.1")
    assert pod.netns.run(*words, check=False).returncode != 0
    pod.add()
    pod.netns.run(*words)
    pod.netns.run("ping", "-n", "-c1", "-W1", "-I", six, GATEWAYS[1])
    assert pod.rules() == [(four, "100"), (six, "101")]
    assert pod.table("100") == {
        f"default via {GATEWAYS[0]} dev net1 proto 173",
        f"10.75.0.0/24 dev net1 proto kernel scope link src {four}",
        f"10.91.0.0/16 via {GATEWAYS[0]} dev net1 metric 7 mtu 1300",
    }
    assert pod.table("main") == {
        "default via 10.76.0.1 dev net0",
        "10.76.0.0/24 dev net0 proto kernel scope link src 10.76.0.2",
    }
    assert any(line.startswith("fe80::/64 dev net1") for line in pod.table("main", "-6"))
    assert not any("fd00" in line for line in pod.table("main", "-6"))
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("CHECK", "bridge", config={**pod.first, "prevResult": pod.result}).succeeded()


def test_the_result(pod: Pod) -> None:
    pod.add()
    assert [route.get("table") for route in pod.result["routes"]] == [100, 101, 100]
    plain = copy.deepcopy(pod.result)
    for route in plain["routes"]:
        del route["table"]
    assert plain == pod.before


def test_del_takes_rules_and_tables_away(pod: Pod) -> None:
    pod.add()
    for _ in range(2):
        pod.call("DEL", config=pod.known).succeeded()
        assert pod.rules() == []
        assert pod.table("100") == set()
        assert not any("fd00" in line for line in pod.table("101", "-6"))
    pod.call("DEL", "bridge").succeeded()


def test_del_gives_the_routes_back(pod: Pod) -> None:
    """So that the same interface can be attached again, as if nothing had been."""

    def main() -> set[str]:
        lines = pod.netns.run("ip", "route", "show", "dev", "net1").stdout.splitlines()
        lines += pod.netns.run("ip", "-6", "route", "show", "dev", "net1").stdout.splitlines()
        return {" ".join(line.split()) for line in lines if not line.startswith("fe80::")}

    before = main()
    assert any(line.startswith("10.91.0.0/16 ") for line in before)
    for _ in range(2):
        pod.add()
        assert main() != before
        pod.call("DEL", config=pod.known).succeeded()
        assert main() == before


def test_del_keeps_the_default_of_its_own_to_itself(host: Host, run_plugin: Runner) -> None:
    """There was none before, so there is none after."""
    pod = Pod(run_plugin, host.netns())
    pod.first["ipam"]["routes"] = []
    pod.attach().add()
    assert any(line.startswith("default ") for line in pod.table("100"))
    pod.call("DEL", config=pod.known).succeeded()
    defaults = pod.netns.ip("route", "show", "default")
    assert [route["dev"] for route in defaults] == ["net0"]
    pod.call("DEL", "bridge").succeeded()


def test_a_table_of_ones_own(pod: Pod) -> None:
    pod.config["table"] = 300
    pod.netns.run("ip", "route", "add", "192.0.2.0/24", "dev", "net1", "table", "300")
    before, routes = state(pod), pod.table("300")
    pod.add()
    assert pod.result == pod.before
    assert pod.rules() == [(address, "300") for address in pod.addresses()]
    assert pod.table("300") == routes
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("CHECK", config={**pod.known, "table": 301}).failed(103, "table 301", "table 300")
    pod.call("DEL").succeeded()
    assert not before.difference(state(pod))


def test_add_again(pod: Pod) -> None:
    """Refused by name where routes have moved, and nothing changes; DEL makes way."""
    pod.add()
    before = state(pod)
    address = pod.addresses()[0]
    config = {**pod.config, "prevResult": pod.before}
    pod.call("ADD", config=config).failed(
        101, f"moved the routes of net1 before: there is a rule from {address}/32", "run DEL"
    )
    assert not before.difference(state(pod))
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("DEL", config=pod.known).succeeded()
    pod.add()
    pod.call("CHECK", config=pod.known).succeeded()


def test_add_again_with_a_table_of_ones_own(pod: Pod) -> None:
    """The rules that are missing are added, and nothing more."""
    pod.config["table"] = 300
    pod.add()
    before = state(pod)
    pod.add()
    assert not before.difference(state(pod))
    pod.netns.run("ip", "rule", "delete", "from", pod.addresses()[0])
    pod.add()
    assert not before.difference(state(pod))
    # An address that another interface has as well: whose rule it is, nobody can tell.
    pod.netns.run("ip", "address", "add", f"{pod.addresses()[0]}/32", "dev", "net0")
    pod.call("ADD", config={**pod.config, "prevResult": pod.before}).failed(
        101, f"a rule from {pod.addresses()[0]}/32 lookup 300", "another interface"
    )


def test_a_dead_rule_for_the_address_is_no_obstacle(pod: Pod) -> None:
    """As it is left of an interface that somebody deleted, and an address given out again."""
    words = ("from", pod.addresses()[0], "table", "100", "protocol", "173")
    pod.netns.run("ip", "rule", "add", *words)
    pod.add()
    assert (pod.addresses()[0], "101") in pod.rules()
    pod.call("DEL", config=pod.known).succeeded()
    assert pod.rules() == []


def test_gateways_of_the_configuration(host: Host, pod: Pod) -> None:
    """Instead of the one that the plugin before gives, of each family; traffic goes there."""
    for address, interface in (("10.75.0.254/24", "br1"), ("192.0.2.1/32", "lo")):
        host.run("ip", "address", "add", address, "dev", interface)
    pod.config["gateways"] = ["10.75.0.254"]
    pod.add()
    four = pod.addresses()[0]
    assert "default via 10.75.0.254 dev net1 proto 173" in pod.table("100")
    assert not any(f"default via {GATEWAYS[0]}" in line for line in pod.table("100"))
    assert any(f"default via {GATEWAYS[1]}" in line for line in pod.table("101", "-6"))
    assert pod.result["routes"][0] == {"dst": "0.0.0.0/0", "gw": "10.75.0.254", "table": 100}
    pod.netns.run("ping", "-n", "-c1", "-W1", "-I", four, "192.0.2.1")
    host.run("ip", "address", "delete", "192.0.2.1/32", "dev", "lo")
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("CHECK", "bridge", config={**pod.first, "prevResult": pod.result}).succeeded()
    pod.netns.run("ip", "route", "replace", "default", "via", GATEWAYS[0], "table", "100")
    pod.call("CHECK", config=pod.known).failed(103, "via 10.75.0.254", f"found via {GATEWAYS[0]}")
    pod.call("DEL").succeeded()
    assert pod.rules() == [] and pod.table("100") == set()
    pod.config["gateways"] = ["10.75.0.254", "fd00:75::fe", "10.75.0.253"]
    for verb in ("ADD", "STATUS"):
        config = {**pod.config, "prevResult": pod.before} if verb == "ADD" else pod.config
        pod.call(verb, config=config).failed(7, "10.75.0.254 and 10.75.0.253 are of one family")


def test_source_hints_stay_in_main(pod: Pod) -> None:
    """What a program sends into the subnet goes out there without its choosing an address."""
    pod.config["addSourceHints"] = True
    before = state(pod)
    pod.add()
    four, six = pod.addresses()
    assert any(line.endswith(f"src {four}") for line in pod.table("main") if "net1" in line)
    assert any(f"fd00:75::/64 dev net1 src {six}" in line for line in pod.table("main", "-6"))
    assert not any("10.91" in line or GATEWAYS[0] in line for line in pod.table("main"))
    for gateway in GATEWAYS:
        pod.netns.run("ping", "-n", "-c1", "-W1", gateway)
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("CHECK", "bridge", config={**pod.first, "prevResult": pod.result}).succeeded()
    pod.netns.run("ip", "-6", "route", "delete", "fd00:75::/64", "table", "main")
    pod.call("CHECK", config=pod.known).failed(103, "fd00:75::/64 in table main", six)
    pod.call("DEL").succeeded()
    pod.call("DEL", "bridge").succeeded()
    pod.before = pod.call("ADD", "bridge").result()
    before = state(pod)
    pod.config["gateways"] = ["192.0.2.1"]  # which the kernel refuses
    failing = {**pod.config, "prevResult": pod.before}
    pod.call("ADD", config=failing).failed(102, "0.0.0.0/0 via 192.0.2.1 in table 100")
    assert not before.difference(state(pod))


@pytest.mark.parametrize("first", ["ptp", "macvlan"])
def test_source_hints_after_other_plugins(host: Host, run_plugin: Runner, first: str) -> None:
    """Of ptp all routes lead over the gateway, which has a route of its own."""
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "wire")
    host.run("ip", "link", "set", "up0", "up")
    host.run("ip", "link", "set", "wire", "up")
    one = Pod(run_plugin, host.netns(), addSourceHints=True)
    one.first.update(type=first, master="up0")
    options: dict[str, Any] = {"netns": one.netns, "container_id": "pod", "ifname": "net1"}
    one.before = run_plugin(first, "ADD", one.first, **options).result()
    one.add()
    assert one.table("main") and one.table("main", "-6")
    if first == "ptp":
        for gateway in GATEWAYS:
            one.netns.run("ping", "-n", "-c1", "-W1", gateway)
    one.call("CHECK", config=one.known).succeeded()
    run_plugin(first, "CHECK", {**one.first, "prevResult": one.result}, **options).succeeded()
    one.call("DEL", config=one.known).succeeded()
    assert one.rules() == []
    run_plugin(first, "DEL", one.first, **options).succeeded()


def test_tables_in_use_are_passed_over(pod: Pod) -> None:
    pod.netns.run("ip", "route", "add", "192.0.2.0/24", "dev", "net0", "table", "100")
    pod.netns.run("ip", "rule", "add", "from", "192.0.2.7", "table", "101")
    pod.add()
    assert dict(pod.rules())[pod.addresses()[0]] == "102"
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("DEL").succeeded()
    assert pod.rules() == [("192.0.2.7", "101")]
    assert pod.table("100") == {"192.0.2.0/24 dev net0 scope link"}


def test_more_tables_than_the_kernel_had_numbers_for(pod: Pod) -> None:
    """253 to 255 are main and its like; above that the number is in an attribute."""
    script = "".join(f"rule add from 198.51.100.{n - 99} table {n}\n" for n in range(100, 253))
    subprocess.run(
        ["nsenter", f"--net={pod.netns.path}", "ip", "-batch", "-"],
        input=script.encode(),
        check=True,
    )
    pod.add()
    assert [dict(pod.rules())[address] for address in pod.addresses()] == ["256", "257"]
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("DEL").succeeded()
    assert len(pod.rules()) == 153


@pytest.mark.parametrize(
    "version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
)
def test_every_version(host: Host, run_plugin: Runner, version: str) -> None:
    one = Pod(run_plugin, host.netns(), cniVersion=version)
    one.first["cniVersion"] = version
    one.attach().add()
    assert one.result["cniVersion"] == version
    assert len(one.rules()) == 2
    if version >= "0.4.0":
        one.call("CHECK", config=one.known).succeeded()
    one.call("DEL").succeeded()
    assert one.rules() == []


BREAKAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "rule": (("ip", "rule", "delete", "table", "100"), "rule from 10.75.0."),
    "rule6": (("ip", "-6", "rule", "delete", "table", "101"), "rule from fd00:75::"),
    "default": (
        ("ip", "route", "delete", "default", "table", "100"),
        "default route in table 100",
    ),
    "subnet": (
        ("ip", "-6", "route", "delete", "fd00:75::/64", "table", "101"),
        "route fd00:75::/64 in table 101",
    ),
    "moved": (
        ("ip", "route", "delete", "10.91.0.0/16", "table", "100"),
        "route 10.91.0.0/16 via 10.75.0.1 in table 100",
    ),
    "gone": (("ip", "link", "delete", "net1"), "interface net1"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_notices(pod: Pod, name: str) -> None:
    words, culprit = BREAKAGES[name]
    pod.add()
    pod.netns.run("ip", "rule", "add", "from", "192.0.2.7", "table", "200")
    pod.call("CHECK", config=pod.known).succeeded()
    pod.netns.run(*words)
    pod.call("CHECK", config=pod.known).failed(103, culprit)
    pod.call("DEL", config=pod.known).succeeded()
    assert pod.rules() == [("192.0.2.7", "200")]


@pytest.mark.parametrize("missing", ["prevResult", "interface", "both", "namespace", "path"])
def test_delete_with_what_is_left(host: Host, pod: Pod, missing: str) -> None:
    pod.add()
    config = pod.config if missing in ("prevResult", "both") else pod.known
    if missing in ("interface", "both"):
        pod.netns.run("ip", "link", "delete", "net1")
    if missing == "namespace":
        pod.call("DEL", "bridge").succeeded()
        pod.netns.delete()
    options = {"netns": ""} if missing == "path" else {}
    for _ in range(2):
        pod.call("DEL", config=config, **options).succeeded()
    if missing not in ("namespace", "path"):
        assert pod.rules() == []


def test_rules_of_others_stay(pod: Pod) -> None:
    """Also those for the same address, and those of another interface."""
    pod.add()
    address = pod.addresses()[0]
    pod.netns.run("ip", "route", "add", "192.0.2.0/24", "dev", "net0", "table", "200")
    pod.netns.run("ip", "rule", "add", "from", address, "table", "200")
    pod.netns.run("ip", "rule", "add", "from", address, "to", "192.0.2.0/24", "table", "201")
    other = {
        "interfaces": [{"name": "net0", "sandbox": pod.netns.path}],
        "ips": [{"address": "10.76.0.2/24", "interface": 0}],
        "cniVersion": "1.1.0",
    }
    config = {**pod.config, "prevResult": other}
    pod.call("ADD", config=config, ifname="net0").result()
    pod.call("DEL", config=pod.known).succeeded()
    assert set(pod.rules()) == {(address, "200"), (address, "201"), ("10.76.0.2", "102")}
    pod.call("CHECK", config=config, ifname="net0").succeeded()
    pod.call("DEL", ifname="net0").succeeded()


def test_an_add_that_fails_leaves_nothing(host: Host, pod: Pod) -> None:
    pod.call("ADD").failed(7, "must be called as chained plugin", "prevResult")
    pod.call("CHECK").failed(7, "prevResult")
    before = state(pod)
    for change, code, culprit in (
        ({"ips": []}, 7, "no address of net1"),
        ({"ips": [{"address": "10.75.0.9/24", "interface": 9}]}, 7, "interface 9"),
        # Of another family than the gateway's network: refused by the kernel after rules exist.
        ({"ips": [{"address": "10.75.0.2/24", "gateway": "192.0.2.1"}]}, 102, "0.0.0.0/0"),
    ):
        config = {**pod.config, "prevResult": {**pod.before, **change}}
        pod.netns.run("ip", "route", "delete", "default", "dev", "net1", check=False)
        pod.call("ADD", config=config).failed(code, culprit)
    pod.config["table"] = 150
    address = pod.addresses()[1]
    pod.netns.run("ip", "-6", "rule", "add", "from", address, "table", "150")
    pod.call("ADD", config={**pod.config, "prevResult": pod.before}).failed(101, address)
    pod.netns.run("ip", "-6", "rule", "delete", "from", address, "table", "150")
    pod.netns.run("ip", "route", "add", "default", "via", GATEWAYS[0], "dev", "net1", check=False)
    assert [line for line in before.difference(state(pod)) if "default" not in line] == []
    assert pod.rules() == []
    pod.netns.run("ip", "link", "delete", "net1")
    del pod.config["table"]
    pod.call("ADD", config={**pod.config, "prevResult": pod.before}).failed(102, "net1")


def test_output_that_cannot_be_written_undoes_everything(pod: Pod) -> None:
    before = state(pod)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [pod.run.bin_dir / "sbr"],
            input=encode({**pod.config, "prevResult": pod.before}),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment("ADD", pod.run.bin_dir, pod.netns, "pod", "net1"),
            check=False,
        )
    assert done.returncode != 0
    assert not before.difference(state(pod))


def test_killed_at_any_moment(pod: Pod) -> None:
    """SIGKILL during ADD, then DEL: no rule and no table stays."""
    for number in range(20):
        killed_after(
            (0.0007 if number < 10 else 0.008) * number,
            pod.run.bin_dir / "sbr",
            environment("ADD", pod.run.bin_dir, pod.netns, "pod", "net1"),
            encode({**pod.config, "prevResult": pod.before}),
        )
        pod.call("DEL").succeeded()
        pod.call("DEL", "bridge").succeeded()
        assert pod.rules() == []
        pod.before = pod.call("ADD", "bridge").result()


def test_two_at_once_take_different_tables(host: Host, run_plugin: Runner) -> None:
    one = Pod(run_plugin, host.netns()).attach()
    second = {**copy.deepcopy(FIRST), "name": "third", "bridge": "br2"}
    second["ipam"]["ranges"] = [[{"subnet": "10.77.0.0/24"}]]
    other = one.call("ADD", "bridge", config=second, ifname="net2").result()
    processes = []
    for ifname, before in (("net1", one.before), ("net2", other)):
        process = subprocess.Popen(
            [one.run.bin_dir / "sbr"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment("ADD", one.run.bin_dir, one.netns, "pod", ifname),
        )
        assert process.stdin is not None
        process.stdin.write(encode({**one.config, "prevResult": before}))
        process.stdin.close()
        processes.append(process)
    for process in processes:
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
        assert process.wait() == 0, document
    assert len({table for _, table in one.rules()}) == 3


def test_status_and_gc(pod: Pod) -> None:
    pod.call("STATUS").succeeded()
    pod.call("STATUS", config={**pod.config, "table": "x"}).failed(7, "table")
    pod.call("GC").failed(7, "valid-attachments")
    pod.add()
    pod.call("GC", config={**pod.config, "cni.dev/valid-attachments": []}).succeeded()
    pod.call("CHECK", config=pod.known).succeeded()


def test_go_made_and_ours_deletes(pod: Pod) -> None:
    pod.config["cniVersion"] = pod.before["cniVersion"] = "1.0.0"
    pod.add(bin_dir=GO_BIN_DIR, path=GO_BIN_DIR)
    assert len(pod.rules()) == 2
    pod.call("CHECK", config=pod.known).succeeded()
    pod.call("DEL", config=pod.known).succeeded()
    assert pod.rules() == [] and pod.table("100") == set()


def test_ours_made_and_go_deletes(pod: Pod) -> None:
    pod.config["cniVersion"] = pod.before["cniVersion"] = "1.0.0"
    pod.add()
    pod.call("DEL", config=pod.known, bin_dir=GO_BIN_DIR, path=GO_BIN_DIR).succeeded()
    assert pod.rules() == []
