# SPDX-License-Identifier: Apache-2.0
"""`cnitool validate`: configuration files against the schemas, with all that is wrong named."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from libcni import conf
from libcni.api import request_config
from libcni.attachment import Attachment
from libcni.cnitool import settings
from libcni.cnitool.spelling import misspelled
from libcni.jsontext import loads
from libcni.schema import explain
from libcni.schema.canonical import canonical
from libcni.skel.plugin import package_of
from libcni.skel.request import Request
from libcni.types.errors import IO_FAILURE, CniError


def validate(paths: list[str], ask_plugins: bool) -> int:
    """Check the files, by default all of $NETCONFPATH; 1 if any is wrong, else 0.

    One line for each file that is right on stdout; for each fault file, path, value and
    expectation on stderr, and a warning for each key that looks misspelled. ask_plugins: execute
    VERSION of every plugin as well.
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
        faults, network = check_file(file)
        if network is not None:
            if network.name in names:
                faults.append(f"name: {network.name!r} is taken by {names[network.name]}")
            names.setdefault(network.name, file)
            if ask_plugins and not faults:
                faults = _ask(network)
            for plugin in network.plugins:
                for warning in misspelled(*_stdin_of(network, plugin)):
                    print(f"{file}: warning: {plugin.type}: {warning}", file=sys.stderr)
        for fault in faults:
            print(f"{file}: {fault}", file=sys.stderr)
        if not faults:
            print(f"{file}: ok")
        wrong += bool(faults)
    return 1 if wrong else 0


def check_file(file: Path) -> tuple[list[str], conf.NetworkConfigList | None]:
    """The faults of one file, and its network if it could be read at all."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return [str(CniError(IO_FAILURE, error.strerror or "cannot be read"))], None
    try:
        document = loads(data, "it")
    except CniError as error:
        return [str(error)], None
    if not isinstance(document, dict):
        return ["not a JSON object"], None
    is_list = file.suffix == ".conflist" or "plugins" in document
    faults = _explain("conflist" if is_list else "netconf", document)
    try:
        if is_list:
            network = conf.network_conf_from_file(file)
        else:
            network = conf.conf_list_from_conf(conf.conf_from_file(file))
    except CniError as error:
        return faults or [str(error).removeprefix(f"{file}: ")], None
    for index, plugin in enumerate(network.plugins):
        place = f"plugins[{index}]." if is_list else ""
        faults += [place + fault for fault in _check_plugin(network, plugin)]
    return list(dict.fromkeys(faults)), network


def _stdin_of(
    network: conf.NetworkConfigList, plugin: conf.PluginConfig
) -> tuple[dict[str, Any], list[str]]:
    """What the plugin would get on stdin, and the types that read it: its own and its IPAM's."""
    document = request_config(network.name, network.cni_version or "0.1.0", plugin)
    ipam = document.get("ipam")
    types = [plugin.type, ipam.get("type") if isinstance(ipam, dict) else None]
    return document, [type_ for type_ in types if isinstance(type_, str) and type_]


def _check_plugin(network: conf.NetworkConfigList, plugin: conf.PluginConfig) -> list[str]:
    """What the plugin and its IPAM plugin would refuse, where they are ours."""
    document, types = _stdin_of(network, plugin)
    return [fault for type_ in types for fault in _fits(type_, document)]


def _fits(type_: str, document: dict[str, Any]) -> list[str]:
    try:
        explain.schema_path(f"plugins/{type_}/schema.json")
    except FileNotFoundError:
        return []
    package = package_of(type_)
    try:
        document = canonical(document, import_module(f"{package}.validator").KEYS)
    except ImportError:
        pass  # keys in unusual case are then reported rather than understood
    return _explain(type_, document) or _load(type_, document)


def _load(type_: str, document: dict[str, Any]) -> list[str]:
    """What a schema cannot say: whatever the plugin itself refuses when it reads the document."""
    try:
        load = import_module(f"{package_of(type_)}.config").load
    except (ImportError, AttributeError):
        return []  # it has nothing to read
    attachment = Attachment(document["name"], "validate", "eth0")
    try:
        load(Request("STATUS", type_, document, document["cniVersion"], attachment))
    except CniError as error:
        return [f"{error.msg}; {error.details}" if error.details else error.msg]
    return []


def _explain(schema: str, document: dict[str, Any]) -> list[str]:
    msg, details = explain.explain(schema, document)
    if not msg:
        return []
    return [f"{msg}; {details}" if details else msg]


def _ask(network: conf.NetworkConfigList) -> list[str]:
    """Every plugin must be there and speak the network's version."""
    faults = []
    cni = settings.cni("")
    for plugin in network.plugins:
        try:
            cni.validate_network_list(replace(network, plugins=(plugin,)))
        except CniError as error:
            faults.append(str(error))
    return faults
