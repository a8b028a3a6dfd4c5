# SPDX-License-Identifier: Apache-2.0
"""The runtime API over recording plugins."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from typing import Any

import pytest

from libcni import conf
from libcni.api import CNIConfig, GCAttachment, PluginInfo, RuntimeConf
from libcni.types.errors import CniError
from libcni.types.result import IPConfig
from tests.unit.recorder import Recorder

RT = RuntimeConf(
    "c1",
    "/run/netns/c1",
    "eth0",
    [("IgnoreUnknown", "1"), ("A", "b")],
    {"mac": "0a:00:00:00:00:01", "ips": ["10.0.0.9"], "portMappings": []},
)
FIRST = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}
LAST = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.3/24"}]}


class Bench:
    """Two plugins in a list, a recorder, a cache."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.recorder = Recorder(directory / "bin")
        self.recorder.plugin("one", ADD=FIRST)
        self.recorder.plugin("two", ADD=LAST)
        self.cache = directory / "cache"
        self.cni = CNIConfig([str(self.recorder.directory)], self.cache)
        self.file = self.cache / "results" / "net-c1-eth0"

    def network(self, version: str = "1.1.0", **members: Any) -> conf.NetworkConfigList:
        document = {
            "cniVersion": version,
            "name": "net",
            "plugins": [
                {"type": "one", "keep": {"x": [1]}, "capabilities": {"mac": True, "ips": False}},
                {"type": "two", "cni.dev/own": 1},
            ],
            **members,
        }
        return conf.network_conf_from_bytes(json.dumps(document).encode())

    def calls(self) -> list[tuple[str, str]]:
        return [(call["plugin"], call["command"]) for call in self.recorder.take()]


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> Bench:
    return Bench(tmp_path)


def test_add_chains_in_order_and_caches(bench: Bench) -> None:
    network = bench.network()
    result = bench.cni.add_network_list(network, RT)
    assert result.ips == [IPConfig("10.0.0.3/24")]
    one, two = bench.recorder.take()
    path = str(bench.recorder.directory)
    for call in (one, two):
        assert call["command"] == "ADD"
        assert (call["id"], call["netns"], call["ifname"]) == ("c1", "/run/netns/c1", "eth0")
        assert (call["args"], call["path"]) == ("IgnoreUnknown=1;A=b", path)
    assert one["stdin"] == {
        "type": "one",
        "keep": {"x": [1]},
        "cniVersion": "1.1.0",
        "name": "net",
        "runtimeConfig": {"mac": "0a:00:00:00:00:01"},
    }
    assert two["stdin"] == {
        "type": "two", "cniVersion": "1.1.0", "name": "net", "prevResult": FIRST
    }  # fmt: skip
    cached = json.loads(bench.file.read_bytes())
    assert cached["result"] == LAST
    assert cached["capabilityArgs"] == RT.capability_args
    assert bench.cni.get_network_list_cached_result(network, RT) == result
    assert bench.cni.get_network_list_cached_config(network, RT) == (network.bytes, RT)
    assert [a.netns for a in bench.cni.get_cached_attachments("c1")] == ["/run/netns/c1"]


def test_add_stops_at_the_first_failure_and_caches_nothing(bench: Bench) -> None:
    bench.recorder.fail("one", "ADD", 11, "busy")
    with pytest.raises(CniError) as caught:
        bench.cni.add_network_list(bench.network(), RT)
    assert caught.value.code == 11
    assert caught.value.msg == 'plugin type="one" failed (add): busy'
    assert bench.calls() == [("one", "ADD")]
    assert not bench.file.exists()


@pytest.mark.parametrize(
    ("answer", "culprit"),
    [("", "not valid JSON"), ("rubbish " * 50, "rubbish"), ("[]", "not a JSON object"),
     ('{"ips": 1}', "ips"), ('{"cniVersion": "7"}', '"7"')],
)  # fmt: skip
def test_a_bad_result_is_an_error_with_an_excerpt(bench: Bench, answer: str, culprit: str) -> None:
    bench.recorder.answer("one", "ADD", answer)
    with pytest.raises(CniError, match=culprit) as caught:
        bench.cni.add_network_list(bench.network(), RT)
    assert len(str(caught.value)) < 1000


def test_null_is_an_empty_result(bench: Bench) -> None:
    bench.recorder.answer("one", "ADD", "null")
    bench.recorder.answer("two", "ADD", {"dns": {"domain": "d"}})
    assert bench.cni.add_network_list(bench.network(), RT).dns.domain == "d"
    assert bench.recorder.take()[1]["stdin"]["prevResult"] == {"cniVersion": "1.1.0"}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_old_plugins_may_return_no_address(bench: Bench, version: str) -> None:
    for name in ("one", "two"):
        bench.recorder.answer(name, "ADD", {"cniVersion": version, "dns": {}})
    bench.cni.add_network_list(bench.network(version), RT)
    assert bench.recorder.take()[1]["stdin"]["prevResult"] == {"cniVersion": version, "dns": {}}


