# SPDX-License-Identifier: Apache-2.0
"""Network configurations as an administrator writes them: files, lists, single plugins.

What Go's libcni/conf.go does, with its names in Python's spelling. Cold code of the runtime
side, never imported by a plugin. Source: CNI spec 1.1.0 section 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from libcni import version
from libcni.conf_names import about_list_file, about_plugin_file
from libcni.jsontext import loads
from libcni.types.errors import INVALID_NETWORK_CONFIG, IO_FAILURE, CniError

#: Where runtimes look for configurations.
DEFAULT_DIRECTORY = "/etc/cni/net.d"


class NoConfigsFoundError(CniError):
    """A directory without any network configuration."""

    def __init__(self, directory: str) -> None:
        super().__init__(INVALID_NETWORK_CONFIG, f"no net configurations found in {directory}")
        self.directory = directory


class NotFoundError(CniError):
    """A directory without the network that was asked for; `details` names those it has."""

    def __init__(self, directory: str, name: str, known: list[str] | None = None) -> None:
        super().__init__(
            INVALID_NETWORK_CONFIG,
            f'no net configuration with name "{name}" in {directory}',
            f"there are: {', '.join(sorted(known))}" if known else "",
        )
        self.directory = directory
        self.name = name


@dataclass(frozen=True)
class PluginConfig:
    """One plugin object. document: as parsed; bytes: as written."""

    type: str
    document: dict[str, Any]
    bytes: bytes
    name: str = ""
    cni_version: str = ""
    #: Capability name to whether the plugin declares it.
    capabilities: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkConfigList:
    """A network: an ordered list of plugins under one name and version.

    cni_version: the one selected from cniVersion and cniVersions. bytes: the list as written.
    """

    name: str
    cni_version: str
    plugins: tuple[PluginConfig, ...]
    bytes: bytes
    disable_check: bool = False
    disable_gc: bool = False
    load_only_inlined_plugins: bool = False


def _invalid(message: str, what: str = "configuration list") -> CniError:
    return CniError(INVALID_NETWORK_CONFIG, f"error parsing {what}: {message}")


def _kind(value: object) -> str:
    """The JSON name of a value's type."""
    names = {bool: "boolean", str: "string", list: "array", dict: "object", type(None): "null"}
    return names.get(type(value), "number")


def network_plugin_conf_from_bytes(data: bytes) -> PluginConfig:
    """Read one plugin object; `type` is mandatory. Raises CniError 6 or 7."""
    document = loads(data, "plugin configuration")
    if not isinstance(document, dict):
        raise _invalid(f"it is of type {_kind(document)}, not an object", "configuration")
    return _plugin(document, data)


def _plugin(document: dict[str, Any], data: bytes) -> PluginConfig:
    folded = {key.lower(): value for key, value in document.items()}

    def member(name: str, kind: type) -> Any:
        value = document[name] if name in document else folded.get(name.lower())
        if value is not None and not isinstance(value, kind):
            raise _invalid(f"{name} is of type {_kind(value)}", "configuration")
        return kind() if value is None else value

    capabilities = member("capabilities", dict)
    for name, enabled in capabilities.items():
        if not isinstance(enabled, bool):
            raise _invalid(f"capabilities.{name} is of type {_kind(enabled)}", "configuration")
    type_ = member("type", str)
    if not type_:
        raise _invalid("missing 'type'", "configuration")
    return PluginConfig(
        type_, document, data, member("name", str), member("cniVersion", str), capabilities
    )


def network_plugin_confs_from_files(directory: str | Path, name: str) -> list[PluginConfig]:
    """Every plugin object in DIRECTORY/NAME/*.conf, in the order of the file names."""
    from libcni.skel.env import check_network_name

    check_network_name(name)  # it becomes part of a path
    plugins = []
    for file in conf_files(Path(directory) / name, [".conf"]):
        try:
            plugins.append(network_plugin_conf_from_bytes(_read(file)))
        except CniError as error:
            raise _in_file(error, file) from None
    return plugins


def network_conf_from_bytes(data: bytes) -> NetworkConfigList:
    """Read a network configuration list.

    Without `plugins` the list comes out empty: they may lie beside the file, see
    `network_conf_from_file`. Raises CniError 6 or 7.
    """
    document = loads(data, "configuration list")
    if not isinstance(document, dict):
        raise _invalid(f"it is of type {_kind(document)}, not an object")
    if "name" not in document:
        raise _invalid("no name")
    name = document["name"]
    if not isinstance(name, str):
        raise _invalid(f"invalid name type {_kind(name)}")
    only_inlined = _boolean(document, "loadOnlyInlinedPlugins")
    network = NetworkConfigList(
        name,
        _select_version(document),
        (),
        data,
        disable_check=_boolean(document, "disableCheck"),
        disable_gc=_boolean(document, "disableGC"),
        load_only_inlined_plugins=only_inlined,
    )
    if "plugins" not in document:
        if only_inlined:
            raise _invalid("`loadOnlyInlinedPlugins` is true, and no 'plugins' key")
        return network
    entries = document["plugins"]
    if not isinstance(entries, list):
        raise _invalid(f"invalid 'plugins' type {_kind(entries)}")
    if not entries:
        raise _invalid("no plugins in list")
    plugins = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _invalid(f"plugins[{index}] is of type {_kind(entry)}, not an object")
        try:
            plugins.append(_plugin(entry, _dump(entry)))
        except CniError as error:
            raise CniError(
                error.code, f"failed to parse plugin config {index}: {error.msg}", error.details
            ) from None
    return replace(network, plugins=tuple(plugins))


