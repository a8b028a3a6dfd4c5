# SPDX-License-Identifier: Apache-2.0
"""Leading containerd through the scenarios, over CRI, as a kubelet would."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from cni_conformance import namespaces
from cni_conformance.runtime.driver import Attachment, Outcome

from tests.rig.containerd import Containerd, CriError

#: Seconds for it to see a new configuration, for which it watches the directory.
_RELOAD = 30.0


class ContainerdDriver:
    """A runtime with sandboxes of its own, one interface each, and no verb beside ADD and DEL."""

    name = "containerd"
    features = frozenset(("port-mappings", "sandbox", "del-again"))
    #: Of the libcni that Debian 12's containerd 1.6 has in it.
    newest = "1.0.0"
    own_plugins: tuple[str, ...] = ("loopback",)

    def __init__(self, scratch: pathlib.Path) -> None:
        self.plugin_dirs: tuple[pathlib.Path, ...] = (scratch / "bin",)
        self.plugin_dirs[0].mkdir()
        self._network = "conformance0"
        first = {"cniVersion": self.newest, "name": self._network, "plugins": [{"type": "first"}]}
        self._daemon = Containerd(scratch, self.plugin_dirs[0], first)
        self._pods: dict[str, str] = {}

    def close(self) -> None:
        """End the daemon."""
        self._daemon.close()

    def configure(self, network: Mapping[str, Any], beside: list[Mapping[str, Any]]) -> None:
        """Replace the list, and wait until it has been read."""
        assert not beside
        self._network = network["name"]
        self._daemon.write_network(network)
        deadline = time.monotonic() + _RELOAD
        while self._network not in self._daemon.networks():
            assert time.monotonic() < deadline, f"not loaded: {self._daemon.complaints()}"
            time.sleep(0.02)

    def attach(self, attachment: Attachment) -> Outcome:
        """RunPodSandbox."""
        name = f"{self._network}-{attachment.container}"
        try:
            ports = [
                (port["protocol"].upper(), port["hostPort"], port["containerPort"])
                for port in attachment.capabilities.get("portMappings", ())
            ]
            self._pods[attachment.container] = self._daemon.run(name, ports=ports)
        except CriError as error:
            return Outcome(False, str(error))
        return Outcome(True)

    def detach(self, attachment: Attachment) -> Outcome:
        """StopPodSandbox; nothing when the sandbox never came to be."""
        pod = self._pods.get(attachment.container)
        if pod is None:
            return Outcome(True)
        try:
            self._daemon.stop(pod)
        except CriError as error:
            return Outcome(False, str(error))
        return Outcome(True)

    def check(self, attachment: Attachment) -> Outcome:
        """CRI has nothing for it."""
        raise NotImplementedError

    def gc(self, valid: list[Attachment]) -> Outcome:
        """CRI has nothing for it."""
        raise NotImplementedError

    def status(self) -> Outcome:
        """containerd 1.6 does not know the verb."""
        raise NotImplementedError

    def lose_namespace(self, container: str) -> None:
        """Unmount it and remove the file."""
        path = self.namespace(container)
        namespaces.unmount(path)
        pathlib.Path(path).unlink()

    def unset_namespace(self, container: str) -> None:
        """CRI has nothing for it."""
        raise NotImplementedError

    def namespace(self, container: str) -> str:
        """As PodSandboxStatus has it; "" for a sandbox that never came to be."""
        pod = self._pods.get(container)
        return self._daemon.netns(pod) if pod else ""

    def reset(self) -> None:
        """Remove every sandbox."""
        self._pods.clear()
        for pod in self._daemon.pods():
            self._daemon.stop(pod)
            self._daemon.remove(pod)
