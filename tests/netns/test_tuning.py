# SPDX-License-Identifier: Apache-2.0
"""tuning on the real kernel: what it sets, that DEL puts it back, and what CHECK notices."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from libcni.skel import main
from tests.rig.host import Host, Netns
from tests.rig.killed import killed_at
from tests.rig.plugins import GO_BIN_DIR, Runner, environment

DATA = pathlib.Path("/run/cni/tuning")
FILE = DATA / "container-1_eth0.json"
MAC, OTHER_MAC = "02:00:00:00:00:01", "0a:58:0a:f4:01:02"


@pytest.fixture(autouse=True)
def no_backup_is_left(host: Host) -> Iterator[None]:
    """The directory stays, as documented, and is empty at the end of each test."""
    yield
    for directory in (DATA, DATA.parent):
        if directory.is_dir() and not list(directory.iterdir()):
            directory.rmdir()


@pytest.fixture
def container(host: Host) -> Iterator[Netns]:
    """A namespace with an interface, as a plugin before made it."""
    netns = host.netns()
    netns.run("ip", "link", "add", "eth0", "address", MAC, "type", "veth", "peer", "name", "peer0")
    netns.run("ip", "link", "set", "eth0", "up")
    yield netns
    assert not FILE.exists(), "a backup is left"


def config(netns: Netns, version: str = "1.1.0", **keys: Any) -> dict[str, Any]:
    """With the result of the plugin before."""
    return {
        "cniVersion": version,
        "name": "net",
        "type": "tuning",
        **keys,
        "prevResult": {
            "cniVersion": version,
            "interfaces": [
                {"name": "br0", "mac": "02:00:00:00:00:09"},
                {"name": "eth0", "mac": MAC, "sandbox": netns.path},
            ],
            "ips": [
                {"address": "10.1.2.3/24", "interface": 1}
                | ({} if version >= "1.0.0" else {"version": "4"})
            ],
        },
    }


def link(netns: Netns) -> dict[str, Any]:
    """eth0 as `ip` shows it."""
    found: dict[str, Any] = json.loads(netns.run("ip", "-j", "-d", "link", "show", "eth0").stdout)[
        0
    ]
    return found


def sysctl(netns: Netns, path: str) -> str:
    """The value below /proc/sys/net."""
    return netns.run("cat", f"/proc/sys/net/{path}").stdout.strip()


ALL: dict[str, Any] = {
    "mac": OTHER_MAC,
    "mtu": 1400,
    "promisc": True,
    "allmulti": True,
    "txQLen": 77,
    "sysctl": {
        "net.core.somaxconn": "500",
        "net.ipv4.conf.IFNAME.arp_filter": "1",
        "net/ipv4/conf/IFNAME/log_martians": "1",
    },
}


def tuned(netns: Netns) -> dict[str, Any]:
    """Everything that ALL changes."""
    shown = link(netns)
    return {
        "mac": shown["address"],
        "mtu": shown["mtu"],
        "promisc": "PROMISC" in shown["flags"],
        "allmulti": "ALLMULTI" in shown["flags"],
        "txQLen": shown["txqlen"],
        "somaxconn": sysctl(netns, "core/somaxconn"),
        "arp_filter": sysctl(netns, "ipv4/conf/eth0/arp_filter"),
        "log_martians": sysctl(netns, "ipv4/conf/eth0/log_martians"),
    }


AFTER = {
    **{key: ALL[key] for key in ("mac", "mtu", "promisc", "allmulti", "txQLen")},
    "somaxconn": "500",
    "arp_filter": "1",
    "log_martians": "1",
}


def test_everything_is_set_and_put_back(container: Netns, run_plugin: Runner) -> None:
    """prevResult comes back with the interface's new MAC and MTU; DEL needs no configuration."""
    before = tuned(container)
    document = config(container, **ALL)
    result = run_plugin("tuning", "ADD", document, netns=container).result()
    expected = json.loads(json.dumps(document["prevResult"]))
    expected["interfaces"][1] |= {"mac": OTHER_MAC, "mtu": 1400}
    assert result == expected
    assert tuned(container) == AFTER
    run_plugin("tuning", "CHECK", {**document, "prevResult": result}, netns=container).succeeded()
    noted = json.loads(FILE.read_text())
    assert {key: noted[key] for key in ("mac", "mtu", "promisc", "allmulti", "txQLen")} == {
        key: before[key] for key in ("mac", "mtu", "promisc", "allmulti", "txQLen")
    }
    bare = {"cniVersion": "1.1.0", "name": "net", "type": "tuning"}
    for _ in range(2):
        run_plugin("tuning", "DEL", bare, netns=container).succeeded()
        assert tuned(container) == before


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_podman_s_configuration(container: Netns, run_plugin: Runner, version: str) -> None:
    """Nothing to tune: prevResult as it came, no file, in every version that has lists."""
    document = config(container, version)
    result = run_plugin("tuning", "ADD", document, netns=container, args="IgnoreUnknown=1;X=1")
    expected = document["prevResult"]
    assert result.result() == (expected if version >= "1.0.0" else {**expected, "dns": {}})
    assert not FILE.exists()
    if version >= "0.4.0":
        run_plugin("tuning", "CHECK", document, netns=container).succeeded()
    run_plugin("tuning", "DEL", document, netns=container).succeeded()


