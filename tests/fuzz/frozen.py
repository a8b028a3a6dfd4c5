# SPDX-License-Identifier: Apache-2.0
"""The executables as they are installed, with inputs of the target `request` that go on to act.

    python -m tests.fuzz.frozen [--runs N] [--seed S] [--bin-dir DIR]

As root, on a host of its own on which everything but the plugins' own directories is read-only.
What an input has to lead to: an answer in time; after an error, a host and a container that are
as they were; after an ADD that succeeded, a DEL that leaves the container and the host's links
as they were, but for what containers share. An input that breaks this is printed.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import random
import subprocess
import time

from libcni.netlink.addr import dump_addresses
from libcni.netlink.link import dump_links
from libcni.netlink.route import dump_routes
from libcni.netlink.rule import dump_rules
from libcni.netlink.socket import Socket
from libcni.nftables.transaction import generation, get_generation, open_socket
from tests.fuzz import properties
from tests.fuzz.target import ROOT, corpus
from tests.fuzz.targets import request
from tests.rig import isolation
from tests.rig.host import Host, Netns
from tests.rig.plugins import BASE_ENVIRONMENT, frozen_bin_dir
from tests.rig.snapshot import nft_lines

#: Seconds that a call may take: waits for locks, agents and stdin are shorter.
_PATIENCE = 60
#: Kinds of links that the containers of a network share and that outlive the last of them.
_SHARED = ("bridge", "vxlan", "vlan")
_NAMESPACE = "fuzz"
#: An input's own namespace becomes the container's, so that ADD has somewhere to go.
_OWN = b"CNI_NETNS=/proc/thread-self/ns/net"


def protect() -> None:
    """Make everything read-only that an input could name, but for the plugins' directories.

    For this process and its children alone: it is in a mount namespace of its own.
    """
    kept = (*isolation.PRIVATE, "/proc")
    points = [
        line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    for point in dict.fromkeys(points):
        if not point.startswith(kept):
            words = ("mount", "-o", "remount,bind,ro", point)
            subprocess.run(words, capture_output=True, check=False)
    for place in (ROOT, pathlib.Path("/var/lib"), pathlib.Path("/etc"), pathlib.Path.home()):
        if os.access(place, os.W_OK):
            raise RuntimeError(f"{place} is still writable")


class Ground:
    """A host with one container, and what is on both."""

    def __init__(self, bin_dir: pathlib.Path) -> None:
        self.bin_dir = bin_dir
        self._host = Host()
        self._container: Netns = self._host.netns(_NAMESPACE)
        self._generation = 0
        self._rules: frozenset[str] = frozenset()
        self.before = self.state()

    def close(self) -> None:
        """Remove it."""
        self._host.close()

    def call(self, type: str, variables: dict[str, bytes], stdin: bytes) -> tuple[int, bytes]:
        """Run a plugin. Raises Violation for an answer that is none."""
        environment = {name.encode(): value for name, value in variables.items()}
        plain = {name.encode(): value.encode() for name, value in BASE_ENVIRONMENT.items()}
        environment[b"CNI_PATH"] = os.fsencode(self.bin_dir)
        environment[b"CNI_STDIN_TIMEOUT"] = b"5"
        try:
            done = subprocess.run(
                [self.bin_dir / type],
                input=stdin,
                env={**plain, **environment},
                capture_output=True,
                timeout=_PATIENCE,
                cwd="/run",
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise properties.Violation("a hang") from None
        properties.check_answer(done.returncode, done.stdout, done.stderr)
        return done.returncode, done.stdout

    def state(self) -> frozenset[str]:
        """Both namespaces, the nftables rule set and the files, as lines."""
        lines = set(self._network("host "))
        lines |= isolation.within(self._container.path, lambda: self._network("container "))
        for root in isolation.PRIVATE:
            for path in pathlib.Path(root).rglob("*"):
                # Directories, and what host-local keeps of a network, outlive a failed ADD.
                if path.is_file() and not path.name.startswith(("lock", "last_reserved_ip.")):
                    lines.add(f"file {path}")
        return frozenset(lines)

    def _network(self, place: str) -> frozenset[str]:
        sock = Socket()
        try:
            lines = {
                f"{place}link {link.kind} {link.name} {link.mac} {link.mtu} {link.alias} "
                f"{link.flags & 0x301:#x} {link.master} {link.txqlen}"
                for link in dump_links(sock)
            }
            found = [*dump_addresses(sock), *dump_routes(sock, 2, table=0), *dump_rules(sock)]
            lines |= {f"{place}{item!r}" for item in found}
        finally:
            sock.close()
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            lines.add(place + pathlib.Path("/proc/sys/net", name).read_text())
        if place == "host ":
            lines |= self._rule_set()
        return frozenset(lines)

    def _rule_set(self) -> frozenset[str]:
        """The rule set's lines; listed again only when its generation is another."""
        sock = open_socket()
        number = generation(sock.batch([get_generation()])[0])
        sock.close()
        if number != self._generation:
            self._generation, self._rules = number, nft_lines()
        return self._rules