def test_results_are_handed_on_in_the_lists_version(bench: Bench) -> None:
    bench.recorder.answer("one", "ADD", {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}})
    bench.recorder.answer("two", "ADD", {"ips": [{"version": "4", "address": "10.0.0.3/24"}]})
    bench.cni.add_network_list(bench.network("0.4.0"), RT)
    assert bench.recorder.take()[1]["stdin"]["prevResult"] == {
        "cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.2/24"}], "dns": {}
    }  # fmt: skip
    assert json.loads(bench.file.read_bytes())["result"]["cniVersion"] == "0.4.0"


@pytest.mark.parametrize(
    "changes",
    [{"container_id": "../x"}, {"container_id": ""}, {"if_name": "../x"}, {"if_name": ""},
     {"container_id": "a\n"}, {"if_name": "0123456789abcdef"}],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["add", "check", "del"])
def test_hostile_names_never_reach_a_plugin_or_a_path(
    bench: Bench, changes: dict[str, str], verb: str
) -> None:
    rt = replace(RT, **changes)  # type: ignore[arg-type]  # all of them are strings
    with pytest.raises(CniError) as caught:
        getattr(bench.cni, f"{verb}_network_list")(bench.network(), rt)
    assert caught.value.code in (3, 4)
    assert bench.calls() == []


def test_a_type_with_a_slash_is_refused(bench: Bench) -> None:
    bench.cni.add_network_list(bench.network(), RT)
    bench.recorder.take()
    network = bench.network(plugins=[{"type": "../bin/one"}])
    for verb in ("add", "check", "del"):
        with pytest.raises(CniError, match="invalid plugin name"):
            getattr(bench.cni, f"{verb}_network_list")(network, RT)
    assert bench.calls() == []


def test_check_gives_everyone_the_final_result(bench: Bench) -> None:
    network = bench.network()
    bench.cni.add_network_list(network, RT)
    bench.recorder.take()
    bench.cni.check_network_list(network, RT)
    calls = bench.recorder.take()
    assert [(c["plugin"], c["command"]) for c in calls] == [("one", "CHECK"), ("two", "CHECK")]
    assert all(call["stdin"]["prevResult"] == LAST for call in calls)
    bench.recorder.fail("one", "CHECK", 103, "gone")
    with pytest.raises(CniError, match="gone") as caught:
        bench.cni.check_network_list(network, RT)
    assert caught.value.code == 103
    assert bench.calls() == [("one", "CHECK")]


def test_check_before_it_existed_and_when_disabled(bench: Bench) -> None:
    with pytest.raises(CniError, match="does not support the CHECK command"):
        bench.cni.check_network_list(bench.network("0.3.1"), RT)
    bench.cni.check_network_list(bench.network(disableCheck=True), RT)
    assert bench.calls() == []


def test_check_of_what_is_not_attached_asks_no_plugin(bench: Bench) -> None:
    network = bench.network()
    for _ in range(2):
        with pytest.raises(CniError, match='is not attached to network "net" by eth0') as caught:
            bench.cni.check_network_list(network, RT)
        assert caught.value.code == 3
        assert str(bench.file) in caught.value.details
        assert "CHECK" not in [command for _, command in bench.calls()]
        bench.cni.add_network_list(network, RT)
        bench.cni.del_network_list(network, RT)


def test_check_refuses_a_damaged_cache(bench: Bench) -> None:
    network = bench.network()
    bench.file.parent.mkdir(parents=True)
    bench.file.write_text("")
    with pytest.raises(CniError, match='failed to get network "net" cached result'):
        bench.cni.check_network_list(network, RT)
    assert bench.calls() == []


def test_del_goes_backwards_with_the_final_result(bench: Bench) -> None:
    network = bench.network()
    bench.cni.add_network_list(network, RT)
    bench.recorder.take()
    bench.cni.del_network_list(network, RT)
    calls = bench.recorder.take()
    assert [(c["plugin"], c["command"]) for c in calls] == [("two", "DEL"), ("one", "DEL")]
    assert all(call["stdin"]["prevResult"] == LAST for call in calls)
    assert not bench.file.exists()
    bench.cni.del_network_list(network, RT)
    calls = bench.recorder.take()
    assert len(calls) == 2 and all("prevResult" not in call["stdin"] for call in calls)


