# SPDX-License-Identifier: Apache-2.0
"""Real runtimes led through the scenarios: our libcni, our cnitool, Debian's containerd."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile

import cni_conformance
import pytest
from cni_conformance import cli, data
from cni_conformance.case import Finding, NotApplicable
from cni_conformance.runtime import scenario
from cni_conformance.runtime.cnitool import Cnitool
from cni_conformance.runtime.driver import FEATURES, Runtime
from cni_conformance.runtime.recorder import Recorder
from cni_conformance.runtime.stage import Stage
from runtimes.containerd_cri import ContainerdDriver
from runtimes.libcni_api import Libcni

from tests.rig.host import Host

#: What containerd is known to do otherwise, and why.
EXPECTED = pathlib.Path(__file__).parent / "runtimes/containerd_expected.json"


def lead(runtime: Runtime, record: pathlib.Path) -> tuple[dict[str, str], set[str]]:
    """Through all scenarios: the findings, and which scenarios did not apply."""
    stage = Stage(runtime, Recorder(runtime.plugin_dirs[0], record))
    findings, skipped = {}, set()
    for each in scenario.load():
        try:
            stage.run(each)
        except Finding as finding:
            findings[each.id] = str(finding)
        except NotApplicable:
            skipped.add(each.id)
    return findings, skipped


def test_libcni_does_everything_right(tmp_path: pathlib.Path) -> None:
    findings, skipped = lead(Libcni(tmp_path), tmp_path / "record")
    assert findings == {}
    assert {id.partition("-")[0] for id in skipped} == {"sandbox"}


def test_containerd_does_what_is_known_of_it(host: Host) -> None:
    """Its shortfalls are expected findings, each with its reason; one that is gone is news."""
    # Not below tmp_path: the paths of sockets may have 104 characters.
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="containerd-", dir="/run"))
    runtime = ContainerdDriver(scratch)
    try:
        findings, skipped = lead(runtime, scratch / "record")
    finally:
        runtime.close()
    host.keep_files("/run/")
    assert findings.keys() == data.read(EXPECTED).keys(), findings
    asked = {each.id for each in scenario.load()} - skipped
    assert {"sandbox-cleans-up", "del-namespace-gone", "request-capability-del"} <= asked


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """cni-conformance, as a process."""
    suite = pathlib.Path(cni_conformance.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "cni_conformance", *words],
        cwd=suite,
        capture_output=True,
        text=True,
        check=False,
    )


def test_cnitool_on_the_command_line(bin_dir: pathlib.Path) -> None:
    done = command("--runtime", f"cnitool:{bin_dir}/cnitool")
    assert done.returncode == 0, done.stdout + done.stderr
    count = len([each for each in scenario.load() if set(each.needs) <= Cnitool.features])
    assert f"{count} hold, 0 required do not, 0 recommended do not" in done.stdout


def test_a_finding_says_how_to_repeat_it(tmp_path: pathlib.Path) -> None:
    """A cnitool that does nothing at all."""
    lazy = tmp_path / "cnitool"
    lazy.write_text("#!/bin/sh\nexit 0\n")
    lazy.chmod(0o755)
    words = ["--runtime", f"cnitool:{lazy}", "--only", "del-prevresult"]
    done = command(*words)
    assert done.returncode == 1, done.stderr
    assert "REQUIRED  cnitool  del-prevresult  (1.1.0)" in done.stdout
    assert "expected a call of * DEL" in done.stdout
    assert f"repeat   cni-conformance {' '.join(words)}\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["--runtime", "cnitool:/nowhere/cnitool"], "/nowhere/cnitool: no such file"),
        (["--runtime", "cnitool"], "cnitool:PATH or package.module:Class"),
        (["--runtime", "no.such:Driver"], "No module named 'no'"),
        (["--runtime", "cnitool:/bin/true", "--only", "no-such"], "no scenario 'no-such'"),
    ],
)
def test_wrong_usage(words: list[str], culprit: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert culprit in capfd.readouterr().err


def test_scenarios_are_listed_and_explained(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--runtime", "cnitool:/bin/true", "--list"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == len(scenario.load())
    words = ["--runtime", "cnitool:/bin/true", "--explain", "gc-valid-attachments"]
    assert cli.main(words) == 0
    text = capfd.readouterr().out
    assert "section   SPEC 1.1.0, section 2, GC" in text
    assert "why       A container that is missing from the list loses its address" in text
    assert "- gc valid=" in text


def test_the_schema_names_the_features_that_drivers_have() -> None:
    schema = data.read(data.VECTORS / "schema/scenarios.json")
    needs = schema["definitions"]["scenario"]["properties"]["needs"]
    assert needs["items"]["enum"] == list(FEATURES)


def test_a_scenario_that_means_nothing_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "schema").symlink_to(data.VECTORS / "schema")
    (tmp_path / "runtime").mkdir()
    monkeypatch.setattr(data, "VECTORS", tmp_path)
    file = tmp_path / "runtime/wrong.json"
    file.write_text(json.dumps({"scenarios": [{"id": "a", "expect": [{"cal": "first ADD"}]}]}))
    with pytest.raises(ValueError, match=r"wrong\.json: .*'title' is a required property"):
        scenario.load()
