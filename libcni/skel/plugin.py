# SPDX-License-Identifier: Apache-2.0
"""What a plugin package says about itself."""

from __future__ import annotations

import posix
import sys

from libcni import boot
from libcni.about import NAME, VERSION
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError
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


class UnknownPluginError(CniError):
    """A name that is no plugin's: a configuration's `type`, or the executable was renamed."""

    def __init__(self, type: str) -> None:
        super().__init__(
            INVALID_NETWORK_CONFIG,
            f"{NAME} has no plugin {type[:64]!r}",
            "its executables go by their names, which are " + ", ".join(types()),
        )


def types() -> list[str]:
    """Every plugin type there is here, sorted."""
    packages = {name for name in sys.modules if "." not in name}
    if not boot.is_frozen():  # otherwise all of them are in the picture
        for directory in sys.path:
            try:
                packages.update(posix.listdir(directory or "."))
            except OSError:
                pass
    return sorted(
        name[4:].replace("_", "-")
        for name in packages
        if name.startswith("cni_") and _is_plugin(name)
    )


def _is_plugin(package: str) -> bool:
    """Whether a package is a plugin's. A broken one is: whoever loads it is told what is wrong."""
    try:
        return hasattr(__import__(package), "PLUGIN")
    except ImportError:
        return True


def load(type: str) -> Plugin:
    """Import the plugin of that type. Raises UnknownPluginError when there is none."""
    try:
        plugin: Plugin = __import__(package_of(type)).PLUGIN
    except (ImportError, AttributeError):
        if type in types():
            raise
        raise UnknownPluginError(type) from None
    return plugin
