# SPDX-License-Identifier: Apache-2.0
"""Make and remove attachments by the thousand, killing plugins, and see that nothing is lost.

    python -m tests.churn [--attachments N] [--at-once N] [--firewall BACKEND] [--bin-dir DIR]

As root, on a host of its own. Prints a histogram of latencies and writes it with the counts to
build/churn.json and build/churn.txt. Exit status 1 when anything is left or was answered wrongly.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time

from rich.console import Console
from rich.progress import Progress

from tests.churn.chain import BRIDGE, plugin_list
from tests.churn.fleet import Fleet
from tests.churn.histogram import Histogram
from tests.churn.leaks import Baseline
from tests.rig import isolation
from tests.rig.host import Host
from tests.rig.plugins import ROOT, frozen_bin_dir

#: Attachments before the host is looked at: bridge, tables, chains and directories stay.
_WARM_UP = 32


def _arguments() -> tuple[argparse.Namespace, pathlib.Path]:
    parser = argparse.ArgumentParser(prog="python -m tests.churn", description=__doc__)
    parser.add_argument("--attachments", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1, help="of the fates (default 1)")
    parser.add_argument("--firewall", default="nftables", choices=["nftables", "iptables"])
    parser.add_argument("--bin-dir", type=pathlib.Path, help="default: build/bin, if current")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build")
    options = parser.parse_args()
    bin_dir = options.bin_dir or frozen_bin_dir()
    if bin_dir is None:
        parser.error("build/bin is not of these sources: run `make build`")
    return options, bin_dir.resolve()


def main() -> int:
    """Run; the exit status."""
    options, bin_dir = _arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    isolation.enter()
    host = Host()
    console = Console(width=None if sys.stdout.isatty() else 100)
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("churn", total=_WARM_UP + options.attachments)
            fleet = Fleet(
                bin_dir,
                plugin_list(options.firewall),
                options.seed,
                lambda: progress.advance(task),
            )
            fleet.run(_WARM_UP, options.at_once)
            before = Baseline()
            started = time.monotonic()
            fleet.run(options.attachments, options.at_once)
            seconds = time.monotonic() - started
        found = before.leaks(options.attachments)
        if BRIDGE not in host.link_names():
            fleet.faults.append(f"{BRIDGE} is not there")
    finally:
        host.close()
    report = _report(options, fleet, found, seconds)
    text = _text(report, fleet)
    (options.output / "churn.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.output / "churn.txt").write_text(text)
    console.print(text, markup=False, highlight=False)
    return 1 if found or fleet.faults else 0


def _report(
    options: argparse.Namespace, fleet: Fleet, found: list[str], seconds: float
) -> dict[str, object]:
    return {
        "attachments": _WARM_UP + options.attachments,
        "at_once": options.at_once,
        "firewall": options.firewall,
        "seconds": round(seconds, 1),
        "attachments_per_second": round(options.attachments / seconds, 1),
        "fates": dict(fleet.fates),
        "killed": dict(fleet.kills),
        "calls": sum(histogram.count for histogram in fleet.durations.values()),
        "lock_timeouts": fleet.lock_timeouts(),
        "longest_call_ms": max(h.percentile(1.0) for h in fleet.durations.values()),
        "faults": fleet.faults,
        "leaks": found,
        "latency": {key: h.as_json() for key, h in sorted(fleet.durations.items())},
    }


def _text(report: dict[str, object], fleet: Fleet) -> str:
    histograms: dict[str, Histogram] = dict(sorted(fleet.durations.items()))
    parts = [histogram.text(key) for key, histogram in histograms.items()]
    parts.append(
        f"{report['attachments']:,} attachments made and removed, {report['at_once']} at once, in "
        f"{report['seconds']} s; {sum(fleet.kills.values()):,} calls killed of "
        f"{report['calls']:,} others: {dict(fleet.kills)}\n"
        f"longest call {report['longest_call_ms']:.0f} ms, waits for locks that were given up: "
        f"{report['lock_timeouts']}\n"
        f"left behind: {len(found) if (found := report['leaks']) else 'nothing'}, "  # type: ignore[arg-type]
        f"wrong answers: {len(fleet.faults) or 'none'}"
    )
    for title, lines in (("left behind", report["leaks"]), ("wrong", fleet.faults)):
        parts += [f"{title}: {line}" for line in lines[:20]]  # type: ignore[index]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
