# SPDX-License-Identifier: Apache-2.0
"""`cnitool validate`: configuration files against the schemas, with all that is wrong named."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
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
from libcni.skel.plugin import package_of
from libcni.skel.request import Request
from libcni.types.errors import IO_FAILURE, CniError
from libcni.version import NEWEST, SUPPORTED


def validate(paths: list[str], ask_plugins: bool) -> int:
    """Check the files, by default all of $NETCONFPATH; 1 if any is wrong, else 0.

    One line for each file that is right on stdout; for each fault file, path, value and
    expectation on stderr, and a warning for what is allowed but seldom meant: a key that looks
    misspelled or is given twice, a capability that does not reach its plugin, a plugin that is not
    to be found. ask_plugins: execute VERSION of every plugin as well, so that one that is absent
    is a fault.
    """
    files = [Path(path) for path in paths]
    if not files:
        directory = settings.configuration_directory()
        files = conf.conf_files(directory, [".conflist", ".conf", ".json"])
        if not files:
            raise conf.NoConfigsFoundError(directory)
    wrong = 0
    names: dict[str, Path] = {}
    for file in files:
        found = check_file(file)
        if found.network is not None:
            name = found.network.name
            if name in names:
                found.faults.append(f"name: {name!r} is taken by {names[name]}")
            names.setdefault(name, file)
            if not ask_plugins:
                found.warnings += strangers(found.plugins)
            elif not found.faults:
                found.faults += ask(found.network, found.plugins)
        for warning in found.warnings:
            print(f"{file}: warning: {warning}", file=sys.stderr)
        for fault in found.faults:
            print(f"{file}: {fault}", file=sys.stderr)
        if not found.faults:
            print(f"{file}: ok")
        wrong += bool(found.faults)
    return 1 if wrong else 0


@dataclass
class Findings:
    """What a look at one file found.

    network: None when it could not be read as one. plugins: the network's, each with its path in
    the file: plugins[0] in a list, "" where the file is the plugin.
    """

    faults: list[str]
    network: conf.NetworkConfigList | None = None
    plugins: list[tuple[str, conf.PluginConfig]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_file(file: Path) -> Findings:
    """Check one file by itself, without executing anything."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return Findings([str(CniError(IO_FAILURE, error.strerror or "cannot be read"))])
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
    faults = _explain("conflist" if is_list else "netconf", document)
    try:
        if is_list:
            network = conf.network_conf_in(file, data)
        else:
            network = conf.conf_list_from_conf(conf.conf_in(file, data))
    except CniError as error:
        # How to mend a file that is misnamed goes before what a schema for others has to say.
        fault = str(error).removeprefix(f"{file}: ")
        return Findings([fault] if error.details else faults or [fault])
    if not faults:
        faults = _check_version(network)
    warnings = [f"{place} is given more than once; the last counts" for place in repeated(data)]
    plugins = [(f"plugins[{i}]" if is_list else "", p) for i, p in enumerate(network.plugins)]
    for index, (place, plugin) in enumerate(plugins):
        stdin, types = _stdin_of(network, plugin)
        given = _given(plugin, index)
        delegates = _of_plugin(plugin.type, "delegates")
        readers = types if delegates is None else types[:1]  # its delegate asks the IPAM plugin
        misfits = [fault for type_ in readers for fault in _fits(type_, stdin, given, place)]
        faults += misfits or _refuses_addresses(types, stdin, given, place)
        warnings += misspelled(stdin, types, place)
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
    faults += too_small_for_ipv6([(place, plugin.document) for place, plugin in plugins])
    return Findings(list(dict.fromkeys(faults)), network, plugins, warnings)


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


def _given(plugin: conf.PluginConfig, index: int) -> dict[str, Any]:
    """What a plugin's own reading wants to know besides: whether a plugin of the list comes before
    it, and what the runtime may still say."""
    given: dict[str, Any] = {"capabilities": plugin.capabilities}
    if index:
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