def test_whose_mac_counts(container: Netns, run_plugin: Runner) -> None:
    """args.cni, runtimeConfig, CNI_ARGS, the configuration."""
    macs = [f"02:00:00:00:01:0{n}" for n in range(4)]
    given: dict[str, Any] = {}
    args = ""
    for number, mac in enumerate(macs):
        match number:
            case 0:
                given["mac"] = mac
            case 1:
                args = f"MAC={mac}"
            case 2:
                given["runtimeConfig"] = {"Mac": mac}
            case 3:
                given["args"] = {"cni": {"mac": mac}}
        document = config(container, **given)
        run_plugin("tuning", "ADD", document, netns=container, args=args).result()
        assert link(container)["address"] == mac
    run_plugin("tuning", "DEL", document, netns=container).succeeded()
    assert link(container)["address"] == MAC, "what an earlier ADD had noted stays"


def test_args_go_before_the_keys(container: Netns, run_plugin: Runner) -> None:
    """Also where they switch something off, and without `sysctl` beside them."""
    arguments = {"sysctl": {"net.core.somaxconn": "600"}, "mtu": 1300, "promisc": False}
    document = config(container, mtu=1400, promisc=True, args={"cni": arguments})
    run_plugin("tuning", "ADD", document, netns=container).result()
    shown = tuned(container)
    assert (shown["mtu"], shown["promisc"], shown["somaxconn"]) == (1300, False, "600")
    run_plugin("tuning", "DEL", document, netns=container).succeeded()


