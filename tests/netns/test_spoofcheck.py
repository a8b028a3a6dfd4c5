# SPDX-License-Identifier: Apache-2.0
"""macspoofchk on the real kernel: the rule set, frames, races, and what the Go plugin made."""

from __future__ import annotations

import json
import multiprocessing
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cni_bridge import spoofcheck
from libcni.attachment import Attachment
from libcni.netlink.socket import NetlinkError
from libcni.types.errors import CHECK_FAILED, CniError
from tests.rig import isolation
from tests.rig.capabilities import CAP_NET_ADMIN, without
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner

POD = Attachment("podnet", "0a1b", "eth0")
OTHER = Attachment("podnet", "2c3d", "eth0")
MAC = "02:00:00:00:00:02"
OTHER_MAC = "02:00:00:00:00:03"


@pytest.fixture(autouse=True)
def nothing_stays(host: Host) -> Iterator[None]:
    """At the end of each test, what guards is removed, before the host is compared."""
    yield
    for network in ("podnet", "podnet2"):
        spoofcheck.gc(network, set())


def listed(kind: str) -> list[dict[str, Any]]:
    """The objects of one kind that nft lists in our table."""
    objects = json.loads(isolation.command("nft", "-j", "list", "ruleset"))["nftables"]
    return [o[kind] for o in objects if kind in o and o[kind].get("table") == "adder_spoofcheck"]


def elements() -> dict[str, dict[Any, str]]:
    """Set name -> element -> comment."""
    found: dict[str, dict[Any, str]] = {}
    for made in listed("set"):
        found[made["name"]] = {}
        for element in made.get("elem", []):
            value = element["elem"]["val"]
            key = tuple(value["concat"]) if isinstance(value, dict) else value
            found[made["name"]][key] = element["elem"]["comment"]
    return found


@pytest.mark.parametrize(
    "operation",
    [
        lambda: spoofcheck.ensure(OTHER, "veth2", OTHER_MAC),
        lambda: spoofcheck.remove(POD),
        lambda: spoofcheck.check(POD, "veth1", MAC),
        lambda: spoofcheck.gc("podnet", set()),
    ],
    ids=["ensure", "remove", "check", "gc"],
)
def test_a_lack_of_permission_is_told(host: Host, operation: Callable[[], Any]) -> None:
    """Without CAP_NET_ADMIN the kernel answers the first request only."""
    spoofcheck.ensure(POD, "veth1", MAC)
    before = elements()
    with pytest.raises(NetlinkError, match=r"nftables: .*Operation not permitted"):
        without(CAP_NET_ADMIN, operation)
    assert elements() == before


def test_rule_set(host: Host) -> None:
    spoofcheck.ensure(POD, "veth1", MAC)
    spoofcheck.ensure(OTHER, "veth2", OTHER_MAC)
    assert elements() == {
        "guarded": {"veth1": "cni:podnet:0a1b:eth0", "veth2": "cni:podnet:2c3d:eth0"},
        "allowed": {
            ("veth1", MAC): "cni:podnet:0a1b:eth0",
            ("veth2", OTHER_MAC): "cni:podnet:2c3d:eth0",
        },
    }
    [chain] = listed("chain")
    assert (chain["hook"], chain["prio"], chain["policy"]) == ("prerouting", -300, "accept")
    assert len(listed("rule")) == 1
    text = isolation.command("nft", "list", "ruleset")
    assert "iifname @guarded iifname . ether saddr != @allowed counter packets 0" in text
    spoofcheck.check(POD, "veth1", MAC)


def test_the_listing_can_be_loaded(host: Host, tmp_path: pathlib.Path) -> None:
    spoofcheck.ensure(POD, "veth1", MAC)
    saved = tmp_path / "saved"
    saved.write_text("flush ruleset\n" + isolation.command("nft", "list", "ruleset"))
    isolation.command("nft", "-f", saved)
    spoofcheck.check(POD, "veth1", MAC)
    spoofcheck.ensure(OTHER, "veth2", OTHER_MAC)


def test_ensure_replaces(host: Host) -> None:
    """Neither an earlier MAC address nor an earlier owner of the name may still send."""
    spoofcheck.ensure(POD, "veth1", OTHER_MAC)
    spoofcheck.ensure(POD, "veth1", MAC)
    assert elements()["allowed"] == {("veth1", MAC): "cni:podnet:0a1b:eth0"}
    spoofcheck.ensure(POD, "veth1", MAC)
    spoofcheck.ensure(OTHER, "veth1", OTHER_MAC)
    assert elements() == {
        "guarded": {"veth1": "cni:podnet:2c3d:eth0"},
        "allowed": {("veth1", OTHER_MAC): "cni:podnet:2c3d:eth0"},
    }


def test_undo_of_a_first_add(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoofcheck.TABLE, "made_here", False)
    before = host.snapshot()
    spoofcheck.ensure(POD, "veth1", MAC)
    spoofcheck.undo(POD).close()
    host.assert_unchanged(before)
    spoofcheck.ensure(POD, "veth1", MAC)
    spoofcheck.ensure(OTHER, "veth2", OTHER_MAC)
    spoofcheck.undo(POD).close()
    spoofcheck.check(OTHER, "veth2", OTHER_MAC)


