# SPDX-License-Identifier: Apache-2.0
"""What cnitool advises after a failure: the likeliest mend, and nothing that could do harm."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from libcni import boot
from libcni.cache import Cache, NetworkAttachment
from libcni.cnitool import settings
from libcni.types.errors import (
    CONFLICT,
    INVALID_NETNS,
    INVALID_NETWORK_CONFIG,
    KERNEL,
    PLUGIN_NOT_AVAILABLE,
    TRY_AGAIN_LATER,
)
from tests.rig.plugins import ROOT
from tests.unit.desk import CONTAINER, NETNS, RESULT, Desk, bridge


def hints(desk: Desk) -> list[str]:
    """The hints of the last run."""
    lines = desk.err.splitlines()
    return [line.removeprefix("Hint: ") for line in lines if line.startswith("Hint: ")]


def two_plugins(desk: Desk) -> None:
    desk.recorder.plugin("two", ADD={"cniVersion": "1.1.0"})
    plugins = [{"type": "one"}, {"type": "two"}]
    desk.write("10.conflist", {"cniVersion": "1.1.0", "name": "net", "plugins": plugins})


def test_a_failed_add_says_what_to_do(desk: Desk) -> None:
    desk.network()
    desk.recorder.fail("one", "ADD", TRY_AGAIN_LATER, "busy")
    assert desk.run("add", "net", NETNS) == 1
    assert desk.out == ""
    delete = f"cnitool del net {NETNS} --cache-dir {desk.cache}"
    assert desk.err.splitlines() == [
        'Error: plugin type="one" failed (add): busy',
        "Code: 11",
        "Hint: the cause passes by itself: try again",
        f"Hint: to remove what may be left of it: {delete}",
    ]


def test_what_to_do_is_said_as_the_tool_was_called(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path, where it is not on $PATH."""
    desk.network()
    desk.recorder.fail("one", "ADD", TRY_AGAIN_LATER, "busy")
    for called, typed in (
        ("/opt/cni/bin/cnitool", "/opt/cni/bin/cnitool"),
        ("./my bin/cnitool", "'./my bin/cnitool'"),
        ("/src/libcni/cnitool/__main__.py", "cnitool"),
    ):
        monkeypatch.setattr("sys.argv", [called])
        assert desk.run("add", "net", NETNS) == 1
        assert f"left of it: {typed} del net {NETNS}" in desk.err


def test_an_add_that_was_refused_has_left_nothing(desk: Desk) -> None:
    desk.network()
    desk.recorder.fail("one", "ADD", INVALID_NETWORK_CONFIG, "no such key")
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == []
    desk.recorder.fail("one", "ADD", PLUGIN_NOT_AVAILABLE, "no subnet file")
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == []
    desk.network(type="absent")
    assert desk.run("add", "net", NETNS) == 1
    assert "cnitool del" not in desk.err


def test_an_add_that_the_second_plugin_refused_has_left_what_the_first_made(desk: Desk) -> None:
    two_plugins(desk)
    desk.recorder.fail("two", "ADD", INVALID_NETWORK_CONFIG, "no such key")
    assert desk.run("add", "net", NETNS) == 1
    (only,) = hints(desk)
    assert only.startswith(
        "the plugins before it have attached it already; to remove what is left: "
        f"cnitool del net {NETNS}"
    )


def test_a_conflict_of_the_second_plugin_is_not_of_this_attachment(desk: Desk) -> None:
    two_plugins(desk)
    desk.recorder.fail("two", "ADD", CONFLICT, "host port 8080 is taken")
    assert desk.run("add", "net", NETNS) == 1
    (only,) = hints(desk)
    assert "have attached it already; to remove what is left: cnitool del net" in only


@pytest.mark.parametrize(
    "msg", ['"eth0" already exists but is not a bridge', "host port 8080 is taken", "veth0 exists"]
)
def test_no_del_is_advised_for_what_it_would_not_remove(desk: Desk, msg: str) -> None:
    desk.network()
    desk.recorder.fail("one", "ADD", CONFLICT, msg)
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == []


