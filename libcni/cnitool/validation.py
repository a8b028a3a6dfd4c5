# SPDX-License-Identifier: Apache-2.0
"""`cnitool validate`: configuration files against the schemas, with all that is wrong named."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from libcni import conf
from libcni.api import request_config
from libcni.attachment import Attachment
from libcni.cnitool import settings
from libcni.cnitool.capabilities import unmet
from libcni.cnitool.family import too_small_for_ipv6
from libcni.cnitool.presence import ask, strangers, without_addresses
from libcni.cnitool.repetition import repeated
from libcni.cnitool.spelling import misspelled
from libcni.jsontext import loads
from libcni.schema import explain
from libcni.schema.canonical import canonical
from libcni.schema.explain import within
from libcni.skel.env import is_identifier
from libcni.skel.plugin import package_of
from libcni.skel.request import Request
from libcni.types.errors import IO_FAILURE, CniError
from libcni.version import NEWEST, SUPPORTED

#: What stands for it instead of a file's path.
STANDARD_INPUT = "-"


def validate(paths: list[str], ask_plugins: bool) -> int:
    """Check the files, by default all of $NETCONFPATH; 1 if any is wrong, else 0.

    paths: those that are given twice are looked at once; STANDARD_INPUT is that.

    One line for each file that is right on stdout; for each fault file, path, value and
    expectation on stderr, and a warning for what is allowed but seldom meant: a key that looks
    misspelled or is given twice, a capability that does not reach its plugin, a plugin that is not
    to be found. ask_plugins: execute VERSION of every plugin as well, so that one that is absent
    is a fault.
    """
    if not paths:
        directory = settings.configuration_directory()
        files = conf.conf_files(directory, [".conflist", ".conf", ".json"])
        if not files:
            raise conf.NoConfigsFoundError(directory)
        paths = [str(file) for file in files]
    wrong = 0
    names: dict[str, str] = {}
    for path in _each_once(paths):
        file = "standard input" if path == STANDARD_INPUT else path
        found = check_standard_input() if path == STANDARD_INPUT else check_file(Path(path))
        if found.name in names:
            found.faults.append(f"name: {found.name!r} is taken by {names[found.name]}")
        elif found.name:
            names[found.name] = file
        if ask_plugins and found.network is not None and not found.faults:
            found.faults += ask(found.network, found.plugins)
        else:
            found.warnings += strangers(found.plugins)
        for warning in found.warnings:
            print(f"{file}: warning: {warning}", file=sys.stderr)
        for fault in found.faults:
            print(f"{file}: {fault}", file=sys.stderr)
        if not found.faults:
            print(f"{file}: ok")
        wrong += bool(found.faults)
    return 1 if wrong else 0


def _each_once(paths: list[str]) -> list[str]:
    """Without those that name a file again. A symbolic link is a file to runtimes, too."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(path if path == STANDARD_INPUT else os.path.abspath(path), path)
    return list(first.values())