BREAKAGES: dict[str, tuple[list[str], str]] = {
    "mac": (["ip", "link", "set", "eth0", "address", MAC], "MAC address of eth0"),
    "mtu": (["ip", "link", "set", "eth0", "mtu", "1401"], "expected 1400, found 1401"),
    "promisc": (["ip", "link", "set", "eth0", "promisc", "off"], "promiscuous mode of eth0"),
    "allmulti": (["ip", "link", "set", "eth0", "allmulticast", "off"], "allmulti of eth0"),
    "txqlen": (["ip", "link", "set", "eth0", "txqlen", "78"], "txQLen of eth0"),
    "sysctl": (["sysctl", "-w", "net.core.somaxconn=501"], "net/core/somaxconn"),
    "arp_filter": (["sysctl", "-w", "net.ipv4.conf.eth0.arp_filter=0"], "arp_filter"),
    "gone": (["ip", "link", "delete", "eth0"], "interface eth0"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_check_notices(container: Netns, run_plugin: Runner, name: str) -> None:
    damage, words = BREAKAGES[name]
    document = config(container, **ALL)
    run_plugin("tuning", "ADD", document, netns=container).result()
    run_plugin("tuning", "CHECK", document, netns=container).succeeded()
    container.run(*damage)
    run_plugin("tuning", "CHECK", document, netns=container).failed(103, words)
    run_plugin("tuning", "DEL", document, netns=container).succeeded()


def test_check_minds_only_its_own(container: Netns, run_plugin: Runner) -> None:
    """What others switched on afterwards is no fault."""
    document = config(container, mtu=1400)
    run_plugin("tuning", "ADD", document, netns=container).result()
    container.run("ip", "link", "set", "eth0", "promisc", "on", "txqlen", "5")
    run_plugin("tuning", "CHECK", document, netns=container).succeeded()
    run_plugin("tuning", "DEL", document, netns=container).succeeded()
    assert "PROMISC" in link(container)["flags"]


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        ({"sysctl": {"kernel.hostname": "x"}}, 7, "kernel.hostname"),
        ({"sysctl": {"net.ipv4...ip_forward": "1"}}, 7, "net.ipv4...ip_forward"),
        ({"sysctl": {"net/../kernel/hostname": "x"}}, 7, "net/../kernel/hostname"),
        ({"sysctl": {"net.core.nonsense": "1"}}, 7, "net/core/nonsense"),
        ({"mac": "01:00:5e:00:00:01"}, 7, "01:00:5e:00:00:01"),
        ({"mtu": 70000}, 102, "mtu 70000"),
        ({"mac": OTHER_MAC, "mtu": 70000, "txQLen": 5}, 102, "mtu 70000"),
        ({"mtu": 67}, 7, "mtu: 67"),
        ({"sysctl": {"net.core.somaxconn": "many"}, "mac": OTHER_MAC}, 102, "somaxconn to many"),
    ],
)
def test_what_is_refused_changes_nothing(
    container: Netns, run_plugin: Runner, keys: dict[str, Any], code: int, words: str
) -> None:
    before = tuned(container)
    document = config(container, **keys)
    run_plugin("tuning", "ADD", document, netns=container).failed(code, words)
    assert tuned(container) == before
    assert not FILE.exists()


@pytest.mark.parametrize("place", ["mtu", "args"])
def test_an_mtu_that_takes_ipv6_away(container: Netns, run_plugin: Runner, place: str) -> None:
    """Refused where prevResult gives the interface an IPv6 address, which would vanish."""
    keys = {"mtu": 1279} if place == "mtu" else {"args": {"cni": {"mtu": 1279}}}
    container.run("ip", "address", "add", "fd00::3/64", "dev", "eth0", "nodad")
    document = config(container, **keys)
    ips = document["prevResult"]["ips"]
    ips.append({"address": "fd00::3/64", "interface": 1})
    run_plugin("tuning", "ADD", document, netns=container).failed(7, "mtu 1279", "fd00::3/64")
    assert link(container)["mtu"] == 1500
    assert not FILE.exists()
    del ips[1]["interface"]
    run_plugin("tuning", "ADD", document, netns=container).failed(7, "mtu 1279", "fd00::3/64")
    # Another interface's, and an MTU that is just enough.
    ips[1]["interface"] = 0
    run_plugin("tuning", "ADD", document, netns=container).result()
    run_plugin("tuning", "DEL", document, netns=container).succeeded()
    enough = config(container, mtu=1280)
    enough["prevResult"]["ips"].append({"address": "fd00::3/64", "interface": 1})
    run_plugin("tuning", "ADD", enough, netns=container).result()
    run_plugin("tuning", "DEL", enough, netns=container).succeeded()


def test_it_has_to_be_chained(container: Netns, run_plugin: Runner) -> None:
    document = config(container, mtu=1400)
    del document["prevResult"]
    run_plugin("tuning", "ADD", document, netns=container).failed(7, "chained")
    run_plugin("tuning", "CHECK", document, netns=container).failed(7, "prevResult")
    run_plugin(
        "tuning", "ADD", config(container, mtu=1400), netns=container, ifname="eth7"
    ).failed(102, "eth7")


