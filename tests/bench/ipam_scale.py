# SPDX-License-Identifier: Apache-2.0
"""host-local's cost as it fills, in process: python -m tests.bench.ipam_scale [--directory D].

Prints, for stores of 10 to 60,000 reservations, the median of ADD, CHECK and DEL of one more
container in microseconds, and DEL's ratio to the smallest store. Exits 1 when that ratio is
above 1.5 for the largest one.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import statistics
import sys
import tempfile
import time

from tests.rig.ipam import Ipam

SIZES = (10, 100, 1_000, 10_000, 60_000)
LIMIT = 1.5


def fill(ipam: Ipam, size: int) -> float:
    """Make reservations up to `size` as Go's plugin does, and adopt them; seconds of the scan."""
    ipam.add("seed")
    for n in range(size - 1):
        # From the range's end, out of the round robin's way.
        value = (10 << 24) + (255 << 8) - n
        name = ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))
        (ipam.store / name).write_text(f"c{n}\r\neth0")
    start = time.perf_counter()
    ipam.delete("stranger")
    return time.perf_counter() - start


def measure(ipam: Ipam, rounds: int) -> dict[str, float]:
    """Medians in microseconds of one ADD, CHECK and DEL each."""
    times: dict[str, list[float]] = {"ADD": [], "CHECK": [], "DEL": [], "DEL unknown": []}
    for n in range(rounds):
        owner = f"bench{n}"
        marks = [time.perf_counter()]
        addresses = ipam.add(owner)
        marks.append(time.perf_counter())
        ipam.check(owner, "eth0", *addresses)
        marks.append(time.perf_counter())
        ipam.delete(owner)
        marks.append(time.perf_counter())
        ipam.delete(owner)
        marks.append(time.perf_counter())
        for name, (begin, end) in zip(times, itertools.pairwise(marks), strict=True):
            times[name].append((end - begin) * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    """Print the table; 1 when DEL grows with the store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=pathlib.Path, help="where to make the stores")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    print("reservations     ADD   CHECK     DEL  DEL unknown  ratio of DEL  first scan")
    base = ratio = 0.0
    for size in SIZES:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            ipam = Ipam(pathlib.Path(directory), "10.0.0.0/16")
            scan = fill(ipam, size)
            medians = measure(ipam, arguments.rounds)
            base = base or medians["DEL"]
            ratio = medians["DEL"] / base
            print(
                f"{size:12,} {medians['ADD']:7.0f} {medians['CHECK']:7.0f} {medians['DEL']:7.0f}"
                f" {medians['DEL unknown']:12.0f} {ratio:13.2f} {scan:9.3f} s"
            )
    return 1 if ratio > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
