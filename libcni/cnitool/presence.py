# SPDX-License-Identifier: Apache-2.0
"""The plugins that a network names: whether they are there, and speak its version."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

from libcni import conf
from libcni.cnitool import settings
from libcni.invoke.find import find_in_path
from libcni.schema.explain import within
from libcni.skel.plugin import package_of, types
from libcni.types.errors import CniError

#: Alike enough: brigde and bridge are 0.83; ipvlan and macvlan, which are two things, 0.62.
_ALIKE = 0.8
#: Plugins that give addresses by an `ipam` without a type.
_IPAM_BY_DEFAULT = ("vxlan-overlay",)


def named(plugin: conf.PluginConfig) -> Iterator[tuple[str, str]]:
    """The plugins that one plugin's configuration names: the key's path, and the type."""
    yield "type", plugin.type
    for key in ("ipam", "delegate"):
        inner = plugin.document.get(key)
        type_ = inner.get("type") if isinstance(inner, dict) else None
        if isinstance(type_, str) and type_:
            yield f"{key}.type", type_


def strangers(plugins: list[tuple[str, conf.PluginConfig]]) -> list[str]:
    """A warning for each plugin that is neither ours nor in $CNI_PATH; nothing is executed.

    plugins: each with its path in the file.
    """
    return [
        f"{within(place, key)}: {_no_plugin(type_)}"
        for place, plugin in plugins
        for key, type_ in named(plugin)
        if type_ not in types() and not _is_found(type_)
    ]


def _is_found(type_: str) -> bool:
    try:
        return bool(find_in_path(type_, settings.plugin_path()))
    except CniError:
        return False


def _no_plugin(type_: str) -> str:
    text = f'there is no plugin "{type_}" in {":".join(settings.plugin_path())}'
    return "; ".join([text, *(f"did you mean {name}?" for name in alike(type_))])


def without_addresses(plugin: conf.PluginConfig, place: str) -> Iterator[str]:
    """A warning for an `ipam` that has no type: to our plugins, as to Go's, it is as none at all.

    place: the plugin's path in the file. An empty `ipam` is what those write who mean that.
    """
    ipam = plugin.document.get("ipam")
    if plugin.type not in types() or plugin.type in _IPAM_BY_DEFAULT:
        return
    if "ipam" not in import_module(f"{package_of(plugin.type)}.validator").KEYS:
        return
    if isinstance(ipam, dict) and ipam and not ipam.get("type"):
        yield f"{within(place, 'ipam')} has no type: no address is given"


def alike(type_: str) -> list[str]:
    """The plugin of ours whose name the type looks like a slip of; [] when there is none."""
    if type_ in types():
        return []
    return difflib.get_close_matches(type_, types(), 1, _ALIKE)


def ask(
    network: conf.NetworkConfigList, plugins: list[tuple[str, conf.PluginConfig]]
) -> list[str]:
    """A fault for each plugin that does not answer VERSION with the network's version.

    plugins: each of the network's with its path in the file.
    """
    cni = settings.cni("")
    faults = []
    for place, plugin in plugins:
        for key, type_ in named(plugin):
            try:
                cni.validate_network_list(replace(network, plugins=(replace(plugin, type=type_),)))
            except CniError as error:
                faults.append(f"{within(place, key)}: {error}")
    return faults