@dataclass
class Findings:
    """What a look at one file found.

    network: None when it could not be read as one. name: the network's, "" where there is none.
    plugins: those that can be read, each with its path in the file: plugins[0] in a list, ""
    where the file is the plugin.
    """

    faults: list[str]
    network: conf.NetworkConfigList | None = None
    name: str = ""
    plugins: list[tuple[str, conf.PluginConfig]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_file(file: Path) -> Findings:
    """Check one file by itself, without executing anything."""
    try:
        return _check(file, file.read_bytes())
    except OSError as error:
        return _unreadable(error)


def check_standard_input() -> Findings:
    """`check_file` of what standard input gives, as if it lay in $NETCONFPATH.

    A list is told from a single plugin by its `plugins`.
    """
    try:
        with open(0, "rb", closefd=False) as stream:
            data = stream.read()
    except OSError as error:
        return _unreadable(error)
    return _check(Path(settings.configuration_directory(), "standard input"), data)


def _unreadable(error: OSError) -> Findings:
    return Findings([str(CniError(IO_FAILURE, error.strerror or "cannot be read"))])


def _check(file: Path, data: bytes) -> Findings:
    try:
        document = loads(data, "it")
    except CniError as error:
        return Findings([str(error)])
    if not isinstance(document, dict):
        return Findings(["not a JSON object"])
    # As runtimes tell them apart; a file of another name is read by none of them.
    is_list = file.suffix == ".conflist" or (
        file.suffix not in (".conf", ".json") and "plugins" in document
    )
    found = Findings(_explain("conflist" if is_list else "netconf", document))
    if isinstance(document.get("name"), str):
        found.name = document["name"]
    try:
        if is_list:
            network = conf.network_conf_in(file, data)
        else:
            network = conf.conf_list_from_conf(conf.conf_in(file, data))
    except CniError as error:
        # How to mend a file that is misnamed goes before what a schema for others has to say.
        fault = str(error).removeprefix(f"{file}: ")
        is_misnamed = bool(error.details) and ("plugins" in document) != is_list
        found.faults = [fault] if is_misnamed else found.faults or [fault]
        network = _plugins_alone(document)
        found.plugins = _legible(document) if is_list else []
    else:
        found.network = network
        found.faults = found.faults or _check_version(network)
        found.plugins = [
            (f"plugins[{index}]" if is_list else "", plugin)
            for index, plugin in enumerate(network.plugins)
        ]
    found.warnings = [f"{key} is given more than once; the last counts" for key in repeated(data)]
    for place, plugin in found.plugins:
        faults, warnings = _check_plugin(_sound(network), plugin, place)
        found.faults += faults
        found.warnings += warnings
    found.faults += too_small_for_ipv6([(p, plugin.document) for p, plugin in found.plugins])
    found.faults = list(dict.fromkeys(found.faults))
    return found


def _plugins_alone(document: dict[str, Any]) -> conf.NetworkConfigList:
    """What can be said of a list that cannot be read, for the sake of its plugins."""
    version = document.get("cniVersion")
    return conf.NetworkConfigList("", version if isinstance(version, str) else "", (), b"")


def _legible(document: dict[str, Any]) -> list[tuple[str, conf.PluginConfig]]:
    """The plugins that can be read, each with its path, in a list that cannot."""
    found = []
    entries = document.get("plugins")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        try:
            plugin = conf.network_plugin_conf_from_bytes(json.dumps(entry).encode())
        except CniError:
            continue  # among what the schema of lists says, or why the list cannot be read
        found.append((f"plugins[{index}]", plugin))
    return found


def _sound(network: conf.NetworkConfigList) -> conf.NetworkConfigList:
    """With a name and a version that no plugin would refuse: that they are wrong is said once."""
    name = network.name if is_identifier(network.name) else "network"
    version = network.cni_version or "0.1.0"
    return replace(network, name=name, cni_version=version if version in SUPPORTED else NEWEST)


def _check_plugin(
    network: conf.NetworkConfigList, plugin: conf.PluginConfig, place: str
) -> tuple[list[str], list[str]]:
    """Faults and warnings of one plugin. place: its path in the file."""
    stdin, types = _stdin_of(network, plugin)
    given = _given(plugin, place not in ("", "plugins[0]"))
    delegates = _of_plugin(plugin.type, "delegates")
    readers = types if delegates is None else types[:1]  # its delegate asks the IPAM plugin
    misfits = [fault for type_ in readers for fault in _fits(type_, stdin, given, place)]
    faults = misfits or _refuses_addresses(types, stdin, given, place)
    warnings = misspelled(stdin, types, place)
    if delegates is not None and not misfits:
        request = _request(plugin.type, given | _canonical(plugin.type, stdin))
        for key, handed in delegates(request):
            faults += _fits_delegate(handed, place, key)
            given_it = request.config.get(key, {})
            warnings += misspelled(given_it, [handed["type"]], within(place, key))
    warnings += unmet(plugin, place)
    warnings += without_addresses(plugin, place)
    if not faults:
        read = given | stdin
        warnings += [warning for type_ in types for warning in _advice(type_, read, place)]
    return faults, warnings


def _check_version(network: conf.NetworkConfigList) -> list[str]:
    version = network.cni_version or "0.1.0"
    if version in SUPPORTED:
        return []
    known = ", ".join(SUPPORTED)
    return [f'cniVersion: "{version}" is no version of the protocol; there are {known}']


def _stdin_of(
    network: conf.NetworkConfigList, plugin: conf.PluginConfig
) -> tuple[dict[str, Any], list[str]]:
    """What the plugin would get on stdin, and the types that read it: its own and its IPAM's."""
    document = request_config(network.name, network.cni_version or "0.1.0", plugin)
    return document, _types_in(document | {"type": plugin.type})


def _types_in(document: dict[str, Any]) -> list[str]:
    """A plugin's type and that of its IPAM plugin."""
    ipam = document.get("ipam")
    types = [document["type"], ipam.get("type") if isinstance(ipam, dict) else None]
    return [type_ for type_ in types if isinstance(type_, str) and type_]


def _given(plugin: conf.PluginConfig, is_chained: bool) -> dict[str, Any]:
    """What a plugin's own reading wants to know besides: whether a plugin of the list comes before
    it, and what the runtime may still say."""
    given: dict[str, Any] = {"capabilities": plugin.capabilities}
    if is_chained:
        given["prevResult"] = {"cniVersion": NEWEST}
    return given


def _fits(type_: str, document: dict[str, Any], given: dict[str, Any], place: str) -> list[str]:
    try:
        explain.schema_path(f"plugins/{type_}/schema.json")
    except FileNotFoundError:
        return []
    try:
        document = _canonical(type_, document)
    except ImportError:
        pass  # keys in unusual case are then reported rather than understood
    faults = _explain(type_, document, place)
    refuse = _of_plugin(type_, "refuse")
    if faults or refuse is None:
        return faults
    return _refusal(place, refuse, _request(type_, given | document))


def _refuses_addresses(
    types: list[str], document: dict[str, Any], given: dict[str, Any], place: str
) -> list[str]:
    """What the plugin refuses of the addresses that its IPAM plugin gives, both being ours."""
    if len(types) < 2:
        return []
    type_, ipam = types
    refuse, example = _of_plugin(type_, "refuse_addresses"), _of_plugin(ipam, "example")
    if refuse is None or example is None:
        return []
    request = _request(type_, given | _canonical(ipam, _canonical(type_, document)))
    return _refusal(place, refuse, request, example(request))


def _fits_delegate(document: dict[str, Any], place: str, key: str) -> list[str]:
    """Faults of what a plugin makes of its `key` and its `ipam` for a delegate."""
    inside = within(place, key)
    faults = [
        fault for type_ in _types_in(document) for fault in _fits(type_, document, {}, inside)
    ]
    ipam, own = within(inside, "ipam"), within(place, "ipam")
    return [own + f.removeprefix(ipam) if f.startswith(ipam) else f for f in faults]


def _canonical(type_: str, document: dict[str, Any]) -> dict[str, Any]:
    """The document as the plugin is given it by its kit. Raises ImportError if it is not ours."""
    return canonical(document, import_module(f"{package_of(type_)}.validator").KEYS)


def _request(type_: str, document: dict[str, Any]) -> Request:
    attachment = Attachment(document["name"], "validate", "eth0")
    return Request("ADD", type_, document, document["cniVersion"], attachment)


def _refusal(
    place: str, refuse: Callable[..., None], request: Request, *arguments: object
) -> list[str]:
    """What a schema cannot say: whatever a plugin refuses when it reads the configuration."""
    try:
        refuse(request, *arguments)
    except CniError as error:
        # A message that begins with the path of a key ("mtu: …") is about what is there.
        key = re.split(r"[.\[]", error.msg.partition(": ")[0])[0]
        between = "." if key in request.config else ": "
        text = f"{error.msg}; {error.details}" if error.details else error.msg
        return [f"{place}{between}{text}" if place else text]
    return []


def _advice(type_: str, document: dict[str, Any], place: str) -> list[str]:
    """What the plugin accepts but has a warning for: `advice` of its module `advice`."""
    advice = _of_plugin(type_, "advice")
    if advice is None:
        return []
    found = advice(_canonical(type_, document))
    return [f"{within(place, key)}: {warning}" for key, warning in found]


def _of_plugin(type_: str, function: str) -> Callable[..., Any] | None:
    """A function of the module `advice` of a plugin of ours; None where there is none."""
    try:
        module = import_module(f"{package_of(type_)}.advice")
    except ImportError:
        return None  # somebody else's, or it has nothing to read
    found: Callable[..., Any] | None = getattr(module, function, None)
    return found


def _explain(schema: str, document: dict[str, Any], place: str = "") -> list[str]:
    msg, details = explain.explain(schema, document, place)
    if not msg:
        return []
    return [f"{msg}; {details}" if details else msg]
