# SPDX-License-Identifier: Apache-2.0
"""bridge and its IPAM: in this process, executed, foreign, failing, slow, absent."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from libcni.version import SUPPORTED
from tests.rig.host import Host, Netns
from tests.rig.plugins import Reply, Runner, encode, environment, reply

NetnsFactory = Callable[..., Netns]

BRIDGE = "deleg0"
STORE = pathlib.Path("/var/lib/cni/networks/delegation")
ANSWER = {
    "cniVersion": "1.1.0",
    "ips": [{"address": "10.208.0.7/24", "gateway": "10.208.0.1"}],
    "routes": [{"dst": "10.99.0.0/16", "priority": 7}],
    "dns": {"nameservers": ["10.208.0.2"], "search": ["a.example"]},
}


def network(version: str = "1.1.0", **changes: Any) -> dict[str, Any]:
    return {
        "cniVersion": version,
        "name": "delegation",
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.208.0.0/24"}]]},
        **changes,
    }


def with_ipam(**ipam: Any) -> dict[str, Any]:
    return network(ipam={"type": "host-local", **ipam})


def executable(path: pathlib.Path, *lines: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def wrapped(run_plugin: Runner, tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory whose host-local is another file than ours, though it runs ours."""
    script = executable(
        tmp_path / "wrapped/host-local",
        f'echo "$CNI_COMMAND" >>{tmp_path}/executed',
        f'exec {run_plugin.bin_dir}/host-local "$@"',
    )
    return script.parent


