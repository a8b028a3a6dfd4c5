# SPDX-License-Identifier: Apache-2.0
"""The cache of results: Go's bytes, atomic, confined, tolerant."""

from __future__ import annotations

import base64
import errno
import json
import os
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libcni import fs
from libcni.cache import Cache, NetworkAttachment
from libcni.types.errors import CniError
from libcni.types.result import IPConfig

CONFIG = b'{"name":"net","plugins":[{"type":"a"}]}'
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24", "interface": 0}]}


def attachment(**changes: Any) -> NetworkAttachment:
    values: dict[str, Any] = {
        "container_id": "c1",
        "network": "net",
        "if_name": "eth0",
        "config": CONFIG,
        "netns": "/run/netns/x",
        "cni_args": [("IgnoreUnknown", "1"), ("K8S_POD_NAME", "p")],
        "capability_args": {"portMappings": [{"hostPort": 1}], "ips": ["10.0.0.2"]},
        "result": RESULT,
    }
    return NetworkAttachment(**{**values, **changes})


def test_the_bytes_are_those_of_gos_encoder() -> None:
    """Field order and omissions of struct cachedInfo, maps sorted, HTML escaped, compact."""
    encoded = attachment(capability_args={"b": "<&>\u2028é", "a": {"y": 1, "x": None}}).encode()
    assert encoded == (
        b'{"kind":"cniCacheV1","containerId":"c1","config":"' + base64.b64encode(CONFIG) + b'",'
        b'"ifName":"eth0","networkName":"net","netns":"/run/netns/x",'
        b'"cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAME","p"]],'
        b'"capabilityArgs":{"a":{"x":null,"y":1},'
        b'"b":"\\u003c\\u0026\\u003e\\u2028\xc3\xa9"},'
        b'"result":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24","interface":0}]}}'
    )


def test_empty_members_are_left_out() -> None:
    assert attachment(netns="", cni_args=[], capability_args={}, result={}).encode() == (
        b'{"kind":"cniCacheV1","containerId":"c1","config":"' + base64.b64encode(CONFIG) + b'",'
        b'"ifName":"eth0","networkName":"net"}'
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(), st.dictionaries(st.text(), values, max_size=3))
def test_what_is_written_is_read(config: bytes, capabilities: dict[str, Any]) -> None:
    written = attachment(config=config, capability_args=capabilities)
    assert NetworkAttachment.decode(written.encode(), "x") == written


def test_add_load_remove(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path / "cni")
    assert cache.load("net", "c1", "eth0") is None
    assert cache.attachments() == []
    cache.remove("net", "c1", "eth0")
    cache.add(attachment())
    file = tmp_path / "cni" / "results" / "net-c1-eth0"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(file.parent) == [file.name]
    assert cache.load("net", "c1", "eth0") == attachment()
    result = cache.result("net", "c1", "eth0", "0.4.0")
    assert result is not None and result.ips == [IPConfig("10.0.0.2/24", "", 0)]
    cache.remove("net", "c1", "eth0")
    assert not file.exists()


@pytest.mark.parametrize(
    "names",
    [
        ("../net", "c1", "eth0"),
        ("net", "../../etc/passwd", "eth0"),
        ("net", "c1", "../x"),
        ("net", "c1", "a/b"),
        ("net", "c1\n", "eth0"),
        ("net", "c1", "a\0"),
        ("net", "\u0661", "eth0"),
        ("", "c1", "eth0"),
        ("net", "", "eth0"),
        ("net", "c1", ""),
        ("net", "c" * 201, "eth0"),
    ],
)
def test_no_name_leads_out_of_the_directory(
    tmp_path: pathlib.Path, names: tuple[str, str, str]
) -> None:
    cache = Cache(tmp_path)
    for method in (cache.load, cache.remove):
        with pytest.raises(CniError) as caught:
            method(*names)
        assert caught.value.code in (3, 4, 7)


def test_a_file_name_that_would_be_too_long_is_refused_before_the_add(
    tmp_path: pathlib.Path,
) -> None:
    cache = Cache(tmp_path)
    cache.check_writable_name("n" * 100, "c" * 130, "eth0")
    with pytest.raises(CniError, match="file name would have"):
        cache.check_writable_name("n" * 130, "c" * 130, "eth0")


def test_every_prefix_is_damaged_and_said_to_be(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path)
    cache.add(attachment())
    file = tmp_path / "results" / "net-c1-eth0"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CniError) as caught:
            cache.result("net", "c1", "eth0", "1.0.0")
        assert caught.value.code == 6
        assert "net-c1-eth0" in caught.value.msg