def test_duplicate_sysctls(container: Netns, run_plugin: Runner) -> None:
    text = json.dumps(config(container, sysctl={"net.core.somaxconn": "500"}))
    twice = text.replace('"500"', '"500", "net.core.somaxconn": "600"').encode()
    run_plugin("tuning", "ADD", twice, netns=container).failed(7, "duplicated sysctl keys")
    # The same name in two objects is no duplicate: one goes before the other.
    both = config(
        container,
        sysctl={"net.core.somaxconn": "500"},
        args={"cni": {"sysctl": {"net.core.somaxconn": "600"}}},
    )
    run_plugin("tuning", "ADD", both, netns=container).result()
    assert sysctl(container, "core/somaxconn") == "600"
    run_plugin("tuning", "DEL", both, netns=container).succeeded()


def test_two_spellings_of_one_sysctl(container: Netns, run_plugin: Runner) -> None:
    """They are one: args go before the key, and one object cannot ask for two values."""
    one, other = "net.core.somaxconn", "net/core/somaxconn"
    for spellings in ((one, other), (other, one)):
        both = config(
            container,
            sysctl={spellings[0]: "111"},
            args={"cni": {"sysctl": {spellings[1]: "222"}}},
        )
        run_plugin("tuning", "ADD", both, netns=container).result()
        assert sysctl(container, "core/somaxconn") == "222"
        run_plugin("tuning", "CHECK", both, netns=container).succeeded()
        run_plugin("tuning", "DEL", both, netns=container).succeeded()
    for wanted in (
        {one: "111", other: "222"},
        {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.conf.eth0.arp_filter": "0"},
    ):
        for keys in ({"sysctl": wanted}, {"args": {"cni": {"sysctl": wanted}}}):
            for verb in ("ADD", "STATUS"):
                run_plugin("tuning", verb, config(container, **keys), netns=container).failed(
                    7, *wanted
                )
    agreed = config(container, sysctl={one: "111", other: "111"})
    run_plugin("tuning", "ADD", agreed, netns=container).result()
    run_plugin("tuning", "DEL", agreed, netns=container).succeeded()


def test_the_administrator_s_list(container: Netns, run_plugin: Runner) -> None:
    """Matched anywhere in the name, as in Go; STATUS says it before any pod does."""
    path = pathlib.Path("/etc/cni/tuning/allowlist.conf")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_text("^net.core.somax\n\n  tcp_keepalive  \n")
        fine = config(container, sysctl={"net.core.somaxconn": "500"})
        run_plugin("tuning", "ADD", fine, netns=container).result()
        run_plugin("tuning", "DEL", fine, netns=container).succeeded()
        bad = config(container, sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"})
        for verb in ("ADD", "STATUS"):
            run_plugin("tuning", verb, bad, netns=container).failed(
                7, "net.ipv4.conf.IFNAME.arp_filter is not allowed", "^net.core.somax"
            )
        path.write_text("^net\\.core\\.[[:alnum:]]+\\z\n")
        listed = run_plugin("tuning", "ADD", fine, netns=container)
        assert listed.result() and not listed.stderr
        run_plugin("tuning", "ADD", bad, netns=container).failed(7, "is not allowed")
        run_plugin("tuning", "DEL", fine, netns=container).succeeded()
        for expression in ("(", r"\pL"):
            path.write_text(f"{expression}\n")
            run_plugin("tuning", "ADD", fine, netns=container).failed(
                7, "allowlist.conf", repr(expression)
            )
    finally:
        path.unlink()
        path.parent.rmdir()


def test_delete_without_the_namespace(host: Host, run_plugin: Runner) -> None:
    """The file goes all the same; also when only the interface is gone."""
    for gone in ("namespace", "interface", "path"):
        netns = host.netns()
        netns.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        document = config(netns, **ALL)
        run_plugin("tuning", "ADD", document, netns=netns).result()
        assert FILE.exists()
        match gone:
            case "namespace":
                netns.delete()
            case "interface":
                netns.run("ip", "link", "delete", "eth0")
        path = "" if gone == "path" else netns.path
        run_plugin("tuning", "DEL", document, netns=path).succeeded()
        assert not FILE.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"mac": 3, "sysctl": 5}', b"\xff"])
def test_a_broken_file(container: Netns, run_plugin: Runner, content: bytes) -> None:
    """DEL succeeds, restores what can be read, and removes it."""
    DATA.mkdir(parents=True, exist_ok=True)
    FILE.write_bytes(content)
    run_plugin("tuning", "DEL", config(container, **ALL), netns=container).succeeded()
    assert link(container)["address"] == MAC


def test_what_is_refused_keeps_nothing_else_from_coming_back(
    container: Netns, run_plugin: Runner
) -> None:
    """DEL says what could not be restored, and tries again."""
    before = tuned(container)
    run_plugin("tuning", "ADD", config(container, **ALL), netns=container).result()
    noted = json.loads(FILE.read_text())
    bad = {**noted, "mac": "01:00:5e:00:00:01", "sysctl": {**noted["sysctl"]}}
    bad["sysctl"] = {"core/somaxconn": "many", **{k: v for k, v in noted["sysctl"].items()
                                                 if k != "core/somaxconn"}}  # fmt: skip
    FILE.write_text(json.dumps(bad))
    error = run_plugin("tuning", "DEL", config(container), netns=container).failed(
        102, "01:00:5e:00:00:01"
    )
    assert "somaxconn" in error["details"]
    shown = tuned(container)
    assert {key for key in shown if shown[key] != before[key]} == {"mac", "somaxconn"}
    FILE.write_text(json.dumps(noted))
    run_plugin("tuning", "DEL", config(container), netns=container).succeeded()
    assert tuned(container) == before


def test_gc_keeps_what_is_valid(host: Host, run_plugin: Runner) -> None:
    """And other networks' files, and those of Go's, which do not say whose they are. What is
    damaged is of no use to anybody, unless it is valid or no file of ours."""
    DATA.mkdir(parents=True, exist_ok=True)
    files = {
        "a_eth0.json": {"mac": MAC, "network": "net"},
        "b_eth0.json": {"mac": MAC, "network": "net"},
        "c_eth0.json": {"mac": MAC, "network": "other"},
        "d_eth0.json": {"mac": MAC},
    }
    for name, noted in files.items():
        (DATA / name).write_text(json.dumps(noted))
    for name in ("e_eth0.json", "f_g_eth_0.json", "a_eth1.json", "_eth0.json", "notes.json",
                 "h_.json", "i_averylongifname1.json", "j_eth0.txt"):  # fmt: skip
        (DATA / name).write_text('{"mac')
    (DATA / "k_eth0.json").write_text("[]")
    (DATA / "l_eth0.json").mkdir()
    document = {"cniVersion": "1.1.0", "name": "net", "type": "tuning"}
    run_plugin("tuning", "GC", document).failed(7, "cni.dev/valid-attachments")
    valid = [{"containerID": "a", "ifname": name} for name in ("eth0", "eth1")]
    run_plugin("tuning", "GC", {**document, "cni.dev/valid-attachments": valid}).succeeded()
    (DATA / "l_eth0.json").rmdir()
    assert {path.name for path in DATA.iterdir()} == {
        *("a_eth0.json", "c_eth0.json", "d_eth0.json", "a_eth1.json"),
        *("_eth0.json", "notes.json", "h_.json", "i_averylongifname1.json", "j_eth0.txt"),
    }
    for path in DATA.iterdir():
        path.unlink()


def test_what_go_s_plugin_did_is_undone(container: Netns, run_plugin: Runner) -> None:
    """And the other way: each uses the other's file."""
    before = tuned(container)
    keys = {key: value for key, value in ALL.items() if key not in ("sysctl", "txQLen")}
    document = config(container, "1.0.0", **keys)
    run_plugin("tuning", "ADD", document, netns=container, bin_dir=GO_BIN_DIR).result()
    assert FILE.exists()
    run_plugin("tuning", "CHECK", document, netns=container).succeeded()
    run_plugin("tuning", "DEL", document, netns=container).succeeded()
    assert tuned(container) == before
    document["sysctl"] = {"net.core.somaxconn": "500"}
    run_plugin("tuning", "ADD", document, netns=container).result()
    run_plugin("tuning", "CHECK", document, netns=container, bin_dir=GO_BIN_DIR).succeeded()
    run_plugin("tuning", "DEL", document, netns=container, bin_dir=GO_BIN_DIR).succeeded()
    # Go's restores no sysctls.
    assert tuned(container) == {**before, "somaxconn": "500"}


def test_status(host: Host, run_plugin: Runner, tmp_path: pathlib.Path) -> None:
    """Said before a pod finds out: a directory on a read-only file system."""
    document = {"cniVersion": "1.1.0", "name": "net", "type": "tuning", "mtu": 1400}
    run_plugin("tuning", "STATUS", document).succeeded()
    run_plugin("tuning", "STATUS", {**document, "mtu": 68}).succeeded()
    run_plugin("tuning", "STATUS", {**document, "mtu": 10}).failed(7, "mtu: 10")
    arguments = {"cni": {"mtu": 67}}
    run_plugin("tuning", "STATUS", {**document, "args": arguments}).failed(7, "args.cni.mtu: 67")
    host.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path))
    try:
        frozen = {**document, "dataDir": f"{tmp_path}/backups"}
        run_plugin("tuning", "STATUS", frozen).failed(50, str(tmp_path))
    finally:
        host.run("umount", str(tmp_path))


