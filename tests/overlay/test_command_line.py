# SPDX-License-Identifier: Apache-2.0
"""The agent's commands on its command line, and what it says of them."""

from __future__ import annotations

import pytest

from cni_vxlan_overlay.agent import __main__, logs
from cni_vxlan_overlay.agent.command_line import split
from cni_vxlan_overlay.agent.settings import COMMANDS


@pytest.mark.parametrize("command", ["run", "cleanup"])
@pytest.mark.parametrize(
    "options",
    [
        ["--ip-masq"],
        ["-ip-masq", "--iface", "eth0"],
        ["--iface=run", "--ip-masq", "FALSE"],
        ["--nodes-file", "status", "--iptables-forward-rules"],
        ["-v", "3", "--logtostderr"],
        ["--healthz-port", "8081", "-v"],
    ],
)
def test_a_command_before_and_after_the_agents_options(command: str, options: list[str]) -> None:
    """A flag's value may be left out, so the word after it need not be one."""
    assert split([command, *options]) == (command, options)
    assert split([*options, command]) == (command, options)
    assert split([*options, command, *options]) == (command, [*options, *options])
    assert split(options) == ("", options)


def test_those_that_only_look_pass_the_agents_options_over() -> None:
    before = ["--ip-masq", "--nodes-file", "/n", "--state-file", "/s", "--output=json"]
    for command in ("status", "check"):
        words = [*before, command, "--output", "table"]
        assert split(words) == (command, ["--state-file", "/s", *before[-1:], "--output", "table"])
        assert split(["--output", "json", command]) == (command, ["--output", "json"])


def test_the_installers_options_are_its_own() -> None:
    words = ["install", "--skip", "bridge"]
    assert split(["install-cni", *words]) == ("install-cni", words)


@pytest.mark.parametrize("words", [["bogus"], ["--ip-masq", "bogus"], ["--iface=x", "bogus"]])
def test_a_command_that_is_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no command 'bogus'" in line
    assert "run, status, check, cleanup" in line


def test_a_wrong_option_is_not_drowned_in_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--ip-masq=maybe"], ["cleanup", "--ip-masq=maybe"], ["--nonsense"]):
        with pytest.raises(SystemExit) as refusal:
            __main__.main(words)
        assert refusal.value.code == 2
        usage, complaint = capsys.readouterr().err.splitlines()
        assert usage.startswith("usage: vxlan-overlayd ")
        assert usage.endswith(" [OPTIONS]")
        assert "maybe" in complaint or "--nonsense" in complaint


@pytest.mark.parametrize("command", COMMANDS)
def test_each_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        __main__.main([command, "--help"])
    assert done.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"usage: vxlan-overlayd {command} ")
    assert COMMANDS[command] in said


def test_the_help_of_all_has_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["help"], ["-h"]):
        with pytest.raises(SystemExit) as done:
            __main__.main(words)
        assert done.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert said.startswith("usage: vxlan-overlayd [COMMAND] [OPTIONS]")
        assert "run (the default), status, check, cleanup" in said


def test_a_number_and_its_noun() -> None:
    assert [logs.count(number, "peer") for number in (0, 1, 2)] == ["0 peers", "1 peer", "2 peers"]
    assert logs.count(1, "FDB entry", "FDB entries") == "1 FDB entry"
    assert logs.count(3, "FDB entry", "FDB entries") == "3 FDB entries"
