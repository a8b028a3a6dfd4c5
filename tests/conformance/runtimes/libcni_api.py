# SPDX-License-Identifier: Apache-2.0
"""Leading libcni through the scenarios by its API, which can be asked more than cnitool."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from cni_conformance.runtime.driver import FEATURES, Attachment, Outcome
from cni_conformance.runtime.network import write_list

from libcni.api import CNIConfig, GCAttachment, RuntimeConf
from libcni.conf import NetworkConfigList, load_network_conf
from libcni.types.errors import CniError
from libcni.version import NEWEST


class Libcni:
    """A runtime that does nothing but call the library; every operation by a new object."""

    name = "libcni"
    #: Namespaces are its caller's to make.
    features = frozenset(FEATURES) - {"sandbox"}
    newest = NEWEST
    own_plugins: tuple[str, ...] = ()

    def __init__(self, scratch: pathlib.Path) -> None:
        self.plugin_dirs: tuple[pathlib.Path, ...] = (scratch / "bin", scratch / "more")
        self._scratch = scratch
        self._networks = scratch / "net.d"
        self._networks.mkdir()
        self._network = ""
        self._unset: set[str] = set()

    def configure(self, network: Mapping[str, Any], beside: list[Mapping[str, Any]]) -> None:
        """Write the list, and a folder of its name beside it."""
        self._network = network["name"]
        write_list(self._networks, network, beside)

    def attach(self, attachment: Attachment) -> Outcome:
        """add_network_list."""
        pathlib.Path(self.namespace(attachment.container)).touch()
        return self._ask(
            lambda cni, network: cni.add_network_list(network, self._conf(attachment)).to_json(
                network.cni_version
            )
        )

    def check(self, attachment: Attachment) -> Outcome:
        """check_network_list."""
        return self._ask(lambda cni, net: cni.check_network_list(net, self._conf(attachment)))

    def detach(self, attachment: Attachment) -> Outcome:
        """del_network_list."""
        return self._ask(lambda cni, net: cni.del_network_list(net, self._conf(attachment)))

    def gc(self, valid: list[Attachment]) -> Outcome:
        """gc_network_list."""
        keep = [GCAttachment(self._id(a.container), a.ifname) for a in valid]
        return self._ask(lambda cni, network: cni.gc_network_list(network, keep))

    def status(self) -> Outcome:
        """get_status_network_list."""
        return self._ask(lambda cni, network: cni.get_status_network_list(network))

    def lose_namespace(self, container: str) -> None:
        """Remove the file that stands for it: the recording plugins do not enter it."""
        pathlib.Path(self.namespace(container)).unlink()

    def unset_namespace(self, container: str) -> None:
        """Give none from now on."""
        self._unset.add(container)

    def namespace(self, container: str) -> str:
        """A file stands for it."""
        return str(self._scratch / f"netns-{container}")

    def reset(self) -> None:
        """Each scenario's network has a name of its own, which is all that is remembered."""
        self._unset.clear()
        for path in self._scratch.glob("netns-*"):
            path.unlink()

    def _id(self, container: str) -> str:
        return f"container-{container}"

    def _conf(self, attachment: Attachment) -> RuntimeConf:
        container = attachment.container
        return RuntimeConf(
            self._id(container),
            "" if container in self._unset else self.namespace(container),
            attachment.ifname,
            list(attachment.args),
            dict(attachment.capabilities),
        )

    def _ask(self, work: Callable[[CNIConfig, NetworkConfigList], Any]) -> Outcome:
        cni = CNIConfig([str(path) for path in self.plugin_dirs], self._scratch / "cache")
        try:
            return Outcome(
                True, result=work(cni, load_network_conf(self._networks, self._network))
            )
        except CniError as error:
            return Outcome(False, str(error))
