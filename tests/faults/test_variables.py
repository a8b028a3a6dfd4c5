# SPDX-License-Identifier: Apache-2.0
"""Missing, malformed and hostile CNI_* variables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.configs import network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner

#: No environment can hold a NUL; everything else that names have been abused with.
HOSTILE = {
    "CNI_COMMAND": ["add", "ADD\n", "ADD DEL", "../ADD", "VERSION;id", "A" * 10_000, "\u0100DD"],
    "CNI_CONTAINERID": [
        "../../etc/passwd",
        "..",
        ".hidden",
        "-rf",
        "a/b",
        "a:b",
        "a b",
        "a\n",
        "a\nCNI_IFNAME=eth1",
        "$(id)",
        "c" * 10_000,
        "\u0661\u0662\u0663",
        "\uff11\uff12",
        "caf\u00e9",
        "\udcff\udcfe",
    ],
    "CNI_IFNAME": [
        "..",
        ".",
        "../eth0",
        "a/b",
        "eth0:1",
        "eth 0",
        "eth0\n",
        "eth0\t",
        "sixteen-letters!",
        "\u00e9" * 8,
        "e" * 10_000,
        "\udcff\udcfe",
    ],
    "CNI_ARGS": [
        "IP",
        "IP=10.203.0.9=x",
        "UNKNOWN=1",
        "IgnoreUnknown=perhaps;X=1",
        "IP=not-an-address",
        "MAC=not-a-mac",
        ";;",
        "K" * 10_000,
        "\udcff\udcfe",
    ],
    "CNI_NETNS": ["/n" * 5_000, "/run/netns/a\nb", "/nowhere", "relative", "\udcff\udcfe"],
}
CASES = [(name, value) for name, values in HOSTILE.items() for value in values]


@pytest.mark.parametrize(
    ("name", "value"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)]
)
def test_hostile_value_is_refused(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, name: str, value: str
) -> None:
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    reply = run_plugin("bridge", "ADD", network(), netns=container, variables={name: value})
    error = reply.failed(4, name)
    assert len(str(error)) < 2000, "the message repeats the value at length"
    host.assert_unchanged(before)
    assert inside.difference(container.snapshot()) == []


@pytest.mark.parametrize("name", ["CNI_CONTAINERID", "CNI_IFNAME"])
@pytest.mark.parametrize("command", ["DEL", "CHECK"])
def test_names_are_checked_by_every_verb(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, command: str, name: str
) -> None:
    before = host.snapshot()
    reply = run_plugin("bridge", command, network(), netns=netns(), variables={name: "../x"})
    reply.failed(4, name)
    host.assert_unchanged(before)


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
@pytest.mark.parametrize("how", ["unset", "empty"])
@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("ADD", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("CHECK", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("DEL", ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("GC", ["CNI_PATH"]),
        ("STATUS", ["CNI_PATH"]),
    ],
)
def test_all_missing_variables_are_named_at_once(
    host: Host, run_plugin: Runner, plugin: str, command: str, names: list[str], how: str
) -> None:
    before = host.snapshot()
    value = None if how == "unset" else ""
    run_plugin(plugin, command, network(), variables=dict.fromkeys(names, value)).failed(4, *names)
    host.assert_unchanged(before)


def test_one_missing_variable_is_named_alone(run_plugin: Runner) -> None:
    error = run_plugin("bridge", "ADD", network(), CNI_NETNS=None).failed(4, "CNI_NETNS")
    assert "CNI_IFNAME" not in error["msg"]


def test_unknown_command_is_worded_as_the_reference_does(run_plugin: Runner) -> None:
    error = run_plugin("bridge", "FROB", network()).failed(4)
    assert error["msg"].startswith("unknown CNI_COMMAND: FROB")