def attach(
    run: Runner, netns: Netns, ifname: str, value: str, name: str = "net", **options: Any
) -> None:
    """ADD with a value of net.core.somaxconn, which is the whole namespace's."""
    document = config(netns, sysctl={"net.core.somaxconn": value}) | {"name": name}
    run("tuning", "ADD", document, netns=netns, ifname=ifname, **options).result()


def detach(
    run: Runner, netns: Netns | str, ifname: str, name: str = "net", **options: Any
) -> None:
    """DEL by the attachment's identity alone."""
    bare = {"cniVersion": "1.1.0", "name": name, "type": "tuning"}
    run("tuning", "DEL", bare, netns=netns, ifname=ifname, **options).succeeded()


@pytest.mark.parametrize(
    ("values", "deletions", "expected"),
    [
        (("100", "200"), (0, 1), ("200", "before")),
        (("100", "200"), (1, 0), ("100", "before")),
        (("100", "100"), (0, 1), ("100", "before")),
        (("100", "before"), (0, 1), ("before", "before")),
        (("100", "before"), (1, 0), ("100", "before")),
        (("100", "200", "300"), (0, 1, 2), ("300", "300", "before")),
        (("100", "200", "300"), (1, 0, 2), ("300", "300", "before")),
        (("100", "200", "300"), (2, 0, 1), ("200", "200", "before")),
    ],
)
def test_a_sysctl_of_several_attachments(
    container: Netns,
    run_plugin: Runner,
    values: tuple[str, ...],
    deletions: tuple[int, ...],
    expected: tuple[str, ...],
) -> None:
    """One that goes takes nothing from those that stay; the last one leaves what was there."""
    before = sysctl(container, "core/somaxconn")
    for number, value in enumerate(values):
        value = before if value == "before" else value
        attach(run_plugin, container, f"eth{number}", value, name=f"net{number}")
    for number, value in zip(deletions, expected, strict=True):
        detach(run_plugin, container, f"eth{number}", name=f"net{number}")
        assert sysctl(container, "core/somaxconn") == (before if value == "before" else value)
    assert not list(DATA.iterdir())


