# SPDX-License-Identifier: Apache-2.0
"""cnitool in this process, with networks, plugins and a cache of the test's own."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import pytest

from libcni.cnitool.__main__ import main
from tests.unit.recorder import Recorder

RESULT: dict[str, Any] = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}
NETNS = "/run/netns/blue"
#: sha512("/run/netns/blue"), the first ten bytes, as Go's tool derives it.
CONTAINER = "cnitool-" + hashlib.sha512(NETNS.encode()).hexdigest()[:20]


def bridge(**members: Any) -> dict[str, Any]:
    """A network of one bridge with host-local, with further members of the plugin."""
    plugin = {
        "type": "bridge",
        "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"},
        **members,
    }
    return {"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}


class Desk:
    """A directory of networks, recording plugins, a cache, and cnitool's output."""

    def __init__(self, directory: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.net_d = directory / "net.d"
        self.net_d.mkdir()
        self.recorder = Recorder(directory / "bin")
        self.recorder.plugin("one", ADD=RESULT)
        self.cache = directory / "cache"
        self._capfd = capfd
        self.out = self.err = ""

    def write(self, name: str, document: Any) -> pathlib.Path:
        path = self.net_d / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def network(self, name: str = "net", version: str = "1.1.0", **plugin: Any) -> pathlib.Path:
        plugins = [{"type": "one", **plugin}]
        document = {"cniVersion": version, "name": name, "plugins": plugins}
        return self.write(f"10-{name}.conflist", document)

    def run(self, *words: str) -> int:
        self._capfd.readouterr()
        status = main([*words[:1], "--cache-dir", str(self.cache), *words[1:]])
        self.out, self.err = self._capfd.readouterr()
        return status
