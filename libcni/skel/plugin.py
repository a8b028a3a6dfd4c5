# SPDX-License-Identifier: Apache-2.0
"""What a plugin package says about itself."""

from __future__ import annotations

from libcni.about import NAME, VERSION
from libcni.version import SUPPORTED

#: A verb is a module of this name in the plugin's package, with one function of the same name.
VERB_MODULES = {
    "ADD": "add",
    "DEL": "delete",
    "CHECK": "check",
    "GC": "gc",
    "STATUS": "status",
}


class Plugin:
    """A plugin type: `cni_<type>/__init__.py` offers one as PLUGIN.

    type: the executable's name. verbs: which of add, delete, check, gc, status it implements;
    a verb left out succeeds without doing anything. versions: cniVersions it accepts.
    enters_netns: False for IPAM plugins, which only note the namespace's path; people try them
    by hand with CNI_NETNS=/dev/null.
    """

    __slots__ = ("enters_netns", "package", "type", "verbs", "versions")

    def __init__(
        self,
        type: str,
        verbs: tuple[str, ...],
        versions: tuple[str, ...] = SUPPORTED,
        enters_netns: bool = True,
    ) -> None:
        self.type = type
        self.package = package_of(type)
        self.verbs = verbs
        self.versions = versions
        self.enters_netns = enters_netns

    def about(self) -> str:
        """What a person sees who runs the executable by hand."""
        return (
            f"CNI {self.type} plugin v{VERSION} ({NAME})\n"
            f"CNI protocol versions supported: {', '.join(self.versions)}\n"
        )


def package_of(type: str) -> str:
    """The Python package of a plugin type: host-local → cni_host_local."""
    return "cni_" + type.replace("-", "_")


def load(type: str) -> Plugin:
    """Import the plugin of that type. Raises ImportError when there is none."""
    plugin: Plugin = __import__(package_of(type)).PLUGIN
    return plugin
