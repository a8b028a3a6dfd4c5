# SPDX-License-Identifier: Apache-2.0
"""The network that scenarios start from, and what its plugins answer unless they are told."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from cni_conformance.case import VERSIONS
from cni_conformance.runtime.recorder import Answer

#: Two plugins are enough to tell an order and a chain from their opposites.
PLUGINS: list[dict[str, Any]] = [{"type": "first"}, {"type": "second"}]


def write_list(
    directory: pathlib.Path, network: Mapping[str, Any], beside: list[Mapping[str, Any]]
) -> None:
    """Write the list into a directory of configurations, and a folder of its name beside it.

    beside: the plugins in the folder, a file each.
    """
    name = network["name"]
    (directory / f"{name}.conflist").write_text(json.dumps(network))
    for number, plugin in enumerate(beside):
        folder = directory / name
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.conf").write_text(json.dumps(plugin))


def before(version: str, other: str) -> bool:
    """True when `version` is older than `other`."""
    return VERSIONS.index(version) < VERSIONS.index(other)


def result(place: int, version: str) -> dict[str, Any]:
    """What the plugin at this place of the list answers to ADD: all of them differ."""
    address = {"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}
    if before(version, "1.0.0"):
        address["version"] = "4"
    dns = {"nameservers": [f"10.9.0.{53 + place}"]}
    if before(version, "0.3.0"):
        ip4 = {"ip": "10.9.0.2/24", "gateway": "10.9.0.1"}
        return {"cniVersion": version, "ip4": ip4, "dns": dns}
    interface = {"name": "eth0", "mac": "0a:58:0a:09:00:02", "sandbox": "/run/netns/container"}
    return {
        "cniVersion": version,
        "interfaces": [interface],
        "ips": [address],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}],
        "dns": dns,
    }


def fill(value: Any, version: str, name: str = "") -> Any:
    """`value` with the texts ${version} and ${name} replaced, at any depth."""
    return json.loads(json.dumps(value).replace("${version}", version).replace("${name}", name))


def answer(document: dict[str, Any], place: int, version: str) -> Answer:
    """An answer as scenarios write it.

    Keys: `stdout` (a document or text), `stderr`, `status`, `seconds`; or `error`, the message
    of a failure; or `dns`, which makes the usual result another by its name server.
    """
    document = fill(document, version)
    if "error" in document:
        error = {"cniVersion": version, "code": 100, "msg": document["error"]}
        return Answer(error, status=1, seconds=document.get("seconds", 0.0))
    if "dns" in document:
        changed = result(place, version) | {"dns": {"nameservers": [document["dns"]]}}
        return Answer(changed, seconds=document.get("seconds", 0.0))
    return Answer(**document)


def without_empty(value: Any) -> Any:
    """`value` less what says nothing (null, "", empty lists and objects), at any depth.

    Runtimes may write a result anew, and the specification calls equivalent ones equal.
    """
    if isinstance(value, dict):
        members = {key: without_empty(member) for key, member in value.items()}
        return {key: member for key, member in members.items() if member not in (None, "", [], {})}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value
