# SPDX-License-Identifier: Apache-2.0
"""DEL of the bridge plugin: nothing is left, whatever is missing already."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from libcni.attempts import Attempts
from libcni.interface import removal
from libcni.interface.removal import Removal
from libcni.netlink import link as link_messages
from libcni.netlink.codec import Message
from libcni.netlink.link import find_link, watch_links
from libcni.netlink.socket import Socket
from libcni.types.errors import IO_FAILURE, TRY_AGAIN_LATER, CniError
from tests.netns.bridge_network import (
    BRIDGE,
    CONFIG,
    LAYER2,
    Pod,
    PodFactory,
    changed,
    pod,
    reserved,
)
from tests.rig.capabilities import WITHOUT_NET_ADMIN
from tests.rig.host import Host
from tests.rig.killed import killed_after
from tests.rig.plugins import Reply, environment, reply

__all__ = ["pod"]

MASQUERADED = changed(CONFIG, ipMasq=True, macspoofchk=True)


@pytest.mark.parametrize("previous", [True, False], ids=["prevResult", "no-prevResult"])
@pytest.mark.parametrize("state", ["there", "empty", "gone", "not-mounted", "no-interface"])
@pytest.mark.parametrize("synchronous", [None, "1"], ids=["detached", "sync"])
def test_no_trace_is_left(
    host: Host, pod: PodFactory, previous: bool, state: str, synchronous: str | None
) -> None:
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    one.add(MASQUERADED)
    config = one.with_result() if previous else MASQUERADED
    path = one.netns.path
    if state == "empty":
        path = ""
    elif state == "gone":
        one.netns.delete()
    elif state == "not-mounted":
        host.run("umount", path)
    elif state == "no-interface":
        one.netns.run("ip", "link", "delete", "eth0")
    for _ in range(2):
        one.call("DEL", config, netns=path, CNI_SYNC_DEL=synchronous).succeeded()
        host.assert_clean(before, BRIDGE)
        assert reserved() == set()
    if state in ("there", "empty", "no-interface"):
        assert inside.difference(one.netns.snapshot()) == []


def test_unknown_attachment(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    pod().call("DEL", MASQUERADED).succeeded()
    host.assert_undone(before)


def test_layer_2(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one = pod()
    one.add(LAYER2)
    one.delete()
    host.assert_clean(before, BRIDGE)


def test_gone_at_once(host: Host, pod: PodFactory) -> None:
    """Neither end can be seen when the plugin has returned, though the kernel is still busy."""
    one = pod()
    for _ in range(10):
        one.add(CONFIG)
        one.delete()
        assert not pathlib.Path(f"/proc/sys/net/ipv4/conf/{one.veth}").exists()
        assert one.veth not in host.link_names()
        assert one.netns.link_names() == {"lo"}


def test_detached_child_holds_no_pipe(host: Host, pod: PodFactory) -> None:
    """The runtime sees the end of stdout and stderr when the plugin ends, not 15 ms later."""
    one = pod()
    one.add(CONFIG)
    env = environment("DEL", one._runner.bin_dir, one.netns, one.container_id, "eth0")
    process = subprocess.Popen(
        [one._runner.bin_dir / "bridge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        process_group=0,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(CONFIG).encode())
    process.stdin.close()
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert process.stdout is not None and process.stderr is not None
    for stream in (process.stdout, process.stderr):
        os.set_blocking(stream.fileno(), False)
        assert stream.read() == b""  # end of file, not "nothing yet", which is None
    assert process.wait() == 0


def under(wrapper: Sequence[str], one: Pod, config: dict[str, Any], netns: str) -> Reply:
    """DEL by a plugin that another program starts."""
    done = subprocess.run(
        [*wrapper, str(one._runner.bin_dir / "bridge")],
        input=json.dumps(config).encode(),
        env=environment("DEL", one._runner.bin_dir, netns, one.container_id, "eth0"),
        capture_output=True,
        check=False,
    )
    return reply(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("config", [CONFIG, MASQUERADED], ids=["plain", "masqueraded"])
def test_working_directory_is_free_at_once(
    pod: PodFactory, tmp_path: pathlib.Path, config: dict[str, Any]
) -> None:
    """A runtime may call from a mount of the container's, and unmount that next."""
    for _ in range(5):
        one = pod()
        one.add(config)
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
        answer = under(["env", "-C", str(tmp_path)], one, one.with_result(), one.netns.path)
        done = subprocess.run(["umount", tmp_path], capture_output=True, text=True, check=False)
        answer.succeeded()
        assert done.returncode == 0, done.stderr


def test_error_of_the_child_is_not_lost(host: Host, pod: PodFactory) -> None:
    """Without CAP_NET_ADMIN links can be seen, but not deleted."""
    one = pod()
    one.add(CONFIG)
    error = under(WITHOUT_NET_ADMIN, one, CONFIG, one.netns.path).failed(102, one.veth)
    assert "delete link" in error["msg"]
    assert one.veth in host.link_names() and reserved() == set()
    one.delete()


