# SPDX-License-Identifier: Apache-2.0
"""One node in the test's own namespace: for what needs a kernel and no second machine.

Its underlay is a cable to nobody, so packets go nowhere. At the end of the test the overlay's
devices and the bridge may stay, as documented; nothing of any attachment may.
"""

from __future__ import annotations

import pathlib
import subprocess
from typing import Any

from tests.overlay.cluster import underlay_address
from tests.rig.host import Host, Netns
from tests.rig.plugins import Reply, Runner, encode, environment, reply

DATA = pathlib.Path("/var/lib/cni/flannel")
SUBNET_FILE = pathlib.Path("/run/flannel/subnet.env")
STORE = pathlib.Path("/var/lib/cni/networks")
BRIDGE, DEVICE, DEVICE6 = "cni0", "adder.7", "adder6.7"


def config(**changes: Any) -> dict[str, Any]:
    """The first node's configuration, with the second as its peer; None removes a key."""
    document: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "name": "overlay",
        "type": "vxlan-overlay",
        "vni": 7,
        "underlay": "eth0",
        "network": "10.244.0.0/16",
        "subnet": "10.244.1.0/24",
        "peers": [peer(2)],
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def peer(number: int, **changes: Any) -> dict[str, Any]:
    """Another node, as in `peers`; None removes a key."""
    document = {
        "publicIP": underlay_address(number),
        "subnet": f"10.244.{number}.0/24",
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def reserved(network: str = "overlay") -> set[str]:
    """The addresses that are reserved in a network."""
    directory = STORE / network
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    return {name for name in names if name[0].isdigit()}


class Lone:
    """The node. `run` calls its plugins; attachments that remain are deleted at the end."""

    def __init__(self, host: Host, run: Runner) -> None:
        self.host = host
        self.run = run
        for directory in (DATA, SUBNET_FILE.parent):
            directory.mkdir(parents=True)
        # Called last at the end, after the DELs of what is still attached.
        host.at_end("lone", self._finish)
        self.interface("eth0", f"{underlay_address(1)}/24", f"{underlay_address(1, True)}/64")
        host.share(DEVICE, DEVICE6, BRIDGE)

    def interface(self, name: str, *addresses: str) -> None:
        """An interface of the node, with a far end that nobody looks at."""
        self.host.run("ip", "link", "add", name, "type", "veth", "peer", f"{name}-far")
        for end in (name, f"{name}-far"):
            # No router solicitations and the like from the kernel.
            self.host.run("ip", "link", "set", end, "addrgenmode", "none")
            self.host.run("ip", "link", "set", end, "up")
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            self.host.run("ip", "address", "add", address, "dev", name, *nodad)

    def _finish(self) -> None:
        assert self.kept() == set(), "configurations of delegates are left behind"
        for directory in (DATA, SUBNET_FILE.parent):
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()

    def kept(self) -> set[str]:
        """Names of the kept configurations, and of anything else in their directory."""
        return {path.name for path in DATA.iterdir()}

    def call(
        self,
        verb: str,
        document: dict[str, Any],
        netns: Netns | str = "",
        container: str = "c1",
        ifname: str = "eth0",
        **more: Any,
    ) -> Reply:
        """Run vxlan-overlay once."""
        if verb in ("GC", "STATUS"):
            container = ifname = ""
        return self.run(
            "vxlan-overlay",
            verb,
            document,
            netns=netns,
            container_id=container,
            ifname=ifname,
            **more,
        )

    def start(
        self,
        verb: str,
        document: dict[str, Any],
        netns: Netns,
        container: str = "c1",
    ) -> subprocess.Popen[bytes]:
        """Begin a call; see `answer`."""
        process = subprocess.Popen(
            [self.run.bin_dir / "vxlan-overlay"],
            env=environment(verb, self.run.bin_dir, netns, container, "eth0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(encode(document))
        process.stdin.close()
        process.stdin = None
        return process

    def link(self, name: str = DEVICE) -> dict[str, Any]:
        """What `ip -d link` shows of one interface."""
        found: dict[str, Any] = self.host.ip("-d", "link", "show", "dev", name)[0]
        return found

    def routes(self) -> set[str]:
        """Destinations of our routes, of both families."""
        shown = self.host.ip("route", "show", "proto", "97")
        shown += self.host.ip("-6", "route", "show", "proto", "97")
        return {route["dst"] for route in shown}


def answer(process: subprocess.Popen[bytes]) -> Reply:
    """Wait for a call that `Lone.start` began."""
    stdout, stderr = process.communicate(timeout=120)
    return reply(process.returncode, stdout, stderr)
