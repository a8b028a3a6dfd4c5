# SPDX-License-Identifier: Apache-2.0
"""What a frozen plugin loads, by really running every verb.

Everything of ours that a hot path uses is in the snapshot of the interpreter that the executable
carries; a verb that loads anything more pays for it in every pod's start.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest

from tests.rig.host import Host
from tests.rig.plugins import ROOT, Runner
from tests.unit.test_layering import BANNED
from tools.freeze.hot import COLD, HOT_EXTENSIONS, SELDOM, is_named

pytestmark = pytest.mark.frozen

#: Each of these would cost a pod more than all of a plugin's own work.
NEVER = BANNED | {"pyroute2", "jsonschema", "netaddr", "rich", "importlib", "encodings", "codecs"}
NEVER |= {"io", "site", "zipimport", "_ctypes", "ctypes", "warnings", "traceback"}
NEVER |= {"libcni.conf", "libcni.api", "libcni.cache", "libcni.cnitool.__main__"}

BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))

_IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.207.0.0/24"}], [{"subnet": "fd07::/64"}]],
}
_BRIDGE = {"type": "bridge", "bridge": "load0", "isDefaultGateway": True, "ipam": _IPAM}
_OVERLAY = {"type": "vxlan-overlay", "dataDir": "{files}/kept", "delegate": {"bridge": "load0"}}
CONFIGS: dict[str, dict[str, Any]] = {
    "loopback": {"type": "loopback"},
    "host-local": {"type": "host-local", "ipam": _IPAM},
    "bridge": _BRIDGE,
    "bridge with ipMasq": {**_BRIDGE, "ipMasq": True, "ipMasqBackend": "nftables"},
    "vxlan-overlay with flanneld": {**_OVERLAY, "subnetFile": "{files}/subnet.env"},
    "vxlan-overlay with its agent": {**_OVERLAY, "subnetFile": "{files}/ours.env"},
    "vxlan-overlay without": {
        **_OVERLAY,
        "underlay": "load1",
        "network": "10.207.0.0/16",
        "subnet": "10.207.1.0/24",
        "peers": [{"publicIP": "192.0.2.2", "subnet": "10.207.2.0/24"}],
    },
}
#: What an agent writes.
_SUBNET = """FLANNEL_NETWORK=10.207.0.0/16
FLANNEL_SUBNET=10.207.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=false
"""
VERBS = ("VERSION", "STATUS", "ADD", "CHECK", "DEL", "GC")


def _modules(
    run: Runner, report: pathlib.Path, type: str, verb: str, config: Any, **call: Any
) -> Any:
    """The names that are loaded when it ends, and the result."""
    reply = run(type, verb, config, ADDER_MODULES=str(report), **call)
    assert reply.rc == 0, f"{type} {verb}: {reply}"
    return set(report.read_text().split()), reply


def _prepare(host: Host, directory: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    """The files and interfaces that a configuration of vxlan-overlay speaks of."""
    document: dict[str, Any] = json.loads(json.dumps(config).replace("{files}", str(directory)))
    if config["type"] == "vxlan-overlay":
        host.share("adder.1")
        host.run("ip", "link", "add", "load1", "type", "veth", "peer", "load2")
        host.run("ip", "address", "add", "192.0.2.1/24", "dev", "load1")
        host.run("ip", "link", "set", "load1", "up")
        host.run("ip", "link", "set", "load2", "up")
        if "ours" in document.get("subnetFile", ""):
            vxlan = ["id", "1", "dstport", "8472", "local", "192.0.2.1", "dev", "load1"]
            host.run("ip", "link", "add", "adder.1", "mtu", "1450", "type", "vxlan", *vxlan)
            host.run("ip", "link", "set", "adder.1", "up")
            host.run("ip", "address", "add", "10.207.1.0/32", "dev", "adder.1")
        fabric: dict[str, list[Any]] = {"forwarding": [], "neighbours": [], "routes": []}
        (directory / "peers.json").write_text(json.dumps({"fabric": fabric}))
        (directory / "subnet.env").write_text(_SUBNET)
        ours = f"ADDER_DEVICES=adder.1\nADDER_PEERS={directory}/peers.json\n"
        (directory / "ours.env").write_text(_SUBNET + ours)
    return document


@pytest.mark.parametrize("scenario", CONFIGS)
def test_no_verb_loads_more_than_the_snapshot_holds(
    host: Host, tmp_path: pathlib.Path, scenario: str
) -> None:
    frozen = Runner(BIN, host)
    host.share("load0")
    config = {"cniVersion": "1.1.0", "name": "loading", **CONFIGS[scenario]}
    config = _prepare(host, tmp_path, config)
    plugin = config["type"]
    snapshot, _ = _modules(frozen, tmp_path / "none", plugin, "", config="")
    assert not NEVER & snapshot
    assert {"posix", "sys", "libcni.skel.main", "cni_bridge.add"} <= snapshot
    # The second one on this host, so that what only a node's first pod needs is not counted.
    frozen(plugin, "ADD", config, netns=host.netns(), container_id="first").result()
    container = host.netns()
    for verb in VERBS:
        given = {**config, "cni.dev/valid-attachments": []} if verb == "GC" else config
        loaded, reply = _modules(
            frozen, tmp_path / verb, plugin, verb, config=given, netns=container
        )
        more = loaded - snapshot - set(HOT_EXTENSIONS)
        more = {name for name in more if not is_named(name, SELDOM)}
        if verb not in ("ADD", "DEL"):
            # No pod waits for these: what is theirs alone is not in every plugin's memory.
            more = {name for name in more if not is_named(name, COLD)}
        assert not more, f"{scenario} {verb} loads {sorted(more)}"
        if verb == "ADD":
            config["prevResult"] = reply.json
        if verb == "DEL":
            del config["prevResult"]