def test_another_container_s_file_is_none_of_ours(
    host: Host, container: Netns, run_plugin: Runner
) -> None:
    """Not even when its name begins alike: a container may be called a_eth0."""
    before = sysctl(container, "core/somaxconn")
    other = host.netns()
    attach(run_plugin, other, "eth1", "300", container_id="container-1_eth0")
    attach(run_plugin, container, "eth0", "100")
    detach(run_plugin, container, "eth0")
    assert sysctl(container, "core/somaxconn") == before
    assert sysctl(other, "core/somaxconn") == "300"
    detach(run_plugin, other, "eth1", container_id="container-1_eth0")
    assert sysctl(other, "core/somaxconn") == before


def test_what_the_container_changed_itself_stays(container: Netns, run_plugin: Runner) -> None:
    """Only what ADD has set is put back; also where the kernel shows it in other words."""
    attach(run_plugin, container, "eth0", "100")
    container.run("sysctl", "-w", "net.core.somaxconn=150")
    detach(run_plugin, container, "eth0")
    assert sysctl(container, "core/somaxconn") == "150"
    attach(run_plugin, container, "eth0", "0x64")
    assert sysctl(container, "core/somaxconn") == "100"
    detach(run_plugin, container, "eth0")
    assert sysctl(container, "core/somaxconn") == "150"


