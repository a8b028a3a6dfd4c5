# SPDX-License-Identifier: Apache-2.0
"""host-local's cost as it fills, in process: python -m tests.bench.ipam_scale [--directory D].

Prints, for stores of 10 to 60,000 reservations, the median of ADD, CHECK and DEL of one more
container in microseconds, and DEL's ratio to the smallest store. Exits 1 when that ratio is
above 1.5 for the largest one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time

from tests.rig.ipam import Ipam

SIZES = (10, 100, 1_000, 10_000, 60_000)
LIMIT = 1.5
VERBS = ("ADD", "CHECK", "DEL", "DEL again")


def fill(ipam: Ipam, size: int) -> float:
    """Make reservations up to `size` as Go's plugin does and adopt them.

    Returns the seconds of a scan, as the first operation after a boot makes it.
    """
    ipam.add("seed")
    for n in range(size - 1):
        # From the range's end, out of the round robin's way.
        value = (10 << 24) + (255 << 8) - n
        name = ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))
        (ipam.store / name).write_text(f"c{n}\r\neth0")
    ipam.delete("stranger")
    # What comes now is the daily business: write-back of the filling is not part of it.
    os.sync()
    os.utime(ipam.store)
    start = time.perf_counter()
    ipam.delete("stranger")
    return time.perf_counter() - start


def measure(ipam: Ipam, number: int, times: dict[str, list[float]]) -> None:
    """Time one ADD, CHECK, DEL and repeated DEL; microseconds."""
    owner = f"bench{number}"
    marks = [time.perf_counter()]
    addresses = ipam.add(owner)
    marks.append(time.perf_counter())
    ipam.check(owner, "eth0", *addresses)
    marks.append(time.perf_counter())
    ipam.delete(owner)
    marks.append(time.perf_counter())
    ipam.delete(owner)
    marks.append(time.perf_counter())
    for name, (begin, end) in zip(VERBS, itertools.pairwise(marks), strict=True):
        times[name].append((end - begin) * 1e6)


def main() -> int:
    """Print the table; 1 when DEL grows with the store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=pathlib.Path, help="where to make the stores")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    times: dict[int, dict[str, list[float]]] = {s: {v: [] for v in VERBS} for s in SIZES}
    scans = {}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        ipams = {size: Ipam(pathlib.Path(directory) / str(size), "10.0.0.0/16") for size in SIZES}
        for size, ipam in ipams.items():
            scans[size] = fill(ipam, size)
        # In turns, so that whatever else the machine does meets all sizes alike.
        for number in range(arguments.rounds):
            for size, ipam in ipams.items():
                measure(ipam, number, times[size])
    print("reservations     ADD   CHECK     DEL  DEL again  ratio of DEL  scan after a boot")
    base = ratio = 0.0
    for size in SIZES:
        add, check, delete, again = (statistics.median(times[size][verb]) for verb in VERBS)
        base = base or delete
        ratio = delete / base
        print(
            f"{size:12,} {add:7.0f} {check:7.0f} {delete:7.0f} {again:10.0f} {ratio:13.2f}"
            f" {scans[size]:17.3f} s"
        )
    return 1 if ratio > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
