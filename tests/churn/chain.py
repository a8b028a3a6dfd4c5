# SPDX-License-Identifier: Apache-2.0
"""A network of several plugins, called for one container as a runtime calls them."""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
from typing import Any, NamedTuple

from tests.rig import plugins

NETWORK, BRIDGE = "churn", "churn0"
VERSION = "1.0.0"
#: Of the host's ports; more than there are attachments at one time.
_FIRST_PORT, _PORTS = 20_000, 20_000
#: Seconds; a plugin waits 10 for a lock.
_PATIENCE = 120


def plugin_list(firewall: str) -> list[dict[str, Any]]:
    """The plugins of the network, as Kubernetes and podman chain them."""
    return [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isDefaultGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.208.0.0/16"}], [{"subnet": "fd08::/64"}]],
            },
        },
        {"type": "portmap"},
        {"type": "firewall", "backend": firewall},
    ]


class Ended(NamedTuple):
    """One call. killed: by us, before it ended by itself. answer: its document, or None."""

    plugin: str
    verb: str
    seconds: float
    status: int
    answer: Any
    stderr: str

    @property
    def killed(self) -> bool:
        """True when SIGKILL met it running."""
        return self.status == -9

    def __str__(self) -> str:
        return f"{self.plugin} {self.verb}: status {self.status}: {self.answer} {self.stderr}"


class Container:
    """One container of the network.

    netns: the path of its namespace; "" makes the calls do without.
    """

    def __init__(
        self, bin_dir: pathlib.Path, network: list[dict[str, Any]], number: int, netns: str
    ) -> None:
        self.bin_dir = bin_dir
        self.network = network
        self.id = f"{number:08d}{'c' * 56}"
        self.netns = netns
        self.result: Any = None
        self._port = _FIRST_PORT + number % _PORTS

    def call(self, position: int, verb: str, kill_after: float | None = None) -> Ended:
        """Call one plugin of the list; kill_after: seconds after which it gets SIGKILL."""
        config = {"cniVersion": VERSION, "name": NETWORK, **self.network[position]}
        if config["type"] == "portmap":
            mapping = {"hostPort": self._port, "containerPort": 80, "protocol": "tcp"}
            config["runtimeConfig"] = {"portMappings": [mapping]}
        if self.result is not None:
            config["prevResult"] = self.result
        environment = plugins.environment(verb, self.bin_dir, self.netns, self.id, "eth0")
        started = time.perf_counter()
        process = subprocess.Popen(
            [self.bin_dir / config["type"]],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        data: bytes | None = json.dumps(config).encode()
        if kill_after is not None:
            assert process.stdin is not None and data is not None
            process.stdin.write(data)
            process.stdin.close()
            process.stdin = None
            data = None
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.kill()
        output, errors = process.communicate(data, timeout=_PATIENCE)
        seconds = time.perf_counter() - started
        answer = json.loads(output) if output.strip() and process.returncode >= 0 else None
        text = errors.decode("utf-8", "replace")
        return Ended(config["type"], verb, seconds, process.returncode, answer, text)