def test_validate_is_advised_where_it_finds_something(desk: Desk) -> None:
    desk.recorder.plugin("bridge")
    desk.recorder.fail("bridge", "ADD", INVALID_NETWORK_CONFIG, "mtu: no")
    desk.write("10.conflist", bridge(mtu="big"))
    assert desk.run("add", "net", NETNS) == 1
    (only,) = hints(desk)
    assert only.startswith("`cnitool validate` says what is wrong")
    desk.write("10.conflist", bridge(mtu=1500))
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == []


def test_what_cap_args_gave_is_to_be_mended_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAP_ARGS", '{"portMappings": [{"hostPort": "8080"}]}')
    desk.network(capabilities={"portMappings": True})
    msg = 'runtimeConfig.portMappings[0].hostPort: "8080" does not fit'
    desk.recorder.fail("one", "ADD", INVALID_NETWORK_CONFIG, msg)
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == ["runtimeConfig holds what CAP_ARGS gives: mend it there"]


@pytest.mark.parametrize(("type_", "meant"), [("brigde", ["bridge"]), ("ipvlan", [])])
def test_a_misspelled_type_is_told_which_is_meant(
    desk: Desk, type_: str, meant: list[str]
) -> None:
    desk.network(type=type_)
    assert desk.run("add", "net", NETNS) == 1
    *found, last = hints(desk)
    assert found == [f"did you mean {name}?" for name in meant]
    assert last.startswith("set CNI_PATH")


def test_an_add_that_cannot_be_remembered_is_attached_all_the_same(desk: Desk) -> None:
    desk.network()
    desk.cache.write_text("not a directory")
    assert desk.run("add", "net", NETNS) == 1
    assert "cached result" in desk.err
    assert hints(desk)[-1].startswith("to remove what is left of it: cnitool del net")


@pytest.mark.parametrize(
    ("code", "msg"),
    [
        (CONFLICT, "eth0 belongs to another"),
        (999, "container veth name provided (eth0) already exists"),
        (999, "duplicate allocation has been requested"),
    ],
)
def test_a_second_add_advises_to_look_first(desk: Desk, code: int, msg: str) -> None:
    desk.network()
    assert desk.run("add", "net", NETNS) == 0
    desk.recorder.fail("one", "ADD", code, msg)
    assert desk.run("add", "net", NETNS) == 1
    first, second = hints(desk)
    assert first.startswith("it is attached already; ") and "cnitool check net" in first
    assert "if nothing uses it" in second and "cnitool del net" in second


def test_a_live_attachment_is_not_what_a_failed_add_left(desk: Desk) -> None:
    desk.network()
    assert desk.run("add", "net", NETNS) == 0
    desk.recorder.fail("one", "ADD", KERNEL, "no buffers")
    assert desk.run("add", "net", NETNS) == 1
    assert "cnitool del" not in desk.err


def test_a_conflict_without_an_attachment_may_be_a_leftover(desk: Desk) -> None:
    desk.network()
    desk.recorder.fail("one", "ADD", CONFLICT, "eth0 exists")
    assert desk.run("add", "net", NETNS) == 1
    (only,) = hints(desk)
    assert only.startswith(
        "if an ADD that was cut short left it, this removes it: cnitool del net"
    )


def test_commands_in_hints_mean_the_same_attachment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.network()
    desk.recorder.fail("one", "ADD", KERNEL, "no buffers")
    monkeypatch.setenv("CNI_IFNAME", "net1")
    netns = "/run/netns/of a shell's"
    assert desk.run("add", "net", netns) == 1
    command = hints(desk)[-1].partition("cnitool ")[2]
    desk.recorder.take()
    monkeypatch.delenv("CNI_IFNAME")
    shell = f"exec {sys.executable} -m libcni.cnitool {command}"
    subprocess.run(["sh", "-c", shell], cwd=ROOT, check=True)
    (call,) = desk.recorder.take()
    assert (call["command"], call["ifname"], call["netns"]) == ("DEL", "net1", netns)


