# SPDX-License-Identifier: Apache-2.0
"""The measurements of the overlay with small numbers: that they measure, not what."""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.bench import report
from tests.bench.crowd import Lab
from tests.bench.figure import Figure
from tests.bench.overlay import figures_of_idling, figures_of_joining
from tests.bench.overlay_traffic import figures_of_pings, figures_of_throughput
from tests.overlay.cluster import Cluster
from tests.rig.host import Host


@pytest.fixture
def laboratory(host: Host, bin_dir: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Lab]:
    """Nodes that go with the test."""
    cluster = Cluster(host, bin_dir)
    yield Lab(cluster, tmp_path)
    cluster.close()


def by_key(figures: list[Figure]) -> dict[str, Figure]:
    assert len({figure.key for figure in figures}) == len(figures)
    return {figure.key: figure for figure in figures}


def test_joining(laboratory: Lab) -> None:
    """The kernel is held against the store in it; times and memory are those of a process."""
    found = by_key(figures_of_joining(laboratory, small=5, large=12, times=1, moves=3))
    assert 0 < found["overlay-join-cpu"].value < 60
    assert 10 < found["overlay-memory"].value < 1000
    moves = found["overlay-change-median"].details["samples_ms"]
    assert len(moves) == 3 and all(0 < move < 30_000 for move in moves)
    assert found["overlay-change-p90"].value >= found["overlay-change-median"].value


def test_idling(laboratory: Lab) -> None:
    found = by_key(figures_of_idling(laboratory, count=4, seconds=2.0))
    assert found["overlay-idle-writes"].value == 0
    assert found["overlay-idle"].value < 100


def test_throughput(laboratory: Lab) -> None:
    found = by_key(figures_of_throughput(laboratory, rounds=1, seconds=1))
    ours, by_hand = found["overlay-tcp-ours"].value, found["overlay-tcp-by-hand"].value
    assert found["overlay-tcp-by-hand-ratio"].value == pytest.approx(ours / by_hand)
    assert found["overlay-tcp-by-hand-no-rules"].value > 0


def test_pings(laboratory: Lab) -> None:
    (lost,) = figures_of_pings(laboratory, deaths=2)
    assert lost.value == 0 and lost.details["sent"] > 100


def test_documents(tmp_path: pathlib.Path) -> None:
    figures = [
        Figure("a", "at most", "why", "s", 1.5, 2.0),
        Figure("b", "at least", "why", "x", 0.9, 0.95, at_least=True),
        Figure("c", "reported", "why", "/s", 1234.5),
        Figure("d", "none", "why", "", 0, 0),
    ]
    data = report.document([], {"load_before": 0.0, "load_after": 0.0}, figures)
    assert [one["reached"] for one in data["figures"]] == [True, False, True, True]
    text, _ = report.write(tmp_path, data)
    assert json.loads(text.read_text())["figures"][0]["value"] == 1.5
    output = io.StringIO()
    report.show(Console(file=output, width=120), data)
    for words in ("1.5 s", "≤ 2 s", "0.9 x", "≥ 0.95 x", "1,234 /s", "≤ 0"):
        assert words in output.getvalue()