@pytest.mark.parametrize(
    "change",
    [{"config": "*"}, {"config": 1}, {"cniArgs": [["a"]]}, {"cniArgs": [[1, 2]]},
     {"capabilityArgs": []}, {"result": []}, {"containerId": 1}, {"result": {"ips": 1}}],
)  # fmt: skip
def test_wrong_types_are_damage(tmp_path: pathlib.Path, change: dict[str, Any]) -> None:
    cache = Cache(tmp_path)
    cache.add(attachment())
    file = tmp_path / "results" / "net-c1-eth0"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | change))
    with pytest.raises(CniError) as caught:
        cache.result("net", "c1", "eth0", "1.0.0")
    assert caught.value.code == 6


@pytest.mark.parametrize("content", ['{"kind":"cniCacheV1"}', "{}"])
def test_no_result_is_damage(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "net-c1-eth0").write_text(content)
    with pytest.raises(CniError, match="holds no result"):
        Cache(tmp_path).result("net", "c1", "eth0", "1.0.0")


def test_the_bare_result_of_old_versions_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "net-c1-eth0"
    file.write_text('{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"},"dns":{}}')
    result = Cache(tmp_path).result("net", "c1", "eth0", "1.0.0")
    assert result is not None and result.ips == [IPConfig("10.0.0.2/24")]


def test_attachments(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path)
    for network, container in (("net", "c1"), ("net", "c2"), ("other", "c1")):
        cache.add(attachment(network=network, container_id=container))
    results = tmp_path / "results"
    (results / "net-c9-eth0").write_text("{")
    (results / "net-c8-eth0").write_text('{"cniVersion":"0.2.0"}')
    (results / "directory").mkdir()
    (results / "net-c1-eth0.77.tmp").write_bytes((results / "net-c1-eth0").read_bytes())
    found = [(a.network, a.container_id) for a in cache.attachments()]
    assert found == [("net", "c1"), ("net", "c2"), ("other", "c1")]
    found = [(a.network, a.container_id) for a in cache.attachments("c1")]
    assert found == [("net", "c1"), ("other", "c1")]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    cache.add(attachment())

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fs, "write_all", full)
    with pytest.raises(CniError, match="No space left on device") as caught:
        cache.add(attachment(netns="/other"))
    assert caught.value.code == 5
    assert cache.load("net", "c1", "eth0") == attachment()
    assert os.listdir(tmp_path / "results") == ["net-c1-eth0"]


def test_what_a_killed_runtime_left_of_it_goes_too(tmp_path: pathlib.Path) -> None:
    cache, results = Cache(tmp_path), tmp_path / "results"
    cache.remove("net", "c1", "eth0")
    of_that_name = attachment(if_name="eth0.78.tmp")
    for each in (attachment(), attachment(if_name="eth1"), of_that_name):
        cache.add(each)
    (results / "net-c1-eth0.76.tmp").write_bytes(b"")
    (results / "net-c1-eth0.77.tmp").write_bytes(attachment().encode())
    (results / "net-c1-eth0.x.tmp").write_bytes(b"")
    (results / "net-c1-eth1.77.tmp").write_bytes(b"")
    cache.remove("net", "c1", "eth0")
    assert sorted(os.listdir(results)) == [
        "net-c1-eth0.78.tmp", "net-c1-eth0.x.tmp", "net-c1-eth1", "net-c1-eth1.77.tmp",
    ]  # fmt: skip
    cache.remove("net", "c1", "eth1")
    cache.remove("net", "c1", "eth0.78.tmp")
    assert os.listdir(results) == ["net-c1-eth0.x.tmp"]


def test_quarantine(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path)
    cache.add(attachment())
    (tmp_path / "results" / "net-c1-eth0").write_text("{")
    cache.quarantine("net", "c1", "eth0", "why")
    assert cache.load("net", "c1", "eth0") is None
    assert (tmp_path / "corrupt" / "net-c1-eth0").read_text() == "{"


def test_gc_puts_aside_what_is_damaged(tmp_path: pathlib.Path) -> None:
    cache, results = Cache(tmp_path), tmp_path / "results"
    cache.quarantine_all("net", set())
    cache.add(attachment())
    for name in ("net-c2-eth0", "net-c3-eth0", "net-c4-eth0.7.tmp", "other-c2-eth0"):
        (results / name).write_text("{")
    (results / "net-old-eth0").write_text(json.dumps(RESULT))
    cache.quarantine_all("net", {("c3", "eth0")})
    assert os.listdir(tmp_path / "corrupt") == ["net-c2-eth0"]
    assert sorted(os.listdir(results)) == [
        "net-c1-eth0", "net-c3-eth0", "net-c4-eth0.7.tmp", "net-old-eth0", "other-c2-eth0",
    ]  # fmt: skip