def test_remove(host: Host) -> None:
    before = host.snapshot()
    spoofcheck.remove(POD).close()
    host.assert_unchanged(before)
    spoofcheck.ensure(POD, "veth1", MAC)
    spoofcheck.ensure(OTHER, "veth2", OTHER_MAC)
    spoofcheck.remove(POD).close()
    spoofcheck.remove(POD).close()
    spoofcheck.check(OTHER, "veth2", OTHER_MAC)
    assert [len(found) for found in elements().values()] == [1, 1]


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        ("flush ruleset", "veth1 in set bridge adder_spoofcheck guarded"),
        ("flush chain bridge adder_spoofcheck prerouting", "the rule in chain"),
        ("flush set bridge adder_spoofcheck guarded", "veth1 in set"),
        ("flush set bridge adder_spoofcheck allowed", f"veth1 . {MAC} in set"),
    ],
)
def test_damage_is_noticed_and_mended(host: Host, damage: str, missing: str) -> None:
    spoofcheck.ensure(POD, "veth1", MAC)
    isolation.command("nft", damage)
    with pytest.raises(CniError) as caught:
        spoofcheck.check(POD, "veth1", MAC)
    assert caught.value.code == CHECK_FAILED
    assert missing in caught.value.msg
    spoofcheck.ensure(POD, "veth1", MAC)
    spoofcheck.check(POD, "veth1", MAC)


def test_check_names_the_other_owner(host: Host) -> None:
    spoofcheck.ensure(OTHER, "veth1", MAC)
    with pytest.raises(CniError, match="another attachment") as caught:
        spoofcheck.check(POD, "veth1", MAC)
    assert "2c3d" in caught.value.details


def test_gc(host: Host) -> None:
    spoofcheck.gc("podnet", set())
    spoofcheck.ensure(POD, "veth1", MAC)
    spoofcheck.ensure(OTHER, "veth2", OTHER_MAC)
    spoofcheck.ensure(Attachment("podnet2", "0a1b", "eth0"), "veth3", MAC)
    spoofcheck.gc("podnet", {("2c3d", "eth0")})
    assert set(elements()["guarded"]) == {"veth2", "veth3"}
    assert set(elements()["allowed"]) == {("veth2", OTHER_MAC), ("veth3", MAC)}


def test_gc_knows_hashed_identities_by_their_network(host: Host) -> None:
    """They carry their network's mark: GC of another leaves them, of their own removes them."""
    long_one = Attachment("n" * 60, "c" * 64, "eth0")
    assert "#" in long_one.comment
    spoofcheck.ensure(long_one, "veth1", MAC)
    spoofcheck.gc("n" * 24, set())
    assert set(elements()["guarded"]) == {"veth1"}
    spoofcheck.gc("n" * 60, set())
    assert not elements()["guarded"]


def _work(number: int, failures: Any) -> None:
    attachment = Attachment("podnet", f"c{number}", "eth0")
    try:
        for turn in range(4):
            spoofcheck.ensure(attachment, f"veth{number}", MAC)
            spoofcheck.check(attachment, f"veth{number}", MAC)
            if turn < 3:
                spoofcheck.remove(attachment).close()
    except BaseException as error:
        failures.put(f"{number}: {error!r}")


def test_fifty_at_once(host: Host) -> None:
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    processes = [context.Process(target=_work, args=(n, failures)) for n in range(50)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert failures.empty(), failures.get()
    assert [len(found) for found in elements().values()] == [50, 50]
    assert len(listed("rule")) == 1


def _reaches(namespace: Netns, address: str) -> bool:
    words = ("ping", "-n", "-c1", "-W1", address)
    return namespace.run(*words, check=False).returncode == 0


def test_frames(host: Host, netns: Callable[..., Netns]) -> None:
    """A guarded container with another MAC address is cut off, an unguarded one is not."""
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "br0", "up")
    good, server = netns("good"), netns("server")
    for number, namespace in enumerate((good, server), 2):
        name = f"veth{number}"
        host.run(
            "ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", namespace.name
        )
        host.run("ip", "link", "set", name, "master", "br0", "up")
        namespace.run("ip", "address", "add", f"10.0.0.{number}/24", "dev", "eth0")
        namespace.run("ip", "link", "set", "eth0", "address", f"02:00:00:00:00:0{number}", "up")
    good.ping("10.0.0.3")
    spoofcheck.ensure(POD, "veth2", MAC)
    assert _reaches(good, "10.0.0.3")
    good.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    assert not _reaches(good, "10.0.0.3")
    good.run("ip", "link", "set", "eth0", "address", OTHER_MAC)
    assert not _reaches(good, "10.0.0.3")
    [rule] = listed("rule")
    [packets] = [e["counter"]["packets"] for e in rule["expr"] if "counter" in e]
    assert packets >= 2
    good.run("ip", "link", "set", "eth0", "address", MAC)
    good.ping("10.0.0.3")
    good.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    spoofcheck.remove(POD)
    good.ping("10.0.0.3")


def test_go_state_is_checked_and_removed(
    netns: Callable[..., Netns], run_plugin: Runner, go_bin_dir: pathlib.Path
) -> None:
    config = {
        "cniVersion": "1.0.0",
        "name": "gonet",
        "type": "bridge",
        "bridge": "br0",
        "macspoofchk": True,
    }
    results = []
    for container in ("go1", "go2"):
        reply = run_plugin(
            "bridge",
            "ADD",
            config,
            netns=netns(),
            container_id=container,
            bin_dir=go_bin_dir,
        )
        results.append(reply.result())
    _, veth, inside = results[0]["interfaces"]
    attachment = Attachment("gonet", "go1", "eth0")
    spoofcheck.check(attachment, veth["name"], inside["mac"])
    spoofcheck.remove(attachment)
    left = isolation.command("nft", "list", "table", "bridge", "nat")
    assert "go1" not in left
    assert left.count("go2") >= 4
    with pytest.raises(CniError):
        spoofcheck.check(attachment, veth["name"], inside["mac"])
    spoofcheck.remove(Attachment("gonet", "go2", "eth0"))
    assert "cni-br-iface" not in isolation.command("nft", "list", "table", "bridge", "nat")
