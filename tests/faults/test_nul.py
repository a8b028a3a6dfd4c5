# SPDX-License-Identifier: Apache-2.0
"""A NUL inside what becomes a path or a name: the kernel would take it for the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libcni.skel.main import validated
from libcni.skel.plugin import load
from libcni.types.errors import CniError
from tests.rig.host import Host, Netns
from tests.rig.plugins import ROOT, Runner

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.203.0.0/24"}]]}
#: (plugin, the key, its configuration)
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("host-local", "ipam.dataDir", {"ipam": {**IPAM, "dataDir": "/run/a\0b"}}),
    ("host-local", "ipam.resolvConf", {"ipam": {**IPAM, "resolvConf": "/etc/a\0b"}}),
    ("bridge", "ipam.dataDir", {"bridge": "br7", "ipam": {**IPAM, "dataDir": "/run/a\0b"}}),
    ("tuning", "dataDir", {"mtu": 1400, "dataDir": "/run/a\0b"}),
    ("tuning", "sysctl", {"sysctl": {"net.core.somaxconn": "1\0002"}}),
    ("tuning", "sysctl", {"sysctl": {"net.core.somax\0conn": "12"}}),
    ("vxlan-overlay", "subnetFile", {"subnetFile": "/run/a\0b"}),
    ("vxlan-overlay", "peersFile", {"peersFile": "/run/a\0b"}),
    ("vxlan-overlay", "dataDir", {"dataDir": "/run/a\0b"}),
    ("vxlan-overlay", "underlay", {"underlay": "eth\0"}),
    ("host-device", "device", {"device": "eth\0"}),
    ("host-device", "kernelpath", {"kernelpath": "/sys/devices/a\0b"}),
    ("host-device", "pciBusID", {"pciBusID": "0000:00:1f.6\0"}),
    ("host-device", "deviceID", {"runtimeConfig": {"deviceID": "0000:00:1f.6\0"}}),
    ("macvlan", "master", {"master": "eth\0"}),
    ("tap", "bridge", {"bridge": "br\0"}),
    ("tap", "selinuxContext", {"selinuxContext": "a:b\0"}),
    ("firewall", "iptablesAdminChainName", {"iptablesAdminChainName": "A\0B"}),
    ("firewall", "firewalldZone", {"backend": "firewalld", "firewalldZone": "a\0b"}),
    ("portmap", "externalSetMarkChain", {"externalSetMarkChain": "A\0B"}),
]
IDS = [f"{plugin}-{key}" for plugin, key, _ in CASES]


@pytest.mark.parametrize(("plugin", "key", "keys"), CASES, ids=IDS)
def test_it_is_refused_by_name(
    host: Host,
    netns: Callable[..., Netns],
    run_plugin: Runner,
    plugin: str,
    key: str,
    keys: dict[str, Any],
) -> None:
    """DEL and GC, which nobody validates, say so too where they need the key."""
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    result = {"cniVersion": "1.1.0", "ips": [{"address": "10.203.0.2/24"}]}
    config = {"cniVersion": "1.1.0", "name": "faults", "type": plugin, "prevResult": result}
    config |= {"cni.dev/valid-attachments": [], **keys}
    for verb in ("ADD", "CHECK", "STATUS"):
        answer = run_plugin(plugin, verb, config, netns=container)
        if verb == "ADD" or answer.rc:
            answer.failed(7, key)
    for verb in ("DEL", "GC"):
        answer = run_plugin(plugin, verb, config, netns=container)
        if answer.rc:
            answer.failed(7, key)
    host.assert_undone(before)
    assert inside.difference(container.snapshot()) == []


def paths_of(schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The keys whose examples are paths."""
    for key, inner in schema.get("properties", {}).items():
        if any(str(example)[:1] == "/" for example in inner.get("examples", ())):
            yield (key,)
        for rest in paths_of(inner):
            yield (key, *rest)


PATHS = [
    (path.parent.name, ".".join(keys))
    for path in sorted(ROOT.glob("plugins/*/schema.json"))
    for keys in paths_of(json.loads(path.read_text()))
]


@pytest.mark.parametrize(("plugin", "key"), PATHS)
def test_no_schema_takes_it_for_a_path(plugin: str, key: str) -> None:
    value: Any = "/run/a\0b"
    for part in reversed(key.split(".")):
        value = {part: value}
    with pytest.raises(CniError, match=rf"{key}: .* is not a path"):
        validated(load(plugin), "ADD", {"name": "faults", "type": plugin, **value})
