# SPDX-License-Identifier: Apache-2.0
"""vxlan-overlayd on the nodes of a test cluster: the frozen one if it is current, else sources."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.overlay.cluster import Node
from tests.rig import plugins
from tools.freeze import agents, hot

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUBNET_FILE = "/run/flannel/subnet.env"
PEERS_FILE = "/var/lib/vxlan-overlay/peers.json"
#: Configuration of the plugin beside an agent.
AGENT_CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "cbr0", "type": "vxlan-overlay"}


def program() -> list[str]:
    """The command line that starts the agent."""
    if os.environ.get("ADDER_AGENT"):
        return os.environ["ADDER_AGENT"].split()
    override = os.environ.get("ADDER_BIN_DIR")
    directory = pathlib.Path(override) if override else ROOT / "build/bin"
    for package, names in agents.agents(ROOT).items():
        if override or (directory / agents.directory(ROOT, package, names[0])).is_dir():
            return [str(directory / names[0])]
    roots = ":".join(map(str, [ROOT, *hot.plugin_roots(ROOT)]))
    return ["env", f"PYTHONPATH={roots}", sys.executable, "-m", "cni_vxlan_overlay.agent"]


def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    """Wait for a condition; AssertionError saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class Agent:
    """One node's agent. Its log is in `log`, and printed when a test fails."""

    def __init__(self, node: Node, log: pathlib.Path, options: list[str], **variables: str):
        self.node = node
        self.log = log
        self.options = options
        self.variables = variables
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Agent:
        """Start it; see `ready`."""
        with self.log.open("ab") as log:
            self.process = self.node.start(
                *program(),
                *self.options,
                environment={"NODE_NAME": self.node.name, **self.variables},
                log=log,
            )
        return self

    def ready(self, seconds: float = 20.0) -> Agent:
        """Wait until the node has its subnet."""
        self.until(lambda: self.subnet_file() is not None, "the subnet file", seconds)
        return self

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
        """`until`, with the log in the message of a failure."""
        try:
            until(condition, f"{self.node.name}: {what}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def kill(self) -> None:
        """SIGKILL: no chance to do anything."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.node.processes.remove(self.process)
        self.process = None
        return status

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the agent's program on the node, with its options."""
        return subprocess.run(
            self.node.command(*program(), *words),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**plugins.BASE_ENVIRONMENT, "NODE_NAME": self.node.name, **self.variables},
        )

    def subnet_file(self) -> str | None:
        """The content of the subnet file, None if there is none."""
        try:
            return self.node.read(SUBNET_FILE)
        except AssertionError:
            return None

    def peers(self) -> dict[str, Any]:
        """The peers file."""
        document: dict[str, Any] = json.loads(self.node.read(PEERS_FILE))
        return document


def routes(node: Node) -> set[str]:
    """Destinations of the routes that lead into the overlay, both families."""
    found = set()
    for family in ("-4", "-6"):
        for route in node.ip(family, "route", "show", "proto", "97"):
            found.add(route["dst"])
    return found
