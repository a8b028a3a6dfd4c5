# SPDX-License-Identifier: Apache-2.0
"""A killed ADD's iptables-restore goes on; the DEL after it removes what that makes."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from libcni import orphans
from libcni.attachment import Attachment
from libcni.types.errors import TRY_AGAIN_LATER, CniError
from tests.rig.host import Host, Netns
from tests.rig.plugins import BASE_ENVIRONMENT, Runner, encode, environment
from tests.rig.snapshot import nft_lines

#: Says that it has been started, and takes its time.
_SLOW = """\
#!/bin/sh
touch {started}
sleep 1
exec /usr/sbin/{tool} "$@"
"""
_ATTACHMENT = Attachment("orphans", "c1", "eth0")
#: Holds, and says so; then a child of it has the socket and it ends.
_HOLDER = """\
import subprocess, sys
from libcni import orphans
from libcni.attachment import Attachment
orphans.hold(Attachment("orphans", "c1", "eth0"))
subprocess.Popen(["sleep", sys.argv[1]], close_fds=False, stdout=subprocess.DEVNULL)
"""


def listeners() -> int:
    """How many sockets of ours listen on this host."""
    lines = pathlib.Path("/proc/net/unix").read_text().splitlines()
    return sum("@adder:" in line and line.split()[3] == "00010000" for line in lines)


@pytest.fixture
def slow_tools(tmp_path: pathlib.Path) -> tuple[str, pathlib.Path]:
    """A PATH on which iptables-restore is slow, and the file that says it runs."""
    started = tmp_path / "started"
    for tool in ("iptables-restore", "ip6tables-restore"):
        (tmp_path / tool).write_text(_SLOW.format(started=started, tool=tool))
        (tmp_path / tool).chmod(0o755)
    return f"{tmp_path}:{BASE_ENVIRONMENT['PATH']}", started


def configs(netns: Netns) -> dict[str, dict[str, Any]]:
    """A configuration with the iptables backend, by plugin."""
    base = {
        "cniVersion": "1.0.0",
        "name": "orphans",
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "sandbox": netns.path}],
            "ips": [{"address": "10.209.0.2/24", "interface": 0}],
        },
    }
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    runtime = {"portMappings": [mapping]}
    bridge = {
        "cniVersion": "1.0.0",
        "name": "orphans",
        "type": "bridge",
        "bridge": "orphans0",
        "ipMasq": True,
        "ipMasqBackend": "iptables",
        "ipam": {"type": "host-local", "subnet": "10.209.0.0/24"},
    }
    return {
        "firewall": {**base, "type": "firewall", "backend": "iptables"},
        "portmap": {**base, "type": "portmap", "backend": "iptables", "runtimeConfig": runtime},
        "bridge": bridge,
    }


@pytest.mark.parametrize("plugin", ["firewall", "portmap", "bridge"])
@pytest.mark.expect_leftovers("what iptables makes for all containers stays")
def test_what_a_killed_adds_tool_makes_goes_with_the_del(
    host: Host,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    slow_tools: tuple[str, pathlib.Path],
    plugin: str,
) -> None:
    path, started = slow_tools
    container = netns()
    config = configs(container)[plugin]
    env = environment("ADD", run_plugin.bin_dir, container, "c1", "eth0")
    with subprocess.Popen(
        [run_plugin.bin_dir / plugin],
        env={**env, "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(encode(config))
        process.stdin.close()
        deadline = time.monotonic() + 30
        while not started.exists():
            assert time.monotonic() < deadline, "iptables-restore was not started"
            time.sleep(0.005)
        process.kill()
    # As a runtime has it: no result is known.
    config.pop("prevResult", None)
    run_plugin(plugin, "DEL", config, netns=container, container_id="c1").succeeded()
    while listeners():
        time.sleep(0.01)  # whatever still ran would be done by then
    left = [line for line in nft_lines() if "10.209.0.2" in line or "CNI-DN-" in line]
    assert left == []


def test_wait_ends_with_the_last_that_has_the_socket(host: Host) -> None:
    subprocess.run([sys.executable, "-c", _HOLDER, "1"], check=True)
    assert listeners() == 1  # it has ended, and its child has the socket
    orphans.wait(_ATTACHMENT)
    assert listeners() == 0
    orphans.wait(_ATTACHMENT)


def test_a_wait_that_does_not_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "LOCK_TIMEOUT", 0.05)
    subprocess.run([sys.executable, "-c", _HOLDER, "2"], check=True)
    with pytest.raises(CniError, match="cni:orphans:c1:eth0") as caught:
        orphans.wait(_ATTACHMENT)
    assert caught.value.code == TRY_AGAIN_LATER
    orphans.wait(Attachment("orphans", "c2", "eth0"))


def test_a_socket_of_another_user_is_none_of_ours(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", _HOLDER, "8"], check=True)
    monkeypatch.setattr("posix.geteuid", lambda: os.geteuid() + 1)
    orphans.wait(_ATTACHMENT)
    orphans.hold(_ATTACHMENT)
    assert listeners() == 1  # it was not waited for
    assert orphans._held == {}


def test_more_wait_than_there_is_room_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has no place for another connection: that is not "nobody listens"."""
    subprocess.run([sys.executable, "-c", _HOLDER, "2"], check=True)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(orphans._BACKLOG + 1)]
    try:
        for each in waiting:
            each.setblocking(False)
            each.connect(orphans._name(_ATTACHMENT))
        with monkeypatch.context() as patch:
            patch.setattr(orphans, "LOCK_TIMEOUT", 0.05)
            with pytest.raises(CniError, match="is still running") as caught:
                orphans.wait(_ATTACHMENT)
        assert caught.value.code == TRY_AGAIN_LATER
        assert listeners() == 1
        orphans.wait(_ATTACHMENT)
        assert listeners() == 0
    finally:
        for each in waiting:
            each.close()
