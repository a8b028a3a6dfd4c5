# SPDX-License-Identifier: Apache-2.0
"""The network configuration list that tells the runtime of the overlay: checked, then written.

Its appearance is what makes a node ready for pods, so it comes last; and it changes by rename
from a name that no runtime reads, so nobody ever sees half of it.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from cni_vxlan_overlay.agent.binaries import locked
from cni_vxlan_overlay.agent.durability import sync_directory
from cni_vxlan_overlay.agent.trial import InstallError, verify
from libcni import conf
from libcni.cnitool import validation

#: The plugin that a list has to name to be taken for ours.
PLUGIN = "vxlan-overlay"
#: Exit status for a configuration that cannot be used.
INVALID = 6
#: Written into the list where every plugin speaks it; runtimes choose the highest they know.
_BASE_VERSION, _NEWEST_VERSION = "1.0.0", "1.1.0"


def default(bin_dir: pathlib.Path) -> tuple[bytes, list[str]]:
    """The list where none is given, and what there is to remark.

    Of the plugins in `bin_dir`, portmap is used if it is there and works. Raises InstallError
    when vxlan-overlay is missing or broken.
    """
    remarks = []
    # flannel's name: the directory of host-local's reservations is named by it, so that a node
    # which comes from flannel gives no address twice.
    document: dict[str, Any] = {"cniVersion": _BASE_VERSION, "name": "cbr0"}
    plugins: list[dict[str, Any]] = [
        {"type": PLUGIN, "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
    ]
    spoken = [verify(bin_dir / PLUGIN)]
    if (bin_dir / "portmap").exists():
        try:
            versions = verify(bin_dir / "portmap")
        except InstallError as error:
            remarks.append(f"without portmap: {error}")
        else:
            plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
            spoken.append(versions)
    if all(_NEWEST_VERSION in versions for versions in spoken):
        document["cniVersions"] = [_BASE_VERSION, _NEWEST_VERSION]
    document["plugins"] = plugins
    return json.dumps(document, indent=2).encode() + b"\n", remarks


def check(data: bytes) -> conf.NetworkConfigList:
    """The list in `data`, if the schemas and our plugins accept it, and it is of the overlay.

    Raises InstallError (INVALID) naming every fault.
    """
    # The checks read files. This one is in memory, so that what is checked is what is written.
    fd = os.memfd_create("conflist")
    try:
        os.write(fd, data)
        path = pathlib.Path(f"/proc/self/fd/{fd}")
        found = validation.check_file(path)
    finally:
        os.close(fd)
    if found.network is None or found.faults:
        text = "; ".join(fault.removeprefix(f"{path}: ") for fault in found.faults)
        raise InstallError(f"the network configuration is not valid: {text}", INVALID)
    if not is_ours(data):
        raise InstallError(
            f'the network configuration has no plugin "{PLUGIN}" in its list "plugins"', INVALID
        )
    return found.network


def is_ours(data: bytes) -> bool:
    """True for a list with the overlay's plugin in it, and for what is no JSON object at all.

    The latter is nobody's configuration: a runtime cannot read it.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return True
    if not isinstance(document, dict):
        return True
    plugins = document.get("plugins")
    types = [p.get("type") for p in plugins if isinstance(p, dict)] if plugins else []
    return PLUGIN in types


def needed(network: conf.NetworkConfigList) -> list[str]:
    """The executables that the list calls for, those of delegates included, each once."""
    types: list[object] = []
    for plugin in network.plugins:
        types.append(plugin.type)
        inner = [plugin.document.get("ipam")]
        if plugin.type == PLUGIN:
            delegate = plugin.document.get("delegate")
            types.append((isinstance(delegate, dict) and delegate.get("type")) or "bridge")
            types.append("host-local")
        types += [part.get("type") for part in inner if isinstance(part, dict)]
    return list(dict.fromkeys(t for t in types if isinstance(t, str) and t))


def check_plugins(
    network: conf.NetworkConfigList, bin_dir: pathlib.Path, elsewhere: list[str]
) -> None:
    """Every plugin the list calls for must be there, work, and speak its version.

    elsewhere: names that the runtime finds in another directory. Raises InstallError.
    """
    version = network.cni_version or "0.1.0"
    for name in needed(network):
        if name in elsewhere:
            continue
        if not (bin_dir / name).exists():
            raise InstallError(
                f"the network configuration calls for the plugin {name}, which is neither in "
                f"this set nor in {bin_dir}: place it there, take it out of the configuration, "
                f"or name it in CNI_PLUGINS_ELSEWHERE",
                INVALID,
            )
        versions = verify(bin_dir / name)
        if version not in versions:
            raise InstallError(
                f"the network configuration is of version {version}, and {bin_dir / name} speaks "
                f"only {', '.join(versions)}",
                INVALID,
            )


def write(path: pathlib.Path, data: bytes) -> list[str]:
    """Make `path` hold `data`; what was done, in words. Idempotent.

    Readable by root alone, as the CIS benchmark wants it. Raises InstallError when the file
    there is of another network, OSError; a failure leaves the file as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        temporary = path.with_name(f".{path.name}.adder-new")
        temporary.unlink(missing_ok=True)
        before = path.read_bytes() if path.exists() else None
        if before == data:
            return []
        if before is not None and not is_ours(before):
            raise InstallError(
                f'{path} has no plugin "{PLUGIN}" and is left alone: remove it, or choose '
                f"another CNI_CONF_NAME",
                INVALID,
            )
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    return [f"wrote {path}"]


def remove(path: pathlib.Path) -> list[str]:
    """Remove the list, unless it is of another network; what was done, in words. Idempotent.

    Raises OSError.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    if not is_ours(data):
        return [f'left {path}: it has no plugin "{PLUGIN}"']
    path.unlink()
    sync_directory(path.parent)
    return [f"removed {path}"]


def before(path: pathlib.Path) -> list[str]:
    """The names of configurations beside `path` that a runtime takes first. Raises CniError."""
    files = conf.conf_files(path.parent, [".conflist", ".conf", ".json"])
    return [file.name for file in files if file.name < path.name]