def test_an_add_that_fails_after_another(container: Netns, run_plugin: Runner) -> None:
    """All is as it was before the first, also what that one had set."""
    before = sysctl(container, "core/somaxconn")
    attach(run_plugin, container, "eth0", "100")
    attach(run_plugin, container, "eth0", "200")
    bad = config(container, sysctl={"net.core.somaxconn": "many"})
    run_plugin("tuning", "ADD", bad, netns=container).failed(102, "somaxconn")
    assert sysctl(container, "core/somaxconn") == before


PORTS = "ipv4/ip_local_reserved_ports"


@pytest.mark.parametrize("before", ["", "77"])
def test_a_value_in_other_words(container: Netns, run_plugin: Runner, before: str) -> None:
    """The kernel sorts ports, and shows ranges of them; without any it shows nothing."""
    container.run("sysctl", "-w", f"net.ipv4.ip_local_reserved_ports={before}")
    document = config(container, sysctl={"net.ipv4.ip_local_reserved_ports": "1001,1000"})
    run_plugin("tuning", "ADD", document, netns=container).result()
    assert sysctl(container, PORTS) == "1000-1001"
    run_plugin("tuning", "CHECK", document, netns=container).succeeded()
    other = config(container, sysctl={"net.ipv4.ip_local_reserved_ports": "1001"})
    run_plugin("tuning", "CHECK", other, netns=container).failed(103, "1000-1001")
    container.run("sysctl", "-w", "net.ipv4.ip_local_reserved_ports=5")
    run_plugin("tuning", "CHECK", document, netns=container).failed(103, "found 5")
    container.run("sysctl", "-w", "net.ipv4.ip_local_reserved_ports=1000-1001")
    detach(run_plugin, container, "eth0")
    assert sysctl(container, PORTS) == before


@pytest.mark.parametrize("attached", [True, False])
def test_a_refused_sysctl_takes_those_before_it_back(
    container: Netns, run_plugin: Runner, attached: bool
) -> None:
    """Also where the kernel shows them in other words."""
    container.run("sysctl", "-w", "net.ipv4.ip_local_reserved_ports=77")
    values = {"net.ipv4.ip_local_reserved_ports": "1001,1000", "net.core.somaxconn": "many"}
    if attached:
        attach(run_plugin, container, "eth1", "100", name="other")
    document = config(container, sysctl=values)
    run_plugin("tuning", "ADD", document, netns=container).failed(102, "somaxconn")
    assert sysctl(container, PORTS) == "77"
    if attached:
        detach(run_plugin, container, "eth1", name="other")


def test_killed_at_any_moment(container: Netns, run_plugin: Runner) -> None:
    """DEL puts back what ADD had written by then, in whatever words the kernel shows it."""
    container.run("sysctl", "-w", "net.ipv4.ip_local_reserved_ports=77")
    values = {"net.ipv4.ip_local_reserved_ports": "1001,1000", "net.core.somaxconn": "100"}
    before = sysctl(container, "core/somaxconn")
    document = json.dumps(config(container, sysctl=values)).encode()
    variables = environment("ADD", "/", container, "container-1", "eth0")

    def attempt() -> None:
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 1)
        os.environ.update(variables)
        reader, writer = os.pipe()
        os.write(writer, document)
        os.close(writer)
        os.dup2(reader, 0)
        main.run("tuning")

    step = 0
    while killed_at(step, attempt):
        detach(run_plugin, container, "eth0")
        assert sysctl(container, PORTS) == "77", step
        assert sysctl(container, "core/somaxconn") == before, step
        assert not DATA.exists() or not list(DATA.iterdir())
        step += 1
    assert step > 20
    detach(run_plugin, container, "eth0")


