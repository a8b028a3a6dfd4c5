# SPDX-License-Identifier: Apache-2.0
"""`cnitool validate`: what it refuses, what it warns of, and what it lets pass."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.unit.desk import Desk, bridge


def test_validate_accepts(desk: Desk) -> None:
    one = desk.write("10.conflist", bridge())
    two = desk.write("20.conf", {"name": "other", "type": "foreign", "own": 1})
    assert desk.run("validate") == 0, desk.err
    assert desk.out == f"{one}: ok\n{two}: ok\n"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", ["not valid JSON"]),
        ("[]", ["not a JSON object"]),
        ({"plugins": [{"type": "a"}]}, ["name"]),
        (bridge(isGateway=1), ["plugins[0].isGateway", "1", "boolean"]),
        (bridge(mtu="big"), ["plugins[0].mtu", "big", "integer"]),
        (bridge(ipam={"type": "host-local", "subnet": 7}), ["plugins[0].ipam.subnet", "7"]),
        (bridge() | {"cniVersion": "one"}, ["cniVersion", "one"]),
        (bridge() | {"name": "../x"}, ["name", "../x"]),
        (bridge() | {"plugins": []}, ["plugins"]),
        (bridge(type="a/b"), ["plugins[0].type", "a/b"]),
        (bridge() | {"cniVersion": "9.9.9"}, ['cniVersion: "9.9.9"', "0.1.0", "1.1.0"]),
        (bridge() | {"cniVersion": "1"}, ['cniVersion: "1"', "1.0.0"]),
        (bridge() | {"cniVersion": "2.0.0", "cniVersions": ["2.1.0"]}, ['"2.0.0"']),
    ],
)
def test_validate_names_path_value_and_expectation(
    desk: Desk, document: Any, words: list[str]
) -> None:
    file = desk.write("10.conflist", document)
    assert desk.run("validate", str(file)) == 1
    assert desk.out == ""
    assert desk.err.startswith(f"{file}: ")
    for word in words:
        assert word in desk.err


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ({"type": "tuning", "sysctl": {"net.core.somaxconn": 500}}, 'for example "500"'),
        (
            {"type": "bridge", "ipam": {"type": "static", "addresses": [{"address": "10.1.2.3"}]}},
            'for example "10.1.2.3/24"',
        ),
    ],
)
def test_validate_gives_an_example_that_fits_the_place(
    desk: Desk, plugin: dict[str, Any], words: str
) -> None:
    desk.write("10.conflist", {"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]})
    assert desk.run("validate") == 1
    assert words in desk.err


def test_validate_says_what_only_the_plugin_knows(desk: Desk) -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.0.0.5/24"}]]}
    desk.write("10.conflist", bridge(ipam=ipam))
    assert desk.run("validate") == 1
    assert "10.0.0.5/24" in desk.err and "host bits" in desk.err


def test_validate_warns_of_keys_that_look_misspelled(desk: Desk) -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24", "rangeBegin": ""}]]}
    ipam["ranges"][0][0]["gatway"] = "10.0.0.1"  # type: ignore[index]
    desk.write("10.conflist", bridge(isDefaltGateway=True, somethingElse=1, ipam=ipam))
    assert desk.run("validate") == 0
    assert len(desk.err.splitlines()) == 2, desk.err
    for words in (
        "warning: plugins[0].isDefaltGateway is not a known key; did you mean isDefaultGateway?",
        "warning: plugins[0].ipam.ranges[0][0].gatway is not a known key; did you mean gateway?",
    ):
        assert words in desk.err


def test_validate_is_silent_about_what_a_foreign_plugin_may_read(desk: Desk) -> None:
    desk.recorder.plugin("somebody-elses")
    ipam = {"type": "somebody-elses", "subnett": "10.0.0.0/24"}
    desk.write("10.conflist", bridge(isDefaltGateway=True, ipam=ipam))
    assert desk.run("validate") == 0
    assert desk.err == ""


def test_validate_goes_through_all_files(desk: Desk) -> None:
    desk.write("10.conflist", bridge())
    desk.write("20.conflist", bridge())
    desk.write("30.conflist", "")
    assert desk.run("validate", *map(str, sorted(desk.net_d.iterdir())), "/nonexistent") == 1
    assert "10.conflist: ok" in desk.out
    assert "20.conflist: name: 'net' is taken by" in desk.err
    assert "30.conflist" in desk.err and "/nonexistent" in desk.err


@pytest.mark.parametrize("document", [bridge(), {"name": "n", "type": "loopback"}])
def test_validate_reads_a_pipe(desk: Desk, document: dict[str, Any]) -> None:
    reader, writer = os.pipe()
    os.write(writer, json.dumps(document | {"cniVersion": "1.0.0"}).encode())
    os.close(writer)
    try:
        assert desk.run("validate", f"/dev/fd/{reader}") == 0, desk.err
    finally:
        os.close(reader)
    assert desk.out == f"/dev/fd/{reader}: ok\n"


def test_validate_can_ask_the_plugins(desk: Desk) -> None:
    desk.network(version="1.1.0")
    assert desk.run("validate", "--plugins") == 0
    desk.recorder.plugin("one", versions=["0.3.1"])
    assert desk.run("validate", "--plugins") == 1
    assert 'plugin one does not support config version "1.1.0"' in desk.err


def test_validate_takes_a_version_that_is_offered_beside_unknown_ones(desk: Desk) -> None:
    desk.write("10.conflist", bridge() | {"cniVersion": "9.0.0", "cniVersions": ["1.1.0"]})
    assert desk.run("validate") == 0, desk.err


@pytest.mark.parametrize("name", ["10.conflist", "10.conf"])
def test_validate_puts_the_place_before_what_concerns_the_whole_plugin(
    desk: Desk, name: str
) -> None:
    document = bridge(hairpinMode=True, promiscMode=True)
    place = "plugins[0]: "
    if name.endswith(".conf"):
        document, place = {**document["plugins"][0], "name": "net"}, ""
    file = desk.write(name, document)
    assert desk.run("validate") == 1
    assert desk.err.startswith(f"{file}: {place}cannot set hairpin mode and promiscuous mode")
    del document["name"]
    desk.write(name, document)
    assert desk.run("validate") == 1
    assert "].'" not in desk.err


def test_validate_warns_of_plugins_that_are_not_there(desk: Desk) -> None:
    desk.recorder.plugin("calico")
    document = bridge(type="brigde", ipam={"type": "host-locl", "subnet": "10.0.0.0/24"})
    document["plugins"] += [{"type": "calico"}, {"type": "firewall"}, {"type": "nowhere-at-all"}]
    file = desk.write("10.conflist", document)
    path = desk.recorder.directory
    assert desk.run("validate") == 0
    assert desk.out == f"{file}: ok\n"
    warning = f"{file}: warning: plugins"
    assert desk.err.splitlines() == [
        f'{warning}[0].type: there is no plugin "brigde" in {path}; did you mean bridge?',
        f'{warning}[0].ipam.type: there is no plugin "host-locl" in {path}; '
        "did you mean host-local?",
        f'{warning}[3].type: there is no plugin "nowhere-at-all" in {path}',
    ]


def test_validate_refuses_absent_plugins_when_it_asks_them(desk: Desk) -> None:
    desk.recorder.plugin("bridge")
    document = bridge(ipam={"type": "host-locl", "subnet": "10.0.0.0/24"})
    file = desk.write("10.conflist", document)
    assert desk.run("validate", "--plugins") == 1
    assert desk.err.splitlines() == [
        f'{file}: plugins[0].ipam.type: failed to find plugin "host-locl" in path '
        f"[{desk.recorder.directory}]"
    ]
    desk.recorder.plugin("host-locl", versions=["0.4.0"])
    assert desk.run("validate", "--plugins") == 1
    assert 'plugin host-locl does not support config version "1.0.0"' in desk.err


_SIX = {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}
_STATIC = {"type": "static", "addresses": [{"address": "fd00::7/64", "gateway": "fd00::1"}]}


@pytest.mark.parametrize(
    ("plugins", "place"),
    [
        ([{"type": "bridge", "mtu": 1279, "ipam": _SIX}], "plugins[0].mtu: 1279"),
        ([{"type": "ptp", "mtu": 576, "ipam": _STATIC}], "plugins[0].mtu: 576"),
        ([{"type": "bridge", "ipam": _SIX}, {"type": "tuning", "mtu": 1000}], "plugins[1].mtu"),
    ],
)
def test_validate_refuses_an_mtu_that_ipv6_does_not_fit(
    desk: Desk, plugins: list[dict[str, Any]], place: str
) -> None:
    file = desk.write("10.conflist", {"cniVersion": "1.0.0", "name": "net", "plugins": plugins})
    assert desk.run("validate") == 1
    assert desk.err.startswith(f"{file}: {place}")
    assert "1280" in desk.err and "fd00::" in desk.err


@pytest.mark.parametrize("mtu", [0, 1280, 9000])
def test_validate_takes_an_mtu_that_ipv6_fits(desk: Desk, mtu: int) -> None:
    desk.write("10.conflist", bridge(mtu=mtu, ipam=_SIX))
    assert desk.run("validate") == 0, desk.err


def test_validate_takes_a_small_mtu_without_ipv6(desk: Desk) -> None:
    desk.write("10.conflist", bridge(mtu=576))
    assert desk.run("validate") == 0, desk.err


def test_validate_warns_of_keys_that_are_given_twice(desk: Desk) -> None:
    text = json.dumps(bridge(mtu=1500))
    text = text.replace('"mtu": 1500', '"mtu": 1500, "mtu": 1400, "mtu": 1300')
    text = text.replace('"subnet":', '"subnet": "10.1.0.0/24", "subnet":')
    file = desk.write("10.conflist", text)
    assert desk.run("validate") == 0
    assert desk.out == f"{file}: ok\n"
    assert desk.err.splitlines() == [
        f"{file}: warning: plugins[0].ipam.subnet is given more than once; the last counts",
        f"{file}: warning: plugins[0].mtu is given more than once; the last counts",
    ]


@pytest.mark.parametrize(
    ("plugin", "warnings"),
    [
        ({"type": "portmap", "capabilities": {"portMappings": True}}, []),
        (
            {"type": "portmap"},
            [
                'plugins[1].capabilities: without "portMappings": true portmap is given nothing '
                "to do",
            ],
        ),
        (
            {"type": "portmap", "capabilities": {"portMappings": True}, "portMappings": []},
            [
                "plugins[1].portMappings is not read here: the runtime gives it to a plugin with "
                '"capabilities": {"portMappings": true}'
            ],
        ),
        (
            {"type": "portmap", "capabilities": {"portMapping": True}},
            [
                'plugins[1].capabilities: without "portMappings": true portmap is given nothing '
                "to do",
                "plugins[1].capabilities.portMapping is read by no plugin of ours; did you mean "
                "portMappings?",
            ],
        ),
        ({"type": "calico", "capabilities": {"portMapping": True}}, []),
        (
            {"type": "host-device", "device": "eth1", "hwaddr": "0a:58:0a:f4:01:02"},
            ["plugins[1].hwaddr: not looked at, as device goes before it"],
        ),
        (
            {"type": "bridge", "ipam": {"type": "static"}},
            [
                "plugins[1].ipam.addresses: no address is named, nor can a runtime ask for one "
                'without "capabilities": {"ips": true}'
            ],
        ),
        (
            {"type": "bridge", "ipam": {"type": "static"}, "capabilities": {"ips": True}},
            [],
        ),
        ({"type": "firewall", "backend": "nftables"}, []),
        (
            {"type": "firewall", "backend": "nftable"},
            [
                'plugins[1].backend: "nftable" is none of iptables, nftables and firewalld: one '
                "is chosen as if not given"
            ],
        ),
    ],
)
def test_validate_warns_of_what_would_silently_do_nothing(
    desk: Desk, plugin: dict[str, Any], warnings: list[str]
) -> None:
    desk.recorder.plugin("calico")
    document = bridge()
    document["plugins"].append(plugin)
    file = desk.write("10.conflist", document)
    assert desk.run("validate") == 0
    assert desk.err.splitlines() == [f"{file}: warning: {warning}" for warning in warnings]


_LIST = {"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "bridge"}]}
_ONE = {"cniVersion": "1.1.0", "name": "n", "type": "bridge"}
_MISSPELT = {"cniVersion": "1.1.0", "name": "n", "plugin": [{"type": "bridge"}]}


@pytest.mark.parametrize(
    ("name", "document", "words"),
    [
        ("a.json", _LIST, "rename it to a.conflist"),
        ("a.conf", _LIST, "rename it to a.conflist"),
        ("a.conflist", _ONE, "`plugins` is missing: a single plugin belongs into a .conf file"),
        ("a.conflist", _MISSPELT, 'there is "plugin": did you mean "plugins"?'),
        ("a.conflist", {"cniVersion": "1.1.0", "name": "n"}, "net.d/n has no *.conf"),
    ],
)
def test_a_misnamed_file_is_told_its_name_by_every_verb(
    desk: Desk, name: str, document: Any, words: str
) -> None:
    file = desk.write(name, document)
    for command in (["validate", str(file)], ["validate"], ["list"], ["add", "n", "/run/netns/x"]):
        assert desk.run(*command) == (command != ["list"])
        assert words in desk.err and str(file) in desk.err, command
        assert ": ok" not in desk.out


def test_a_list_in_a_file_that_no_runtime_reads_is_a_list(desk: Desk) -> None:
    file = desk.write("draft.txt", _LIST)
    assert desk.run("validate", str(file)) == 0, desk.err


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"disableCheck": "yes"}, 'disableCheck: "yes"'),
        ({"loadOnlyInlinedPlugins": 1}, "loadOnlyInlinedPlugins: 1"),
        ({"name": "../x"}, 'name: "../x"'),
        ({"name": "../x", "disableCheck": "yes"}, 'also: name: "../x"'),
        ({"name": None}, "name"),
        ({"cniVersion": 1}, "cniVersion: 1"),
        ({"cniVersion": "9.9.9"}, 'cniVersion: "9.9.9"'),
    ],
)
def test_validate_says_what_is_wrong_with_plugins_of_a_list_that_is_wrong_itself(
    desk: Desk, members: dict[str, Any], words: str
) -> None:
    document = bridge(mtu="big", isDefaltGateway=True) | members
    document["plugins"] += [{"type": "nowhere-at-all"}, {"type": "firewall", "backend": "nft"}]
    document = {key: value for key, value in document.items() if value is not None}
    file = desk.write("10.conflist", document)
    for options in ([], ["--plugins"]):
        assert desk.run("validate", *options) == 1
        first, *others = [line for line in desk.err.splitlines() if "warning" not in line]
        assert first.startswith(f"{file}: ") and words in first
        (mtu,) = others
        assert mtu.startswith(f'{file}: plugins[0].mtu: "big" is not')
        assert "plugins[0].isDefaltGateway is not a known key" in desk.err
        assert 'plugins[1].type: there is no plugin "nowhere-at-all"' in desk.err
        assert 'plugins[2].backend: "nft" is none of' in desk.err
        assert "must be called as chained plugin" not in desk.err


def test_validate_keeps_the_place_of_plugins_beside_one_that_cannot_be_read(desk: Desk) -> None:
    document = bridge()
    document["plugins"][:0] = [{"type": 1}, "bridge"]
    document["plugins"].append({"type": "firewall"})
    document["plugins"][2]["mtu"] = "big"
    desk.write("10.conflist", document)
    assert desk.run("validate") == 1
    assert "plugins[0].type" in desk.err and "plugins[1]" in desk.err
    assert "plugins[2].mtu" in desk.err
    assert "must be called as chained plugin" not in desk.err


def test_validate_advises_on_a_plugin_though_another_is_wrong(desk: Desk) -> None:
    document = bridge(mtu="big")
    document["plugins"].append({"type": "firewall", "backend": "nft"})
    desk.write("10.conflist", document)
    assert desk.run("validate") == 1
    assert "plugins[0].mtu" in desk.err and 'plugins[1].backend: "nft" is none of' in desk.err


def test_validate_looks_once_at_a_file_that_is_given_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.write("10.conflist", bridge())
    monkeypatch.chdir(desk.net_d)
    assert desk.run("validate", str(file), "10.conflist", f"{desk.net_d}/./10.conflist") == 0
    assert (desk.out, desk.err) == (f"{file}: ok\n", "")
    # A link is one more file to a runtime.
    (desk.net_d / "20.conflist").symlink_to(file)
    assert desk.run("validate") == 1
    assert desk.err == f"{desk.net_d}/20.conflist: name: 'net' is taken by {file}\n"


@pytest.mark.parametrize(
    ("document", "out", "err"),
    [
        (bridge(), "standard input: ok\n", ""),
        ({"name": "n", "type": "loopback", "cniVersion": "1.0.0"}, "standard input: ok\n", ""),
        (bridge(mtu="big"), "", "standard input: plugins[0].mtu: "),
        ({"name": "n"}, "", "standard input: "),
        ("{", "", "standard input: it is not valid JSON"),
    ],
)
def test_validate_reads_standard_input(desk: Desk, document: Any, out: str, err: str) -> None:
    reader, writer = os.pipe()
    os.write(writer, (document if isinstance(document, str) else json.dumps(document)).encode())
    os.close(writer)
    before = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert desk.run("validate", "-", "-") == (not out)
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reader)
    assert desk.out == out
    assert desk.err.startswith(err) and bool(desk.err) == bool(err)


def test_validate_finds_standard_input_closed(desk: Desk) -> None:
    before = os.dup(0)
    os.close(0)
    try:
        assert desk.run("validate", "-") == 1
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert desk.err == "standard input: Bad file descriptor\n"