def _owned(lines: frozenset[str]) -> frozenset[str]:
    """What belongs to one attachment: all of the container, and links of the host."""
    shared = tuple(f"host link {kind} " for kind in _SHARED)
    return frozenset(
        line
        for line in lines
        if line.startswith(("container ", "host link "))
        and not line.startswith(shared)
        # The kernel gives `lo` its address when it first comes up, and never takes it back.
        and "127.0.0." not in line
    )


def try_one(ground: Ground, data: bytes) -> tuple[str, bool]:
    """Try one input: how it ended, and whether the ground is as it was.

    Raises Violation.
    """
    data = data.replace(_OWN, f"CNI_NETNS=/run/netns/{_NAMESPACE}".encode())
    type, variables, stdin = request.parse(data.replace(b"\nCNI_NETNS_OVERRIDE=1", b""))
    status, _ = ground.call(type, variables, stdin)
    after = ground.state()
    if status:
        changed = sorted(ground.before ^ after)
        if changed:
            raise properties.Violation(f"an error that left something: {changed}")
        return "error", True
    if variables.get("CNI_COMMAND") != b"ADD":
        return "success", after == ground.before
    status, output = ground.call(type, {**variables, "CNI_COMMAND": b"DEL"}, stdin)
    if status:
        raise properties.Violation(f"ADD succeeded, DEL did not: {output!r}")
    left = sorted(_owned(ground.before) ^ _owned(ground.state()))
    if left:
        raise properties.Violation(f"ADD and DEL left something: {left}")
    return "attached", False


def inputs(draw: random.Random, runs: int) -> list[bytes]:
    """The kept inputs and seeds of `request`, each changed a little."""
    good = list(request.attachments())
    known = [*request.seeds(), *corpus("request").values()]
    made = []
    for _ in range(runs):
        data = draw.choice(draw.choice((good, known)))
        for _ in range(draw.choice((0, 1, 1, 2))):
            data = request.TARGET.mutate(data, draw)
        made.append(data)
    return made


def main() -> int:
    """Try as many inputs as asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.frozen", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="inputs (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (default 1)")
    parser.add_argument("--bin-dir", type=pathlib.Path, help="default: build/bin, if current")
    options = parser.parse_args()
    bin_dir = options.bin_dir or frozen_bin_dir()
    if bin_dir is None:
        parser.error("build/bin is not of these sources: run `make build`")
    outcomes: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    chosen = inputs(random.Random(options.seed), options.runs)
    isolation.enter()
    protect()
    ground = Ground(bin_dir.resolve())
    for number, data in enumerate(chosen):
        try:
            outcome, clean = try_one(ground, data)
        except properties.Violation as violation:
            outcome, clean = "broken", False
            print(f"{number}: {violation}\n{data!r}\n")
        outcomes[outcome] += 1
        if not clean:
            ground.close()
            ground = Ground(bin_dir.resolve())
    ground.close()
    seconds = time.monotonic() - started
    print(f"frozen: {options.runs:,} inputs in {seconds:.0f} s: {dict(outcomes)}")
    return 1 if outcomes["broken"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