@pytest.mark.parametrize("key", ["ipMasq", "macspoofchk"])
def test_what_may_not_be_removed_is_told(host: Host, pod: PodFactory, key: str) -> None:
    """Without CAP_NET_ADMIN, where there is no link any more whose removal would fail."""
    one = pod()
    config = changed(CONFIG, **{key: True})
    one.add(config)
    host.run("ip", "link", "delete", one.veth)
    error = under(WITHOUT_NET_ADMIN, one, config, one.netns.path).failed(102, "nftables")
    assert "Operation not permitted" in error["msg"]
    assert reserved() == set()
    one.delete()


def test_child_that_died(host: Host) -> None:
    host.run("ip", "link", "add", "veth-x", "type", "veth", "peer", "other")
    link = find_link(Socket(), "veth-x")
    assert link is not None
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(CniError, match="veth-x ended without an answer") as caught:
        Removal(link, watch_links(), reader).finish()
    assert caught.value.code == TRY_AGAIN_LATER


def test_the_child_holds_what_is_slow_to_close(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.run("ip", "link", "add", "veth-x", "type", "veth", "peer", "other")
    sock = Socket()
    link = find_link(sock, "veth-x")
    assert link is not None
    reader, writer = os.pipe()

    def delete_link(index: int) -> Message:
        os.write(writer, b"held")
        return link_messages.delete_link(index=index)

    monkeypatch.setattr(removal, "delete_link", delete_link)
    begun = removal.remove_links(sock, [link], [writer])
    os.close(writer)
    assert begun is not None
    assert os.read(reader, 4) == b"held"
    os.close(reader)
    begun.finish()
    os.wait()
    assert "veth-x" not in host.link_names()


def test_no_process_left(host: Host, pod: PodFactory) -> None:
    """fork fails (EAGAIN): what a child would have done is done all the same."""
    before = host.snapshot()
    one = pod()
    one.add(MASQUERADED)
    # The limit is for everybody but root: a user of its own, with just what DEL needs.
    capabilities = "+net_admin,+dac_override"
    wrapper = ["setpriv", "--reuid", "54321", "--clear-groups", "--inh-caps", capabilities]
    wrapper += ["--ambient-caps", capabilities, "prlimit", "--nproc=1"]
    forks = subprocess.run([*wrapper, "sh", "-c", "true | true"], capture_output=True, check=False)
    assert b"fork" in forks.stderr
    under(wrapper, one, one.with_result(), "").succeeded()
    host.assert_clean(before, BRIDGE)
    assert reserved() == set()


@pytest.mark.parametrize("limit", range(8, 16))
def test_no_descriptor_left(host: Host, pod: PodFactory, limit: int) -> None:
    """An error is told as one, and the next DEL finishes what this one could not."""
    before = host.snapshot()
    one = pod()
    one.add(CONFIG)
    answer = under(["prlimit", f"--nofile={limit}"], one, CONFIG, one.netns.path)
    assert answer.rc == 0 or answer.json["code"] != 999, answer
    if answer.rc == 0:
        host.assert_clean(before, BRIDGE)
    one.delete()
    host.assert_clean(before, BRIDGE)
    assert reserved() == set()


def test_all_steps_are_tried() -> None:
    attempts = Attempts()
    done: list[int] = []
    attempts.attempt(os.open, "/nonexistent", os.O_RDONLY)
    attempts.attempt(done.append, 1)
    with pytest.raises(CniError, match="/nonexistent") as caught:
        attempts.report()
    assert caught.value.code == IO_FAILURE and done == [1]


@pytest.mark.parametrize("kind", ["bridge", "veth", "veth to the host"])
def test_an_interface_that_is_not_ours_stays(host: Host, pod: PodFactory, kind: str) -> None:
    """Made by hand, though it is named CNI_IFNAME."""
    one, two = pod(), pod()
    two.add(CONFIG)
    words = ["peer", "name", "hand0"] + (["netns", str(os.getpid())] if "to" in kind else [])
    one.netns.run(
        "ip", "link", "add", "eth0", "type", kind.split()[0], *(words if "veth" in kind else [])
    )
    before, inside = host.snapshot(), one.netns.snapshot()
    one.call("DEL", CONFIG).succeeded()
    host.assert_unchanged(before)
    assert inside.difference(one.netns.snapshot()) == []


def test_a_port_that_lost_its_name_is_deleted(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one = pod()
    one.add(CONFIG)
    host.run("ip", "link", "set", one.veth, "down")
    host.run("ip", "link", "set", one.veth, "name", "renamed0", "nomaster")
    one.call("DEL", CONFIG).succeeded()
    host.assert_clean(before, BRIDGE)
    assert one.netns.link_names() == {"lo"}


def test_an_alias_of_somebody_s_proves_nothing(host: Host, pod: PodFactory) -> None:
    """Only prevResult, by the MAC address, then says that the interface is the attachment's."""
    before = host.snapshot()
    one = pod()
    one.add(CONFIG)
    host.run("ip", "link", "set", one.veth, "name", "renamed0", "alias", "theirs")
    one.call("DEL", CONFIG).succeeded()
    assert one.netns.link_names() == {"lo", "eth0"}
    one.call("DEL", one.with_result()).succeeded()
    host.assert_clean(before, BRIDGE)
    assert one.netns.link_names() == {"lo"}


def test_own_namespace_is_refused(host: Host, pod: PodFactory) -> None:
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    one = pod()
    one.call("DEL", CONFIG, netns="/proc/self/ns/net").failed(8, "same")
    assert "eth0" in host.link_names()


def test_strangers_with_our_names_are_left_alone(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(CONFIG)
    name = one.veth
    one.delete()
    host.run("ip", "link", "add", name, "type", "veth", "peer", "theirs")
    before = host.snapshot()
    one.call("DEL", one.with_result()).succeeded()
    one.call("DEL", one.with_result(), netns="").succeeded()
    host.assert_clean(before, BRIDGE)
    one.add(CONFIG)
    assert one.veth != name
    one.delete()
    host.assert_clean(before, BRIDGE)


def test_damaged_prev_result_does_not_matter(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    for damaged in ({"ips": "x"}, {"cniVersion": "9.9.9"}, {"ips": [{"address": "nonsense"}]}):
        one = pod()
        one.add(MASQUERADED)
        one.call("DEL", changed(MASQUERADED, prevResult=damaged)).succeeded()
    host.assert_clean(before, BRIDGE)


def test_changed_configuration_does_not_matter(host: Host, pod: PodFactory) -> None:
    before = host.snapshot()
    one = pod()
    one.add(MASQUERADED)
    config = changed(MASQUERADED, bridge="other", mtu=5, vlan="x", hairpinMode=True, promiscMode=7)
    one.call("DEL", config).succeeded()
    host.assert_clean(before, BRIDGE)


@pytest.mark.parametrize("backend", [None, "nftables", "iptables"])
@pytest.mark.parametrize("keys", [("ipMasq",), ("macspoofchk",), ("ipMasq", "macspoofchk")])
def test_keys_dropped_since_the_add(
    host: Host, pod: PodFactory, keys: tuple[str, ...], backend: str | None
) -> None:
    """What ADD made goes, though the configuration no longer asks for it."""
    before = host.snapshot()
    one, other = pod(), pod()
    config = changed(MASQUERADED, ipMasqBackend=backend)
    one.add(config)
    other.add(config)
    dropped: dict[str, Any] = dict.fromkeys(keys)
    one.call("DEL", changed(config, **dropped)).succeeded()
    assert one.address() not in host.run("nft", "list", "ruleset")
    assert one.container_id not in host.run("nft", "list", "ruleset")
    other.check().succeeded()
    other.call("DEL", changed(other.with_result(), **dropped)).succeeded()
    host.assert_clean(before, BRIDGE)


def test_everything_is_tried_when_a_step_fails(host: Host, pod: PodFactory) -> None:
    one = pod()
    one.add(MASQUERADED)
    broken = changed(MASQUERADED, ipam={"type": "no-such-plugin"})
    error = one.call("DEL", broken).failed(one.call("DEL", broken).json["code"], "no-such-plugin")
    assert error
    assert one.veth not in host.link_names()
    assert one.address() not in host.run("nft", "list", "ruleset")
    assert reserved()
    one.delete()
    assert not reserved()


def _killed_add(pod: Pod, config: dict[str, Any], delay: float) -> None:
    env = environment("ADD", pod._runner.bin_dir, pod.netns, pod.container_id, "eth0")
    killed_after(delay, pod._runner.bin_dir / "bridge", env, json.dumps(config).encode())


@pytest.mark.parametrize("step", range(0, 60, 3))
def test_killed_add_is_cleaned_up(host: Host, pod: PodFactory, step: int) -> None:
    """SIGKILL after `step` ms: DEL removes what there is, and a new ADD works."""
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    _killed_add(one, MASQUERADED, step / 1000)
    one.call("DEL", MASQUERADED, netns="").succeeded()
    host.assert_clean(before, BRIDGE)
    assert inside.difference(one.netns.snapshot()) == []
    one.add(MASQUERADED)
    host.ping(one.address())


def test_leftover_in_another_namespace_is_replaced(host: Host, pod: PodFactory) -> None:
    """A killed ADD of this very attachment, whose container came back in a new namespace."""
    one = pod()
    one.add(CONFIG)
    other = pod().netns
    one.netns.run("ip", "link", "set", "eth0", "netns", other.name)
    shutil.rmtree("/var/lib/cni/networks/podnet")
    one.add(CONFIG)
    assert other.link_names() == {"lo"}
    host.ping(one.address())
