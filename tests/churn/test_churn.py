# SPDX-License-Identifier: Apache-2.0
"""A short churn leaves nothing; and whoever leaves something is found out."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from tests.churn import leaks
from tests.churn.chain import plugin_list
from tests.churn.fleet import FATES, Fleet
from tests.churn.histogram import Histogram
from tests.churn.leaks import Baseline
from tests.rig.host import Host
from tests.rig.plugins import ROOT

#: Attachments by the firewall's backend, of the frozen plugins and from source, where a call takes
#: some ten times as long.
_ATTACHMENTS = {"nftables": (300, 40), "iptables": (60, 20)}
#: Forgets to delete, and says that it has.
_FORGETFUL = """\
#!/bin/sh
if [ "$CNI_COMMAND" = DEL ]; then exit 0; fi
exec {plugin}
"""


@pytest.mark.root
@pytest.mark.parametrize("firewall", _ATTACHMENTS)
def test_nothing_is_left(bin_dir: pathlib.Path, tmp_path: pathlib.Path, firewall: str) -> None:
    frozen, source = _ATTACHMENTS[firewall]
    attachments = frozen if any(bin_dir.glob("adder-*")) else source
    words = [sys.executable, "-m", "tests.churn", "--bin-dir", str(bin_dir)]
    words += ["--output", str(tmp_path), "--attachments", str(attachments)]
    words += ["--firewall", firewall]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "churn.json").read_text())
    assert report["leaks"] == report["faults"] == []
    assert report["lock_timeouts"] == 0
    assert sum(report["killed"].values()) > 0
    assert set(report["fates"]) == set(FATES)
    assert (tmp_path / "churn.txt").read_text().count("#") > 0


@pytest.fixture
def forgetful(bin_dir: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The plugins, but for a portmap that forgets to delete."""
    directory = tmp_path / "forgetful"
    directory.mkdir()
    for path in bin_dir.iterdir():
        (directory / path.name).symlink_to(path)
    (directory / "portmap").unlink()
    (directory / "portmap").write_text(_FORGETFUL.format(plugin=bin_dir / "portmap"))
    (directory / "portmap").chmod(0o755)
    return directory


@pytest.mark.expect_leftovers("a plugin forgets to delete")
def test_a_plugin_that_forgets_is_found_out(host: Host, forgetful: pathlib.Path) -> None:
    fleet = Fleet(forgetful, plugin_list("nftables"), seed=1)
    before = Baseline()
    fleet.run(4, at_once=2)
    found = before.leaks(4, patience=0)
    assert [line for line in found if "adder_portmap" in line and "cni:churn:" in line]


def test_a_fault_is_told(host: Host, tmp_path: pathlib.Path) -> None:
    for name in ("bridge", "portmap", "firewall"):
        (tmp_path / name).write_text('#!/bin/sh\necho \'{"code": 11, "msg": "busy"}\'; exit 1\n')
        (tmp_path / name).chmod(0o755)
    fleet = Fleet(tmp_path, plugin_list("nftables"), seed=1)
    fleet.run(1, at_once=1)
    assert "busy" in fleet.faults[0]
    assert fleet.lock_timeouts() == len(fleet.faults) > 0


def test_two_owners_are_told(host: Host, tmp_path: pathlib.Path) -> None:
    answer = '{"cniVersion": "1.0.0", "ips": [{"address": "10.208.0.2/16"}]}'
    for name in ("bridge", "portmap", "firewall"):
        (tmp_path / name).write_text(
            f"#!/bin/sh\nif [ $CNI_COMMAND = ADD ]; then echo '{answer}'; fi\n"
        )
        (tmp_path / name).chmod(0o755)
    fleet = Fleet(tmp_path, plugin_list("nftables"), seed=1)
    fleet.run(12, at_once=12)
    assert [fault for fault in fleet.faults if fault.startswith("10.208.0.2/16: ")]


def test_each_kind_of_leak(host: Host) -> None:
    before = Baseline()
    assert before.leaks(0, patience=0) == []
    host.run("ip", "link", "add", "left0", "type", "veth", "peer", "name", "left1")
    host.run("ip", "address", "add", "10.1.2.3/24", "dev", "left0")
    host.run("nft", "add table inet left")
    reservation = pathlib.Path("/var/lib/cni/networks/churn/10.208.0.2")
    reservation.parent.mkdir(parents=True)
    reservation.write_text("c1\r\neth0")
    found = "\n".join(before.leaks(0, patience=0))
    for trace in ("ifname=left0", "10.1.2.3/24", "table inet left", str(reservation)):
        assert trace in found
    reservation.unlink()


def test_a_process_that_stays_is_seen(host: Host) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert "sleep" in leaks.running()
        process.kill()
    assert "sleep" not in leaks.running()


def test_histogram() -> None:
    histogram = Histogram()
    for seconds in (0.001, 0.002, 0.003, 0.1, 20.0):
        histogram.add(seconds)
    assert histogram.percentile(0.5) == 3
    assert histogram.percentile(1.0) == 20_000
    shown = histogram.as_json()
    assert shown["count"] == 5 == sum(count for _, count in shown["buckets"])
    assert [2, 2] in shown["buckets"] and [4, 1] in shown["buckets"]
    assert shown["buckets"][-1] == [None, 1]
    assert "more" in histogram.text("x ADD")
    assert Histogram().text("nothing").startswith("nothing: 0 calls")
