# SPDX-License-Identifier: Apache-2.0
"""cnitool: the command line of Go's tool, and what ours has besides."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from libcni.api import CNIConfig, RuntimeConf
from libcni.cnitool.__main__ import main
from libcni.conf import load_network_conf
from libcni.types.errors import TRY_AGAIN_LATER
from tests.rig.host import Host, Netns
from tests.unit.desk import CONTAINER, NETNS, RESULT, Desk, bridge
from tools import source_launchers

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_add_prints_the_result_and_derives_the_container(desk: Desk) -> None:
    desk.network()
    assert desk.run("add", "net", NETNS) == 0
    assert desk.out == json.dumps(RESULT, indent=4)
    assert desk.err == ""
    (call,) = desk.recorder.take()
    assert (call["id"], call["netns"], call["ifname"]) == (CONTAINER, NETNS, "eth0")
    assert (desk.cache / "results" / f"net-{CONTAINER}-eth0").exists()


@pytest.mark.parametrize("verb", ["check", "del", "gc", "status"])
def test_the_other_verbs_print_nothing(desk: Desk, verb: str) -> None:
    desk.network()
    if verb == "check":
        assert desk.run("add", "net", NETNS) == 0
        desk.recorder.take()
    assert desk.run(verb, "net", NETNS) == 0
    assert (desk.out, desk.err) == ("", "")
    assert {call["command"] for call in desk.recorder.take()} == {verb.upper()}


@pytest.mark.parametrize("version", ["", "0.4.0", "1.0.0"])
def test_status_says_when_nobody_is_asked(desk: Desk, version: str) -> None:
    desk.network(version=version)
    assert desk.run("status", "net") == 0
    told = version or "0.1.0"
    assert desk.err == f"the plugins are not asked: cniVersion {told} has no STATUS (1.1.0 has)\n"
    assert desk.out == "" and desk.recorder.take() == []


@pytest.mark.parametrize("declared", [{}, {"capabilities": {"portMappings": False}}])
def test_add_warns_of_a_capability_argument_that_no_plugin_takes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any]
) -> None:
    monkeypatch.setenv("CAP_ARGS", '{"portMappings": [{"hostPort": 1}]}')
    desk.network(**declared)
    assert desk.run("add", "net", NETNS) == 0
    assert desk.err.startswith('warning: no plugin takes the CAP_ARGS key "portMappings": ')
    assert json.loads(desk.out) == RESULT
    desk.network(capabilities={"portMappings": True})
    assert desk.run("add", "net", "/run/netns/red") == 0
    assert desk.err == ""


@pytest.mark.parametrize(
    ("plugin", "arguments", "warnings"),
    [
        (
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"portMappings": [{"hostPort": 53, "containerPort": 53, "protcol": "udp"}]},
            ["portMappings[0].protcol is not a known key; did you mean protocol?"],
        ),
        (
            {"type": "one", "ipam": {"type": "host-local"}, "capabilities": {"ipRanges": True}},
            {"ipRanges": [[{"subnet": "10.0.0.0/24", "rangStart": "10.0.0.5"}]]},
            [],  # "one" is somebody else's, and may read it
        ),
        (
            {"type": "bridge", "ipam": {"type": "host-local"}, "capabilities": {"ipRanges": True}},
            {"ipRanges": [[{"subnet": "10.0.0.0/24", "rangStart": "10.0.0.5"}]]},
            ["ipRanges[0][0].rangStart is not a known key; did you mean rangeStart?"],
        ),
        (
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"portMappings": [{"HostPort": 53, "containerPort": 53, "x": 1}]},
            [],
        ),
    ],
)
def test_add_warns_of_a_misspelled_key_in_a_capability_argument(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    plugin: dict[str, Any],
    arguments: dict[str, Any],
    warnings: list[str],
) -> None:
    monkeypatch.setenv("CAP_ARGS", json.dumps(arguments))
    desk.recorder.plugin(plugin["type"], ADD=RESULT)
    desk.network(**plugin)
    assert desk.run("add", "net", NETNS) == 0
    assert desk.err.splitlines() == [f"warning: CAP_ARGS: {warning}" for warning in warnings]


def test_arguments_come_from_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.network(capabilities={"mac": True})
    monkeypatch.setenv("CNI_ARGS", "A=b;C=d")
    monkeypatch.setenv("CAP_ARGS", '{"mac": "x", "ips": []}')
    monkeypatch.setenv("CNI_IFNAME", "net1")
    monkeypatch.chdir("/run")
    assert desk.run("add", "net", "netns/blue") == 0
    (call,) = desk.recorder.take()
    assert (call["args"], call["ifname"], call["netns"]) == ("A=b;C=d", "net1", NETNS)
    assert call["stdin"]["runtimeConfig"] == {"mac": "x"}
    assert desk.run("del", "net", NETNS, "-i", "net2") == 0
    assert desk.recorder.take()[0]["ifname"] == "net2"
    assert main(["--ifname", "net3", "--cache-dir", str(desk.cache), "del", "net", NETNS]) == 0
    assert desk.recorder.take()[0]["ifname"] == "net3"


@pytest.mark.parametrize(
    ("name", "value", "culprit"),
    [("CNI_ARGS", "A", "'A'"), ("CNI_ARGS", "A=b;", "''"), ("CNI_ARGS", "A=", "'A='"),
     ("CNI_ARGS", "A=b=c", "A=b=c"), ("CAP_ARGS", "{", "CAP_ARGS"), ("CAP_ARGS", "[]", "CAP_ARGS"),
     ("CNI_IFNAME", "../x", "CNI_IFNAME")],
)  # fmt: skip
def test_bad_environment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, value: str, culprit: str
) -> None:
    desk.network()
    monkeypatch.setenv(name, value)
    assert desk.run("add", "net", NETNS) == 1
    assert culprit in desk.err and desk.out == ""
    assert desk.recorder.take() == []


def test_unknown_network(desk: Desk) -> None:
    assert desk.run("add", "nope", NETNS) == 1
    assert f"no net configurations found in {desk.net_d}" in desk.err
    desk.network()
    assert desk.run("add", "nope", NETNS) == 1
    assert f'no net configuration with name "nope" in {desk.net_d}' in desk.err
    assert "there are: net" in desk.err and "Hint: " in desk.err


def test_missing_plugin(desk: Desk) -> None:
    desk.network(type="absent")
    assert desk.run("add", "net", NETNS) == 1
    assert f'failed to find plugin "absent" in path [{desk.recorder.directory}]' in desk.err
    assert "Hint: set CNI_PATH" in desk.err


@pytest.mark.parametrize(
    "words", [[], ["frobnicate"], ["add"], ["add", "net"], ["list", "-o", "x"]]
)
def test_wrong_usage_exits_1(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    captured = capfd.readouterr()
    assert captured.out == "" and "usage: cnitool" in captured.err


@pytest.mark.parametrize("words", [["help"], ["--help"], ["add", "-h"]])
def test_help(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "usage: cnitool" in capfd.readouterr().out


def test_gc_and_status_do_not_offer_a_namespace(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    desk.network()
    for verb in ("gc", "status"):
        assert main([verb, "--help"]) == 0
        assert "netns" not in capfd.readouterr().out
        assert desk.run(verb, "net", NETNS) == 0  # as Go's tool is called
    assert main(["check", "--help"]) == 0
    assert "netns" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("verb", "listed"),
    [
        ("add", ["--ifname", "--cache-dir"]),
        ("check", ["--ifname", "--cache-dir"]),
        ("del", ["--ifname", "--cache-dir"]),
        ("gc", ["--cache-dir"]),
        ("list", ["--cache-dir"]),
        ("status", []),
        ("validate", []),
        ("version", []),
    ],
)
def test_help_lists_the_options_that_a_verb_uses_and_takes_the_others(
    desk: Desk, capfd: pytest.CaptureFixture[str], verb: str, listed: list[str]
) -> None:
    assert main(["help", verb]) == 0
    text = capfd.readouterr().out
    assert [option for option in ("--ifname", "--cache-dir") if option in text] == listed
    desk.network()
    words = {"gc": ["net"], "status": ["net"]}.get(verb, [])
    if verb not in ("add", "check", "del"):
        assert desk.run(verb, "-i", "eth1", *words) == 0


def test_the_output_of_list_is_described(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--help"]) == 0
    assert "tables (the default), all of it as JSON" in capfd.readouterr().out


def test_an_empty_interface_name_is_not_eth0(desk: Desk) -> None:
    desk.network()
    assert desk.run("add", "-i", "", "net", NETNS) == 1
    assert "argument -i/--ifname: the name is empty" in desk.err
    assert desk.recorder.take() == []


def test_help_about_a_verb(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "add"]) == 0
    assert "usage: cnitool add" in capfd.readouterr().out
    assert main(["help", "frobnicate"]) == 1


def test_version(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    assert desk.run("version") == 0
    assert desk.out.startswith("cnitool ") and "1.1.0" in desk.out
    for option in ("--version", "-V"):
        assert main([option]) == 0
        assert capfd.readouterr().out == desk.out


def test_gc_takes_every_attachment_of_the_network(desk: Desk) -> None:
    desk.network()
    for netns in (NETNS, "/run/netns/red"):
        assert desk.run("add", "net", netns) == 0
    desk.recorder.take()
    assert desk.run("gc", "net") == 0
    calls = desk.recorder.take()
    assert sorted(call["command"] for call in calls) == ["DEL", "DEL", "GC"]
    assert calls[-1]["stdin"]["cni.dev/valid-attachments"] == []
    assert f"detached {CONTAINER} eth0 ({NETNS})" in desk.err.splitlines()
    assert len(desk.err.splitlines()) == 2 and desk.out == ""
    assert desk.run("gc", "net") == 0
    assert desk.err == ""


def test_gc_without_a_gc_of_the_plugins_says_that_it_detaches(desk: Desk) -> None:
    desk.network(version="0.4.0")
    assert desk.run("add", "net", NETNS) == 0
    desk.recorder.take()
    assert desk.run("gc", "net") == 0
    assert desk.err.splitlines() == [
        "the plugins are not asked for GC: cniVersion 0.4.0 has no GC (1.1.0 has); "
        "what is remembered as attached is detached by DEL",
        f"detached {CONTAINER} eth0 ({NETNS})",
    ]
    assert [call["command"] for call in desk.recorder.take()] == ["DEL"]


def test_gc_says_what_it_did_not_do(desk: Desk) -> None:
    for netns in (NETNS, "/run/netns/red"):
        desk.network()
        assert desk.run("add", "net", netns) == 0
        desk.recorder.fail("one", "GC", TRY_AGAIN_LATER, "busy")
        assert desk.run("gc", "net") == 1
        assert desk.err.startswith("detached cnitool-") and f"({netns})" in desk.err
        assert "busy" in desk.err
        desk.network(version="1.0.0")
        assert desk.run("gc", "net") == 0
        assert desk.err == (
            "the plugins are not asked for GC: cniVersion 1.0.0 has no GC (1.1.0 has); "
            "nothing is remembered as attached, so nothing is done\n"
        )
    desk.recorder.take()
    document = {"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "one"}]}
    desk.write("10-net.conflist", document | {"disableGC": True})
    assert desk.run("gc", "net") == 0
    assert desk.err == "not done: the network has disableGC\n"
    assert desk.recorder.take() == []


# ---- with real plugins


def test_with_debians_plugins(
    host: Host,
    netns: Callable[[str], Netns],
    go_bin_dir: pathlib.Path,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole way over a kernel: our libcni drives Go's plugins."""
    monkeypatch.setenv("CNI_PATH", str(go_bin_dir))
    blue = netns("blue").path
    host.share("cnitool0")
    document = bridge(bridge="cnitool0", isGateway=True)
    desk.write("10.conflist", document)
    assert desk.run("add", "net", blue) == 0, desk.err
    result = json.loads(desk.out)
    assert result["ips"][0]["address"] == "10.0.0.2/24"
    cni = CNIConfig([str(go_bin_dir)], desk.cache)
    (attachment,) = cni.get_cached_attachments()
    rt = RuntimeConf(attachment.container_id, attachment.netns, attachment.if_name)
    cached = cni.get_network_list_cached_result(load_network_conf(desk.net_d, "net"), rt)
    assert cached is not None and cached.to_json("1.0.0") == result
    assert desk.run("check", "net", blue) == 0, desk.err
    assert desk.run("add", "net", blue) == 1
    assert "Hint: it is attached already; " in desk.err
    assert f"cnitool del net {blue} --cache-dir {desk.cache}" in desk.err.splitlines()[-1]
    assert desk.run("del", "net", blue) == 0, desk.err
    assert desk.run("check", "net", blue) == 1
    assert "is not attached" in desk.err and "cnitool list" in desk.err
    assert desk.run("del", "net", blue) == 0, desk.err
    assert desk.run("del", "net", "/run/netns/never-was") == 0, desk.err


def test_the_readmes_example(host: Host, tmp_path: pathlib.Path) -> None:
    """As it is printed, but for the two directories."""
    text = (REPOSITORY / "README.md").read_text()
    block = re.search(r"```sh\n(export CNI_PATH=.*?)```", text, re.DOTALL)
    assert block is not None
    plugins = source_launchers.make(tmp_path / "bin")
    script = block.group(1)
    for old, new in (("/opt/cni/bin", plugins), ("/tmp/net.d", tmp_path / "net.d")):
        assert script.count(old) == 1
        script = script.replace(old, str(new))
    done = subprocess.run(
        ["sh", "-ec", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "10-demo.conflist: ok" in done.stdout and '"address": "10.98.0.2/24"' in done.stdout
    assert "1 received" in done.stdout and "/run/netns/blue" in done.stdout