def test_del_before_0_4_0_has_no_result_but_clears_the_cache(bench: Bench) -> None:
    network = bench.network("0.3.1")
    bench.cni.add_network_list(network, RT)
    bench.recorder.take()
    bench.cni.del_network_list(network, RT)
    assert all("prevResult" not in call["stdin"] for call in bench.recorder.take())
    assert not bench.file.exists()


def test_del_stops_at_a_failure_and_keeps_the_cache(bench: Bench) -> None:
    network = bench.network()
    bench.cni.add_network_list(network, RT)
    bench.recorder.take()
    bench.recorder.fail("two", "DEL", 5, "disk")
    with pytest.raises(CniError) as caught:
        bench.cni.del_network_list(network, RT)
    assert (caught.value.code, bench.calls()) == (5, [("two", "DEL")])
    assert caught.value.msg == 'plugin type="two" failed (delete): disk'
    assert bench.file.exists()


class Quiet:
    """An executor that runs nothing: for tests that call very often."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def find_in_path(self, name: str, path: list[str]) -> str:
        return f"/{name}"

    def exec_plugin(
        self, path: str, overrides: dict[str, str], stdin: bytes, timeout: float
    ) -> bytes:
        self.requests.append(json.loads(stdin))
        return json.dumps(LAST).encode()


def test_del_works_with_every_prefix_of_a_cache_file(bench: Bench) -> None:
    network = bench.network()
    executor = Quiet()
    cni = CNIConfig(["/x"], bench.cache, executor)
    cni.add_network_list(network, RT)
    whole = bench.file.read_bytes()
    for length in range(len(whole) + 1):
        bench.file.write_bytes(whole[:length])
        executor.requests.clear()
        cni.del_network_list(network, RT)
        assert len(executor.requests) == 2
        assert ("prevResult" in executor.requests[0]) == (length == len(whole))
        assert not bench.file.exists()


def test_del_drops_a_result_that_the_version_cannot_hold(bench: Bench) -> None:
    network = bench.network()
    bench.cni.add_network_list(network, RT)
    cached = json.loads(bench.file.read_bytes())
    cached["result"] = {"cniVersion": "7.0.0"}
    bench.file.write_text(json.dumps(cached))
    bench.recorder.take()
    bench.cni.del_network_list(network, RT)
    assert all("prevResult" not in call["stdin"] for call in bench.recorder.take())


def test_gc_deletes_what_is_not_valid_then_tells_the_plugins(bench: Bench) -> None:
    network = bench.network()
    for container in ("c1", "c2"):
        rt = RuntimeConf(container, f"/run/netns/{container}", "eth0")
        bench.cni.add_network_list(network, rt)
    other = bench.network(name="other")
    bench.cni.add_network_list(other, RT)
    bench.recorder.take()
    bench.cni.gc_network_list(network, [GCAttachment("c2", "eth0"), GCAttachment("c7", "eth1")])
    calls = bench.recorder.take()
    assert [(c["plugin"], c["command"], c["id"]) for c in calls] == [
        ("two", "DEL", "c1"), ("one", "DEL", "c1"), ("one", "GC", ""), ("two", "GC", "")
    ]  # fmt: skip
    valid = [{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c7", "ifname": "eth1"}]
    for call in calls[2:]:
        assert call["stdin"]["cni.dev/valid-attachments"] == valid
        assert call["stdin"]["cni.dev/attachments"] == valid
        assert "capabilities" not in call["stdin"]
    left = {(a.network, a.container_id) for a in bench.cni.get_cached_attachments()}
    assert left == {("net", "c2"), ("other", "c1")}


def test_gc_without_a_list_takes_all(bench: Bench) -> None:
    network = bench.network("0.4.0")
    bench.cni.add_network_list(network, RT)
    bench.recorder.take()
    bench.cni.gc_network_list(network, None)
    assert bench.calls() == [("two", "DEL"), ("one", "DEL")]


def test_gc_goes_on_after_errors_and_reports_all(bench: Bench) -> None:
    network = bench.network()
    bench.cni.add_network_list(network, RT)
    bench.recorder.take()
    bench.recorder.fail("two", "DEL", 5, "disk")
    bench.recorder.fail("one", "GC", 7, "bad")
    with pytest.raises(CniError) as caught:
        bench.cni.gc_network_list(network, [])
    assert "failed to delete stale attachment c1 eth0" in caught.value.msg
    assert "failed to GC plugin one: bad" in caught.value.msg
    assert bench.calls() == [("two", "DEL"), ("one", "GC"), ("two", "GC")]


def test_gc_disabled(bench: Bench) -> None:
    bench.cni.add_network_list(bench.network(), RT)
    bench.recorder.take()
    bench.cni.gc_network_list(bench.network(disableGC="true"), [])
    assert bench.calls() == []


def test_status_returns_the_first_error_as_it_is(bench: Bench) -> None:
    bench.cni.get_status_network_list(bench.network("1.0.0"))
    assert bench.calls() == []
    bench.cni.get_status_network_list(bench.network())
    calls = bench.recorder.take()
    assert [call["plugin"] for call in calls] == ["one", "two"]
    assert calls[0]["stdin"] == {
        "type": "one", "keep": {"x": [1]}, "cniVersion": "1.1.0", "name": "net"
    }  # fmt: skip
    bench.recorder.fail("one", "STATUS", 50, "full")
    with pytest.raises(CniError) as caught:
        bench.cni.get_status_network_list(bench.network())
    assert (caught.value.code, caught.value.msg) == (50, "full")


def test_validate(bench: Bench) -> None:
    assert bench.cni.validate_network_list(bench.network()) == ["mac"]
    bench.recorder.plugin("two", versions=["0.3.1"])
    with pytest.raises(CniError, match=r'plugin two does not support config version "1\.1\.0"'):
        bench.cni.validate_network_list(bench.network())
    with pytest.raises(CniError, match=r'(?s)"three" in path.*does not support'):
        bench.cni.validate_network_list(
            bench.network(plugins=[{"type": "three"}, {"type": "two"}])
        )
    bench.recorder.plugin("two", versions=["0.1.0"])
    without = conf.network_conf_from_bytes(b'{"name":"net","plugins":[{"type":"two"}]}')
    assert bench.cni.validate_network_list(without) == []


def test_version_info(bench: Bench) -> None:
    bench.recorder.take()
    info = bench.cni.get_version_info("one")
    assert info.cni_version == "1.1.0" and "0.3.1" in info.supported_versions
    (call,) = bench.recorder.take()
    assert (call["netns"], call["ifname"], call["path"]) == ("dummy", "dummy", "dummy")
    assert call["stdin"] == {"cniVersion": "1.1.0"}
    bench.recorder.answer("one", "VERSION", {"cniVersion": "0.2.0"})
    assert bench.cni.get_version_info("one") == PluginInfo("0.2.0", ("0.1.0", "0.2.0"))
    bench.recorder.fail("one", "VERSION", 4, "unknown CNI_COMMAND: VERSION")
    assert bench.cni.get_version_info("one") == PluginInfo("0.1.0", ("0.1.0",))
    bench.recorder.fail("one", "VERSION", 4, "something else")
    with pytest.raises(CniError, match="something else"):
        bench.cni.get_version_info("one")


@pytest.mark.parametrize(
    ("answer", "culprit"),
    [("{}", "missing field cniVersion"), ("[]", "missing field cniVersion"), ("", "is empty"),
     ('{"cniVersion":"1.0.0"}', "missing field supportedVersions"),
     ('{"cniVersion":"1.0.0","supportedVersions":"1.0.0"}', "supportedVersions is")],
)  # fmt: skip
def test_bad_version_answers(bench: Bench, answer: str, culprit: str) -> None:
    bench.recorder.answer("one", "VERSION", answer)
    with pytest.raises(CniError, match=culprit):
        bench.cni.get_version_info("one")


def test_debians_plugins_answer_version(go_bin_dir: pathlib.Path) -> None:
    cni = CNIConfig([str(go_bin_dir)])
    for name in ("bridge", "host-local", "loopback"):
        info = cni.get_version_info(name)
        assert {"0.3.1", "0.4.0", "1.0.0"} <= set(info.supported_versions)


def test_single_plugin_twins(bench: Bench) -> None:
    plugin = conf.conf_from_bytes(
        b'{"cniVersion":"0.4.0","name":"net","type":"one","capabilities":{"mac":true}}'
    )
    result = bench.cni.add_network(plugin, RT)
    assert bench.cni.get_network_cached_result(plugin, RT) == result
    assert bench.cni.get_network_cached_config(plugin, RT) == (plugin.bytes, RT)
    bench.cni.check_network(plugin, RT)
    bench.cni.del_network(plugin, RT)
    with pytest.raises(CniError, match="is not attached"):
        bench.cni.check_network(plugin, RT)
    calls = bench.recorder.take()
    assert [call["command"] for call in calls] == ["ADD", "CHECK", "DEL"]
    assert calls[0]["stdin"]["runtimeConfig"] == {"mac": "0a:00:00:00:00:01"}
    assert all(call["stdin"]["prevResult"]["cniVersion"] == "0.4.0" for call in calls[1:])
    assert not bench.file.exists()
    assert bench.cni.validate_network(plugin) == ["mac"]
