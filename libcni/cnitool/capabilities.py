# SPDX-License-Identifier: Apache-2.0
"""Capabilities that a network declares and its plugins read: where they do not meet.

A value of CAP_ARGS, such as the port mappings of a container, reaches a plugin only if that
plugin's configuration declares the capability. Without it the value is lost, and nobody says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from libcni import conf
from libcni.schema.explain import within
from libcni.skel.plugin import package_of, types

#: Plugins that do nothing at all without the value of a capability.
_IDLE_WITHOUT = {"portmap": "portMappings"}


def unmet(plugin: conf.PluginConfig, place: str) -> Iterator[str]:
    """Warnings for a plugin of ours, none for another's. place: its path in the file."""
    if plugin.type not in types():
        return
    read = _read_by(plugin.type)
    for key in plugin.document:
        if key in read and key not in _keys(plugin.type):
            yield (
                f"{within(place, key)} is not read here: the runtime gives it to a plugin with "
                f'"capabilities": {{"{key}": true}}'
            )
    needed = _IDLE_WITHOUT.get(plugin.type, "")
    if needed and not plugin.capabilities.get(needed):
        yield (
            f'{within(place, "capabilities")}: without "{needed}": true {plugin.type} is given '
            "nothing to do"
        )
    known = {name for type_ in types() for name in _read_by(type_)}
    for name in plugin.capabilities:
        if name not in known and not _is_foreign(plugin):
            alike = difflib.get_close_matches(name, sorted(known), 1)
            meant = f"; did you mean {alike[0]}?" if alike else ""
            yield f"{within(place, 'capabilities')}.{name} is read by no plugin of ours{meant}"


def _is_foreign(plugin: conf.PluginConfig) -> bool:
    """Whether its IPAM plugin is somebody else's, which may read any capability."""
    ipam = plugin.document.get("ipam")
    type_ = ipam.get("type") if isinstance(ipam, dict) else None
    return bool(type_) and type_ not in types()


def _keys(type_: str) -> dict[str, Any]:
    keys: dict[str, Any] = import_module(f"{package_of(type_)}.validator").KEYS
    return keys


def _read_by(type_: str) -> set[str]:
    """The capabilities that a plugin of ours reads."""
    return set(_keys(type_).get("runtimeConfig") or ())
