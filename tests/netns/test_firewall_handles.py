# SPDX-License-Identifier: Apache-2.0
"""firewall knows where iptables has put its rules, and does without where that is not so."""

from __future__ import annotations

from typing import Any

import pytest

from cni_firewall import delete, handles, table
from cni_firewall.ipt_rules import CHAIN
from libcni.attachment import Attachment
from libcni.netlink.codec import encode
from libcni.netlink.socket import Socket
from libcni.netlink.tables.nft import RULE_ATTRIBUTES
from libcni.nftables import closing, maps, rules, sets
from libcni.nftables.transaction import commit, open_socket, refused
from libcni.skel.request import Request
from tests.netns.test_firewall import forwarding, pods, ruleset
from tests.rig.host import Host

__all__ = ["forwarding", "pods"]
#: What may happen to the rules, or to what says where they are.
TROUBLES = {
    "record lost": ["nft flush set inet adder_firewall handles"],
    "all lost": ["nft delete table inet adder_firewall"],
    "other handles": ["iptables-save >{0}", "iptables-restore <{0}"],
    "rule deleted": ["iptables -D CNI-FORWARD 2"],
    "rules deleted": ["iptables -F CNI-FORWARD"],
}


def attachment(pod: Any) -> Attachment:
    return Attachment("pods", pod.name, "eth0")


def places(pod: Any) -> set[tuple[int, int]]:
    """(family, handle) of the rules that bear the container's mark."""
    sock = open_socket()
    return {
        (rule[0], rules.handle_of(rule))
        for filters in handles.FILTERS.values()
        for rule in filters.rules(sock, CHAIN)
        if attachment(pod).comment.encode() in rule
    }


def is_known(pod: Any) -> bool:
    """Whether DEL would not search."""
    return handles.removal(open_socket(), attachment(pod), CHAIN)[1]


def owned(name: str) -> list[str]:
    """The comments of a set's elements."""
    found = sets.elements(open_socket(), table.TABLE, name)
    return sorted(element.comment for body in found for element in maps.read(body))


def test_handles_are_those_of_the_rules(pods: Any) -> None:
    one, two = pods(), pods()
    for each in (one, two):
        each.call("ADD", each.config(backend="iptables")).result()
    assert len(places(one)) == 4 and is_known(one) and is_known(two)
    deleted = {
        (message.body[0], rules.handle_of(message.body))
        for message in handles.removal(open_socket(), attachment(one), CHAIN)[0]
        if message.type & 255 == 8
    }
    assert deleted == places(one)
    marks = sorted([attachment(one).comment, attachment(two).comment])
    assert owned(table.OWNERS) == owned(table.HANDLES) == marks
    one.call("DEL", {"cniVersion": "1.0.0", "name": "pods", "type": "firewall"}).succeeded()
    assert places(one) == set() and is_known(two)
    assert owned(table.OWNERS) == owned(table.HANDLES) == marks[1:]
    two.call("CHECK", two.config(backend="iptables")).succeeded()
    two.call("DEL", two.config()).succeeded()
    assert owned(table.OWNERS) == owned(table.HANDLES) == []


@pytest.mark.parametrize("policy", ["open", "same-bridge"])
def test_the_first_and_those_with_a_policy_are_known_too(pods: Any, policy: str) -> None:
    one, two = pods(), pods()
    for each in (one, two):
        each.call("ADD", each.config(backend="iptables", ingressPolicy=policy)).result()
        assert is_known(each)
        each.call("DEL", each.config()).succeeded()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", TROUBLES)
def test_delete_searches_where_it_has_to(
    host: Host, pods: Any, tmp_path: Any, name: str, again: bool
) -> None:
    """Also when an ADD came in between, which makes but what is missing."""
    one, two = pods(), pods()
    for each in (one, two):
        each.call("ADD", each.config(backend="iptables")).result()
    for line in TROUBLES[name]:
        host.run("sh", "-c", line.format(tmp_path / "saved"))
    assert not is_known(one)
    if again:
        one.call("ADD", one.config(backend="iptables")).result()
        assert len(places(one)) == 4
        one.call("CHECK", one.config(backend="iptables")).succeeded()
    for _ in range(2):
        one.call("DEL", {"cniVersion": "1.0.0", "name": "pods", "type": "firewall"}).succeeded()
        text = ruleset(host)
        assert one.name not in text
        assert one.addresses[0] not in text and one.addresses[1] not in text
    if name in ("record lost", "all lost", "other handles"):
        two.call("CHECK", two.config(backend="iptables")).succeeded()
    two.call("DEL", two.config()).succeeded()
    assert two.addresses[0] not in ruleset(host)


