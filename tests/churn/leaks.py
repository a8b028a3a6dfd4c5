# SPDX-License-Identifier: Apache-2.0
"""What churn could lose: anything of the host, processes, the kernel's memory."""

from __future__ import annotations

import os
import pathlib
import re
import time

from tests.rig import snapshot
from tests.rig.snapshot import Line, Snapshot

#: Content that moves on with every reservation, and is no reservation.
_MOVING = re.compile(r"(/var/lib/cni/networks/[^/ ]+/last_reserved_ip\.\d+) .*", re.DOTALL)
#: Seconds for the kernel to free what was deleted, and for detached children to end.
_SETTLE = 60
#: Bytes of kernel memory that an attachment may seem to leave, and that others on the machine
#: may take meanwhile. A namespace or a veth pair that leaks takes some 100 kB.
_PER_ATTACHMENT, _OTHERS = 16 << 10, 256 << 20


def kernel_memory() -> int:
    """Bytes that the kernel holds and cannot give up: slabs and per-CPU memory."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    sizes = dict(line.split(":") for line in lines)
    return sum(int(sizes.get(key, "0 kB").split()[0]) << 10 for key in ("SUnreclaim", "Percpu"))


def running() -> list[str]:
    """The commands of what runs in this mount namespace beside this process.

    Plugins and the children they detach are in it, and nobody else is.
    """
    own = os.readlink("/proc/self/ns/mnt")
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if process.name != str(os.getpid()) and os.readlink(process / "ns/mnt") == own:
                found.append((process / "comm").read_text().strip())
        except OSError:
            continue  # ended, or ended and not yet waited for
    return found


class Baseline:
    """The host as it is now."""

    def __init__(self) -> None:
        self.snapshot = _still(snapshot.take())
        self.memory = kernel_memory()

    def leaks(self, attachments: int, patience: float = _SETTLE) -> list[str]:
        """What is otherwise now, once everything has had `patience` seconds to go."""
        deadline = time.monotonic() + patience
        while True:
            found = self.snapshot.difference(_still(snapshot.take()), _by_itself)
            found += [f"process {name}" for name in running()]
            grown = kernel_memory() - self.memory
            if grown > _OTHERS + attachments * _PER_ATTACHMENT:
                found.append(f"{grown >> 20} MB of kernel memory")
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def _still(taken: Snapshot) -> Snapshot:
    """A snapshot without the content of what moves on."""
    files = frozenset(_MOVING.sub(r"\1", line) for line in taken.sections["file"])
    return Snapshot({**taken.sections, "file": files})


def _by_itself(section: str, line: Line) -> bool:
    """The bridge's MAC address follows its ports; neighbours are learned, and age."""
    return section in ("neighbour", "fdb") or (section == "link" and "kind=bridge" in line)
