# SPDX-License-Identifier: Apache-2.0
"""The arithmetic and the documents of the measurements, with made-up samples."""

from __future__ import annotations

import io
import json
import pathlib
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from tests.bench import report
from tests.bench.measure import (
    Call,
    Sample,
    Steps,
    all_in_turn,
    in_turn,
    once,
    peak_in_turn,
    peak_memory,
    percentile90,
)
from tests.bench.rows import Row
from tests.rig.plugins import GO_BIN_DIR

FACTS = {"load_before": 0.0, "load_after": 0.1}


def row(target: float | None, baseline: list[float], ours: list[float]) -> Row:
    made = Row("key", "a <title>", "why", target, memory=(4000, 9000))
    made.baseline = [Sample(wall, wall / 2) for wall in baseline]
    made.ours = [Sample(wall, wall / 2) for wall in ours]
    return made


def test_ratio_is_the_median_of_pairs() -> None:
    assert row(None, [1.0, 10.0, 100.0], [2.0, 5.0, 300.0]).ratio() == 2.0


def test_percentile() -> None:
    assert percentile90([float(n) for n in range(1, 11)]) == 9.0
    assert percentile90([5.0]) == 5.0
    assert percentile90([]) == 0.0


def test_documents(tmp_path: pathlib.Path) -> None:
    rows = [row(0.5, [0.02, 0.02], [0.01, 0.01]), row(1.1, [0.01], [0.03]), row(None, [1], [1])]
    data = report.document(rows, FACTS)
    assert [one["reached"] for one in data["rows"]] == [True, False, True]
    assert data["peak_kb"]["reached"]
    text, chart = report.write(tmp_path, data)
    assert json.loads(text.read_text())["rows"][0]["sides"]["Go"]["median_ms"] == 20.0
    drawn = ET.fromstring(chart.read_text())
    bars = [e for e in drawn.iter("{http://www.w3.org/2000/svg}rect") if "x" in e.attrib]
    assert len(bars) == 6
    longest = max(float(bar.attrib["width"]) for bar in bars)
    assert float(bars[1].attrib["width"]) == pytest.approx(longest / 2)
    output = io.StringIO()
    report.show(Console(file=output, width=120), data)
    assert "a <title>" in output.getvalue() and "≤ 0.50" in output.getvalue()


def _versions(name: str, times: int) -> Steps:
    """Ask a plugin so many times; returns the answers."""
    answers = []
    for _ in range(times):
        answers.append((yield Call(GO_BIN_DIR / name, {"CNI_COMMAND": "VERSION"}, b"")))
    return answers


def test_calls_in_turn_get_the_answer_before() -> None:
    one, _ = once(next(_versions("loopback", 1)))
    three, answers = in_turn(_versions("loopback", 3))
    assert [answer["cniVersion"] for answer in answers] == ["1.0.0"] * 3
    assert three.wall > one.wall / 10 and three.cpu > one.cpu / 10
    peak, again = peak_in_turn(_versions("loopback", 2))
    assert again == answers[:2] and peak > 1500


def test_many_in_turn_at_once() -> None:
    names = ["loopback", "bridge", "portmap", "firewall"]
    steps = [_versions(name, times) for times, name in enumerate(names)]
    sample, answers = all_in_turn(steps)
    assert [len(each) for each in answers] == [0, 1, 2, 3]
    assert all("0.4.0" in answer["supportedVersions"] for each in answers for answer in each)
    assert sample.cpu > 0 and 0 < sample.wall < 30


def test_a_call_that_fails_ends_the_measurement() -> None:
    def steps() -> Steps:
        yield Call(GO_BIN_DIR / "loopback", {"CNI_COMMAND": "ADD"}, b"")

    for measure in (in_turn, lambda one: all_in_turn([one])):
        with pytest.raises(RuntimeError, match="loopback ADD: exit 1"):
            measure(steps())


def test_memory_is_that_of_the_program_alone() -> None:
    """Not of this process, which is several times larger than a Go plugin."""
    call = Call(GO_BIN_DIR / "loopback", {"CNI_COMMAND": "VERSION"}, b"")
    sample, answer = once(call)
    assert "0.4.0" in answer["supportedVersions"]
    assert sample.cpu > 0 and 0 < sample.wall < 5
    assert 1500 < peak_memory(call) < 9000
