# SPDX-License-Identifier: Apache-2.0
"""Having another CPU deliver what a container sends: receive packet steering for a moment.

A broadcast that enters a bridge is copied to every other port, and handled in every container, by
the CPU that sent it: 3 us each, for 1,000 of them a third of an ADD. Where the kernel sends it on
our behalf it also holds the lock of all network configuration so long. With a CPU in the port's
rps_cpus the frame is queued for that one, in 0.1 ms (kernel, Documentation/networking/scaling).
"""

from __future__ import annotations

import posix

from libcni.fs import read_file, write_setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.netlink.link import Link

#: Ports from which on it is worth the 0.2 ms that changing the setting twice takes.
_CROWD = 128
_CLASS = "/sys/class/net"


class Elsewhere:
    """`with Elsewhere(port, bridge):` another CPU delivers what the port receives meanwhile.

    Only for speed, so nothing is raised, and nothing done where the bridge has few ports, there
    is one CPU to run on, the port's setting is an administrator's, or /sys is read-only, absent or
    of another network namespace. Killed in between it leaves the setting to the port, which
    works with it and takes it along when it goes.
    """

    __slots__ = ("_bridge", "_path", "_port")

    def __init__(self, port: Link, bridge: str) -> None:
        self._port = port
        self._bridge = bridge
        #: The setting's file, while it is changed.
        self._path = ""

    def __enter__(self) -> None:
        directory = f"{_CLASS}/{self._port.name}"
        path = f"{directory}/queues/rx-0/rps_cpus"
        try:
            if self._port.port_number <= _CROWD and not self._is_crowded():
                return
            if read_file(f"{directory}/address").strip() != self._port.mac.encode():
                return  # /sys shows another namespace, that has a link of this name
            here = _processor()
            others = sorted(posix.sched_getaffinity(0) - {here})
            if not others or read_file(path).strip(b"0,\n"):
                return
            write_setting(path, cpu_mask(others[here % len(others)]))
        except (OSError, ValueError, IndexError):
            return
        self._path = path

    def _is_crowded(self) -> bool:
        """Counts the ports, 0.5 us each; a low number may just have become free among many."""
        return len(posix.listdir(f"{_CLASS}/{self._bridge}/brif")) > _CROWD

    def __exit__(self, *_: object) -> None:
        if self._path:
            try:
                write_setting(self._path, b"0")
            except OSError:
                pass  # the port is gone


def cpu_mask(number: int) -> bytes:
    """One CPU as the kernel reads a mask: hexadecimal, a comma between each 32 of them."""
    return b"%x" % (1 << number % 32) + b",00000000" * (number // 32)


def _processor() -> int:
    """The CPU that this thread runs on: field 39 of proc(5)'s stat."""
    fields = read_file("/proc/thread-self/stat")
    return int(fields[fields.rindex(b")") + 2 :].split()[36])