@pytest.fixture
def foreign(run_plugin: Runner, tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory with an IPAM plugin `foreign` that notes environment, stdin and descriptors.

    It answers with the file `answer`, and fails with `answer.fails` if `<COMMAND>.fails` exists.
    """
    seen = tmp_path / "seen"
    seen.mkdir()
    script = executable(
        tmp_path / "foreign/foreign",
        f"to={seen}/$(ls {seen} | grep -c stdin).$CNI_COMMAND",
        "cat >$to.stdin",
        "tr '\\0' '\\n' </proc/$$/environ >$to.environment",
        "ls /proc/$$/fd >$to.descriptors",
        # By the shell itself: while it starts another program it blocks signals for a moment.
        "while read -r name mask; do case $name in SigBlk:|SigIgn:) echo $name $mask;; esac; done"
        " </proc/$$/status >$to.signals",
        "echo said on stderr >&2",
        f"failure={tmp_path}/$CNI_COMMAND.fails",
        "if [ -e $failure ]; then cat $failure; exit 1; fi",
        f"if [ $CNI_COMMAND = ADD ]; then cat {tmp_path}/answer; fi",
    )
    (tmp_path / "answer").write_text(json.dumps(ANSWER))
    return script.parent


def seen(tmp_path: pathlib.Path, kind: str) -> list[str]:
    """What the foreign plugin noted, oldest first."""
    files = sorted((tmp_path / "seen").glob(f"*.{kind}"), key=lambda p: int(p.name.split(".")[0]))
    return [file.read_text() for file in files]


def commands(tmp_path: pathlib.Path) -> list[str]:
    files = (tmp_path / "seen").glob("*.stdin")
    return [p.name.split(".")[1] for p in sorted(files, key=lambda p: int(p.name.split(".")[0]))]


def reset(host: Host) -> None:
    """The host as before the first ADD."""
    if BRIDGE in host.link_names():
        host.run("ip", "link", "delete", BRIDGE)
    shutil.rmtree(STORE, ignore_errors=True)


def without_macs(document: Any) -> Any:
    """MAC addresses are the kernel's dice."""
    if isinstance(document, dict):
        return {key: without_macs(value) for key, value in document.items() if key != "mac"}
    if isinstance(document, list):
        return [without_macs(entry) for entry in document]
    return document


# ---- in process and executed


@pytest.mark.parametrize("version", SUPPORTED)
def test_results_do_not_depend_on_how_the_delegate_runs(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    wrapped: pathlib.Path,
    tmp_path: pathlib.Path,
    version: str,
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.1.1.1\nsearch a.example b\noptions x\n")
    ranges = [[{"subnet": "10.208.0.0/24"}], [{"subnet": "fd08::/64", "gateway": "fd08::9"}]]
    routes: list[dict[str, Any]] = [{"dst": "10.99.0.0/16", "mtu": 1400, "priority": 7}]
    routes += [{"dst": "fd99::/64", "gw": "fd08::8", "advmss": 1200}, {"dst": "0.0.0.0/0"}]
    config = network(
        version,
        ipam={
            "type": "host-local",
            "ranges": ranges,
            "routes": routes,
            "resolvConf": f"{tmp_path}/resolv.conf",
        },
    )
    answers, inside = [], []
    for directory in (run_plugin.bin_dir, wrapped):
        container = netns("same")
        result = run_plugin("bridge", "ADD", config, netns=container, path=directory).result()
        answers.append(without_macs(result))
        routes_inside = [
            line.strip()
            for family in ("-4", "-6")
            for line in container.run("ip", family, "route", "show").stdout.splitlines()
            if "proto kernel" not in line
        ]
        inside.append(routes_inside)
        run_plugin("bridge", "DEL", config, netns=container, path=directory).succeeded()
        assert not list(STORE.glob("10.*"))
        container.delete()
        reset(host)
    assert answers[0] == answers[1]
    assert inside[0] == inside[1] != []
    assert (tmp_path / "executed").read_text() == "ADD\nDEL\n"


FAILURES: dict[str, dict[str, Any]] = {
    "exhausted": with_ipam(ranges=[[{"subnet": "10.208.0.0/30"}]], exclude=["10.208.0.2"]),
    "wrong type of a key": with_ipam(ranges=[[{"subnet": 7}]]),
    "host bits": with_ipam(ranges=[[{"subnet": "10.208.0.5/24"}]]),
    "no range": with_ipam(),
    "overlap": with_ipam(ranges=[[{"subnet": "10.208.0.0/24"}], [{"subnet": "10.208.0.0/25"}]]),
    "range outside of the subnet": with_ipam(
        ranges=[[{"subnet": "10.208.0.0/24", "rangeStart": "10.209.0.1"}]]
    ),
    "data directory is a file": with_ipam(subnet="10.208.0.0/24", dataDir="/proc/version"),
    "requested address outside": network(args={"cni": {"ips": ["10.77.0.1"]}}),
}


@pytest.mark.parametrize("config", FAILURES.values(), ids=FAILURES.keys())
def test_errors_do_not_depend_on_how_the_delegate_runs(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    wrapped: pathlib.Path,
    tmp_path: pathlib.Path,
    config: dict[str, Any],
) -> None:
    before = host.snapshot()
    errors: list[Reply] = []
    for directory in (run_plugin.bin_dir, wrapped):
        container = netns("same")
        errors.append(run_plugin("bridge", "ADD", config, netns=container, path=directory))
        assert errors[-1].rc == 1
        assert container.link_names() == {"lo"}
        container.delete()
        host.assert_clean(before)
        shutil.rmtree(STORE, ignore_errors=True)
    assert errors[0].json == errors[1].json
    assert errors[0].json["code"] != 999
    assert (tmp_path / "executed").read_text() == "ADD\nDEL\n"


@pytest.mark.parametrize("command", ["CHECK", "STATUS", "DEL"])
def test_other_verbs_do_not_depend_on_it_either(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    wrapped: pathlib.Path,
    tmp_path: pathlib.Path,
    command: str,
) -> None:
    """Of an attachment whose reservation was lost, and a range that has become full."""
    small = with_ipam(ranges=[[{"subnet": "10.208.0.0/30"}]])
    container = netns()
    result = run_plugin("bridge", "ADD", small, netns=container).result()
    (reservation,) = STORE.glob("10.*")
    if command == "STATUS":
        config = small
    else:
        config = {**small, "prevResult": result}
        reservation.unlink()
    answers = [
        run_plugin("bridge", command, config, netns=container, path=directory)
        for directory in (run_plugin.bin_dir, wrapped)
    ]
    assert [a.json for a in answers[:1]] == [a.json for a in answers[1:]]
    assert answers[0].rc == answers[1].rc == (0 if command == "DEL" else 1), answers
    assert (tmp_path / "executed").read_text() == f"{command}\n"


def test_a_copy_of_ours_is_not_executed(
    netns: NetnsFactory, run_plugin: Runner, tmp_path: pathlib.Path
) -> None:
    """It could not even be: a plugin runs by its content, not by the name it was found under."""
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy2(run_plugin.bin_dir / "host-local", copies / "host-local")
    (copies / "host-local").chmod(0o644)
    result = run_plugin("bridge", "ADD", network(), netns=netns(), path=copies).result()
    assert result["ips"][0]["address"].startswith("10.208.0.")


def test_the_first_on_the_path_is_the_one(
    netns: NetnsFactory, run_plugin: Runner, wrapped: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = f"{tmp_path}/absent::{run_plugin.bin_dir}:{wrapped}"
    run_plugin("bridge", "ADD", network(), netns=netns(), path=path).result()
    assert not (tmp_path / "executed").exists()
    path = f"{wrapped}:{run_plugin.bin_dir}"
    run_plugin("bridge", "ADD", network(), netns=netns(), path=path, container_id="c2").result()
    assert (tmp_path / "executed").read_text() == "ADD\n"


def test_a_plugin_that_delegates_to_itself_ends(
    host: Host, netns: NetnsFactory, run_plugin: Runner
) -> None:
    before = host.snapshot()
    container = netns()
    config = network(ipam={"type": "bridge", "ranges": []})
    error = run_plugin("bridge", "ADD", config, netns=container, timeout=20)
    assert error.rc == 1 and error.json["code"] != 999, error
    host.assert_clean(before)
    assert container.link_names() == {"lo"}


# ---- foreign delegates


def test_a_foreign_delegate_is_called_as_the_runtime_called_us(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    foreign: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    config = network(ipam={"type": "foreign", "keys": ["of", {"its": "own"}]}, unknown=True)
    document = json.dumps(config, indent=7).encode()
    container = netns()
    path = f"{foreign}:{run_plugin.bin_dir}"
    more = {"MY_VARIABLE": "kept", "LC_ALL": "C"}
    answer = run_plugin(
        "bridge",
        "ADD",
        document,
        netns=container,
        path=path,
        args="IgnoreUnknown=1;A=b",
        variables=more,
    )
    result = answer.result()
    assert "said on stderr" in answer.stderr
    assert [ip["address"] for ip in result["ips"]] == ["10.208.0.7/24"]
    assert result["dns"] == ANSWER["dns"]
    assert container.addresses("eth0") == {"10.208.0.7/24"}
    assert "metric 7" in container.run("ip", "route", "show", "10.99.0.0/16").stdout
    assert commands(tmp_path) == ["ADD"]
    assert seen(tmp_path, "stdin") == [document.decode()], "not the very bytes"
    given = dict(line.split("=", 1) for line in seen(tmp_path, "environment")[0].splitlines())
    expected = (
        environment("ADD", path, container, "container-1", "eth0", "IgnoreUnknown=1;A=b") | more
    )
    assert {key: value for key, value in given.items() if key != "PWD"} == expected
    # 10 and 11 are the shell's own: its script, and stdout while it is redirected.
    assert set(seen(tmp_path, "descriptors")[0].split()) <= {"0", "1", "2", "10", "11"}
    # 32 and 33 are the C library's own, which posix_spawn ignores; 1 is ignored under nohup.
    ours = 0x7FFF_FFFE if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else 0x7FFF_FFFF
    for line in seen(tmp_path, "signals")[0].splitlines():
        assert int(line.split()[1], 16) & ours == 0, "signals blocked or ignored"


def test_check_status_and_gc_reach_it(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    foreign: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    config = network(ipam={"type": "foreign"})
    container = netns()
    call: dict[str, Any] = {"netns": container, "path": foreign}
    result = run_plugin("bridge", "ADD", config, **call).result()
    run_plugin("bridge", "CHECK", {**config, "prevResult": result}, **call).succeeded()
    run_plugin("bridge", "STATUS", config, path=foreign).succeeded()
    valid = [{"containerID": "container-1", "ifname": "eth0"}]
    run_plugin("bridge", "GC", {**config, "cni.dev/valid-attachments": valid}, **call).succeeded()
    run_plugin("bridge", "DEL", {**config, "prevResult": result}, **call).succeeded()
    assert commands(tmp_path) == ["ADD", "CHECK", "STATUS", "GC", "DEL"]
    for position, command in ((1, "CHECK"), (4, "DEL")):
        assert json.loads(seen(tmp_path, "stdin")[position])["prevResult"] == result, command
    assert json.loads(seen(tmp_path, "stdin")[3])["cni.dev/valid-attachments"] == valid


@pytest.mark.parametrize(
    "answer",
    [
        {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.208.0.7/24"}]},
        {"cniVersion": "0.2.0", "ip4": {"ip": "10.208.0.7/24"}},
        {"ips": [{"address": "10.208.0.7/24"}]},
    ],
)
def test_its_result_may_be_of_another_version(
    netns: NetnsFactory,
    run_plugin: Runner,
    foreign: pathlib.Path,
    tmp_path: pathlib.Path,
    answer: dict[str, Any],
) -> None:
    (tmp_path / "answer").write_text(json.dumps(answer))
    config = network("1.0.0", ipam={"type": "foreign"})
    result = run_plugin("bridge", "ADD", config, netns=netns(), path=foreign).result()
    assert result["cniVersion"] == "1.0.0"
    assert [ip["address"] for ip in result["ips"]] == ["10.208.0.7/24"]


def test_its_error_becomes_ours_and_its_del_follows(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    foreign: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    error = {"cniVersion": "0.1.0", "code": 123, "msg": "no ä left", "details": "buy more"}
    (tmp_path / "ADD.fails").write_text(json.dumps(error))
    before = host.snapshot()
    container = netns()
    config = network(ipam={"type": "foreign"})
    answer = run_plugin("bridge", "ADD", config, netns=container, path=foreign)
    assert answer.failed(123, "no ä left", "buy more") == {**error, "cniVersion": "1.1.0"}
    assert commands(tmp_path) == ["ADD", "DEL"]
    host.assert_clean(before)
    assert container.link_names() == {"lo"}


def test_its_del_follows_a_failure_of_ours(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    foreign: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    answer = {**ANSWER, "routes": [{"dst": "10.99.0.0/16", "gw": "10.250.0.1"}]}
    (tmp_path / "answer").write_text(json.dumps(answer))
    before = host.snapshot()
    config = network(ipam={"type": "foreign"})
    error = run_plugin("bridge", "ADD", config, netns=netns(), path=foreign).failed(102)
    assert "10.250.0.1" in f"{error}" or "10.99.0.0/16" in f"{error}"
    assert commands(tmp_path) == ["ADD", "DEL"]
    host.assert_clean(before)


def test_a_delegate_whose_del_fails_too_does_not_stop_the_undoing(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    foreign: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "ADD.fails").write_text('{"code": 123, "msg": "first"}')
    (tmp_path / "DEL.fails").write_text('{"code": 124, "msg": "second"}')
    before = host.snapshot()
    config = network(ipam={"type": "foreign"})
    answer = run_plugin("bridge", "ADD", config, netns=netns(), path=foreign)
    answer.failed(123, "first")
    assert "second" in answer.stderr
    host.assert_clean(before)


def test_a_failing_del_is_told_and_all_else_is_removed(
    host: Host,
    netns: NetnsFactory,
    run_plugin: Runner,
    foreign: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    config = network(ipam={"type": "foreign"}, ipMasq=True)
    before = host.snapshot()
    container = netns()
    run_plugin("bridge", "ADD", config, netns=container, path=foreign).result()
    (tmp_path / "DEL.fails").write_text('{"code": 124, "msg": "not now"}')
    run_plugin("bridge", "DEL", config, netns=container, path=foreign).failed(124, "not now")
    host.assert_clean(before, BRIDGE)
    assert container.link_names() == {"lo"}
    (tmp_path / "DEL.fails").unlink()
    run_plugin("bridge", "DEL", config, netns=container, path=foreign).succeeded()


def test_failing_check_and_status_are_told(
    netns: NetnsFactory, run_plugin: Runner, foreign: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = network(ipam={"type": "foreign"})
    container = netns()
    result = run_plugin("bridge", "ADD", config, netns=container, path=foreign).result()
    for command, document in (("CHECK", {**config, "prevResult": result}), ("STATUS", config)):
        (tmp_path / f"{command}.fails").write_text('{"code": 50, "msg": "no backend"}')
        answer = run_plugin("bridge", command, document, netns=container, path=foreign)
        answer.failed(50, "no backend")


def test_a_missing_delegate_is_named_and_nothing_is_left(
    host: Host, netns: NetnsFactory, run_plugin: Runner
) -> None:
    before = host.snapshot()
    container = netns()
    config = network(ipam={"type": "no-such-ipam"})
    answer = run_plugin("bridge", "ADD", config, netns=container)
    answer.failed(7, 'failed to find plugin "no-such-ipam"', str(run_plugin.bin_dir))
    host.assert_clean(before)
    assert container.link_names() == {"lo"}


def test_a_delegate_that_cannot_be_executed(
    host: Host, netns: NetnsFactory, run_plugin: Runner, tmp_path: pathlib.Path
) -> None:
    for name, data, mode in (("no-right", b"#!/bin/sh\n", 0o644), ("no-program", b"\0", 0o755)):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(mode)
        before = host.snapshot()
        config = network(ipam={"type": name})
        answer = run_plugin("bridge", "ADD", config, netns=netns(), path=tmp_path)
        answer.failed(104, f"{tmp_path}/{name}")
        host.assert_clean(before)


def test_a_slow_delegate_is_waited_for(
    netns: NetnsFactory, run_plugin: Runner, tmp_path: pathlib.Path
) -> None:
    """Even one that leaves something behind which holds its stdout."""
    answer = json.dumps(ANSWER)
    executable(tmp_path / "slow", "cat >/dev/null", "sleep 30 &", "sleep 1.5", f"echo '{answer}'")
    began = time.monotonic()
    config = network(ipam={"type": "slow"})
    run_plugin("bridge", "ADD", config, netns=netns(), path=tmp_path, timeout=25).result()
    assert 1.4 < time.monotonic() - began < 15


def test_a_signal_ends_a_slow_delegate_and_undoes_all(
    host: Host, netns: NetnsFactory, run_plugin: Runner, tmp_path: pathlib.Path
) -> None:
    executable(
        tmp_path / "slow",
        f"echo $CNI_COMMAND >>{tmp_path}/calls",
        "cat >/dev/null",
        "[ $CNI_COMMAND = DEL ] && exit 0",
        f"trap 'echo ended >>{tmp_path}/calls; exit 1' TERM",
        f"touch {tmp_path}/started",
        "while :; do sleep 0.05; done",
    )
    before = host.snapshot()
    container = netns()
    process = subprocess.Popen(
        [run_plugin.bin_dir / "bridge"],
        env=environment("ADD", tmp_path, container, "c1", "eth0"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(encode(network(ipam={"type": "slow"})))
    process.stdin.close()
    process.stdin = None
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=15)
    reply(process.returncode, stdout, stderr).failed(11, "signal 15")
    assert (tmp_path / "calls").read_text().split() == ["ADD", "ended", "DEL"]
    host.assert_clean(before)
    assert container.link_names() == {"lo"}


def test_go_host_local_under_our_bridge(
    host: Host, netns: NetnsFactory, run_plugin: Runner, go_bin_dir: pathlib.Path
) -> None:
    before = host.snapshot()
    container = netns()
    config = network("1.0.0")
    call: dict[str, Any] = {"netns": container, "path": go_bin_dir}
    result = run_plugin("bridge", "ADD", config, **call).result()
    address = result["ips"][0]["address"].split("/")[0]
    container.ping("10.208.0.1")
    assert (STORE / address).read_bytes() == b"container-1\r\neth0"
    run_plugin("bridge", "CHECK", {**config, "prevResult": result}, **call).succeeded()
    run_plugin("bridge", "DEL", {**config, "prevResult": result}, **call).succeeded()
    assert not (STORE / address).exists()
    host.assert_clean(before, BRIDGE)


def test_our_host_local_under_the_bridge_of_go(
    host: Host, netns: NetnsFactory, run_plugin: Runner, go_bin_dir: pathlib.Path
) -> None:
    before = host.snapshot()
    container = netns()
    config = network("1.0.0")
    call: dict[str, Any] = {"netns": container, "bin_dir": go_bin_dir, "path": run_plugin.bin_dir}
    result = run_plugin("bridge", "ADD", config, **call).result()
    address = result["ips"][0]["address"].split("/")[0]
    container.ping("10.208.0.1")
    assert os.path.exists(STORE / address)
    run_plugin("bridge", "CHECK", {**config, "prevResult": result}, **call).succeeded()
    run_plugin("bridge", "DEL", {**config, "prevResult": result}, **call).succeeded()
    assert not (STORE / address).exists()
    host.assert_clean(before, BRIDGE)


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
@pytest.mark.parametrize(
    ("type", "words"),
    [("bridge", "would be its own delegate: bridge → bridge"), ("cnitool", "is not a plugin")],
)
def test_what_cannot_be_an_ipam_plugin(
    run_plugin: Runner, netns: NetnsFactory, host: Host, type: str, words: str, verb: str
) -> None:
    before = host.snapshot()
    reply = run_plugin("bridge", verb, network(ipam={"type": type}), netns=netns())
    reply.failed(7, words, "ipam.type")
    host.assert_unchanged(before)


def test_loopback_as_a_delegate_leaves_its_caller_where_it_was(
    run_plugin: Runner, netns: NetnsFactory, host: Host
) -> None:
    before = host.snapshot()
    config = network(isGateway=False, ipam={"type": "loopback"})
    # Its addresses are of no use to a bridge, which is noticed after it has run: what was made
    # until then can only be undone from the host's side.
    run_plugin("bridge", "ADD", config, netns=netns()).failed(102, "/128")
    host.assert_unchanged(before)
