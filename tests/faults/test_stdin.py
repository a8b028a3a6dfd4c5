# SPDX-License-Identifier: Apache-2.0
"""What may come on stdin instead of a configuration."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.faults.configs import network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner, environment, reply

GOOD = json.dumps(network()).encode()

UNDECODABLE = {
    "empty": b"",
    "blank": b" \n\t ",
    "truncated": GOOD[:-10],
    "truncated in a string": b'{"cniVersion":"1.0',
    "trailing garbage": GOOD + b"x",
    "two documents": GOOD + GOOD,
    "huge": b'{"name":"' + b"x" * (1 << 20) + b'"}',
    "huge blank": b" " * ((1 << 20) + 1) + GOOD,
    "deep array": b"[" * 100_000,
    "deep object": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "deep in a key": b'{"name":"a","args":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "not UTF-8": GOOD.replace(b"faults0", b"f\xff\xfe"),
    "UTF-16": json.dumps(network()).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "NaN": GOOD[:-1] + b',"mtu":NaN}',
    "Infinity": GOOD[:-1] + b',"mtu":-Infinity}',
    "single quotes": GOOD.replace(b'"', b"'"),
    "trailing comma": GOOD[:-1] + b",}",
    "comment": GOOD + b"// no",
    "control character": b'{"name":"a\nb"}',
    "null": b"null",
    "number": b"1",
    "string": b'"bridge"',
    "array": b"[" + GOOD + b"]",
    "NUL": b"\0" * 100,
}


@pytest.mark.parametrize("data", UNDECODABLE.values(), ids=UNDECODABLE.keys())
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_what_is_no_configuration_is_refused(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, command: str, data: bytes
) -> None:
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    run_plugin("bridge", command, data, netns=container, timeout=20).failed(6)
    host.assert_unchanged(before)
    assert inside.difference(container.snapshot()) == []


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
def test_no_plugin_takes_garbage(
    run_plugin: Runner, netns: Callable[..., Netns], plugin: str
) -> None:
    run_plugin(plugin, "ADD", b"\x00garbage", netns=netns()).failed(6)


def test_huge_numbers_do_no_harm(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    before = host.snapshot()
    for digits in (b"9" * 100_000, b"1e999", b"1" * 4000 + b".5"):
        answer = run_plugin("bridge", "ADD", GOOD[:-1] + b',"mtu":' + digits + b"}", netns=netns())
        assert answer.rc == 1
        assert answer.json["code"] in (6, 7), answer.json
    host.assert_unchanged(before)


def test_of_duplicate_keys_the_last_counts(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    document = GOOD[:-1] + b',"bridge":"last0"}'
    assert document.count(b'"bridge":') == 2
    result = run_plugin("bridge", "ADD", document, netns=netns()).result()
    assert result["interfaces"][0]["name"] == "last0"
    assert "faults0" not in host.link_names()


def test_keys_match_in_any_case(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    document = GOOD.replace(b'"bridge": "faults0"', b'"BRIDGE": "upper0"')
    result = run_plugin("bridge", "ADD", document, netns=netns()).result()
    assert result["interfaces"][0]["name"] == "upper0"


@pytest.mark.parametrize("start", [b"", GOOD[:20]], ids=["nothing comes", "it stops midway"])
def test_stdin_that_never_closes(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, start: bytes
) -> None:
    before = host.snapshot()
    env = environment("ADD", run_plugin.bin_dir, netns("waiting"), "c1", "eth0")
    source, feed = os.pipe()
    os.write(feed, start)
    try:
        began = time.monotonic()
        done = subprocess.run(
            [run_plugin.bin_dir / "bridge"],
            env={**env, "CNI_STDIN_TIMEOUT": "1"},
            stdin=source,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert time.monotonic() - began < 10
    finally:
        os.close(source)
        os.close(feed)
    reply(done.returncode, done.stdout, done.stderr).failed(5, "stdin")
    host.assert_unchanged(before)


def test_stdin_that_is_closed(host: Host, netns: Callable[..., Netns], run_plugin: Runner) -> None:
    container = netns()
    before = host.snapshot()
    env = environment("ADD", run_plugin.bin_dir, container, "c1", "eth0")
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" <&-', run_plugin.bin_dir / "bridge"],
        env=env,
        capture_output=True,
        timeout=30,
        check=False,
    )
    error = reply(done.returncode, done.stdout, done.stderr)
    assert error.rc == 1
    assert error.json["code"] in (5, 6), error.json
    host.assert_unchanged(before)


def test_configuration_in_small_pieces(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    env = environment("ADD", run_plugin.bin_dir, netns(), "c1", "eth0")
    with subprocess.Popen(
        [run_plugin.bin_dir / "bridge"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for at in range(0, len(GOOD), 40):
            process.stdin.write(GOOD[at : at + 40])
            process.stdin.flush()
            time.sleep(0.01)
        process.stdin.close()
        assert json.loads(process.stdout.read())["ips"]
    run_plugin("bridge", "DEL", GOOD, container_id="c1").succeeded()
