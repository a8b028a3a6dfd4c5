# SPDX-License-Identifier: Apache-2.0
"""Driving a libcni through its cnitool: ours, Go's, or whatever takes the same command line."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from cni_conformance import namespaces
from cni_conformance.case import VERSIONS
from cni_conformance.runtime.driver import Attachment, Outcome
from cni_conformance.runtime.network import write_list

#: Seconds for one command, which runs a few plugins that take milliseconds.
_TIMEOUT = 60.0


class Cnitool:
    """A runtime that is run once for each operation; the operator makes the namespaces.

    What it remembers is in /var/lib/cni, which has to be private to the run. scratch: a directory
    for configurations, plugins and namespaces.
    """

    name = "cnitool"
    features = frozenset(
        (
            "attachments",
            "args",
            "port-mappings",
            "beside",
            "check",
            "gc",
            "status",
            "reports-result",
            "del-again",
            "del-anytime",
        )
    )
    own_plugins: tuple[str, ...] = ()

    def __init__(
        self, program: pathlib.Path, scratch: pathlib.Path, newest: str = VERSIONS[-1]
    ) -> None:
        self.program, self.newest = program, newest
        self._scratch = scratch
        self._networks = scratch / "net.d"
        self.plugin_dirs: tuple[pathlib.Path, ...] = (scratch / "bin", scratch / "more-bin")
        self._namespaces: dict[str, pathlib.Path] = {}
        self._network = ""
        for directory in (self._networks, *self.plugin_dirs):
            directory.mkdir(parents=True, exist_ok=True)

    def configure(self, network: Mapping[str, Any], beside: list[Mapping[str, Any]]) -> None:
        """Write the list, and a folder of its name beside it."""
        self._network = network["name"]
        write_list(self._networks, network, beside)

    def attach(self, attachment: Attachment) -> Outcome:
        """cnitool add."""
        outcome = self._run("add", attachment)
        if not outcome.succeeded:
            return outcome
        try:
            return Outcome(True, result=json.loads(outcome.message))
        except ValueError:
            return Outcome(True, result=outcome.message)

    def check(self, attachment: Attachment) -> Outcome:
        """cnitool check."""
        return self._run("check", attachment)

    def detach(self, attachment: Attachment) -> Outcome:
        """cnitool del."""
        return self._run("del", attachment)

    def gc(self, valid: list[Attachment]) -> Outcome:
        """cnitool gc, which takes nothing for attached."""
        assert not valid
        return self._run("gc", Attachment())

    def status(self) -> Outcome:
        """cnitool status."""
        return self._run("status", Attachment())

    def lose_namespace(self, container: str) -> None:
        """Unmount it and remove the file."""
        path = self._namespaces[container]
        namespaces.unmount(str(path))
        path.unlink()

    def unset_namespace(self, container: str) -> None:
        """The path is an argument, and the container's ID is made of it."""
        raise NotImplementedError

    def namespace(self, container: str) -> str:
        """The file on which the namespace is mounted; made when first asked for."""
        if container not in self._namespaces:
            path = self._scratch / f"netns/{self._network}-{container}"
            namespaces.pin_new_network(path)
            self._namespaces[container] = path
        return str(self._namespaces[container])

    def reset(self) -> None:
        """Remove the namespaces. What is remembered bears the name of a network that was."""
        for container in list(self._namespaces):
            if self._namespaces[container].exists():
                self.lose_namespace(container)
            del self._namespaces[container]
        (self._networks / f"{self._network}.conflist").unlink(missing_ok=True)

    def _run(self, verb: str, attachment: Attachment) -> Outcome:
        """The Outcome's message is stdout after success, else all that it printed."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "CNI_PATH": ":".join(map(str, self.plugin_dirs)),
            "NETCONFPATH": str(self._networks),
            "CNI_IFNAME": attachment.ifname,
        }
        if attachment.args:
            environment["CNI_ARGS"] = ";".join(f"{k}={v}" for k, v in attachment.args)
        if attachment.capabilities:
            environment["CAP_ARGS"] = json.dumps(dict(attachment.capabilities))
        try:
            done = subprocess.run(
                [self.program, verb, self._network, self.namespace(attachment.container)],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(False, f"no end of {verb} within {_TIMEOUT:.0f} s")
        if done.returncode:
            return Outcome(False, f"{done.stderr}{done.stdout}".strip())
        return Outcome(True, done.stdout)
