# SPDX-License-Identifier: Apache-2.0
"""`cnitool list`: networks and attachments, and what is wrong with the files they are in."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.rig.plugins import ROOT
from tests.unit.desk import CONTAINER, NETNS, Desk


def test_list(desk: Desk) -> None:
    desk.network()
    desk.write("20.conflist", "broken")
    assert desk.run("add", "net", NETNS) == 0
    assert desk.run("list") == 0
    assert "10-net.conflist" in desk.out and "20.conflist" in desk.out
    assert CONTAINER in desk.out and "10.0.0.2/24" in desk.out and "(gone)" in desk.out
    assert desk.run("list", "-o", "names") == 0
    assert desk.out == "net\n"
    assert desk.run("list", "--output", "json") == 0
    document = json.loads(desk.out)
    assert document["networks"][0] == {
        "file": str(desk.net_d / "10-net.conflist"),
        "name": "net",
        "cniVersion": "1.1.0",
        "plugins": ["one"],
    }
    assert "not valid JSON" in document["networks"][1]["error"]
    assert document["attachments"] == [
        {
            "network": "net",
            "containerID": CONTAINER,
            "ifname": "eth0",
            "netns": NETNS,
            "netnsExists": False,
            "addresses": ["10.0.0.2/24"],
        }
    ]


def test_list_does_not_take_an_unknown_namespace_for_gone(desk: Desk) -> None:
    """As podman 4 has attachments in the cache: without `netns`."""
    desk.network()
    assert desk.run("add", "net", NETNS) == 0
    file = desk.cache / "results" / f"net-{CONTAINER}-eth0"
    document = json.loads(file.read_text())
    del document["netns"]
    file.write_text(json.dumps(document))
    assert desk.run("list") == 0
    assert desk.out.splitlines()[-1].endswith("10.0.0.2/24  unknown")
    assert "(gone)" not in desk.out
    assert desk.run("list", "-o", "json") == 0
    (attachment,) = json.loads(desk.out)["attachments"]
    assert attachment["netns"] is None and attachment["netnsExists"] is None


def test_list_of_nothing(desk: Desk) -> None:
    assert desk.run("list") == 0
    assert desk.out.count("none") == 2


@pytest.mark.parametrize("output", ["table", "json"])
def test_list_names_what_is_damaged(desk: Desk, output: str) -> None:
    desk.network()
    assert desk.run("add", "net", NETNS) == 0
    results = desk.cache / "results"
    (results / "net-red-eth0").write_text("{")
    (results / "net-blue-eth0.7.tmp").write_text("{")
    assert desk.run("list", "-o", output) == 1
    assert CONTAINER in desk.out
    assert desk.err.startswith(f"Error: cached result {results}/net-red-eth0")
    assert len(desk.err.splitlines()) == 1
    (results / f"net-{CONTAINER}-eth0").unlink()
    assert desk.run("list") == 1
    assert desk.out.endswith(f"Attachments in {desk.cache}: none that can be read\n")


@pytest.mark.parametrize("output", ["table", "json"])
def test_list_shows_networks_where_attachments_cannot_be_read(desk: Desk, output: str) -> None:
    desk.network()
    desk.cache.mkdir()
    (desk.cache / "results").touch()
    assert desk.run("list", "-o", output) == 1
    assert "10-net.conflist" in desk.out
    assert desk.err == f"Error: cannot list {desk.cache}/results: Not a directory\n"


def test_list_draws_tables_on_a_terminal(desk: Desk) -> None:
    desk.network()
    master, slave = os.openpty()
    command = [sys.executable, "-m", "libcni.cnitool", "list", "--cache-dir", str(desk.cache)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "PYTHONUTF8": "1"}
    process = subprocess.Popen(command, stdout=slave, env=environment, cwd=ROOT)
    os.close(slave)
    drawn = b""
    try:
        while data := os.read(master, 4096):
            drawn += data
    except OSError:
        pass
    assert process.wait() == 0
    os.close(master)
    assert "┃".encode() in drawn and b"net" in drawn
