# SPDX-License-Identifier: Apache-2.0
"""Loading configurations, with the rules of Go's libcni/conf.go."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcni import conf
from libcni.types.errors import CniError


def write(path: pathlib.Path, document: Any) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def load(**document: Any) -> conf.NetworkConfigList:
    return conf.network_conf_from_bytes(json.dumps({"name": "net", **document}).encode())


PLUGINS = [{"type": "bridge", "capabilities": {"mac": True, "ips": False}}, {"type": "tuning"}]


def test_a_list() -> None:
    network = load(cniVersion="1.0.0", plugins=PLUGINS, unknown={"a": 1})
    assert (network.name, network.cni_version) == ("net", "1.0.0")
    assert [plugin.type for plugin in network.plugins] == ["bridge", "tuning"]
    assert network.plugins[0].capabilities == {"mac": True, "ips": False}
    assert network.plugins[0].document == PLUGINS[0]
    assert not (network.disable_check or network.disable_gc)
    assert json.loads(network.bytes)["unknown"] == {"a": 1}


@pytest.mark.parametrize(
    ("members", "version"),
    [
        ({}, ""),
        ({"cniVersion": "0.4.0"}, "0.4.0"),
        ({"cniVersions": []}, ""),
        ({"cniVersion": "0.4.0", "cniVersions": ["0.3.1", "1.1.0", "1.0.0"]}, "1.1.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["2.0.0"]}, "0.4.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["1.0.0"]}, "1.0.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["3.0.0"]}, "2.0.0"),
    ],
)
def test_version_selection(members: dict[str, Any], version: str) -> None:
    assert load(**members, plugins=PLUGINS).cni_version == version


@pytest.mark.parametrize(("value", "meaning"), [(True, True), (False, False), ("true", True),
                                                ("True", True), ("FALSE", False)])  # fmt: skip
def test_booleans_may_be_strings(value: Any, meaning: bool) -> None:
    network = load(
        plugins=PLUGINS, disableCheck=value, disableGC=value, loadOnlyInlinedPlugins=value
    )
    assert network.disable_check is meaning
    assert network.disable_gc is meaning
    assert network.load_only_inlined_plugins is meaning


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", "is empty"),
        ("{", "not valid JSON"),
        ("[]", "of type array"),
        ("{}", "no name"),
        ('{"name": 1}', "invalid name type number"),
        ('{"name": "n", "cniVersion": 1}', "invalid cniVersion type"),
        ('{"name": "n", "cniVersions": "1.0.0"}', "invalid type for cniVersions"),
        ('{"name": "n", "cniVersions": [1]}', "cniVersions index 0"),
        ('{"name": "n", "cniVersions": ["x"]}', "'x'"),
        ('{"name": "n", "disableCheck": 1}', "invalid type number for disableCheck"),
        ('{"name": "n", "disableGC": "yes"}', "invalid value 'yes' for disableGC"),
        ('{"name": "n", "loadOnlyInlinedPlugins": true}', "no 'plugins' key"),
        ('{"name": "n", "plugins": {}}', "invalid 'plugins' type object"),
        ('{"name": "n", "plugins": []}', "no plugins in list"),
        ('{"name": "n", "plugins": [1]}', r"plugins\[0\] is of type number"),
        ('{"name": "n", "plugins": [{}]}', "plugin config 0: .*missing 'type'"),
        ('{"name": "n", "plugins": [{"type": 1}]}', "type is of type number"),
        ('{"name": "n", "plugins": [{"type": "a", "capabilities": []}]}', "capabilities"),
        (
            '{"name": "n", "plugins": [{"type": "a", "capabilities": {"m": 1}}]}',
            r"capabilities\.m",
        ),
    ],
)
def test_a_bad_list_names_the_culprit(text: str, culprit: str) -> None:
    with pytest.raises(CniError, match=culprit) as caught:
        conf.network_conf_from_bytes(text.encode())
    assert caught.value.code in (6, 7)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(CniError):
        conf.network_conf_from_bytes(data + b"]")


def test_plugins_beside_the_list_are_appended(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "10.conflist", {"name": "net", "plugins": [{"type": "inline"}]})
    write(tmp_path / "net" / "20-b.conf", {"type": "second"})
    write(tmp_path / "net" / "10-a.conf", {"type": "first"})
    write(tmp_path / "net" / "30-c.conflist", "ignored")
    write(tmp_path / "net" / ".hidden.conf", "ignored")
    write(tmp_path / "other" / "10.conf", {"type": "other"})
    network = conf.network_conf_from_file(file)
    assert [plugin.type for plugin in network.plugins] == ["inline", "first", "second"]


def test_plugins_may_all_lie_beside(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "10.conflist", {"name": "net"})
    with pytest.raises(CniError, match="no plugin configs found"):
        conf.network_conf_from_file(file)
    write(tmp_path / "net" / "a.conf", {"type": "a"})
    assert [plugin.type for plugin in conf.network_conf_from_file(file).plugins] == ["a"]


def test_load_only_inlined_plugins(tmp_path: pathlib.Path) -> None:
    document = {"name": "net", "plugins": [{"type": "i"}], "loadOnlyInlinedPlugins": True}
    file = write(tmp_path / "10.conflist", document)
    write(tmp_path / "net" / "a.conf", "broken")
    assert [plugin.type for plugin in conf.network_conf_from_file(file).plugins] == ["i"]


def test_a_broken_plugin_beside_the_list_is_named(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "10.conflist", {"name": "net", "plugins": [{"type": "i"}]})
    write(tmp_path / "net" / "a.conf", "{}")
    with pytest.raises(CniError, match=r"net/a\.conf: .*missing 'type'"):
        conf.network_conf_from_file(file)


def test_the_folder_beside_a_list_cannot_lead_elsewhere(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "secret" / "a.conf", {"type": "a"})
    file = write(tmp_path / "net.d" / "10.conflist", {"name": "../secret"})
    with pytest.raises(CniError, match="invalid characters found in network name"):
        conf.network_conf_from_file(file)


def test_load_takes_the_first_of_the_name(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "20.conflist", {"name": "b", "plugins": [{"type": "late"}]})
    write(tmp_path / "10.conflist", {"name": "b", "plugins": [{"type": "early"}]})
    write(tmp_path / "05.conflist", {"name": "a", "plugins": [{"type": "a"}]})
    assert conf.load_network_conf(tmp_path, "b").plugins[0].type == "early"


def test_load_falls_back_to_single_plugins(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "10.conflist", {"name": "list", "plugins": [{"type": "a"}]})
    single = {"name": "one", "type": "bridge", "cniVersion": "0.3.1", "bridge": "x"}
    write(tmp_path / "20.json", single)
    network = conf.load_network_conf(tmp_path, "one")
    assert (network.name, network.cni_version) == ("one", "0.3.1")
    assert [plugin.document for plugin in network.plugins] == [single]
    assert json.loads(network.bytes) == {
        "name": "one", "cniVersion": "0.3.1", "plugins": [single]
    }  # fmt: skip


def test_load_says_what_is_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        conf.NoConfigsFoundError, match=f"no net configurations found in {tmp_path}"
    ):
        conf.load_network_conf(tmp_path, "x")
    write(tmp_path / "10.conflist", {"name": "list", "plugins": [{"type": "a"}]})
    with pytest.raises(conf.NotFoundError, match='no net configuration with name "x" in'):
        conf.load_network_conf(tmp_path, "x")
    write(tmp_path / "20.conf", {"name": "one", "type": "a"})
    with pytest.raises(conf.NotFoundError) as caught:
        conf.load_network_conf(tmp_path, "x")
    assert caught.value.details == "there are: list, one"
    with pytest.raises(conf.NoConfigsFoundError):
        conf.load_network_conf(tmp_path / "absent", "x")


def test_a_broken_file_before_the_match_fails_and_is_named(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "20.conflist", {"name": "net", "plugins": [{"type": "a"}]})
    write(tmp_path / "30.conflist", "broken")
    assert conf.load_network_conf(tmp_path, "net").name == "net"
    write(tmp_path / "10.conflist", "broken")
    with pytest.raises(CniError, match=r"10\.conflist"):
        conf.load_network_conf(tmp_path, "net")


def test_conf_files(tmp_path: pathlib.Path) -> None:
    for name in ("b.conf", "a.conf", "c.json", ".d.conf", "e.conf.tmp"):
        write(tmp_path / name, "")
    (tmp_path / "directory.conf").mkdir()
    assert [file.name for file in conf.conf_files(tmp_path, [".conf"])] == ["a.conf", "b.conf"]
    assert len(conf.conf_files(tmp_path, [".conf", ".json"])) == 3
    assert conf.conf_files(tmp_path / "absent", [".conf"]) == []


def test_an_unreadable_file_is_code_5(tmp_path: pathlib.Path) -> None:
    os.symlink("nowhere", tmp_path / "10.conflist")
    with pytest.raises(CniError, match=r"error reading .*10\.conflist: No such file") as caught:
        conf.load_network_conf(tmp_path, "x")
    assert caught.value.code == 5


def test_inject() -> None:
    plugin = conf.conf_from_bytes(b'{"type":"a","name":"n","keep":1}')
    injected = conf.inject_conf(plugin, {"name": "m", "prevResult": {"a": 1}})
    assert json.loads(injected.bytes) == {
        "type": "a", "name": "m", "keep": 1, "prevResult": {"a": 1}
    }  # fmt: skip
    assert plugin.name == "n"
    for values in ({"": 1}, {"key": None}):
        with pytest.raises(CniError):
            conf.inject_conf(plugin, values)
