# SPDX-License-Identifier: Apache-2.0
"""Measure our plugins side by side with Go's, and the overlay's agent against what it has to
reach, on hosts made for it and removed after it."""

from __future__ import annotations

import argparse
import functools
import gc
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import Progress

from tests.bench import chain, overlay, overlay_traffic, pods, portmap, report
from tests.bench.figure import Figure
from tests.bench.measure import adopt_orphans
from tests.bench.rows import GROUPS, WARM_UP, Bench, Row, load
from tests.rig import isolation, plugins

_GROUPS = {**GROUPS, **portmap.GROUPS, **chain.GROUPS, **pods.GROUPS}
#: Of figures that have to reach something of their own.
_FIGURES: dict[str, Callable[[Bench], list[Figure]]] = {
    "overlay-join": overlay.joining,
    "overlay-idle": overlay.idling,
    "overlay-tcp": overlay_traffic.throughput,
    "overlay-pings": overlay_traffic.pings,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds per row (default 30)")
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted({**_GROUPS, **_FIGURES}),
        help="measure this group of rows (may be repeated; default: all)",
    )
    parser.add_argument(
        "--bin-dir",
        type=pathlib.Path,
        default=plugins.ROOT / "build/bin",
        help="the plugins to measure (default build/bin)",
    )
    parser.add_argument(
        "--go-dir", type=pathlib.Path, default=plugins.GO_BIN_DIR, help="the plugins to beat"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=plugins.ROOT / "build", help="for JSON and chart"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with status 1 when a target is missed"
    )
    return parser.parse_args()


def _package_version() -> str:
    words = ["dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout or "unknown"


def main() -> int:
    """Run what was asked for; the exit status."""
    options = _arguments()
    adopt_orphans()
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    for directory in (options.bin_dir, options.go_dir):
        if not (directory / "bridge").exists():
            console.print(f"[red]no plugins in {directory}[/]: run `make build` or `make setup`")
            return 2
    # Where agents are looked for, too.
    os.environ["ADDER_BIN_DIR"] = str(options.bin_dir.resolve())
    isolation.enter()
    gc.disable()
    wanted = options.only or [*_GROUPS, *_FIGURES]
    rows: list[Row] = []
    figures: list[Figure] = []
    before, started = load(), time.monotonic()
    with Progress(console=console, transient=True) as progress:
        for group in wanted:
            total = options.rounds + WARM_UP if group in _GROUPS else None
            task = progress.add_task(group, total=total)
            bench = Bench(
                options.go_dir.resolve(),
                options.bin_dir.resolve(),
                options.rounds,
                functools.partial(progress.advance, task),
            )
            try:
                if group in _GROUPS:
                    rows += _GROUPS[group](bench)
                else:
                    figures += _FIGURES[group](bench)
            except (RuntimeError, AssertionError) as error:
                progress.stop()
                console.print(f"[red]{group} failed[/]: {error}", highlight=False)
                return 1
            finally:
                isolation.base_network()
    data = report.document(
        rows,
        {
            "ours": str(options.bin_dir),
            "go": str(options.go_dir),
            "go_package": _package_version(),
            "rounds": options.rounds,
            "load_before": before,
            "load_after": load(),
            "seconds": round(time.monotonic() - started, 1),
        },
        figures,
    )
    report.show(console, data)
    for path in report.write(options.output, data):
        console.print(f"wrote {path}", highlight=False)
    missed = [row.key for row in rows if row.target is not None and row.ratio() > row.target]
    missed += [figure.key for figure in figures if not figure.reached()]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
