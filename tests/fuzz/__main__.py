# SPDX-License-Identifier: Apache-2.0
"""Look for inputs that break a property, target after target.

    python -m tests.fuzz [--only TARGET]... [--runs N] [--time SECONDS] [--keep]

New inputs gather in build/fuzz/<target>; --keep puts the smallest of them that reach something
new into the corpus. An input that breaks something is in build/fuzz/<target>.broken-*, and is
tried again by --replay FILE. Exit status 1 when there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.fuzz import minimise
from tests.fuzz.target import CORPUS, ROOT, Target, all_targets, corpus

_OUTPUT = ROOT / "build/fuzz"
#: libFuzzer: seconds that one input may take, MB that the process may have, bytes of an input.
_LIMITS = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"]


def _arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--only", action="append", choices=names, help="this target (repeatable)")
    parser.add_argument("--runs", type=int, default=-1, help="inputs per target (default: any)")
    parser.add_argument("--time", type=int, default=60, help="seconds per target (default 60)")
    parser.add_argument("--keep", action="store_true", help="add what is new to the corpus")
    parser.add_argument("--replay", type=pathlib.Path, help="try one input of the --only target")
    return parser.parse_args()


def _fuzz(name: str, target: Target, runs: int, seconds: int) -> tuple[int, str]:
    """Fuzz one target: how many inputs were tried, and libFuzzer's log if one broke it."""
    work = _OUTPUT / name
    work.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (work / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.engine", name, *_LIMITS),
            *(f"-runs={runs}", f"-max_total_time={seconds}", "-print_final_stats=1"),
            *(f"-artifact_prefix={_OUTPUT}/{name}.broken-", str(work)),
            *([str(CORPUS / name)] if corpus(name) else []),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    log = done.stdout[-3000:] + done.stderr[-2000:] if done.returncode else ""
    return int(counted[1]) if counted else 0, log


def _keep(name: str, target: Target) -> None:
    """Put the smallest inputs that together reach everything into the corpus."""
    folder = CORPUS / name
    named = {data: file for file, data in corpus(name).items()}
    found = [path.read_bytes() for path in (_OUTPUT / name).iterdir()]
    kept = minimise.smallest(target.run, [*named, *found])
    folder.mkdir(parents=True, exist_ok=True)
    for data, file in named.items():
        # What has a name of its own is there for a reason.
        if data not in kept and re.fullmatch(r"[0-9a-f]{12}", file):
            (folder / file).unlink()
    seeds = set(target.seeds())
    for data in kept:
        if data not in named and data not in seeds:
            (folder / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)


def main() -> int:
    """Fuzz what was asked for; the exit status."""
    targets = all_targets()
    options = _arguments(list(targets))
    names = options.only or list(targets)
    if options.replay:
        targets[names[0]].run(options.replay.read_bytes())
        return 0
    console = Console(width=None if sys.stdout.isatty() else 100)
    table = Table("target", "inputs", "a second", "corpus", "outcome")
    counts: dict[str, int] = {}
    broken = False
    for name in names:
        started = time.monotonic()
        counts[name], log = _fuzz(name, targets[name], options.runs, options.time)
        rate = counts[name] / max(1e-3, time.monotonic() - started)
        broken |= bool(log)
        if log:
            console.print(log, markup=False, highlight=False)
        if options.keep and not log:
            _keep(name, targets[name])
        outcome = "[red]broken[/]" if log else "held"
        table.add_row(name, f"{counts[name]:,}", f"{rate:,.0f}", str(len(corpus(name))), outcome)
        console.print(f"{name}: {counts[name]:,} inputs, {outcome}")
    table.add_row("all", f"{sum(counts.values()):,}", "", "", "")
    console.print(table)
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    (_OUTPUT / "inputs.json").write_text(json.dumps(counts, indent=2) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