def test_a_check_of_what_was_never_attached_says_how_to(desk: Desk) -> None:
    desk.network()
    assert desk.run("check", "net", NETNS, "-i", "net1") == 1
    assert CONTAINER in desk.err
    shown, attaching = hints(desk)
    assert shown == f"this shows what is attached: cnitool list --cache-dir {desk.cache}"
    assert f"cnitool add net {NETNS} -i net1" in attaching


@pytest.mark.parametrize("verb", ["add", "check", "del"])
def test_no_path_is_not_the_working_directory(desk: Desk, verb: str) -> None:
    desk.network()
    assert desk.run(verb, "net", "") == 1
    assert desk.err.startswith("Error: the path of the namespace is empty\nDetails: ")
    assert desk.recorder.take() == []


def test_a_relative_path_from_a_directory_that_is_gone(desk: Desk, tmp_path: pathlib.Path) -> None:
    desk.network()
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone}; rmdir {gone}; exec {sys.executable} -m libcni.cnitool add net netns/blue"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: cannot tell where 'netns/blue' is: ")
    assert "Traceback" not in done.stderr
    assert desk.recorder.take() == []
    assert json.loads((desk.net_d / "10-net.conflist").read_text())["name"] == "net"


def test_nothing_is_to_be_mended_in_cap_args_that_were_not_given(desk: Desk) -> None:
    desk.recorder.plugin("bridge")
    msg = "no IP ranges specified; set ipam.ranges, ipam.subnet or runtimeConfig.ipRanges"
    desk.recorder.fail("bridge", "ADD", INVALID_NETWORK_CONFIG, msg)
    desk.write("10.conflist", bridge(ipam={"type": "host-local"}))
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == ["`cnitool validate` says what is wrong in the configuration files"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nonexistent", "it is /nonexistent, and there is no /nonexistent"),
        ("/nonexistent:/", "it is /nonexistent:/, and there is no /nonexistent"),
        ("/:", "it is /"),
    ],
)
def test_a_plugin_that_is_not_found_is_no_slip(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    desk.write("10.conflist", bridge())
    monkeypatch.setenv("CNI_PATH", path)
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == [f"set CNI_PATH to the directories with plugins; {words}"]


def test_the_check_of_a_namespace_that_is_gone(desk: Desk) -> None:
    desk.network()
    assert desk.run("add", "net", NETNS) == 0
    desk.recorder.fail("one", "CHECK", INVALID_NETNS, f'failed to open netns "{NETNS}"')
    assert desk.run("check", "net", NETNS) == 1
    (only,) = hints(desk)
    assert only.endswith(
        f"to remove what is left of it: cnitool del net {NETNS} --cache-dir {desk.cache}"
    )
    desk.recorder.fail("one", "ADD", INVALID_NETNS, f'failed to open netns "{NETNS}"')
    assert desk.run("add", "net", "/run/netns/red") == 1
    assert hints(desk) == ["`ip netns add NAME` makes a namespace at /run/netns/NAME"]


def test_a_name_of_ip_netns_is_not_its_path(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(settings, "NAMED_NAMESPACES", str(tmp_path / "netns"))
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns/p1").touch()
    monkeypatch.chdir(tmp_path)
    meant = f"did you mean {tmp_path}/netns/p1?"
    desk.network()
    desk.recorder.fail("one", "ADD", INVALID_NETNS, "failed to open netns")
    assert desk.run("add", "net", "p1") == 1
    assert hints(desk) == [meant]
    assert desk.run("check", "net", "p1") == 1
    assert hints(desk)[0] == meant
    assert desk.run("del", "net", "p1") == 0
    assert desk.err == f"warning: nothing is at {tmp_path}/p1; {meant}\n"
    (tmp_path / "p1").touch()
    assert desk.run("del", "net", "p1") == 0
    assert desk.err == ""


def test_a_failed_status_says_who_spoke(desk: Desk) -> None:
    two_plugins(desk)
    desk.recorder.fail("two", "STATUS", PLUGIN_NOT_AVAILABLE, "no subnet file")
    assert desk.run("status", "net") == 1
    assert desk.err.splitlines() == [
        'Error: plugin type="two" failed (status): no subnet file',
        "Code: 50",
    ]


def test_a_plugin_that_is_not_found_fails_the_del_too(desk: Desk) -> None:
    plugins = [{"type": "one"}, {"type": "firewal"}]
    desk.write("10.conflist", {"cniVersion": "1.1.0", "name": "net", "plugins": plugins})
    assert desk.run("add", "net", NETNS) == 1
    meant, _, last = hints(desk)
    assert meant == "did you mean firewall?"
    assert last == (
        "the plugins before it have attached it already; first correct the configuration or "
        "CNI_PATH, as del asks this plugin too; then, to remove what is left: "
        f"cnitool del net {NETNS} --cache-dir {desk.cache}"
    )


RED = "/run/netns/red"
HELD = [
    "requested IP address 10.0.0.50 is not available; reserved for container {} interface {}",
    "address 10.0.0.50 of network net is held by container {} interface {}; detach that one first",
    "hostPort 80/tcp for network net, container c, interface eth0 is taken by network net, "
    "container {}, interface {}",
]


@pytest.mark.parametrize("text", HELD)
def test_what_another_has_is_freed_by_that_ones_del(desk: Desk, text: str) -> None:
    desk.network()
    assert desk.run("add", "net", RED) == 0
    assert desk.run("add", "net", RED, "-i", "net1") == 0
    red = settings.container_id(RED)
    delete = f"this detaches that, if nothing uses it: cnitool del net {RED}"
    for ifname, option in (("eth0", ""), ("net1", " -i net1")):
        desk.recorder.fail("one", "ADD", CONFLICT, text.format(red, ifname))
        assert desk.run("add", "net", NETNS) == 1
        assert hints(desk) == [f"{RED} has it; {delete}{option} --cache-dir {desk.cache}"]
    desk.recorder.fail("one", "ADD", CONFLICT, text.format(CONTAINER, "eth0"))
    assert desk.run("add", "net", NETNS) == 1
    (only,) = hints(desk)
    assert only.startswith("if an ADD that was cut short left it, this removes it: cnitool del")


@pytest.mark.parametrize("text", HELD)
def test_no_del_is_advised_for_a_holder_that_is_not_known(desk: Desk, text: str) -> None:
    desk.network()
    desk.recorder.fail("one", "ADD", CONFLICT, text.format("cnitool-0123456789", "eth0"))
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == []
    # A runtime's container: its ID is not the one that cnitool makes of its namespace.
    runtimes = NetworkAttachment("pod", "net", "eth0", b"{}", RED, result=RESULT)
    Cache(desk.cache).add(runtimes)
    desk.recorder.fail("one", "ADD", CONFLICT, text.format("pod", "eth0"))
    assert desk.run("add", "net", NETNS) == 1
    assert hints(desk) == []


def test_what_the_plugins_before_it_left_goes_before_what_another_has(desk: Desk) -> None:
    two_plugins(desk)
    assert desk.run("add", "net", RED) == 0
    text = HELD[-1].format(settings.container_id(RED), "eth0")
    desk.recorder.fail("two", "ADD", CONFLICT, text)
    assert desk.run("add", "net", NETNS) == 1
    first, second = hints(desk)
    assert f"to remove what is left: cnitool del net {NETNS}" in first
    assert f"{RED} has it; " in second


@pytest.mark.parametrize(
    ("stderr", "end", "is_left"),
    [
        ("", "exit 1", False),
        ("about something else\\n", "exit 1", False),
        ("a line\\nundo: cannot delete veth0\\n", "exit 1", True),
        ("", "kill -9 $$", True),
    ],
)
def test_a_plugin_of_ours_that_has_undone_its_add_has_left_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, stderr: str, end: str, is_left: bool
) -> None:
    desk.network()
    program = desk.recorder.directory / "one"
    answer = json.dumps({"code": KERNEL, "msg": "no buffers"})
    program.write_text(f"#!/bin/sh\nprintf '{stderr}' >&2\necho '{answer}'\n{end}\n")
    for ours in (False, True):
        monkeypatch.setattr(boot, "program", str(program) if ours else "/proc/self/exe")
        assert desk.run("add", "net", NETNS) == 1
        removal = f"to remove what may be left of it: cnitool del net {NETNS}"
        assert (removal in desk.err) == (is_left or not ours)
        assert "no buffers" in desk.err


def test_the_way_back_spares_what_is_there(desk: Desk) -> None:
    """The file of another network, as when this one was renamed in it."""
    file = desk.network()
    assert desk.run("add", "net", NETNS) == 0
    file.unlink()
    for name in ("net", "net-2"):
        (desk.net_d / f"{name}.conflist").write_text(
            json.dumps({"cniVersion": "1.0.0", "name": f"{name}-b", "plugins": [{"type": "x"}]})
        )
    assert desk.run("del", "net", NETNS) == 1
    assert hints(desk)[-1].endswith(f"| base64 -d >{desk.net_d}/net-3.conflist")
    shutil.rmtree(desk.net_d)
    assert desk.run("del", "net", NETNS) == 1
    assert f": mkdir -p {desk.net_d} && jq " in hints(desk)[-1]
    assert hints(desk)[-1].endswith(f"| base64 -d >{desk.net_d}/net.conflist")


@pytest.mark.parametrize("words", [["del", "net", NETNS], ["check", "net", NETNS], ["gc", "net"]])
def test_attachments_of_a_network_without_its_configuration(desk: Desk, words: list[str]) -> None:
    file = desk.network()
    assert desk.run("add", "net", NETNS) == 0
    Cache(desk.cache).add(NetworkAttachment("pod", "net", "eth0", b"{}", "", result=RESULT))
    # Of a runtime that is less strict with names than we are.
    odd = NetworkAttachment("a pod", "net", "eth0", file.read_bytes(), RED, result=RESULT)
    (desk.cache / "results/net-a pod-eth0").write_bytes(odd.encode())
    file.unlink()
    for others in ([], ["other"]):
        for name in others:
            desk.network(name)
        assert desk.run(*words) == 1
        cached, target = desk.cache / "results/net-a pod-eth0", desk.net_d / "net.conflist"
        assert hints(desk)[1:] == [
            f"the cache has an attachment to it: a pod eth0 ({RED})",
            f"the cache has an attachment to it: {CONTAINER} eth0 ({NETNS})",
            "the cache has an attachment to it: pod eth0 (its namespace is not known)",
            "del and gc need the network's configuration back to detach it",
            "the cache has it as it was at the ADD: "
            f"jq -r .config '{cached}' | base64 -d >{target}",
        ]
    assert desk.run("add", "net", NETNS) == 1
    assert len(hints(desk)) == 1
    desk.recorder.take()
    target.write_bytes(base64.b64decode(json.loads(cached.read_text())["config"]))
    assert desk.run("del", "net", NETNS) == 0
    assert [call["command"] for call in desk.recorder.take()] == ["DEL"]


def test_no_configuration_is_offered_that_is_not_cached(desk: Desk) -> None:
    for netns, config in ((NETNS, b""), (RED, b'{"cniVersion": "1.0.0", "name": "net"}')):
        container = settings.container_id(netns)
        Cache(desk.cache).add(NetworkAttachment(container, "net", "eth0", config, netns))
    assert desk.run("del", "net", NETNS) == 1
    assert hints(desk)[-1] == "del and gc need the network's configuration back to detach it"
    assert len(hints(desk)) == 4