def test_two_that_go_at_once(container: Netns, run_plugin: Runner) -> None:
    """Neither writes the other's file again, and the value from before all comes back."""
    before = sysctl(container, "core/somaxconn")
    for _ in range(10):
        for number in range(4):
            attach(run_plugin, container, f"eth{number}", f"{100 + number}")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda n: detach(run_plugin, container, f"eth{n}"), range(4)))
        assert not list(DATA.iterdir())
        assert sysctl(container, "core/somaxconn") == before


def test_a_file_of_an_earlier_version(container: Netns, run_plugin: Runner) -> None:
    """It does not say what was set: what there was is restored all the same."""
    DATA.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps({"sysctl": {"core/somaxconn": "123"}, "network": "net"}))
    detach(run_plugin, container, "eth0")
    assert sysctl(container, "core/somaxconn") == "123"


def test_the_first_value_is_handed_on_without_the_namespace(
    container: Netns, run_plugin: Runner
) -> None:
    """The path may be missing, or the first attachment collected, while the container lives."""
    before = sysctl(container, "core/somaxconn")
    attach(run_plugin, container, "eth0", "100")
    attach(run_plugin, container, "eth1", "200", name="other")
    detach(run_plugin, "", "eth0")
    assert sysctl(container, "core/somaxconn") == "200"
    attach(run_plugin, container, "eth2", "300")
    collect = {"cniVersion": "1.1.0", "name": "other", "type": "tuning"}
    run_plugin("tuning", "GC", {**collect, "cni.dev/valid-attachments": []}).succeeded()
    detach(run_plugin, container, "eth2")
    assert sysctl(container, "core/somaxconn") == before


def test_sysctls_need_no_interface(container: Netns, run_plugin: Runner) -> None:
    """A device of a user-space driver (DPDK) has none; link attributes need one."""
    before = sysctl(container, "core/somaxconn")
    document = config(container, sysctl={"net.core.somaxconn": "500"})
    run_plugin("tuning", "ADD", document, netns=container, ifname="net1").result()
    assert sysctl(container, "core/somaxconn") == "500"
    run_plugin("tuning", "CHECK", document, netns=container, ifname="net1").succeeded()
    run_plugin("tuning", "DEL", document, netns=container, ifname="net1").succeeded()
    assert sysctl(container, "core/somaxconn") == before
    both = config(container, sysctl={"net.core.somaxconn": "500"}, mtu=1400)
    run_plugin("tuning", "ADD", both, netns=container, ifname="net1").failed(102, "net1")
    run_plugin("tuning", "CHECK", both, netns=container, ifname="net1").failed(103, "net1")
    own = config(container, sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"})
    run_plugin("tuning", "ADD", own, netns=container, ifname="net1").failed(7, "conf/net1")


def test_a_sysctl_that_can_only_be_written(container: Netns, run_plugin: Runner) -> None:
    """There is nothing to restore and nothing to compare; what is beside it counts."""
    before = sysctl(container, "core/somaxconn")
    both = {"net.ipv4.route.flush": "1", "net.core.somaxconn": "500"}
    document = config(container, sysctl=both)
    run_plugin("tuning", "ADD", document, netns=container).result()
    assert json.loads(FILE.read_text())["sysctl"] == {"core/somaxconn": before}
    run_plugin("tuning", "CHECK", document, netns=container).succeeded()
    run_plugin("tuning", "DEL", document, netns=container).succeeded()
    assert sysctl(container, "core/somaxconn") == before