def _select_version(document: dict[str, Any]) -> str:
    one = document.get("cniVersion", "")
    if not isinstance(one, str):
        raise _invalid(f"invalid cniVersion type {_kind(one)}")
    if "cniVersions" not in document:
        return one
    several = document["cniVersions"]
    if not isinstance(several, list):
        raise _invalid(f"invalid type for cniVersions: {_kind(several)}")
    for index, entry in enumerate(several):
        if not isinstance(entry, str):
            raise _invalid(f"invalid type for cniVersions index {index}: {_kind(entry)}")
    try:
        return version.select(one, several)
    except CniError as error:
        raise _invalid(f"{error.msg} in cniVersion or cniVersions") from None


def _boolean(document: dict[str, Any], key: str) -> bool:
    """A boolean, or "true" or "false" in any case; absent is false."""
    value = document.get(key, False)
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise _invalid(f"invalid type {_kind(value)} for {key}")
    if value.lower() not in ("true", "false"):
        raise _invalid(f"invalid value {value[:64]!r} for {key}")
    return value.lower() == "true"


def network_conf_from_file(path: str | Path) -> NetworkConfigList:
    """Read a list and, unless loadOnlyInlinedPlugins, append the plugin objects beside it.

    Those are the files `<network name>/*.conf` in the list's directory. Raises CniError 5, 6
    or 7; a list that ends up without plugins is an error.
    """
    path = Path(path)
    return network_conf_in(path, _read(path))


def network_conf_in(path: Path, data: bytes) -> NetworkConfigList:
    """`network_conf_from_file` of a file that has been read."""
    try:
        network = network_conf_from_bytes(data)
    except CniError as error:
        raise _in_file(error, path) from None
    if not network.load_only_inlined_plugins:
        beside = network_plugin_confs_from_files(path.parent, network.name)
        network = replace(network, plugins=(*network.plugins, *beside))
    if not network.plugins:
        details = about_list_file(network.bytes, path)
        raise _in_file(CniError(INVALID_NETWORK_CONFIG, "no plugin configs found", details), path)
    return network


def conf_files(directory: str | Path, extensions: list[str]) -> list[Path]:
    """Files in a directory with one of the extensions (".conf"), by name; none if it is absent.

    Hidden files are left out: they are what editors and atomic writers leave. Raises CniError 5.
    """
    try:
        return sorted(
            entry
            for entry in Path(directory).iterdir()
            if entry.suffix in extensions and not entry.name.startswith(".") and not entry.is_dir()
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot list {directory}: {error.strerror}") from error


def conf_from_bytes(data: bytes) -> PluginConfig:
    """A single-plugin configuration, which spec 1.0.0 removed and runtimes still accept."""
    return network_plugin_conf_from_bytes(data)


def conf_from_file(path: str | Path) -> PluginConfig:
    """`conf_from_bytes` of a file. Raises CniError 5, 6 or 7 naming it."""
    path = Path(path)
    return conf_in(path, _read(path))


def conf_in(path: Path, data: bytes) -> PluginConfig:
    """`conf_from_file` of a file that has been read."""
    try:
        return conf_from_bytes(data)
    except CniError as error:
        error = CniError(error.code, error.msg, about_plugin_file(data, path) or error.details)
        raise _in_file(error, path) from None


def load_conf(directory: str | Path, name: str) -> PluginConfig:
    """The first single-plugin configuration (*.conf, *.json) of that name.

    Raises NoConfigsFoundError, NotFoundError, or CniError for a file met before it.
    """
    files = conf_files(directory, [".conf", ".json"])
    if not files:
        raise NoConfigsFoundError(str(directory))
    known = []
    for file in files:
        conf = conf_from_file(file)
        if conf.name == name:
            return conf
        known.append(conf.name)
    raise NotFoundError(str(directory), name, known)


def load_network_conf(directory: str | Path, name: str) -> NetworkConfigList:
    """The network of that name: the first *.conflist, else a single plugin, up-converted.

    Every file met on the way must be readable, as in Go: a broken one could be the one meant.
    Raises NoConfigsFoundError, NotFoundError or CniError.
    """
    files = conf_files(directory, [".conflist"])
    known = []
    for file in files:
        network = network_conf_from_file(file)
        if network.name == name:
            return network
        known.append(network.name)
    try:
        return conf_list_from_conf(load_conf(directory, name))
    except NoConfigsFoundError:
        if files:
            raise NotFoundError(str(directory), name, known) from None
        raise
    except NotFoundError as error:
        others = error.details.removeprefix("there are: ").split(", ") if error.details else []
        raise NotFoundError(str(directory), name, known + others) from None


def conf_list_from_conf(conf: PluginConfig) -> NetworkConfigList:
    """A list of the one plugin, under its name and version."""
    return network_conf_from_bytes(
        _dump({"name": conf.name, "cniVersion": conf.cni_version, "plugins": [conf.document]})
    )


def inject_conf(conf: PluginConfig, values: dict[str, Any]) -> PluginConfig:
    """The plugin object with `values` merged in at the top.

    Raises CniError 7 for an empty key or a None value.
    """
    for key, value in values.items():
        if not key:
            raise CniError(INVALID_NETWORK_CONFIG, "keys cannot be empty")
        if value is None:
            raise CniError(INVALID_NETWORK_CONFIG, f"key '{key}' value must not be nil")
    document = {**conf.document, **values}
    return _plugin(document, _dump(document))


# The names that Go's libcni has besides.
conf_list_from_bytes = network_conf_from_bytes
conf_list_from_file = network_conf_from_file
load_conf_list = load_network_conf


def _dump(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CniError(IO_FAILURE, f"error reading {path}: {error.strerror}") from error


def _in_file(error: CniError, path: Path) -> CniError:
    if str(path) in error.msg:
        return error
    return CniError(error.code, f"{path}: {error.msg}", error.details)
