# SPDX-License-Identifier: Apache-2.0
"""What a runtime has to let itself be asked: the interface that drivers implement."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

#: What a runtime may lack, and what it then cannot be asked.
FEATURES = {
    "attachments": "several attachments of one container, with a name for each interface",
    "port-mappings": "port mappings, given by the caller",
    "beside": "plugin objects in files beside the list",
    "args": "CNI_ARGS of the caller's choice",
    "check": "CHECK on demand",
    "gc": "GC on demand",
    "gc-valid": "GC with a list of what is still attached",
    "status": "STATUS on demand",
    "reports-result": "telling its caller the whole result of ADD",
    "del-again": "another DEL after the last",
    "del-anytime": "a DEL by hand, whatever went before",
    "namespace-unset": "DEL without a namespace",
    "sandbox": "making and removing namespaces by itself",
}


@dataclasses.dataclass(frozen=True)
class Attachment:
    """One container in the network. container: a name that the driver makes an ID of.

    args: pairs for CNI_ARGS. capabilities: capability name to value, as in CONVENTIONS.
    """

    container: str = "a"
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capabilities: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a runtime answered: its message if it failed; the result of an ADD if it tells."""

    succeeded: bool
    message: str = ""
    result: Any = None


class Runtime(Protocol):
    """A runtime under test.

    Every operation answers with an Outcome, also when the runtime refuses; what the driver
    itself cannot do is an exception, and means that the run is void.
    """

    #: As it is called in reports.
    name: str
    #: Those of FEATURES that it has.
    features: frozenset[str]
    #: The newest version of the specification that it speaks.
    newest: str
    #: Directories with plugins, in the order in which it searches them; the first is filled.
    plugin_dirs: tuple[pathlib.Path, ...]
    #: Plugins that it runs of its own accord beside those of the network; they are left out.
    own_plugins: tuple[str, ...]

    def configure(self, network: Mapping[str, Any], beside: list[Mapping[str, Any]]) -> None:
        """Put this network in force, with the plugin objects in files beside it.

        Plugins are in place. Returns when the runtime knows it.
        """

    def attach(self, attachment: Attachment) -> Outcome:
        """ADD."""

    def check(self, attachment: Attachment) -> Outcome:
        """CHECK."""

    def detach(self, attachment: Attachment) -> Outcome:
        """DEL, and no more: a DEL is repeated by calling this again."""

    def gc(self, valid: list[Attachment]) -> Outcome:
        """GC; `valid` is empty unless the runtime has the feature gc-valid."""

    def status(self) -> Outcome:
        """STATUS."""

    def lose_namespace(self, container: str) -> None:
        """Remove the container's namespace behind the runtime's back."""

    def unset_namespace(self, container: str) -> None:
        """Give no namespace in what follows (feature namespace-unset)."""

    def namespace(self, container: str) -> str:
        """The path of the container's namespace, as it was while it was attached."""

    def reset(self) -> None:
        """Forget what is attached, without judging: the scenario is over."""
