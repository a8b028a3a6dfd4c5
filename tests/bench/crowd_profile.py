# SPDX-License-Identifier: Apache-2.0
"""Where an ADD and a DEL spend more time beside many attachments than beside few.

    python -m tests.bench.crowd_profile [--many 1000] [--few 10] [--runs 30]

Needs root, a build, and perf (Debian's linux-perf). Prints, for each verb, the functions that
take the difference, in per cent of it, callees included: so a function and its callers both
count what it does.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.bench.hosts import Namespace
from tests.bench.measure import Call, once
from tests.bench.rows import Side, network, settle
from tests.rig import isolation, plugins

#: Samples a second of CPU time.
_FREQUENCY = 20_000
_SHOWN = 25


def _samples(call: Call, data: pathlib.Path) -> list[set[str]]:
    """The functions on the stack at each sample of one execution."""
    words = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(_FREQUENCY), "-g", "-o"]
    subprocess.run(
        [*words, str(data), "--", str(call.program)],
        input=call.stdin,
        env=dict(call.environment),
        capture_output=True,
        check=True,
    )
    script = ["perf", "script", "-i", str(data), "-F", "comm,ip,sym"]
    text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    stacks = []
    for block in text.split("\n\n"):
        frames = [line.split(maxsplit=1) for line in block.splitlines()[1:]]
        stacks.append({frame[1] for frame in frames if len(frame) == 2})
    return [stack for stack in stacks if stack]


class _Crowd:
    """A host with a number of live attachments, and the samples taken there."""

    def __init__(self, count: int) -> None:
        self.side = Side(f"ours{count}", plugins.ROOT / "build/bin", network(True), True)
        self.side.enter()
        self.live = [Namespace() for _ in range(count)]
        for pod in self.live:
            once(self.side.call("bridge", "ADD", pod.path, self.side.container()))
        #: Samples by function, and "" for all of them, of each verb.
        self.counts: dict[str, collections.Counter[str]] = {
            "ADD": collections.Counter(),
            "DEL": collections.Counter(),
        }

    def measure(self, scratch: pathlib.Path) -> None:
        """One ADD and DEL."""
        self.side.enter()
        pod, container = Namespace(), self.side.container()
        for verb, count in self.counts.items():
            call = self.side.call("bridge", verb, pod.path, container)
            for stack in _samples(call, scratch / "perf.data"):
                count.update({"", *stack})
        pod.remove()

    def close(self) -> None:
        """Free everything."""
        for pod in self.live:
            pod.remove()
        self.side.close()


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    if shutil.which("perf") is None:
        print("perf is missing: apt-get install linux-perf", file=sys.stderr)
        return 1
    isolation.enter()
    crowds = [_Crowd(options.few), _Crowd(options.many)]
    settle()
    with tempfile.TemporaryDirectory() as scratch:
        # In turn, since a machine's speed changes from minute to minute.
        for _ in range(options.runs):
            for crowd in crowds:
                crowd.measure(pathlib.Path(scratch))
    for crowd in crowds:
        crowd.close()
    few, many = (crowd.counts for crowd in crowds)
    for verb in few:
        extra = many[verb][""] - few[verb][""]
        per_ms = _FREQUENCY / 1e3 * options.runs
        print(f"\n{verb}: {few[verb][''] / per_ms:.1f} ms beside {options.few},", end=" ")
        print(f"{many[verb][''] / per_ms:.1f} ms beside {options.many}; of the difference:")
        shares = {name: many[verb][name] - few[verb][name] for name in many[verb] if name}
        for name, share in sorted(shares.items(), key=lambda item: -item[1])[:_SHOWN]:
            print(f"  {100 * share / extra if extra else 0:4.0f} %  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