def test_a_stranger_at_the_handle_stays(host: Host, pods: Any) -> None:
    """Handles are counted anew in a table that was deleted and made again."""
    one = pods()
    one.call("ADD", one.config(backend="iptables")).result()
    for family, name in (("ip", "iptables"), ("ip6", "ip6tables")):
        host.run("nft", "delete", "table", family, "filter")
        host.run(name, "-N", CHAIN)
        for number in range(12):
            host.run(name, "-A", CHAIN, "-m", "mark", "--mark", str(number), "-j", "ACCEPT")
    before = host.run("iptables-save", "-t", "filter"), host.run("ip6tables-save", "-t", "filter")
    assert not is_known(one)
    one.call("DEL", one.config()).succeeded()
    after = host.run("iptables-save", "-t", "filter"), host.run("ip6tables-save", "-t", "filter")
    assert [_rules_of(text) for text in before] == [_rules_of(text) for text in after]
    assert owned(table.OWNERS) == []


def _rules_of(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("-A")]


@pytest.mark.parametrize("record", [b"", b"\2", bytes(9), b"\2" + bytes(8), bytes(80)])
def test_a_record_that_is_none(pods: Any, record: bytes) -> None:
    one = pods()
    one.call("ADD", one.config(backend="iptables")).result()
    comment = attachment(one).comment
    element = maps.MapElement(attachment(one).set_key, b"", comment, record)
    for change in (maps.delete, maps.add):
        refused(commit(open_socket(), change(table.TABLE, table.HANDLES, [element])))
    assert not is_known(one)
    one.call("DEL", one.config()).succeeded()
    assert places(one) == set() and owned(table.HANDLES) == []


def test_what_cannot_be_understood_is_not_noted(
    host: Host, pods: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ADD goes on, with rules that DEL searches."""
    notes = handles.begin(attachment(pods()), lambda: None)
    assert notes is not None
    comment = notes._attachment.comment.encode() + b"\0"
    no_handle = bytes(4) + encode(RULE_ATTRIBUTES, {"NFTA_RULE_USERDATA": comment})
    monkeypatch.setattr(handles, "rules_heard", lambda sock: [no_handle])
    notes.note(CHAIN, 1)
    assert owned(table.HANDLES) == []
    host.run("nft", "delete", "table", "inet", "adder_firewall")


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_delete_leaves_every_wait_to_a_child(
    pods: Any, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Whatever socket is closed after the deletion waits for the kernel, 8 to 16 ms."""
    one = pods()
    config = one.config(backend=backend)
    one.call("ADD", config).result()
    opened: list[Socket] = []
    made, left = Socket.__init__, closing.leave

    def open_one(sock: Socket, *args: Any, **keys: Any) -> None:
        made(sock, *args, **keys)
        opened.append(sock)

    def leave(*sockets: Socket) -> None:
        assert set(sockets) == {sock for sock in opened if sock.fileno() >= 0}
        left(*sockets)
        opened.clear()

    monkeypatch.setattr(Socket, "__init__", open_one)
    monkeypatch.setattr(delete, "leave", leave)
    delete.delete(Request("DEL", "firewall", config, "1.0.0", attachment(one), one.netns.path))
    assert opened == []
    monkeypatch.undo()
    assert places(one) == set() and one.name not in ruleset(one.host)


def test_gc_removes_what_says_where(pods: Any) -> None:
    keep, lose = pods(), pods()
    for each in (keep, lose):
        each.call("ADD", each.config("1.1.0", backend="iptables")).result()
    keep.call(
        "GC",
        {
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "firewall",
            "cni.dev/valid-attachments": [{"containerID": keep.name, "ifname": "eth0"}],
        },
    ).succeeded()
    assert places(lose) == set() and is_known(keep)
    assert owned(table.OWNERS) == owned(table.HANDLES) == [attachment(keep).comment]
    keep.call("DEL", keep.config()).succeeded()


def test_first_rules_are_the_first(host: Host) -> None:
    """And reading them costs nothing for the others, of which the socket hears no more."""
    host.run("iptables", "-N", "MANY")
    lines = [f"-A MANY -s 10.0.{n >> 8}.{n & 255}/32 -j ACCEPT" for n in range(1000)]
    host.run("sh", "-c", "printf '%s\\n' '*filter' \"$0\" COMMIT | iptables-restore --noflush",
             "\n".join(lines))  # fmt: skip
    filters = next(iter(handles.FILTERS.values()))
    first, everything = filters.first_rules("MANY"), filters.rules(open_socket(), "MANY")
    assert len(everything) == 1000
    assert 0 < len(first) < 200 and first == everything[: len(first)]
    assert filters.first_rules("NONE") == []
    host.run("nft", "flush", "ruleset")
